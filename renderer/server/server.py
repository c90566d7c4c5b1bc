"""A server at work: the application, its thread, and the drawing beside it."""

from __future__ import annotations

import logging
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..batches.item_states import ItemEvent
from ..connections.http_server import answering
from ..errors import SpecError, StoreError, line
from ..monitoring.metrics import Meter
from ..store.directory import holds_store, store_directory
from . import answers
from .access import Access, key_of
from .api_error import ApiError
from .jobs.drawing import Drawing
from .jobs.job import Job, JobFolder
from .jobs.job_queue import JobQueue
from .jobs.job_run import Spread
from .jobs.retention import Retention, Tidying
from .limits import Limits
from .prometheus import PrometheusText
from .routes import Routes
from .served_models import ServedModel
from .submission import Submission
from .waiting import Waiting

GRACE_SECONDS = 3  # for answers that are under way when the server ends

log = logging.getLogger("frieze.server")
# What clients do wrong is told to them, and fills no log.
logging.getLogger("python_multipart").setLevel(logging.CRITICAL)


@dataclass(frozen=True)
class Settings:
    """What an owner decides."""

    folder: Path
    models: dict[str, ServedModel]
    fields: frozenset[str]
    limits: Limits
    spread: Spread
    address: str | None
    tokens: tuple[str, ...] = ()
    tls: ssl.SSLContext | None = None
    retention: Retention | None = None


class Server:
    """One server on a folder: `serving` answers requests, `draw` draws what they ask for."""

    def __init__(
        self, settings: Settings, on_event: Callable[[ItemEvent], None] = lambda event: None
    ) -> None:
        """Takes the folder and what an earlier server left in it; raises `StoreError`."""
        own = _taken(settings.folder)
        self.stopping, self._tls = threading.Event(), settings.tls
        self.queue = JobQueue(
            JobFolder(settings.folder), settings.limits.queue, len(settings.tokens)
        )
        for fault in self.queue.load():
            log.warning("%s", fault)
        self._on_event, self._metrics = on_event, PrometheusText()
        self._meter = Meter(self._metrics)
        self._counting = threading.Lock()
        submission = Submission(
            self.queue, settings.models, settings.fields, settings.limits, settings.spread
        )
        waiting = Waiting(self.queue, self.stopping, settings.limits.wait)
        access = Access(settings.tokens, key_of(own))
        routes = Routes(submission, access, waiting, self._metrics).all()
        handlers: dict[Any, Any] = {ApiError: _told, HTTPException: _http, Exception: _fault}
        app = Starlette(routes=routes, exception_handlers=handlers)
        app.router.redirect_slashes = False
        self.app = _Counted(app, self._metrics)
        tidying = Tidying(self.queue, settings.retention)
        self._drawing = Drawing(
            self.queue, settings.spread, settings.address, self._hear, tidying.look
        )

    def draw(self, cancel: threading.Event) -> None:
        """Draw until `cancel` is set; raises `PlanError` where there are no workers at all."""
        self._drawing.run(cancel, self.stopping)

    def waiting(self) -> int:
        """Jobs that are not ended."""
        counts = self.queue.counts()
        return counts.get("queued", 0) + counts.get("in_progress", 0)

    @contextmanager
    def serving(self, listening: socket.socket) -> Iterator[None]:
        """Within this, requests are answered on a thread of its own."""
        with answering(
            self.app, listening, name="frieze-server", grace=GRACE_SECONDS, tls=self._tls
        ):
            try:
                yield
            finally:
                self.stopping.set()

    def _hear(self, job: Job, event: ItemEvent) -> None:
        self.queue.hear(job, event)
        with self._counting:
            if event.event is not None:
                self._meter(event.event)
            self._on_event(replace(event, name=f"{job.id[:12]}/{event.name}"))


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens there; raises `SpecError`."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family, backlog=128)
    except (OSError, OverflowError) as error:
        why = getattr(error, "strerror", None) or line(error)
        raise SpecError(f"--host {host} --port {port} cannot be listened on: {why}") from None


def _taken(folder: Path) -> Path:
    """The folder of the server's own files; raises `StoreError` where another server is there."""
    if holds_store(folder) or (folder.exists() and not folder.is_dir()):
        raise StoreError(f"{folder} is no folder for a server; use another --folder")
    own = folder / "frieze"
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        own.mkdir(exist_ok=True)
    except OSError as error:
        raise StoreError(f"{folder} cannot be written: {error.strerror}") from None
    place = store_directory(folder)
    (place / "frieze").check_files()
    place.journal().claim()
    return own


async def _told(request: Request, error: ApiError) -> Response:
    return answers.refusal(error)


async def _http(request: Request, error: HTTPException) -> Response:
    told = {404: "there is nothing at this address", 405: f"{request.method} does not work here"}
    code = {404: "not_found", 405: "method_not_allowed"}.get(error.status_code, "invalid_request")
    message = told.get(error.status_code, str(error.detail))
    headers = dict(error.headers or {})
    return answers.refusal(ApiError(error.status_code, message, code=code, headers=headers))


async def _fault(request: Request, error: Exception) -> Response:
    log.warning("%s %s: %s: %s", request.method, request.scope["path"], type(error).__name__, error)
    return answers.refusal(
        ApiError(
            500, "a fault of the server, which its log names", kind="server_error", code="fault"
        )
    )


class _Counted:
    """The application, with its answers counted by their status."""

    def __init__(self, app: ASGIApp, metrics: PrometheusText) -> None:
        self._app, self._metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def counted(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._metrics.add("frieze_requests_total", 1, status=str(message["status"]))
            await send(message)

        await self._app(scope, receive, counted)
