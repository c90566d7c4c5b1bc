"""A uvicorn that answers on a thread of its own until it is told to end."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn

from .timed_protocol import Patience, timed

GRACE = 2  # seconds more than its own, for the thread to end
DEFAULT = Patience()


@contextmanager
def answering(
    app: Any,
    listener: socket.socket,
    *,
    name: str,
    grace: int,
    patience: Patience = DEFAULT,
    tls: ssl.SSLContext | None = None,
) -> Iterator[threading.Thread]:
    """Within this, an ASGI application answers what comes to a socket, on the thread yielded.

    Afterwards answers under way have `grace` seconds to end.
    """
    config = uvicorn.Config(
        app,
        log_config=None,
        log_level="critical",
        access_log=False,
        lifespan="off",
        ws="none",
        http=timed(patience),
        loop="asyncio",
        server_header=False,
        timeout_keep_alive=patience.idle,
        timeout_graceful_shutdown=grace,
        ssl_context_factory=None if tls is None else lambda config, default: tls,
    )
    server = uvicorn.Server(config)
    # Not on the main thread, where it would take Ctrl-C away from whom it belongs to.
    thread = threading.Thread(
        target=server.run, kwargs={"sockets": [listener]}, name=name, daemon=True
    )
    thread.start()
    try:
        yield thread
    finally:
        server.should_exit = True
        thread.join(grace + GRACE)
