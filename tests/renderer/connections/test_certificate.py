"""TLS of the servers: what works, what expired, and one line for all that does not."""

from __future__ import annotations

import socket
import ssl
from pathlib import Path

import pytest

from frieze.renderer.connections.certificate import fault, server_context
from frieze.renderer.connections.http_server import answering
from frieze.renderer.errors import SpecError
from support.certificates import Authority
from tolerances import AMPLE


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority.new()


async def application(scope: object, receive: object, send: object) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})  # type: ignore[operator]
    await send({"type": "http.response.body", "body": str(scope["scheme"]).encode()})  # type: ignore


def test_it_answers_over_tls_and_to_nobody_without(tmp_path: Path, authority: Authority) -> None:
    certificate, key = authority.issue(tmp_path, host="localhost")
    context = server_context(certificate, key)
    trusting = ssl.create_default_context(cadata=authority.text)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        place = listener.getsockname()
        with answering(application, listener, name="test", grace=0, tls=context):
            with (
                socket.create_connection(place, timeout=AMPLE) as plain,
                trusting.wrap_socket(plain, server_hostname="localhost") as connection,
            ):
                assert connection.version() in ("TLSv1.2", "TLSv1.3")
                connection.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
                assert connection.recv(10_000).startswith(b"HTTP/1.1 200")
            with socket.create_connection(place, timeout=AMPLE) as plain:
                plain.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
                assert plain.recv(100) == b""


@pytest.mark.parametrize(
    ("days", "host", "expected"),
    [
        ((-9, -2), "localhost", "has expired"),
        ((2, 9), "localhost", "is not valid yet"),
        ((-1, 9), "localhost", None),
        ((-1, 9), None, "is refused by clients"),
    ],
)
def test_a_certificate_of_another_day_is_told(
    tmp_path: Path,
    authority: Authority,
    days: tuple[float, float],
    host: str | None,
    expected: str | None,
) -> None:
    certificate, key = authority.issue(tmp_path, days=days, host=host)
    context = server_context(certificate, key)
    assert context is not None
    found = fault(context, certificate)
    assert found is None if expected is None else str(found).startswith(expected)


def test_files_that_do_not_work_are_one_line(tmp_path: Path, authority: Authority) -> None:
    (tmp_path / "a").mkdir()
    certificate, key = authority.issue(tmp_path, "one")
    _, other = authority.issue(tmp_path / "a", "two")
    (tmp_path / "b").mkdir()
    _, locked = authority.issue(tmp_path / "b", "three", passphrase=b"secret")
    (tmp_path / "c").mkdir()
    _, edwards = authority.issue(tmp_path / "c", "four", is_edwards=True)
    junk = tmp_path / "junk\n.pem"
    junk.write_bytes(b"\xff" * 100)
    assert server_context(None, None) is None
    for files, part in (
        ((certificate, None), "give --key FILE as well"),
        ((None, key), "give --certificate FILE as well"),
        ((certificate, other), "is not that of --certificate"),
        ((certificate, edwards), "is not that of --certificate"),
        ((certificate, locked), "is encrypted"),
        ((certificate, str(junk)), "holds no private key"),
        ((str(junk), key), "holds no certificate"),
        ((key, certificate), "holds no certificate"),
        ((certificate, certificate), "holds no private key"),
        ((str(tmp_path / "none"), key), "there is no such file"),
        ((certificate, str(tmp_path)), "there is no such file"),
        (("a\0b", key), "cannot be read"),
    ):
        with pytest.raises(SpecError, match=part) as error:
            server_context(*files)
        assert "\n" not in str(error.value)
