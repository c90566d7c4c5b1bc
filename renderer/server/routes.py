"""What each address answers."""

from __future__ import annotations

import re
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from . import answers, request_body
from .access import URL_SECONDS, Access
from .api_error import ApiError, invalid
from .description import document, page
from .image_request import TYPES
from .jobs.job import Job, job_of_file
from .jobs.job_queue import JobQueue
from .prometheus import TYPE, PrometheusText
from .submission import MOST_KEY, Asked, Submission
from .waiting import Waiting

MOST_LISTED = 100
Answer = Callable[[Request], Awaitable[Response]]


class Routes:
    """The addresses of a server."""

    def __init__(
        self, submission: Submission, access: Access, waiting: Waiting, metrics: PrometheusText
    ) -> None:
        self.submission, self.access = submission, access
        self.waiting, self.metrics = waiting, metrics
        self.queue: JobQueue = submission.queue

    def all(self) -> list[Route]:
        """Every address; those that need a token ask for it first."""

        def route(
            path: str, answer: Answer, method: str = "GET", *, is_open: bool = False
        ) -> Route:
            return Route(path, answer if is_open else self._own(answer), methods=[method])

        return [
            route("/v1/images/generations", self.generate, "POST"),
            route("/v1/images/edits", self.edit, "POST"),
            route("/v1/models", self.models),
            route("/v1/models/{id}", self.model),
            route("/v1/jobs", self.jobs),
            route("/v1/jobs", self.begin, "POST"),
            route("/v1/jobs/{id}", self.job),
            route("/v1/jobs/{id}", self.delete, "DELETE"),
            route("/v1/jobs/{id}/cancel", self.cancel, "POST"),
            route("/v1/jobs/{id}/events", self.events),
            route("/v1/jobs/{id}/images", self.pictures),
            route("/v1/files/{id}", self.file),
            route("/v1/files/{id}/content", self.content, is_open=True),
            route("/metrics", self.figures),
            route("/healthz", self.health, is_open=True),
            route("/openapi.json", self.openapi, is_open=True),
            route("/docs", self.docs, is_open=True),
        ]

    def _own(self, answer: Answer) -> Answer:
        async def told(request: Request) -> Response:
            request.state.owner = self.access.owner(request.headers)
            return await answer(request)

        return told

    # ---- pictures

    async def generate(self, request: Request) -> Response:
        """POST /v1/images/generations."""
        body = await request_body.json_body(request, self.submission.limits.body)
        return await self._ask(request, Asked("image_generation", body, {}, *_who(request)))

    async def begin(self, request: Request) -> Response:
        """POST /v1/jobs: the same, answered at once."""
        body = await request_body.json_body(request, self.submission.limits.body)
        if body.get("background") in (None, "auto", "opaque"):
            body["background"] = True
        return await self._ask(request, Asked("image_generation", body, {}, *_who(request)))

    async def edit(self, request: Request) -> Response:
        """POST /v1/images/edits."""
        async with request_body.form(request, self.submission.limits.body) as (body, files):
            opened = {name: file.file for name, file in files.items()}
            asked = Asked("image_edit", body, opened, *_who(request), is_form=True)
            return await self._ask(request, asked)

    async def _ask(self, request: Request, asked: Asked) -> Response:
        self.waiting.check_going()
        wanted, own = self.submission.request(asked)
        job = await run_in_threadpool(self.submission.job, asked, wanted, own)
        if wanted.is_background:
            return JSONResponse(self.queue.as_json(job), 202)
        if wanted.stream:
            most, is_kept = wanted.partial_images or 0, bool(asked.key)
            return answers.stream(self.waiting.stream(job, most, is_kept=is_kept))
        await self.waiting.until_ended(job, request, is_kept=bool(asked.key))
        return self._pictures(request, job)

    def _pictures(self, request: Request, job: Job) -> Response:
        def url(file_id: str) -> str:
            expires = int(time.time()) + URL_SECONDS
            signature = self.access.signature(file_id, expires)
            query = f"expires={expires}&signature={signature}"
            return f"{_base(request)}/v1/files/{file_id}/content?{query}"

        return answers.pictures(job, self._files(job), url)

    def _files(self, job: Job) -> list[Path]:
        files = [self.queue.folder.picture(job, index) for index in range(len(job.items))]
        if any(path is None for path in files):
            raise ApiError(410, "a picture of this job is gone", code="gone")
        return [path for path in files if path is not None]

    # ---- models

    async def models(self, request: Request) -> Response:
        """GET /v1/models."""
        listed = [model.as_json() for model in self.submission.models.values()]
        return JSONResponse({"object": "list", "data": listed})

    async def model(self, request: Request) -> Response:
        """GET /v1/models/{id}."""
        return JSONResponse(self.submission.model(request.path_params["id"]).as_json())

    # ---- jobs

    def _job(self, request: Request) -> Job:
        return self.queue.find(request.path_params["id"], request.state.owner)

    async def jobs(self, request: Request) -> Response:
        """GET /v1/jobs, the newest first; `after` is the id of the last one that is known."""
        told = request.query_params.get("limit", "20")
        if not (
            told.isascii()
            and told.isdecimal()
            and 0 < len(told) < 4
            and 1 <= int(told) <= MOST_LISTED
        ):
            raise invalid(f"limit {told[:20]!r} is not from 1 to {MOST_LISTED}", "limit")
        listed = self.queue.owned(request.state.owner)
        if after := request.query_params.get("after"):
            ids = [job.id for job in listed]
            listed = listed[ids.index(self.queue.find(after, request.state.owner).id) + 1 :]
        page_of = [self.queue.as_json(job) for job in listed[: int(told)]]
        return JSONResponse(
            {"object": "list", "data": page_of, "has_more": len(listed) > len(page_of)}
        )

    async def job(self, request: Request) -> Response:
        """GET /v1/jobs/{id}."""
        return JSONResponse(self.queue.as_json(self._job(request)))

    async def cancel(self, request: Request) -> Response:
        """POST /v1/jobs/{id}/cancel."""
        job = self._job(request)
        if job.has_ended and job.state != "cancelled":
            raise ApiError(409, f"the job has ended, it is {job.state}", code="job_ended")
        await run_in_threadpool(self.queue.cancel, job)
        return JSONResponse(self.queue.as_json(job))

    async def delete(self, request: Request) -> Response:
        """DELETE /v1/jobs/{id}: what is drawn is cancelled, what has ended is deleted."""
        job = self._job(request)
        if not job.has_ended:
            await run_in_threadpool(self.queue.cancel, job)
            return JSONResponse(self.queue.as_json(job))
        await run_in_threadpool(self.queue.discard, job)
        return JSONResponse({"id": job.id, "object": "job", "deleted": True})

    async def events(self, request: Request) -> Response:
        """GET /v1/jobs/{id}/events."""
        return answers.stream(self.waiting.events(self._job(request)))

    async def pictures(self, request: Request) -> Response:
        """GET /v1/jobs/{id}/images: what a request that waited would have been answered."""
        job = self._job(request)
        if not job.has_ended:
            raise ApiError(409, f"the job is {job.state}", code="job_unfinished")
        self.waiting.check_end(job)
        return self._pictures(request, job)

    # ---- files

    def _found(self, file_id: str, owner: str | None) -> tuple[Job, Path]:
        """A picture by its id, which is the only name that leads to a file."""
        named = job_of_file(file_id)
        job = None if named is None else self.queue.jobs.get(named[0])
        path = None
        if named and job and job.state == "completed" and owner in (None, job.owner):
            path = self.queue.folder.picture(job, named[1])
        if job is None or path is None:
            raise ApiError(404, "there is no such file", param="id", code="not_found")
        return job, path

    async def file(self, request: Request) -> Response:
        """GET /v1/files/{id}."""
        file_id = request.path_params["id"]
        job, path = self._found(file_id, request.state.owner)
        about = {"id": file_id, "object": "file", "bytes": path.stat().st_size}
        about |= {"created_at": int(job.ended or job.created), "purpose": "image", "job": job.id}
        return JSONResponse({**about, "filename": f"{file_id}{job.suffix}", "status": "processed"})

    async def content(self, request: Request) -> Response:
        """GET /v1/files/{id}/content, with a token or by an address that was signed."""
        file_id, told = request.path_params["id"], request.query_params
        is_signed = self.access.is_signed(
            file_id, told.get("expires", ""), told.get("signature", "")
        )
        owner = None if is_signed else self.access.owner(request.headers)
        job, path = self._found(file_id, owner)
        kind = TYPES[str(job.told["output_format"])]
        return FileResponse(path, media_type=kind, headers={"X-Content-Type-Options": "nosniff"})

    # ---- about the server

    async def figures(self, request: Request) -> Response:
        """GET /metrics."""
        return Response(self.metrics.text(self.queue.counts()), media_type=TYPE)

    async def health(self, request: Request) -> Response:
        """GET /healthz."""
        self.waiting.check_going()
        return JSONResponse({"status": "ok"})

    async def openapi(self, request: Request) -> Response:
        """GET /openapi.json."""
        return JSONResponse(document(self.submission.fields))

    async def docs(self, request: Request) -> Response:
        """GET /docs: one page that asks for nothing else."""
        policy = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'"
        text = page(document(self.submission.fields))
        return HTMLResponse(text, headers={"Content-Security-Policy": policy})


def _base(request: Request) -> str:
    """This server's address as the client knows it."""
    host = request.headers.get("host", "")
    if not re.fullmatch(r"(\[[0-9A-Fa-f:.]+\]|[\w.-]+)(:[0-9]{1,5})?", host, re.ASCII):
        raise invalid(f"Host {host[:100]!r} is no address", code="invalid_host")
    return f"{request.scope['scheme']}://{host}"


def _who(request: Request) -> tuple[str, str]:
    """(owner, Idempotency-Key) of a request."""
    key = request.headers.get("idempotency-key", "")
    if len(key) > MOST_KEY:
        raise invalid(f"Idempotency-Key of {len(key)} letters; at most {MOST_KEY} work")
    return request.state.owner, key
