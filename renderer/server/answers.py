"""Answers: pictures as JSON that is written as their files are read, errors, and event streams."""

from __future__ import annotations

import base64
import json
import struct
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from starlette.concurrency import iterate_in_threadpool
from starlette.responses import JSONResponse, Response, StreamingResponse

from .api_error import ApiError
from .jobs.job import Job

PART = 3 * 2**18  # bytes of a file at a time: of three come four letters
# The API counts tokens; a picture's are its latents, which are nobody's to be charged for here.
USAGE = {
    "input_tokens": 0,
    "input_tokens_details": {"image_tokens": 0, "text_tokens": 0},
    "output_tokens": 0,
    "total_tokens": 0,
}


def refusal(error: ApiError) -> Response:
    """An error's answer."""
    return JSONResponse(error.body, error.status, headers=error.headers)


def pictures(job: Job, files: Sequence[Path], url: Callable[[str], str]) -> Response:
    """The API's object of pictures: inline, or by their addresses."""
    about = {"created": int(job.ended or job.created), **job.told, "size": _size(job)}
    about |= {"usage": USAGE, "id": job.id}
    if job.is_url:
        return JSONResponse({**about, "data": [{"url": url(each)} for each in job.files]})
    length, parts = _inline(about, files)
    return StreamingResponse(
        iterate_in_threadpool(parts),
        media_type="application/json",
        headers={"Content-Length": str(length)},
    )


def _inline(about: dict[str, Any], files: Sequence[Path]) -> tuple[int, Iterator[bytes]]:
    """(bytes, parts) of the JSON in which the files lie in base64; none is held whole."""
    head = json.dumps(about)[:-1].encode() + b', "data": ['
    frames = [(b', {"b64_json": "' if i else b'{"b64_json": "', b'"}') for i in range(len(files))]
    letters = sum((path.stat().st_size + 2) // 3 * 4 for path in files)
    length = len(head) + letters + sum(len(a) + len(b) for a, b in frames) + 2

    def parts() -> Iterator[bytes]:
        yield head
        for (before, after), path in zip(frames, files, strict=True):
            yield before
            yield from base64_of(path)
            yield after
        yield b"]}"

    return length, parts()


def base64_of(path: Path) -> Iterator[bytes]:
    """A file's letters in base64, part by part."""
    with open(path, "rb") as file:
        while part := file.read(PART):
            yield base64.b64encode(part)


def completed(job: Job, path: Path) -> Iterator[bytes]:
    """The last event of a stream, with the picture."""
    kind = f"{job.kind}.completed"
    about = {"type": kind, "created_at": int(job.ended or job.created), "size": _size(job)}
    head = json.dumps({**about, **job.told, "usage": USAGE})[:-1].encode()
    yield f"event: {kind}\ndata: ".encode() + head + b', "b64_json": "'
    yield from base64_of(path)
    yield b'"}\n\n'


def partial(job: Job, index: int, png: bytes) -> bytes:
    """An event with a preview, which says its own format and size."""
    kind, (width, height) = f"{job.kind}.partial_image", struct.unpack(">II", png[16:24])
    about = {"type": kind, "partial_image_index": index, "created_at": int(time.time())}
    about |= {**job.told, "output_format": "png", "size": f"{width}x{height}"}
    return event(kind, about | {"b64_json": base64.b64encode(png).decode()})


def event(kind: str, data: dict[str, Any]) -> bytes:
    """One server-sent event."""
    return f"event: {kind}\ndata: {json.dumps(data)}\n\n".encode()


def stream(events: AsyncIterator[bytes]) -> Response:
    """An answer of events as they come."""
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    return StreamingResponse(events, media_type="text/event-stream", headers=headers)


def _size(job: Job) -> str:
    return f"{job.size[0]}x{job.size[1]}"
