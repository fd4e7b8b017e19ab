"""The routes of the gallery: the quick model, the pictures in order, marks, disagreements, choosing and training."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from custom_aesthetic.base.local_server import HEADERS
from custom_aesthetic.gallery.choosing import Choosing
from custom_aesthetic.gallery.learner import Learner
from custom_aesthetic.gallery.training import RUNNING, Training
from custom_aesthetic.gallery.views import Gallery
from custom_aesthetic.labelling.plan import BadRequest
from custom_aesthetic.labelling.server import MoreOfThePage
from custom_aesthetic.labelling.web import Answer, Asked, api, file_route, moment, refusal, text

ASSETS = Path(__file__).parent / "assets"
KINDS = {".css": "text/css", ".js": "text/javascript"}

REPORT_HEADERS = {
    **HEADERS,
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'self'; sandbox",
}
"""The report is one file with its styles and pictures inside; it may do nothing but be looked at."""


@dataclass(frozen=True)
class Parts:
    """The parts of the gallery of one session."""

    gallery: Gallery
    learner: Learner
    choosing: Choosing
    training: Training
    commands: tuple[str, ...]
    """Commands for a terminal that do what the page can do, ready to be copied."""

    def begin(self) -> None:
        """Begin to learn."""
        session = self.gallery.session
        session.learned = self._learned
        session.model_standing = self.learner.standing
        self.learner.begin()

    def stop(self) -> None:
        """End all background work at once."""
        self.training.stop()
        self.learner.stop()

    def _learned(self) -> str | None:
        self.learner.notice()  # it is asked with every answer
        return self.learner.sentence()

    def page(self) -> MoreOfThePage:
        """Return what the server of the page mounts."""
        return MoreOfThePage(tuple(self.routes()), ("gallery.js",), ("gallery.css",), self._waited_for)

    def _waited_for(self) -> str | None:
        return "the training" if self.training.state == RUNNING else None

    def routes(self) -> list[Route]:
        """Return the routes of the gallery."""
        functions = {
            "learner": lambda asked: self.learner.status(),
            "learner/extract": self._then_status(self.learner.extract),
            "learner/cancel": self._then_status(self.learner.cancel),
            "learner/decline": self._then_status(self.learner.decline),
            "gallery": self._page,
            "mark": self._mark,
            "disagreements": lambda asked: {"answers": [asdict(one) for one in self.gallery.disagreements()]},
            "settle": self._settle,
            "choose/count": self.choosing.count,
            "choose/plan": self.choosing.plan,
            "choose/do": lambda asked: self.choosing.carry_out(text(asked, "name")),
            "choose/undo": lambda asked: self.choosing.undo(),
            "training": lambda asked: self._training(),
            "training/start": self._start_training,
            "training/cancel": self._cancel_training,
        }
        return [
            *(api(name, function) for name, function in functions.items()),
            *(
                file_route(f"/{file.name}", partial(file.read_bytes), KINDS[file.suffix])
                for file in sorted(ASSETS.iterdir())
                if file.suffix in KINDS
            ),
            Route("/report", self._report),
        ]

    def _then_status(self, act: Any) -> Any:
        def answer(asked: Asked) -> Answer:
            act()
            return self.learner.status()

        return answer

    def _page(self, asked: Asked) -> Answer:
        source = asked.get("source")
        if source is not None and source not in ("model", "trained", "answers"):
            raise BadRequest("source must be model, trained or answers")
        return self.gallery.page(text(asked, "order"), _count(asked, "start"), _count(asked, "count"), source)

    def _mark(self, asked: Asked) -> Answer:
        path, mark = text(asked, "picture"), asked.get("mark")
        if not self.gallery.session.holds(path):
            raise BadRequest("no such picture")
        self.gallery.mark(path, mark, moment(asked))
        return {"progress": self.gallery.session.progress()}

    def _settle(self, asked: Asked) -> Answer:
        time = self.gallery.settle(text(asked, "answer"), asked.get("change") is True)
        return {"time": time, "progress": self.gallery.session.progress()}

    def _training(self) -> Answer:
        return {**self.training.status(), "commands": list(self.commands)}

    def _start_training(self, asked: Asked) -> Answer:
        self.training.start()
        return self._training()

    def _cancel_training(self, asked: Asked) -> Answer:
        self.training.cancel()
        return self._training()

    async def _report(self, request: Request) -> Response:
        try:
            content = self.training.report.read_text(encoding="utf-8")
        except OSError:
            return refusal("there is no report yet", 404)
        return HTMLResponse(content, headers=REPORT_HEADERS)


def _count(asked: Mapping[str, Any], name: str) -> int:
    value = asked.get(name)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**53:
        raise BadRequest(f"{name} must be a whole number from 0")
    return value
