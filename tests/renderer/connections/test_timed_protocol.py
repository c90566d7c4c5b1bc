"""Connections that stall, vanish or come in crowds, by sockets that speak for themselves."""

from __future__ import annotations

import asyncio
import socket
import struct
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

from frieze.renderer.connections.http_server import answering
from frieze.renderer.connections.timed_protocol import Patience
from tolerances import AMPLE

GET = b"GET /%b HTTP/1.1\r\nHost: localhost\r\n\r\n"
BRIEF = Patience(head=0.3, write=0.3, idle=1, sign=0.1, connections=6)


@dataclass
class Application:
    """Answers at once, /wait when it is told to or the client has left, /large with 64 MiB."""

    port: int = 0
    left: list[str] = field(default_factory=list)
    at_work: int = 0
    go: bool = False

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        path = scope["path"]
        await receive()
        self.at_work += 1
        try:
            while path == "/wait" and not self.go:
                try:
                    event = await asyncio.wait_for(receive(), 0.02)
                except TimeoutError:
                    continue
                if event["type"] == "http.disconnect":
                    self.left.append(path)
                    return
            start = {"type": "http.response.start", "status": 200, "headers": []}
            await send(start)
            for _ in range(1024 if path == "/large" else 1):
                body = b"x" * 65536 if path == "/large" else b"there"
                await send({"type": "http.response.body", "body": body, "more_body": True})
            await send({"type": "http.response.body", "body": b""})
        finally:
            self.at_work -= 1


@contextmanager
def serving(patience: Patience) -> Iterator[Application]:
    app = Application()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        app.port = listener.getsockname()[1]
        with answering(app, listener, name="test", grace=0, patience=patience):
            yield app


@pytest.fixture(scope="module")
def app() -> Iterator[Application]:
    with serving(BRIEF) as found:
        yield found


def connected(app: Application, data: bytes = b"") -> socket.socket:
    found = socket.create_connection(("127.0.0.1", app.port), timeout=AMPLE)
    found.sendall(data)
    return found


def rest(connection: socket.socket) -> bytes:
    """All that comes until the server closes; a reset ends it too."""
    parts = []
    try:
        while part := connection.recv(65536):
            parts.append(part)
    except ConnectionResetError:
        pass
    return b"".join(parts)


def until(found: Any) -> None:
    end = time.monotonic() + AMPLE
    while not found():
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.mark.parametrize("begun", [b"", b"GET / HTTP/1.1\r\nHost: x\r\n", b"G"])
def test_a_request_that_never_becomes_whole_is_closed(app: Application, begun: bytes) -> None:
    with connected(app, begun) as connection:
        assert rest(connection) == b""


def test_bytes_that_drip_keep_no_connection(app: Application) -> None:
    with connected(app, b"GET / HTTP/1.1\r\n") as connection:
        connection.settimeout(0.05)
        end = time.monotonic() + AMPLE
        while True:
            assert time.monotonic() < end, "it was kept for as long as bytes came"
            try:
                connection.sendall(b"X-A: b\r\n")
                if connection.recv(1) == b"":
                    break
            except TimeoutError:
                continue
            except (ConnectionResetError, BrokenPipeError):
                break


def test_a_body_that_nobody_reads_keeps_no_connection(app: Application) -> None:
    head = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n"
    with connected(app, head) as connection:
        connection.sendall(b"x")
        assert rest(connection).startswith(b"HTTP/1.1 200")


def test_a_reader_that_takes_nothing_is_closed() -> None:
    with serving(BRIEF) as app, connected(app, GET % b"large") as connection:
        until(lambda: app.at_work == 1)
        until(lambda: app.at_work == 0)
        assert len(rest(connection)) < 64 * 2**20


def test_a_reader_that_is_slow_gets_all_of_it(app: Application) -> None:
    with connected(app, GET % b"large") as connection:
        count = 0
        while count < 64 * 2**20 and (part := connection.recv(2**20)):
            count += len(part)
            time.sleep(0.005)
    assert count >= 64 * 2**20


def test_who_sends_no_more_may_still_read(app: Application) -> None:
    app.go = False
    with connected(app, GET % b"wait") as connection:
        connection.shutdown(socket.SHUT_WR)
        time.sleep(0.25)  # two signs
        app.go = True
        found = rest(connection)
    assert app.left == []
    assert found.count(b"HTTP/1.1 100 Continue\r\n\r\n") >= 2
    assert found.rpartition(b"\r\n\r\n")[0].rpartition(b"HTTP/1.1 ")[2].startswith(b"200 OK")
    assert b"there" in found


@pytest.mark.parametrize("is_reset", [True, False])
def test_who_leaves_is_missed(app: Application, is_reset: bool) -> None:
    app.go, app.left = False, []
    connection = connected(app, GET % b"wait")
    until(lambda: app.at_work == 1)
    if is_reset:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()
    until(lambda: app.left == ["/wait"])


def test_connections_that_ask_for_nothing_make_room() -> None:
    patience = Patience(head=AMPLE, connections=6)
    with serving(patience) as app, ExitStack() as stack:
        for _ in range(40):
            stack.enter_context(connected(app))
        with connected(app, GET % b"") as connection:
            assert connection.recv(100).startswith(b"HTTP/1.1 200")


def test_where_all_are_at_work_one_more_is_told_so() -> None:
    with serving(BRIEF) as app, ExitStack() as stack:
        for _ in range(BRIEF.connections):
            stack.enter_context(connected(app, GET % b"wait"))
        until(lambda: app.at_work == BRIEF.connections)
        with connected(app, GET % b"wait") as connection:
            assert rest(connection).startswith(b"HTTP/1.1 503")
        app.go = True
