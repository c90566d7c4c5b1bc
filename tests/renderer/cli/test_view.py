"""`frieze view`: where it listens, what it refuses, and how it ends."""

from __future__ import annotations

import json
import signal
import socket
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from contracts.export import make_store, picture
from support.command_line import frieze, process, refused
from tolerances import AMPLE


def test_it_answers_until_it_is_stopped(tmp_path: Path) -> None:
    make_store(tmp_path / "a.zarr", picture(64, 64), (64, 64))
    server = process("view", str(tmp_path), "--port", "0", "--json")
    assert server.stdout is not None
    url = json.loads(server.stdout.readline())["url"]
    assert url.startswith("http://127.0.0.1:")
    with urllib.request.urlopen(f"{url}state.json", timeout=AMPLE) as answer:
        assert [about["name"] for about in json.load(answer)["stores"]] == ["a.zarr"]
    kept = socket.create_connection(("127.0.0.1", int(url.rsplit(":", 1)[1].strip("/"))))
    kept.sendall(b"GET /state.json HTTP/1.1\r\nHost: localhost\r\n")  # and no end of it
    since = time.monotonic()
    server.send_signal(signal.SIGINT)
    out, err = server.communicate(timeout=AMPLE)
    kept.close()
    assert time.monotonic() - since < AMPLE
    assert server.returncode == 130
    assert err.count("\n") == 1
    assert err.startswith("frieze: ")
    assert json.loads(out)["event"] == "error"


def test_a_token_is_asked_where_others_could_look(tmp_path: Path) -> None:
    server = process("view", str(tmp_path), "--host", "0.0.0.0", "--port", "0", "--json")
    try:
        assert server.stdout is not None
        url = json.loads(server.stdout.readline())["url"]
        port = int(url.split("/?token=")[0].rsplit(":", 1)[1])
        with pytest.raises(urllib.error.HTTPError, match="401"):
            urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=AMPLE)
        token = url.split("?token=")[1]
        opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor())
        with opener.open(f"http://127.0.0.1:{port}/?token={token}", timeout=AMPLE) as answer:
            assert answer.url == f"http://127.0.0.1:{port}/"
            assert b"<title>Frieze</title>" in answer.read()
    finally:
        server.kill()
        server.communicate(timeout=AMPLE)


def test_bad_input_is_one_line(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    file.write_text("no store")
    folder = str(tmp_path)
    refused(frieze("view", str(tmp_path / "none")), "is not there", "s3://")
    refused(frieze("view", str(file)), "is a file")
    refused(frieze("view", "ftp://a/b"), "no addresses of ftp://")
    refused(frieze("view", "a\0b"), "zero")
    refused(frieze("view", folder, "--host", "no.such.host.invalid"), "no name or address")
    refused(frieze("view", folder, "--host", ""), "host")
    refused(frieze("view", folder, "--port", "70000"), "70000", "65535")
    refused(frieze("view", folder, "--port", "-1"), "-1", "65535")
    refused(frieze("view", folder, "--port", "x"), "port")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        refused(frieze("view", folder, "--port", port), port, "another --port")
