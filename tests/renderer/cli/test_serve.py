"""`frieze serve`: what is refused before it listens, a line each."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from frieze.renderer.server import access
from support.command_line import frieze, refused


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (("--host", "0.0.0.0"), ("--token-file", "FRIEZE_TOKENS")),
        (("--host", "no.such.host.invalid"), ("--token-file",)),
        (("--port", "70000"), ("65535",)),
        (("--token-file", "none.txt"), ("none.txt", "no file")),
        (("--token-file", "empty.txt"), ("no token",)),
        (("--token-file", "short.txt"), ("16",)),
        (("--preset", "nothing"), ("nothing", "demo-cascade")),
        (("--preset", "demo", "--preset", "demo"), ("ID=PRESET",)),
        (("--preset", "a/b=demo"), ("a/b", "ID=PRESET")),
        (("--preset", "clip.yaml"), ("clips", "frieze batch")),
        (("--preset", "torn.yaml"), ("torn.yaml", "heigth")),
        (("--preset", "odd.yaml"), ("100", "96")),
        (("--allow", "lora"), ("lora", "scheduler")),
        (("--allow", "out"), ("out", "scheduler")),
        (("--allow", "model"), ("model", "scheduler")),
        (("--certificate", "short.txt"), ("--certificate", "--key FILE")),
        (("--key", "short.txt"), ("--key", "--certificate FILE")),
        (("--certificate", "short.txt", "--key", "short.txt"), ("short.txt", "no certificate")),
        (("--certificate", "none.pem", "--key", "short.txt"), ("none.pem", "no such file")),
        (("--watermark", "nothing"), ("nothing", "luminance")),
        (("--watermark-option", "key=1"), ("watermark",)),
        (("--sign", "none.pem", "none.key"), ("none.pem",)),
        (("--timestamp", "http://localhost"), ("--sign",)),
        (("--keep", "0"), ("--keep", "7d", "100")),
        (("--keep", "-3d"), ("--keep",)),
        (("--keep", "7 days"), ("--keep", "7d")),
        (("--max-pixels", "0"), ("256",)),
        (("--max-steps", "0"), ("max-steps",)),
        (("--max-queue", "0"), ("max-queue",)),
        (("--max-body", "0"), ("max-body",)),
        (("--max-wait", "nan"), ("max-wait",)),
        (("--max-wait", "1e9"), ("max-wait",)),
        (("--retries", "-1"), ("retries",)),
        (("--workers", "2..4"), ("workers",)),
        (("--workers", "0"), ("workers",)),
        (("--device", "tpu"), ("tpu",)),
        (("--folder", "s3://bucket/served"), ("--folder",)),
        (("--folder", "short.txt"), ("short.txt", "--folder")),
    ],
)
def test_a_flag_that_does_not_work_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], parts: tuple[str, ...]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty.txt").write_text("# none yet\n\n")
    (tmp_path / "short.txt").write_text("secret\n")
    (tmp_path / "clip.yaml").write_text("model: demo\nnum_frames: 8\n")
    (tmp_path / "torn.yaml").write_text("model: demo\nheigth: 64\n")
    (tmp_path / "odd.yaml").write_text("model: demo\nheight: 100\nwidth: 64\n")
    answer = frieze("serve", "--local", "--device", "cpu", "--port", "0", *words)
    refused(answer, *parts)
    assert "secret" not in answer.stderr
    assert not (tmp_path / "served").exists()


def test_a_port_that_is_taken_is_told(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        folder = str(tmp_path / "served")
        answer = frieze("serve", "--local", "--device", "cpu", "--folder", folder, "--port", port)
    refused(answer, port, "in use")


def test_tokens_of_a_file_and_of_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "tokens"
    file.write_text("# studio\n  one-token-of-many  \nanother-of-these-x\n")
    monkeypatch.setenv(access.VARIABLE, "one-token-of-many, a-third-one-there")
    found = access.tokens(str(file))
    assert set(found) == {"one-token-of-many", "another-of-these-x", "a-third-one-there"}
    assert len(found) == 3
