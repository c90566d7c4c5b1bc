"""The server of `frieze view`: pages, tiles and states of one collection, over HTTP.

A request names a store by its key and a tile by numbers; no part of it becomes a path.
"""

from __future__ import annotations

import json
import secrets
import socket
import ssl
import threading
import webbrowser
import zlib
from collections.abc import Callable
from functools import cache
from importlib import resources
from typing import Any

from starlette.applications import Starlette
from starlette.convertors import IntegerConvertor, register_url_convertor
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from ..connections.http_server import answering
from ..errors import FriezeError, StoreError, line
from ..exports.deep_zoom import descriptor
from . import answers
from .access import Access
from .entries import Collection, StoreEntry

# Files of the page by the names they are asked for; nothing else is ever read for a request.
FILES = {
    "": ("page.html", "text/html; charset=utf-8"),
    "page.css": ("page.css", "text/css; charset=utf-8"),
    "page.js": ("page.js", "text/javascript; charset=utf-8"),
    "canvas.js": ("canvas.js", "text/javascript; charset=utf-8"),
    "openseadragon.min.js": ("openseadragon.min.js", "text/javascript; charset=utf-8"),
    "openseadragon-license.txt": ("openseadragon-license.txt", "text/plain; charset=utf-8"),
}
KEPT = {"Cache-Control": "private, max-age=86400, immutable"}
FRESH = {"Cache-Control": "no-store"}
DEFAULT_PORT, MOST_PORT = 8484, 65535
END_SECONDS = 1  # for answers under way when the server ends


class Count(IntegerConvertor):
    """A number of few digits: any more would be none of ours, and may be too long to convert."""

    regex = "[0-9]{1,9}"


register_url_convertor("count", Count())


@cache
def file(name: str) -> bytes:
    """One of `FILES` by its own name."""
    return resources.files(__package__).joinpath("page", name).read_bytes()


def application(
    collection: Collection, *, host: str = "127.0.0.1", token: str | None = None
) -> Any:
    """The ASGI application; it answers to `host`, and with a token only to who has it."""
    routes = [
        Route("/", lambda request: _file("")),
        Route("/state.json", _State(collection)),
        Route("/stores/{key}/about.json", _of_store(collection, _about)),
        Route("/stores/{key}/{frame:count}.preview.png", _of_store(collection, _preview)),
        Route("/stores/{key}/{frame:count}.dzi", _of_store(collection, _descriptor)),
        Route(
            "/stores/{key}/{frame:count}_files/{level:count}/{column:count}_{row:count}.png",
            _of_store(collection, _tile),
        ),
        Route("/{name}", lambda request: _file(request.path_params["name"])),
    ]
    return Starlette(
        routes=routes,
        middleware=[Middleware(Access, host=host, token=token)],
        exception_handlers={FriezeError: _told},
    )


def _file(name: str) -> Response:
    if name not in FILES:
        return PlainTextResponse("nothing of that name", 404)
    own, media = FILES[name]
    return Response(file(own), media_type=media, headers={"Cache-Control": "no-cache"})


def _json(request: Request, value: Any) -> Response:
    """JSON, or 304 where the caller has the same already."""
    data = json.dumps(value, ensure_ascii=True).encode()
    tag = f'"{zlib.crc32(data):08x}-{len(data)}"'
    headers = {"Cache-Control": "no-cache", "ETag": tag}
    if request.headers.get("if-none-match") == tag:
        return Response(status_code=304, headers=headers)
    return Response(data, media_type="application/json", headers=headers)


async def _told(request: Request, error: Exception) -> Response:
    """What a store cannot give is one line, and no fault of the server's."""
    return PlainTextResponse(line(error), 404, FRESH)


def _State(collection: Collection) -> Callable[[Request], Response]:
    def answer(request: Request) -> Response:
        collection.look()
        return _json(request, answers.everything(collection))

    return answer


