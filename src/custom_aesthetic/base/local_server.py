"""What our web servers share: who is served, the headers of every answer, bounded bodies, the socket, and the end."""

import asyncio
import json
import os
import secrets
import socket
from collections.abc import AsyncIterator
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn import Config, Server

from custom_aesthetic.base.errors import UserError

THIS_MACHINE = "127.0.0.1"
HOSTS = (THIS_MACHINE, "localhost")
"""The names by which a browser on this machine asks for a page of this machine."""

HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
"""Headers of every answer."""

GRACE_SECONDS = 1
"""How long requests in progress may go on after Ctrl-C."""


class AsciiJSON(Response):
    """JSON in ASCII, so that file names that are not UTF-8 are preserved."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        return json.dumps(content, allow_nan=False).encode("ascii")


class OwnPageOnly:
    """Refuses requests from other pages, other host names than `hosts` (DNS rebinding), and a missing token.

    `hosts=()` serves any host name. `token_below` are the starts of the paths that need the token, which is sent as
    `X-Token: TOKEN` or `Authorization: Bearer TOKEN`; `advice` tells those who lack it what to do.
    """

    def __init__(
        self, app: ASGIApp, token: str, *, token_below: tuple[str, ...], hosts: tuple[str, ...] = HOSTS, advice: str
    ) -> None:
        self.app = app
        self.token = token
        self.token_below = token_below
        self.hosts = hosts
        self.advice = advice

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        reason = self._reason_to_refuse(Request(scope))
        if reason is not None:
            await AsciiJSON({"error": reason}, status_code=403, headers=HEADERS)(scope, receive, send)
            return
        await self.app(scope, receive, send)

    def _reason_to_refuse(self, request: Request) -> str | None:
        host = request.headers.get("host", "")
        if self.hosts and host.rpartition(":")[0] not in self.hosts and host not in self.hosts:
            return f"only {' and '.join(self.hosts)} are served"
        origin = request.headers.get("origin")
        if origin is not None and origin != f"http://{host}":
            return "another origin's page is not served"
        if request.headers.get("sec-fetch-site", "none") not in ("none", "same-origin"):
            return "another site's page is not served"
        if not self._has_token(request):
            return f"the token is missing or belongs to an earlier run; {self.advice}"
        return None

    def _has_token(self, request: Request) -> bool:
        if not request.url.path.startswith(self.token_below):
            return True
        bearer = request.headers.get("authorization", "").removeprefix("Bearer ")
        given = request.headers.get("x-token") or bearer
        return secrets.compare_digest(given.encode(), self.token.encode())


async def bounded(request: Request, most_bytes: int, most_seconds: float | None = None) -> AsyncIterator[bytes]:
    """Yield the body in parts; HTTPException 413 if it is too long, 408 if `most_seconds` pass without a part."""
    announced = request.headers.get("content-length", "0")
    if announced.isascii() and announced.isdigit() and int(announced[:20]) > most_bytes:
        raise HTTPException(413, too_long(most_bytes))
    parts = aiter(request.stream())
    n_bytes = 0
    while True:
        try:
            part = await asyncio.wait_for(anext(parts), most_seconds)
        except StopAsyncIteration:
            return
        except asyncio.TimeoutError:
            raise HTTPException(408, f"no data came for {most_seconds:g} seconds") from None
        n_bytes += len(part)
        if n_bytes > most_bytes:
            raise HTTPException(413, too_long(most_bytes))
        yield part


def too_long(most_bytes: int) -> str:
    """Return the reason why a body is refused."""
    return f"too long: a request has at most {most_bytes:,} bytes"


async def read_json(request: Request, most_bytes: int, most_seconds: float | None = None) -> dict[str, Any]:
    """Return the JSON object that is the body; HTTPException if the body is not one, or too long."""
    if not request.headers.get("content-type", "").startswith("application/json"):
        raise HTTPException(415, "JSON expected")
    content = b"".join([part async for part in bounded(request, most_bytes, most_seconds)])
    try:
        asked = json.loads(content)
    except (ValueError, RecursionError):
        raise HTTPException(400, "not JSON") from None
    if not isinstance(asked, dict):
        raise HTTPException(400, "JSON object expected")
    return asked


def open_socket(port: int, *, host: str = THIS_MACHINE, advice: str = ";") -> socket.socket:
    """Return a socket bound to the port; UserError if that is not possible. Port 0 means any free port.

    `advice` stands in the message about a port that is taken, between what is wrong and what to do.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except OSError as error:
        raise UserError(f"--host={host} is not known ({error.strerror}); give an address of this machine") from None
    listener = socket.socket(family, kind, protocol)
    if os.name == "posix":  # elsewhere it lets two programs share a port
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(address)
    except OSError as error:
        listener.close()
        where = f"port {port}" if host == THIS_MACHINE else f"port {port} of {host}"
        raise UserError(f"{where} is not available ({error.strerror}){advice} --port=0 uses a free port") from None
    return listener


def make_server(app: ASGIApp, *, most_connections: int | None = None, log_level: str = "warning") -> Server:
    """Return a server whose `run` serves the application until Ctrl-C, or until `should_exit` is set."""
    settings = Config(
        app,
        ws="none",  # else uvicorn imports a library for it, whose older versions warn
        log_level=log_level,
        access_log=False,
        timeout_graceful_shutdown=GRACE_SECONDS,
        limit_concurrency=most_connections,
    )
    return Server(settings)
