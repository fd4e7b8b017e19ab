"""The routes of scoring: what to show, answers of every kind, undo, and the end."""

from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

from starlette.routing import Route

from custom_aesthetic.labelling.pictures import details
from custom_aesthetic.labelling.plan import BadRequest
from custom_aesthetic.labelling.session import Session
from custom_aesthetic.labelling.web import Answer, Asked, Windows, api, moment, seconds, text, texts
from custom_aesthetic.pictures.images import BadImage
from custom_aesthetic.scores.choice_log import DRAWN


def routes(session: Session, directory: Path, windows: Windows) -> list[Route]:
    """Return the routes of scoring; `directory` contains the pictures."""
    scoring = _Scoring(session, directory, windows)
    functions = {
        "open": scoring.open,
        "group": scoring.group,
        "choice": scoring.choice,
        "tie": scoring.tie,
        "stars": scoring.stars,
        "pick": scoring.pick,
        "skip": scoring.skip,
        "undo": scoring.undo,
        "finish": scoring.finish,
        "leave": scoring.leave,
        "alive": scoring.alive,
        "details": scoring.details,
    }
    return [api(name, function) for name, function in functions.items()]


@dataclass
class _Scoring:
    session: Session
    directory: Path
    windows: Windows

    def open(self, asked: Asked) -> Answer:
        self.windows.opened(asked)
        plan = self.session.plan
        return {
            "progress": self.session.progress(),
            "number": plan.number_to_compare,
            "strategy": plan.strategy,
            "mode": plan.mode,
            "question": plan.question,
        }

    def group(self, asked: Asked) -> Answer:
        self.windows.heard_from(asked)
        return {"group": self.session.group(), "progress": self.session.progress()}

    def choice(self, asked: Asked) -> Answer:
        pictures, winner = texts(asked, "pictures"), text(asked, "winner")
        return self._logged(self.session.choose(pictures, winner, **_how(asked)))

    def tie(self, asked: Asked) -> Answer:
        return self._logged(self.session.tie(texts(asked, "pictures"), **_how(asked)))

    def stars(self, asked: Asked) -> Answer:
        stars = asked.get("stars")
        if not isinstance(stars, int):
            raise BadRequest("stars are 1 to 5")
        return self._logged(self.session.rate(text(asked, "picture"), stars, **_how(asked)))

    def pick(self, asked: Asked) -> Answer:
        return self._logged(self.session.pick(texts(asked, "pictures"), texts(asked, "picked"), **_how(asked)))

    def skip(self, asked: Asked) -> Answer:
        self.session.skip(texts(asked, "pictures"))
        return {"progress": self.session.progress()}

    def undo(self, asked: Asked) -> Answer:
        return {"group": self.session.undo(moment(asked)), "progress": self.session.progress()}

    def finish(self, asked: Asked) -> Answer:
        return {"summary": self.session.summary(), "others": self.windows.others(asked)}

    def leave(self, asked: Asked) -> Answer:
        self.windows.left(asked, finished=True)
        return {}

    def alive(self, asked: Asked) -> Answer:
        self.windows.heard_from(asked)
        return {"progress": self.session.progress()}

    def details(self, asked: Asked) -> Answer:
        picture = text(asked, "picture")
        if not self.session.holds(picture):
            raise BadRequest("no such picture")
        try:
            return {"details": details(self.directory / picture)}
        except BadImage as error:
            raise BadRequest(error.reason) from None

    def _logged(self, time: str) -> Answer:
        return {"time": time, "progress": self.session.progress()}


class _How(TypedDict):
    drawn: str
    seconds: float
    time: str | None


def _how(asked: Asked) -> _How:
    """Return what every answer says beside its pictures: how they were drawn, the seconds it took, and its time."""
    drawn = asked.get("drawn")
    if drawn not in DRAWN:
        raise BadRequest("an answer must say how its pictures were drawn")
    return {"drawn": drawn, "seconds": seconds(asked), "time": moment(asked)}
