"""Connections that wait for a job: for its end, or for all that happens until then."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator

from starlette.concurrency import iterate_in_threadpool, run_in_threadpool
from starlette.requests import Request

from . import answers
from .api_error import FINAL, ApiError
from .jobs.job import Job
from .jobs.job_queue import JobQueue
from .jobs.partial_images import PartialImages, PreviewColours

LOOK_SECONDS = 0.5  # between looks whether a client is still there, or the server ends
SIGN_SECONDS = 15.0  # without news, after which a stream gives a sign of life


class Waiting:
    """Waits for jobs of a queue until they end or the server does."""

    def __init__(self, queue: JobQueue, stopping: threading.Event, most_seconds: float) -> None:
        self.queue, self.stopping, self.most_seconds = queue, stopping, most_seconds
        self._colours = PreviewColours()

    def check_going(self) -> None:
        """Raise `ApiError` 503 where the server is about to end."""
        if self.stopping.is_set():
            raise ApiError(
                503,
                "the server is stopping; what was asked for waits until it is started again",
                kind="server_error",
                code="stopping",
                headers={"Retry-After": "5"},
            )

    def check_end(self, job: Job) -> None:
        """Raise `ApiError` for a job that ended without pictures."""
        if job.state == "failed":
            raise ApiError(
                500,
                f"{job.id}: {job.error}",
                kind="server_error",
                code="render_failed",
                headers=FINAL,
            )
        if job.state == "cancelled":
            raise ApiError(409, f"{job.id} was cancelled", code="job_cancelled", headers=FINAL)

    async def until_ended(self, job: Job, request: Request, *, is_kept: bool) -> None:
        """Return when a job's pictures are there; raises `ApiError` where none will be.

        A client that leaves takes its job along, unless that `is_kept`: it can be asked for again.
        """
        until = time.monotonic() + self.most_seconds
        with self.queue.feed.subscribed(job.id) as news:
            while not job.has_ended:
                self.check_going()
                if time.monotonic() > until:
                    raise ApiError(
                        504,
                        f"{job.id} is still drawn after {self.most_seconds:g} s; ask for "
                        f"/v1/jobs/{job.id}",
                        kind="server_error",
                        code="still_drawn",
                        headers=FINAL,
                    )
                if await news.next(LOOK_SECONDS) is None and await request.is_disconnected():
                    if not is_kept:
                        await run_in_threadpool(self.queue.cancel, job)
                    raise ApiError(400, "the client left", code="incomplete")
        self.check_end(job)

    async def events(self, job: Job) -> AsyncIterator[bytes]:
        """All that happens to a job, from how it stands to its end, as server-sent events."""
        with self.queue.feed.subscribed(job.id) as news:
            now = self.queue.as_json(job)
            yield answers.event(f"job.{job.state}", now)
            silent = time.monotonic()
            while not job.has_ended and not self.stopping.is_set():
                told = await news.next(LOOK_SECONDS)
                if told is not None:
                    yield answers.event(told.kind, told.data)
                    silent = time.monotonic()
                    if told.kind == f"job.{job.state}" and job.has_ended:
                        return
                elif time.monotonic() - silent > SIGN_SECONDS:
                    yield b": \n\n"
                    silent = time.monotonic()
            if job.has_ended and now["status"] != job.state:
                yield answers.event(f"job.{job.state}", self.queue.as_json(job))

    async def stream(self, job: Job, most: int, *, is_kept: bool) -> AsyncIterator[bytes]:
        """The picture of a job as the images API streams it, after `most` previews at the most.

        A client that leaves takes its job along, unless that `is_kept`.
        """
        folder = self.queue.folder
        partial = PartialImages(folder.of(job) / "0.zarr", most, self._colours)
        try:
            silent = time.monotonic()
            with self.queue.feed.subscribed(job.id) as news:
                while not job.has_ended:
                    self.check_going()
                    told = await news.next(LOOK_SECONDS)
                    if told is not None and partial.is_due(told.data):
                        finished = self.queue.finished(job.model)
                        if found := await run_in_threadpool(partial.next, finished):
                            yield answers.partial(job, partial.count - 1, found)
                    elif told is None and time.monotonic() - silent > SIGN_SECONDS:
                        yield b": \n\n"
                        silent = time.monotonic()
            self.check_end(job)
            path = folder.picture(job, 0)
            if path is None:
                raise ApiError(410, "the picture is gone", code="gone")
            async for part in iterate_in_threadpool(answers.completed(job, path)):
                yield part
        except ApiError as error:
            yield answers.event("error", error.body)
        except (asyncio.CancelledError, GeneratorExit):
            if not is_kept:
                self.queue.cancel(job)
            raise
