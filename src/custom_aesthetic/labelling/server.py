"""The server of the page: reachable from this machine only, for its own page and pictures of the directory only.

The page is plain files in `assets/`, which are served as they are: no build step, no other server. Each module of
the browser is one concern; `assets/main.js` explains how a view is added. On this side a part of the page is a module
with a function `routes` (see `web`), called in `ABServer.app`.
"""

import contextlib
import json
import logging
import secrets
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from custom_aesthetic.base.local_server import HEADERS, HOSTS, THIS_MACHINE, OwnPageOnly, make_server, read_json
from custom_aesthetic.labelling import scoring_routes
from custom_aesthetic.labelling.phone import KeyNeeded, addresses
from custom_aesthetic.labelling.pictures import PictureCache
from custom_aesthetic.labelling.plan import BadRequest
from custom_aesthetic.labelling.session import Session
from custom_aesthetic.labelling.web import MOST_BYTES, Windows, file_route, picture_response, refusal
from custom_aesthetic.pictures.images import BadImage

log = logging.getLogger(__name__)

PAGE = Path(__file__).parent / "assets"
KINDS = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
"""Ending of a file of the page -> its media type."""

SECONDS_BETWEEN_LOOKS = 0.25
"""Time between two checks whether all windows have closed."""


PAGE_HEADERS = {
    **HEADERS,
    "Content-Security-Policy": f"{HEADERS['Content-Security-Policy']}; frame-src 'self'",  # the report of a training
}


@dataclass(frozen=True)
class MoreOfThePage:
    """A part of the page from another package: routes, and the scripts and styles among them that the page loads."""

    routes: tuple[Route, ...] = ()
    scripts: tuple[str, ...] = ()
    styles: tuple[str, ...] = ()
    waited_for: Callable[[], str | None] = lambda: None
    """Returns, in words, the work that the script waits for when the last window has closed; None if there is none."""

    def tags(self) -> str:
        """Return the HTML that loads scripts and styles."""
        styles = [f'<link rel="stylesheet" href="{name}">' for name in self.styles]
        scripts = [f'<script type="module" src="{name}"></script>' for name in self.scripts]
        return "\n".join([*styles, *scripts])


NOTHING_MORE = MoreOfThePage()


class ABServer:
    """The page and its API, for one session."""

    def __init__(
        self,
        session: Session,
        directory: Path,
        *,
        token: str | None = None,
        more: MoreOfThePage = NOTHING_MORE,
        host: str = THIS_MACHINE,
    ) -> None:
        """`host` is the address to listen at; at another than this machine's, a key is needed (`phone`)."""
        self.session = session
        self.more = more
        self.token = secrets.token_urlsafe(24) if token is None else token
        self.pictures = PictureCache(directory)
        self.windows = Windows()
        self.hosts = addresses(host)
        self.key = None if host in HOSTS else secrets.token_urlsafe(16)
        self._directory = directory

    def app(self) -> Starlette:
        """Return the web application."""
        routes = [
            Route("/", self._page),
            Route("/favicon.ico", _nothing),
            Route("/picture", self._picture),
            Route("/closed", self._closed, methods=["POST"]),
            *(
                file_route(f"/{file.name}", partial(file.read_bytes), KINDS[file.suffix])
                for file in sorted(PAGE.iterdir())
                if file.suffix in KINDS
            ),
            *scoring_routes.routes(self.session, self._directory, self.windows),
            *self.more.routes,
        ]
        middleware = [
            *([] if self.key is None else [Middleware(KeyNeeded, key=self.key)]),
            Middleware(
                OwnPageOnly,
                token=self.token,
                token_below=("/api/",),
                hosts=tuple(self.hosts),
                advice="load the page again",
            ),
        ]
        return Starlette(routes=routes, middleware=middleware)

    def address(self, port: int, name: str = THIS_MACHINE) -> str:
        """Return the address of the page by one of `hosts`, with the key if one is needed."""
        return f"http://{name}:{port}/" + ("" if self.key is None else f"?key={self.key}")

    async def _page(self, request: Request) -> Response:
        self.windows.expected()
        text = (PAGE / "index.html").read_text(encoding="utf-8")
        text = text.replace("{{token}}", self.token).replace("{{more}}", self.more.tags())
        return HTMLResponse(text, headers=PAGE_HEADERS)

    async def _closed(self, request: Request) -> Response:
        """Answer a window's last message, a beacon: it cannot send headers, so the token stands in its body."""
        asked = await read_json(request, MOST_BYTES)
        token = str(asked.get("token")).encode("utf-8", "replace")
        if not secrets.compare_digest(token, self.token.encode()):
            return refusal("the token is missing", 403)
        with contextlib.suppress(BadRequest):
            self.windows.left(asked, finished=False)
        return await _nothing(request)

    async def _picture(self, request: Request) -> Response:
        path = self._asked_path(request.query_params.get("path", ""))
        size = request.query_params.get("size", "1600")
        if not self.session.holds(path) or not size.isascii() or not size.isdigit():
            return refusal("no such picture", 404)
        try:
            content, kind = await run_in_threadpool(self.pictures.get, path, int(size[:6]))
        except BadImage as error:
            self.session.leave_out(path, error.reason)
            return refusal(error.reason, 422)
        return picture_response(content, kind)

    def _asked_path(self, text: str) -> str:
        """Return the path that the page asks for, given as plain text or, if it is not UTF-8, as JSON."""
        if not self.session.holds(text) and text.startswith('"'):
            with contextlib.suppress(ValueError, RecursionError):
                return str(json.loads(text))
        return text


async def _nothing(request: Request) -> Response:
    return Response(status_code=204, headers=HEADERS)


def serve(server: ABServer, listener: socket.socket) -> None:
    """Serve until the last window has gone, and the work it has left has ended, or Ctrl-C is pressed.

    Then write the scores of the whole log. As long as there is work, a new window may open.
    """
    running = make_server(server.app())
    ended = threading.Event()

    def watch() -> None:
        waits = False
        while not ended.wait(SECONDS_BETWEEN_LOOKS):
            work = server.more.waited_for()
            if not server.windows.all_gone():
                waits = False
            elif work is None:
                running.should_exit = True
                return
            elif not waits:
                waits = True
                log.info("the page is closed; %s goes on, and then this script ends (Ctrl-C ends it now)", work)

    server.session.scores.start()
    threading.Thread(target=watch, name="windows", daemon=True).start()
    try:
        running.run(sockets=[listener])
    finally:
        ended.set()
        server.session.scores.stop()
        listener.close()