def _of_store(
    collection: Collection, answer: Callable[[Request, Collection, str, StoreEntry], Response]
) -> Callable[[Request], Response]:
    """An endpoint of one store, which is looked at first; 404 where there is none of that key."""

    def found(request: Request) -> Response:
        key = request.path_params["key"]
        entry = collection.stores.get(key)
        if entry is None:
            return PlainTextResponse("no store of that key", 404)
        entry.look()
        frames = (entry.store.layout.frames if entry.store else None) or 1
        if request.path_params.get("frame", 0) >= frames:
            return PlainTextResponse(f"no such frame; 0 to {frames - 1} are there", 404, FRESH)
        return answer(request, collection, key, entry)

    return found


def _about(request: Request, collection: Collection, key: str, entry: StoreEntry) -> Response:
    return _json(request, answers.in_full(key, entry, collection.fit(entry)))


def _preview(request: Request, collection: Collection, key: str, entry: StoreEntry) -> Response:
    found = entry.preview(collection.fit(entry), request.path_params["frame"])
    if found is None:
        return PlainTextResponse("no latents are saved", 404, FRESH)
    return Response(found, media_type="image/png", headers=FRESH)


def _descriptor(request: Request, collection: Collection, key: str, entry: StoreEntry) -> Response:
    if entry.pyramid is None:
        return PlainTextResponse(entry.fault, 404, FRESH)
    xml = descriptor(entry.pyramid.store.layout, "png")
    return Response(xml, media_type="application/xml", headers=FRESH)


def _tile(request: Request, collection: Collection, key: str, entry: StoreEntry) -> Response:
    if (pyramid := entry.pyramid) is None:
        return PlainTextResponse(entry.fault, 404, FRESH)
    numbers = [request.path_params[name] for name in ("level", "column", "row", "frame")]
    tile = pyramid.tile(*numbers)
    headers = KEPT if tile.is_whole else FRESH
    if tile.fault:
        headers = headers | {"X-Fault": line(tile.fault).encode("ascii", "replace").decode()}
    return Response(tile.png(pyramid.icc), media_type="image/png", headers=headers)


def listening(host: str, port: int | None) -> socket.socket:
    """A socket that listens there; without a port the usual one, or any that is free.

    Raises `StoreError` that says why it cannot.
    """
    if port is not None and not 0 <= port <= MOST_PORT:
        raise StoreError(f"port {port} does not work; 1 to {MOST_PORT} do, and 0 for any")
    try:
        if not host:
            raise OSError
        family, _, _, _, _ = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)[0]
    except (OSError, UnicodeError) as error:
        raise StoreError(f"host {host!r} is no name or address of this machine") from error
    for number in (DEFAULT_PORT, 0) if port is None else (port,):
        try:
            return socket.create_server((host, number), family=family, backlog=128)
        except OSError as error:
            fault = error
    raise StoreError(f"{host}:{port} cannot be listened on: {fault.strerror}; try another --port")


def new_token() -> str:
    """What only those know who were told the page's address."""
    return secrets.token_urlsafe(24)


def address(
    host: str, listener: socket.socket, token: str | None, tls: ssl.SSLContext | None = None
) -> str:
    """What to open in a browser; a server on all addresses is named by this machine's name."""
    name = socket.gethostname() if host in ("0.0.0.0", "::") else host
    name = f"[{name}]" if ":" in name else name
    scheme = "http" if tls is None else "https"
    return f"{scheme}://{name}:{listener.getsockname()[1]}/" + (f"?token={token}" if token else "")


def open_page(address: str) -> None:
    """Open a page in this machine's browser, if there is one; that may take its time."""
    threading.Thread(target=webbrowser.open, args=(address,), daemon=True).start()


def serve(app: Any, listener: socket.socket, tls: ssl.SSLContext | None = None) -> None:
    """Answer until the process is told to end, which raises KeyboardInterrupt here."""
    with answering(app, listener, name="frieze-view", grace=END_SECONDS, tls=tls) as thread:
        while thread.is_alive():
            thread.join(0.2)
