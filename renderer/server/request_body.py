"""Bodies of requests: JSON or a form with files, read no further than they may be long."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect, Request

from ..errors import reason
from ..spec.values import ValuesError, checked, from_json
from .api_error import ApiError, invalid

SECONDS = 60.0  # for a body to come
# What is read of a body that is refused unread: a connection that is closed with bytes waiting is
# reset, and the client sees that instead of the answer.
MOST_REST, REST_SECONDS = 4 * 2**20, 2.0
MOST_FILES, MOST_FIELDS, MOST_FIELD = 4, 64, 256 * 1024


async def json_body(request: Request, most: int) -> dict[str, Any]:
    """The object of a JSON body; raises `ApiError` 400, 408, 413 or 415."""
    await _check_kind(request, "application/json")
    async with _in_time():
        data = b"".join([part async for part in _limited(request, most)])
    try:
        values = from_json(data.decode())
    except (ValuesError, UnicodeDecodeError) as error:
        raise invalid(f"the body is no JSON that works: {reason(error, 200)}") from None
    if not isinstance(values, dict):
        raise invalid("the body is no object of JSON")
    return values


@asynccontextmanager
async def form(
    request: Request, most: int
) -> AsyncIterator[tuple[dict[str, Any], dict[str, UploadFile]]]:
    """Fields and files of a form; raises as `json_body`."""
    await _check_kind(request, "multipart/form-data")
    parser = MultiPartParser(
        request.headers,
        _limited(request, most),
        max_files=MOST_FILES,
        max_fields=MOST_FIELDS,
        max_part_size=MOST_FIELD,
    )
    try:
        try:
            async with _in_time():
                parts = await parser.parse()
        except (MultiPartException, KeyError, UnicodeDecodeError) as error:
            text = getattr(error, "message", None) or "it cannot be parsed"
            raise invalid(f"the body is no form that works: {text}") from None
        yield _fields(parts)
    finally:
        # Those of parts that broke off too, which are in no form.
        for file in vars(parser).get("_files_to_close_on_error", ()):
            file.close()


def _fields(parts: FormData) -> tuple[dict[str, Any], dict[str, UploadFile]]:
    """name[key] are mappings, name[] is a list of one."""
    fields: dict[str, Any] = {}
    files: dict[str, UploadFile] = {}
    for name, value in parts.multi_items():
        plain, bracket, inner = name.partition("[")
        key = inner.removesuffix("]")
        if isinstance(value, UploadFile):
            if plain in files:
                raise invalid(f"{plain[:100]}: one picture works", plain[:100])
            files[plain] = value
        elif bracket and key:
            mapping = fields.setdefault(plain, {})
            if not isinstance(mapping, dict) or key in mapping:
                raise invalid(f"{plain[:100]} is given twice", plain[:100])
            mapping[key] = value
        elif plain in fields:
            raise invalid(f"{plain[:100]} is given twice", plain[:100])
        else:
            fields[plain] = value
    try:
        checked(fields)
    except ValuesError as error:
        raise invalid(f"the form: {reason(error, 200)}") from None
    return fields, files


async def _check_kind(request: Request, kind: str) -> None:
    told = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if told != kind:
        await _rest(request.stream())
        raise ApiError(
            415, f"content-type {told[:100]!r} does not work here; {kind} does", code="invalid_type"
        )


@asynccontextmanager
async def _in_time() -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(SECONDS):
            yield
    except TimeoutError:
        raise ApiError(408, f"the body did not come within {SECONDS:g} s", code="timeout") from None
    except ClientDisconnect:
        raise ApiError(400, "the body broke off", code="incomplete") from None


async def _limited(request: Request, most: int) -> AsyncGenerator[bytes, None]:
    """The body's parts; 413 as soon as it is told, or found, to be longer."""
    told = request.headers.get("content-length", "0")
    count = int(told) if told.isdecimal() and len(told) < 20 else 0
    parts = request.stream()
    if count > most:
        await _rest(parts)
        raise _too_long(most)
    count = 0
    async for part in parts:
        count += len(part)
        if count > most:
            await _rest(parts)
            raise _too_long(most)
        yield part


async def _rest(parts: AsyncGenerator[bytes, None]) -> None:
    """Read what still comes of a body, and keep nothing of it."""
    count = 0
    with suppress(TimeoutError, ClientDisconnect):
        async with asyncio.timeout(REST_SECONDS):
            async for part in parts:
                count += len(part)
                if count > MOST_REST:
                    return


def _too_long(most: int) -> ApiError:
    return ApiError(
        413,
        f"the body is longer than {most} bytes, which are the most",
        code="request_too_large",
        headers={"Connection": "close"},
    )
