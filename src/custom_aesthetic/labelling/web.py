"""What the parts of the page's server share: JSON in and out, checks of what the page sends, and the open windows.

A part is a module with a function that returns its routes:

    def routes(session: Session, ...) -> list[Route]:
        def answer(asked: Asked) -> Answer:            # called in a thread, with the JSON object of the request
            return {"marked": session.mark(text(asked, "picture"), keep=True)}
        return [api("mark", answer)]                   # POST /api/mark

`server.ABServer` mounts the routes of all parts behind one check of host, origin and token; paths below /api/ need the
token. `BadRequest` becomes status 400 (the page drops the request), any other `UserError` 503 (the page tries again).
"""

import math
import re
import threading
import time
from collections.abc import Callable
from datetime import datetime, timezone
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from custom_aesthetic.base.errors import UserError
from custom_aesthetic.base.local_server import HEADERS, AsciiJSON, read_json
from custom_aesthetic.labelling.plan import BadRequest

MOST_BYTES = 65536
SLOWEST_SECONDS = 3600.0

MOST_LETTERS = 4096
"""Maximum length of a text in a request, such as a path."""

FORGOTTEN_AFTER_SECONDS = 180.0
"""A window that has sent nothing for so long counts as closed. A visible window sends something three times a minute, a
window in the background at least once a minute."""

HIDDEN_FORGOTTEN_AFTER_SECONDS = 3600.0
"""The same for a window that is hidden, as on a phone that is locked, where nothing runs."""

GRACE_SECONDS = 5.0
"""The script ends so long after the last window has closed, unless that was a reload."""

Asked = dict[str, Any]
"""The JSON object that the page sent; nothing in it has been checked."""
Answer = dict[str, Any]

_TIME = re.compile(r"[0-9T:.+Z-]{1,40}")


def api(name: str, function: Callable[[Asked], Answer]) -> Route:
    """Return the route POST /api/NAME, which calls `function` in a thread with the JSON object of the request."""

    async def endpoint(request: Request) -> Response:
        asked = await read_json(request, MOST_BYTES)
        try:
            return AsciiJSON(await run_in_threadpool(function, asked), headers=HEADERS)
        except BadRequest as error:
            return AsciiJSON({"error": str(error)}, status_code=400, headers=HEADERS)
        except UserError as error:
            return AsciiJSON({"error": str(error)}, status_code=503, headers=HEADERS)

    return Route(f"/api/{name}", endpoint, methods=["POST"])


def file_route(address: str, content: Callable[[], bytes], kind: str) -> Route:
    """Return the route of a file that is part of the page."""

    async def endpoint(request: Request) -> Response:
        return Response(content(), media_type=kind, headers=HEADERS)

    return Route(address, endpoint)


def picture_response(content: bytes, kind: str) -> Response:
    """Return an answer with a picture, which the browser may keep for an hour."""
    return Response(content, media_type=kind, headers={**HEADERS, "Cache-Control": "private, max-age=3600"})


def refusal(reason: str, status: int) -> Response:
    return Response(reason, status_code=status, headers=HEADERS)


class Windows:
    """The windows of the page that are open, by the names that they give themselves; for any thread."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._forgotten_at: dict[str, float] = {}
        self._ends_at = math.inf

    def opened(self, asked: Asked) -> None:
        """Note that the window that sent this request is open."""
        with self._lock:
            self._forgotten_at[text(asked, "window")] = self._clock() + FORGOTTEN_AFTER_SECONDS
            self._ends_at = math.inf

    def heard_from(self, asked: Asked) -> None:
        """Note that the window that sent this request is still open; nothing if it has ended since it sent it."""
        patience = HIDDEN_FORGOTTEN_AFTER_SECONDS if asked.get("hidden") is True else FORGOTTEN_AFTER_SECONDS
        window = text(asked, "window")
        with self._lock:
            if window in self._forgotten_at:
                self._forgotten_at[window] = self._clock() + patience

    def left(self, asked: Asked, *, finished: bool) -> None:
        """Note that the window that sent this request has ended: the user has finished there, or it was closed."""
        with self._lock:
            if self._forgotten_at.pop(text(asked, "window"), None) is not None and not self._forgotten_at:
                self._ends_at = self._clock() + (0.0 if finished else GRACE_SECONDS)

    def expected(self) -> None:
        """Note that a window is being opened, so the script does not end now."""
        with self._lock:
            if self._ends_at < math.inf:
                self._ends_at = self._clock() + GRACE_SECONDS

    def others(self, asked: Asked) -> int:
        """Return the number of open windows besides the window that sent this request."""
        return len([window for window in self.open() if window != asked.get("window")])

    def open(self) -> list[str]:
        """Return the windows that were heard from lately and have not ended."""
        with self._lock:
            return [window for window, end in self._forgotten_at.items() if self._clock() < end]

    def all_gone(self) -> bool:
        """Return whether there were windows and the last one has ended, a while ago if it was only closed."""
        with self._lock:
            now = self._clock()
            last = max(self._forgotten_at.values(), default=math.inf)
            return now >= self._ends_at or (bool(self._forgotten_at) and now >= last)


def text(asked: Asked, name: str) -> str:
    """Return a text of the request; BadRequest if it is missing, empty or too long."""
    value = asked.get(name)
    if not isinstance(value, str) or not 0 < len(value) <= MOST_LETTERS:
        raise BadRequest(f"{name} is missing or too long")
    return value


def texts(asked: Asked, name: str, most: int = 100) -> list[str]:
    """Return a list of texts of the request; BadRequest if it is not a list of texts, or has more than `most`."""
    values = asked.get(name)
    if not isinstance(values, list) or len(values) > most or not all(isinstance(value, str) for value in values):
        raise BadRequest(f"{name} must be a list of at most {most} texts")
    return values


def seconds(asked: Asked) -> float:
    """Return the seconds that an answer took, 0 if they are missing or not valid."""
    value = asked.get("seconds")
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
        return 0.0
    return float(min(value, SLOWEST_SECONDS))


def moment(asked: Asked) -> str | None:
    """Return the time that identifies an answer; None if the page sent none. BadRequest if it is not ISO 8601."""
    value = asked.get("time")
    if value is None:
        return None
    try:
        if _TIME.fullmatch(value) is None:
            raise ValueError
        found = datetime.fromisoformat(value)
        if found.tzinfo is not None:
            found.astimezone(timezone.utc)  # fails in the first and last year
    except (TypeError, ValueError, OverflowError):
        raise BadRequest("the time of an answer must be in ISO 8601 format") from None
    if found.tzinfo is None:
        raise BadRequest("the time of an answer must have a time zone")
    return str(value)
