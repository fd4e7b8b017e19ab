"""The server of the A/B page: reachable from this machine only, for its own page and pictures of the directory only."""

import contextlib
import json
import logging
import math
import re
import secrets
import socket
import time
from collections.abc import Awaitable, Callable
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from custom_aesthetic.base.errors import UserError
from custom_aesthetic.base.local_server import HEADERS, AsciiJSON, OwnPageOnly, make_server, read_json
from custom_aesthetic.labelling.pictures import PictureCache
from custom_aesthetic.labelling.session import BadRequest, Session
from custom_aesthetic.pictures.images import BadImage

log = logging.getLogger(__name__)

PAGE = Path(__file__).parent / "assets"
MOST_BYTES = 65536
SLOWEST_SECONDS = 3600.0
FORGOTTEN_AFTER_SECONDS = 600.0
Answer = dict[str, Any]

MOST_LETTERS = 4096
"""Maximum length of a text in a request, such as a path."""

_TIME = re.compile(r"[0-9T:.+Z-]{1,40}")


class ABServer:
    """The page and its API, for one session."""

    def __init__(self, session: Session, directory: Path, *, token: str | None = None) -> None:
        self.session = session
        self.token = secrets.token_urlsafe(24) if token is None else token
        self.pictures = PictureCache(directory)
        self.on_last_finish: Callable[[], None] = lambda: None
        """Called when every window has finished."""
        self._windows: dict[str, float] = {}

    def app(self) -> Starlette:
        """Return the web application."""
        routes = [
            Route("/", self._page),
            Route("/style.css", _static("style.css", "text/css")),
            Route("/script.js", _static("script.js", "text/javascript")),
            Route("/favicon.ico", _nothing),
            Route("/picture", self._picture),
            *(
                Route(f"/api/{name}", self._answer(function), methods=["POST"])
                for name, function in {
                    "open": self._open,
                    "group": self._group,
                    "choice": self._choice,
                    "undo": self._undo,
                    "finish": self._finish,
                    "leave": self._leave,
                }.items()
            ),
        ]
        middleware = [Middleware(OwnPageOnly, token=self.token, token_below=("/api/",), advice="load the page again")]
        return Starlette(routes=routes, middleware=middleware)

    async def _page(self, request: Request) -> Response:
        text = (PAGE / "index.html").read_text(encoding="utf-8").replace("{{token}}", self.token)
        return HTMLResponse(text, headers=HEADERS)

    async def _picture(self, request: Request) -> Response:
        path = self._asked_path(request.query_params.get("path", ""))
        size = request.query_params.get("size", "1600")
        if not self.session.holds(path) or not size.isascii() or not size.isdigit():
            return Response("no such picture", status_code=404, headers=HEADERS)
        try:
            content, kind = await run_in_threadpool(self.pictures.get, path, int(size[:6]))
        except BadImage as error:
            self.session.leave_out(path, error.reason)
            return Response(error.reason, status_code=422, headers=HEADERS)
        return Response(content, media_type=kind, headers={**HEADERS, "Cache-Control": "private, max-age=3600"})

    def _asked_path(self, text: str) -> str:
        """Return the path that the page asks for, given as plain text or, if it is not UTF-8, as JSON."""
        if not self.session.holds(text) and text.startswith('"'):
            with contextlib.suppress(ValueError, RecursionError):
                return str(json.loads(text))
        return text

    def _answer(self, function: Callable[[Answer], Answer]) -> Callable[[Request], Awaitable[Response]]:
        """Return an endpoint that calls `function` in a thread with the JSON of the request."""

        async def endpoint(request: Request) -> Response:
            asked = await read_json(request, MOST_BYTES)
            try:
                return AsciiJSON(await run_in_threadpool(function, asked), headers=HEADERS)
            except BadRequest as error:
                return AsciiJSON({"error": str(error)}, status_code=400, headers=HEADERS)
            except UserError as error:
                return AsciiJSON({"error": str(error)}, status_code=503, headers=HEADERS)

        return endpoint

    def _open(self, asked: Answer) -> Answer:
        self._heard_from(asked)
        plan = self.session.plan
        return {"progress": self.session.progress(), "number": plan.number_to_compare, "strategy": plan.strategy}

    def _group(self, asked: Answer) -> Answer:
        self._heard_from(asked)
        return {"group": self.session.group(), "progress": self.session.progress()}

    def _choice(self, asked: Answer) -> Answer:
        pictures, drawn = asked.get("pictures"), asked.get("drawn")
        if not isinstance(pictures, list) or len(pictures) > 100 or not all(isinstance(path, str) for path in pictures):
            raise BadRequest("a choice must list its pictures")
        if drawn not in ("adaptive", "random"):
            raise BadRequest("a choice must say how its pictures were drawn")
        moment = self.session.choose(
            pictures, _text(asked, "winner"), seconds=_seconds(asked.get("seconds")), drawn=drawn, time=_time(asked)
        )
        return {"time": moment, "progress": self.session.progress()}

    def _undo(self, asked: Answer) -> Answer:
        return {"group": self.session.undo(_time(asked)), "progress": self.session.progress()}

    def _finish(self, asked: Answer) -> Answer:
        summary = self.session.summary()
        others = [window for window in self._open_windows() if window != asked.get("window")]
        return {"summary": summary, "others": len(others)}

    def _leave(self, asked: Answer) -> Answer:
        self._windows.pop(_text(asked, "window"), None)
        if not self._open_windows():
            self.on_last_finish()
        return {}

    def _heard_from(self, asked: Answer) -> None:
        self._windows[_text(asked, "window")] = time.monotonic()

    def _open_windows(self) -> list[str]:
        """Return the windows that sent a request in the last FORGOTTEN_AFTER_SECONDS and have not finished."""
        return [window for window, heard in self._windows.items() if time.monotonic() - heard < FORGOTTEN_AFTER_SECONDS]


def _text(asked: Answer, name: str) -> str:
    value = asked.get(name)
    if not isinstance(value, str) or not 0 < len(value) <= MOST_LETTERS:
        raise BadRequest(f"{name} is missing or too long")
    return value


def _seconds(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
        return 0.0
    return float(min(value, SLOWEST_SECONDS))


def _time(asked: Answer) -> str | None:
    """Return the time that identifies a choice; None if the page sent none. BadRequest if it is not ISO 8601."""
    value = asked.get("time")
    if value is None:
        return None
    try:
        if _TIME.fullmatch(value) is None:
            raise ValueError
        moment = datetime.fromisoformat(value)
        if moment.tzinfo is not None:
            moment.astimezone(timezone.utc)  # fails in the first and last year
    except (TypeError, ValueError, OverflowError):
        raise BadRequest("the time of a choice must be in ISO 8601 format") from None
    if moment.tzinfo is None:
        raise BadRequest("the time of a choice must have a time zone")
    return str(value)


def _static(name: str, kind: str) -> Callable[[Request], Awaitable[Response]]:
    async def endpoint(request: Request) -> Response:
        return Response((PAGE / name).read_bytes(), media_type=kind, headers=HEADERS)

    return endpoint


async def _nothing(request: Request) -> Response:
    return Response(status_code=204, headers=HEADERS)


def serve(server: ABServer, listener: socket.socket) -> None:
    """Serve until the last window finishes or Ctrl-C is pressed; then write the scores of the whole log."""
    running = make_server(server.app())

    def stop() -> None:
        running.should_exit = True

    server.on_last_finish = stop
    server.session.start()
    try:
        running.run(sockets=[listener])
    finally:
        server.session.stop()
        listener.close()
