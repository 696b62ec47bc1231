"""Decide who may ask: by host name, token, origin and rate, before anything is read."""

import hmac
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from http.cookies import CookieError, SimpleCookie
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

LOCAL = frozenset({"localhost", "127.0.0.1", "::1"})
LOGIN = "/login"
# What needs no token: that the process runs, and the form that asks for the token.
OPEN = frozenset({"/healthz", LOGIN, "/login.js", "/page.css", "/icon.svg"})
COOKIE = "kedge_token"
CLIENTS = 1024  # whose rates are remembered
YEAR = 365 * 24 * 3600
MAX_FORM = 4096  # bytes of the login form

HEADERS = {
    "Content-Security-Policy": "default-src 'none'; img-src 'self'; style-src 'self'; "
    "script-src 'self'; connect-src 'self'; form-action 'self'; base-uri 'none'; "
    "frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


@dataclass(frozen=True)
class AccessRules:
    """Who may ask. `token`: None for this machine alone; `rate`: requests a second, 0 for any."""

    token: str | None = None
    rate: float = 0.0


def refusal(code: int, text: str, **headers: str) -> Response:
    """Return an error as the interface documents it."""
    return JSONResponse({"error": text}, code, headers)


class Rates:
    """Counts each client's requests: a second's worth may come at once."""

    def __init__(self, rate: float, clock: Callable[[], float] = time.monotonic) -> None:
        """Take the requests a second."""
        self._rate, self._clock = rate, clock
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def allows(self, client: str) -> bool:
        """Count a request; return whether it is within the rate."""
        now, burst = self._clock(), max(self._rate, 1.0)
        left, since = self._left.pop(client, (burst, now))
        left = min(left + (now - since) * self._rate, burst)
        self._left[client] = (left - (left >= 1), now)
        if len(self._left) > CLIENTS:
            self._left.popitem(last=False)
        return left >= 1


class Guard:
    """Stands before the app, and adds the headers that keep a browser from foreign hosts."""

    def __init__(self, app: ASGIApp, access: AccessRules) -> None:
        """Take the app and the rules."""
        self._app, self._access = app, access
        self._rates = Rates(access.rate) if access.rate else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request through, or refuse it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request = Request(scope, receive)
        answer = await self._login(request) if self._is_login(request) else self._refused(request)

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                extra = [(k.lower().encode(), v.encode()) for k, v in HEADERS.items()]
                message["headers"] = [*message.get("headers", []), *extra]
            await send(message)

        await (answer or self._app)(scope, receive, with_headers)

    def _refused(self, request: Request) -> Response | None:
        client = request.client.host if request.client else ""
        if self._rates and not self._rates.allows(client):
            return refusal(429, "too many requests; wait a second", **{"Retry-After": "1"})
        if request.url.path in OPEN:
            return None
        if self._access.token is None:
            # Another site may point its own name to this machine (DNS rebinding).
            if _host(request.headers.get("host", "")) not in LOCAL:
                return refusal(403, "this host name isn't served; use localhost")
        elif not self._knows_token(request.headers):
            return self._unknown(request)
        if request.method not in ("GET", "HEAD") and _is_foreign(request.headers):
            return refusal(403, "another site may not do this")
        return None

    def _knows_token(self, headers: Headers) -> bool:
        kind, _, bearer = headers.get("authorization", "").partition(" ")
        return any(
            hmac.compare_digest(given.encode(), (self._access.token or "").encode())
            for given in (bearer if kind.lower() == "bearer" else "", _cookie(headers))
            if given
        )

    def _unknown(self, request: Request) -> Response:
        if request.method == "GET" and "text/html" in request.headers.get("accept", ""):
            return RedirectResponse(LOGIN, 303)
        text = "a token is needed: Authorization: Bearer TOKEN"
        return refusal(401, text, **{"WWW-Authenticate": "Bearer"})

    def _is_login(self, request: Request) -> bool:
        is_form = request.url.path == LOGIN and request.method == "POST"
        return is_form and self._access.token is not None

    async def _login(self, request: Request) -> Response | None:
        """Take the token of the page's form, and give the browser a cookie for it."""
        client = request.client.host if request.client else ""
        if self._rates and not self._rates.allows(client):
            return refusal(429, "too many requests; wait a second", **{"Retry-After": "1"})
        body = b""
        try:
            async for chunk in request.stream():
                body += chunk
                if len(body) > MAX_FORM:
                    return refusal(413, "a form of that size isn't one")
        except ClientDisconnect:
            return refusal(400, "the body ended early")
        given = body.decode("utf-8", "replace").strip()
        if not hmac.compare_digest(given.encode(), (self._access.token or "").encode()):
            return refusal(401, "this is not the token")
        answer = Response(status_code=204)
        answer.set_cookie(COOKIE, given, YEAR, httponly=True, samesite="strict")
        return answer


def _cookie(headers: Headers) -> str:
    try:
        morsel = SimpleCookie(headers.get("cookie", "")).get(COOKIE)
    except CookieError:
        return ""
    return morsel.value if morsel else ""


def _host(text: str) -> str:
    try:
        return urlsplit(f"//{text}").hostname or ""
    except ValueError:
        return ""


def _is_foreign(headers: Headers) -> bool:
    """Return whether a browser says that another site's page sends this."""
    if headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
        return True
    origin = headers.get("origin")
    return origin is not None and origin.partition("://")[2] != headers.get("host")
