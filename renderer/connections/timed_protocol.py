"""HTTP/1.1 whose every wait for a client ends: uvicorn's own protocol with timers and a limit.

uvicorn waits without end for a request that never becomes whole and for a reader that takes
nothing, and takes a client that closes its sending side alone (RFC 9112, 9.6; TCP half-close) for
one that has left. Waits for the application are the application's own.
"""

from __future__ import annotations

import asyncio
import socket
from dataclasses import dataclass
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
BUSY = (
    b"HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nRetry-After: 5\r\n"
    b"Content-Length: 0\r\n\r\n"
)


@dataclass(frozen=True)
class Patience:
    """Seconds for a request's head to come, for a reader to take what waits for it, for a next
    request, and between signs to a client that has closed its sending side; how many `connections`
    there may be.
    """

    head: float = 15.0
    write: float = 60.0
    idle: int = 30
    sign: float = 10.0
    connections: int = 400


class TimedProtocol(H11Protocol):
    """One connection."""

    patience = Patience()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client is there; where there are too many, one that asks for nothing makes room."""
        super().connection_made(transport)
        self._timer: asyncio.TimerHandle | None = None
        self._waits_for: str | None = None
        self._began = self.loop.time()
        connection = transport.get_extra_info("socket")
        if connection is not None:  # whose peer may vanish without a word
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        if len(self.connections) > self.patience.connections:
            self._make_room()
        self._watch()

    def data_received(self, data: bytes) -> None:
        """Bytes of a client."""
        super().data_received(data)
        self._watch()

    def eof_received(self) -> bool | None:  # type: ignore[override]
        """The client sends no more; what it asked for it may still read.

        One that has left altogether looks the same until something is sent to it: a reply of
        status 100, which every client of HTTP/1.1 passes over, is answered by a reset then.
        """
        is_whole = self._is_at_work() and not self.cycle.more_body
        if not is_whole or self.scope["http_version"] != "1.1" or self.scheme == "https":
            return None  # of TLS a half cannot be closed
        self.cycle.keep_alive = False
        self._sign()
        return True

    def on_response_complete(self) -> None:
        """An answer is given."""
        super().on_response_complete()
        self._watch()

    def pause_writing(self) -> None:
        """More waits for the reader than it has taken."""
        super().pause_writing()
        self._watch()

    def resume_writing(self) -> None:
        """It has taken it."""
        super().resume_writing()
        self._watch()

    def timeout_keep_alive_handler(self) -> None:
        """Nothing more was asked for."""
        super().timeout_keep_alive_handler()
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """It is over."""
        self._wait_for(None)
        super().connection_lost(exc)

    def _is_at_work(self) -> bool:
        """Whether a request is being answered."""
        return self.cycle is not None and not self.cycle.response_complete

    def _watch(self) -> None:
        """Set the timer of what is waited for now."""
        if self.transport.is_closing() or self.flow.write_paused:
            self._wait_for("write")
        elif self._is_at_work() or self.timeout_keep_alive_task is not None:
            self._wait_for(None)  # the application's wait, or that of uvicorn's own timer
        else:
            self._wait_for("head")

    def _wait_for(self, what: str | None) -> None:
        """A wait that goes on keeps its timer, however many bytes come meanwhile."""
        if what == self._waits_for:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._waits_for, self._timer = what, None
        if what is not None:
            seconds = getattr(self.patience, what)
            self._timer = self.loop.call_later(seconds, self.transport.abort)

    def _make_room(self) -> None:
        """End the oldest connection without a request; this one where all have one."""
        idle = [
            each
            for each in self.connections
            if isinstance(each, TimedProtocol) and each is not self and not each._is_at_work()
        ]
        if idle:
            min(idle, key=lambda each: each._began).transport.abort()
            return
        self.transport.write(BUSY)
        self.transport.close()

    def _sign(self) -> None:
        """Send what tells whether a client that has closed its sending side is still there."""
        if self.transport.is_closing() or not self._is_at_work():
            return
        if not self.cycle.response_started and not self.flow.write_paused:
            self.transport.write(CONTINUE)
        self.loop.call_later(self.patience.sign, self._sign)


def timed(patience: Patience) -> type[TimedProtocol]:
    """The protocol with another patience."""
    made: dict[str, Any] = {"patience": patience}
    return type("TimedProtocol", (TimedProtocol,), made)
