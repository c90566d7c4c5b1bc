"""Who may look: which names this server answers to, who has the token, what a page may load."""

from __future__ import annotations

import hmac
import ipaddress
import socket
from collections.abc import Mapping
from http.cookies import CookieError, SimpleCookie
from urllib.parse import parse_qsl

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..connections.loopback import is_loopback

# A page may load what this server has and nothing else, whatever is written in it.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
MONTH = 30 * 24 * 3600


class Access:
    """Around an application: read-only methods, known hosts, and the token where there is one.

    A page of another origin whose name was bound to our address (DNS rebinding) sends that name as
    its `Host`, so names that are not ours are refused. Addresses cannot be rebound.
    """

    def __init__(self, app: ASGIApp, *, host: str, token: str | None) -> None:
        self.app = app
        self.token = token
        self._is_local = is_loopback(host)
        self._names = {"localhost", host.lower()}
        if not self._is_local:
            self._names |= {socket.gethostname().lower(), socket.getfqdn().lower()}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        refusal = self._refusal(scope)
        await (self.app if refusal is None else refusal)(scope, receive, with_headers)

    def _refusal(self, scope: Scope) -> Response | None:
        """What is answered instead, or None."""
        headers = Headers(scope=scope)
        if not self.is_ours(headers.get("host", "")):
            return PlainTextResponse("not a name of this server", 421)
        if scope["method"] not in ("GET", "HEAD"):
            return PlainTextResponse("only GET works here", 405, {"Allow": "GET, HEAD"})
        if self.token is None:
            return None
        cookie = f"frieze-{(scope.get('server') or ('', 0))[1]}"
        query = dict(parse_qsl(scope["query_string"].decode("latin-1")))
        if self._is_token(query.get("token", "")):
            # Off the address bar, so that it is in no history and no bookmark.
            answer = RedirectResponse("/" + scope["path"].lstrip("/"), 303)
            answer.set_cookie(
                cookie,
                self.token,
                max_age=MONTH,
                httponly=True,
                samesite="lax",
                path="/",
                secure=scope["scheme"] == "https",
            )
            return answer
        if self._is_token(_cookies(headers).get(cookie, "")):
            return None
        return PlainTextResponse("open the address that frieze view printed, with its token", 401)

    def is_ours(self, host: str) -> bool:
        """Whether a `Host` header, as localhost:8484, names this server."""
        name, _, port = host.rpartition(":") if not host.endswith("]") else (host, "", "")
        name = (name if name and port.isdigit() else host).lower()
        if name in self._names:
            return True
        try:
            address = ipaddress.ip_address(name.removeprefix("[").removesuffix("]"))
        except ValueError:
            return False
        return address.is_loopback or not self._is_local

    def _is_token(self, given: str) -> bool:
        """In a time that does not depend on how much of it is right."""
        assert self.token is not None
        return hmac.compare_digest(given.encode("utf-8", "replace"), self.token.encode())


def _cookies(headers: Headers) -> Mapping[str, str]:
    found: SimpleCookie = SimpleCookie()
    try:
        found.load(headers.get("cookie", ""))
    except CookieError:
        return {}
    return {name: morsel.value for name, morsel in found.items()}
