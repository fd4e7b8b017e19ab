"""The page on a phone: the addresses at which other machines reach it, the key that lets them in, and its QR code."""

import contextlib
import io
import secrets
import socket
import sys

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from custom_aesthetic.base.local_server import HEADERS, HOSTS, THIS_MACHINE, AsciiJSON

ANY_ADDRESS = ("0.0.0.0", "::")
COOKIE = "page_key"

WARNING = (
    "anyone who has this address or code can see the pictures of this folder, and answer, train and move pictures as "
    "you can; on the way they are not encrypted, so use it in a network that you trust"
)


def addresses(host: str) -> list[str]:
    """Return the names at which a browser may ask for the page when it is served at `host`, the outer ones first.

    They are written as browsers do: names in lower case, IPv6 addresses in brackets.
    """
    if host in HOSTS:
        return list(HOSTS)
    named = f"[{host}]" if ":" in host else host
    outer = [named.lower()] if host not in ANY_ADDRESS else _own_addresses()
    return [*outer, *HOSTS]


def _own_addresses() -> list[str]:
    """Return this machine's IPv4 addresses, the one by which it reaches others first; empty without a network."""
    found: list[str] = []
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("192.0.2.1", 9))  # sends nothing; it only chooses the address to send from
        found.append(probe.getsockname()[0])
    with contextlib.suppress(OSError):
        found += [str(one[4][0]) for one in socket.getaddrinfo(socket.gethostname(), None, socket.AF_INET)]
    return [address for address in dict.fromkeys(found) if address != THIS_MACHINE]


def qr_code(address: str) -> str:
    """Return the QR code of an address for the terminal, in half blocks; empty where it cannot show them."""
    import segno

    stream = io.StringIO()
    segno.make(address, error="l").terminal(out=stream, compact=True)
    code = stream.getvalue()
    try:
        code.encode(getattr(sys.stderr, "encoding", None) or "ascii")
    except UnicodeEncodeError:
        return ""
    return code


class KeyNeeded:
    """Lets in only those who have the key: in the address at first (`/?key=...`), which is exchanged for a cookie."""

    def __init__(self, app: ASGIApp, key: str) -> None:
        self.app = app
        self.key = key

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request = Request(scope)
        cookie = f"{COOKIE}_{request.url.port}"  # browsers send the cookies of a machine to all of its ports
        if request.url.path == "/" and self._is_key(request.query_params.get("key")):
            headers = {**HEADERS, "Location": "/", "Set-Cookie": f"{cookie}={self.key}; HttpOnly; SameSite=Lax; Path=/"}
            await Response(status_code=303, headers=headers)(scope, receive, send)
        elif self._is_key(request.cookies.get(cookie)):
            await self.app(scope, receive, send)
        else:
            await _refusal(request.url.path)(scope, receive, send)

    def _is_key(self, given: str | None) -> bool:
        return given is not None and secrets.compare_digest(given.encode("utf-8", "replace"), self.key.encode())


def _refusal(path: str) -> Response:
    """Return the answer to a request without the key; an open page gets JSON that says what it needs."""
    reason = "open the address that the script printed, or its QR code: it contains the key to this page"
    if path.startswith("/api/"):
        return AsciiJSON({"error": reason, "needs": "key"}, status_code=403, headers=HEADERS)
    return Response(reason, status_code=403, headers=HEADERS)
