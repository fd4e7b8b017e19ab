"""What the gallery shows: all pictures in an order, and the answers that the model disagrees with."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np

from custom_aesthetic.base.files import is_file
from custom_aesthetic.gallery.learner import Learner
from custom_aesthetic.labelling.plan import BadRequest
from custom_aesthetic.labelling.session import Session
from custom_aesthetic.scores.choice_log import Comparison
from custom_aesthetic.scores.pairing import Standing

ORDERS = ("best", "worst", "unsure")
MARKS = ("keep", "reject")
MOST_ITEMS = 500
MOST_DISAGREEMENTS = 200


@dataclass(frozen=True)
class KnownScores:
    """Scores of the pictures on the disk, (n_here,) in the order of the session's paths, and where they come from."""

    scores: np.ndarray
    sigmas: np.ndarray | None
    source: str
    """`answers` (they know pictures with answers only), `model` (the quick one) or `trained`."""
    version: int


@dataclass(frozen=True)
class Disagreement:
    """An answer that the model would have given otherwise."""

    time: str
    chosen: str
    other: str
    lead: float
    """By how much the model prefers the other, logits; from a fit without answers about the two."""


class Gallery:
    """The pictures of a session in the order of what is known of them; methods may be called from any thread."""

    def __init__(self, session: Session, directory: Path, learner: Learner) -> None:
        self.session = session
        self.directory = directory
        self.learner = learner
        self.trained: np.ndarray | None = None
        """Scores of a trained model for the pictures on the disk, nan where it has none."""
        self._n_trained = 0
        self._settled: set[str] = set()
        self._away: set[str] = set()
        self._lock = Lock()
        self._answering = Lock()
        """Held where an answer is replaced by another, so that two windows do not both replace it."""
        self._ordered: tuple[tuple[str, str, int], np.ndarray] | None = None
        self._standing: Standing | None = None
        self._n_standings = 0

    def use_trained(self, scores: np.ndarray) -> None:
        """Show the scores of a trained model, (n_here,), from now on."""
        self._n_trained += 1
        self.trained = scores

    def here(self) -> np.ndarray | None:
        """Return whether each picture is still on the disk, (n_here,); None if none was moved away."""
        if not self._away:
            return None
        return np.array([path not in self._away for path in self.session.plan.paths[: self.session.plan.n_here]])

    def look_again(self, paths: Iterable[str]) -> None:
        """Show these pictures, in the gallery and for scoring, if they are on the disk now, and only then."""
        gone = {path for path in paths if not is_file(self.directory / path)}
        back = set(paths) - gone
        self._away = (self._away | gone) - back
        self.session.withdraw(gone)
        self.session.restore(back)

    def scores(self, source: str | None = None) -> KnownScores:
        """Return the scores of the named source, by default of the best that there is."""
        n_here = self.session.plan.n_here
        learnt = self.learner.learnt
        if self.trained is not None and source in (None, "trained"):
            return KnownScores(self.trained, None, "trained", self._n_trained)
        if learnt is not None and source in (None, "model", "trained"):
            return KnownScores(learnt.scores[:n_here], learnt.sigmas[:n_here], "model", self.learner.version)
        standing = self.session.scores.standing
        return KnownScores(standing.scores[:n_here], standing.sigmas[:n_here], "answers", self._version_of(standing))

    def _version_of(self, standing: Standing) -> int:
        """Return a number that grows whenever the scores of the answers change."""
        with self._lock:
            if standing is not self._standing:
                self._standing = standing
                self._n_standings += 1
            return self._n_standings

    def sources(self) -> list[str]:
        """Return the names of the sources of scores that there are."""
        known = {"model": self.learner.learnt is not None, "trained": self.trained is not None}
        return [name for name, there in known.items() if there]

    def page(self, order: str, start: int, count: int, source: str | None = None) -> dict[str, Any]:
        """Return `count` pictures of an order from place `start` on: path, score, sigma and mark each, and the total.

        Pictures that were moved away are left out.
        """
        if order not in ORDERS:
            raise BadRequest(f"order must be one of {', '.join(ORDERS)}")
        found = self.scores(source)
        if order == "unsure" and found.sigmas is None:
            found = self.scores("model" if self.learner.learnt is not None else "answers")
        rows = self._rows(order, found)
        shown = rows[start : start + min(count, MOST_ITEMS)]
        marks = self.marks()
        paths = self.session.plan.paths
        items = [
            {
                "path": paths[row],
                "score": _number(found.scores[row]),
                "sigma": None if found.sigmas is None else _number(found.sigmas[row]),
                "mark": marks.get(paths[row]),
            }
            for row in shown.tolist()
        ]
        return {
            "version": f"{found.source}-{found.version}",
            "source": found.source,
            "sources": self.sources(),
            "total": len(rows),
            "start": start,
            "items": items,
        }

    def _rows(self, order: str, found: KnownScores) -> np.ndarray:
        key = (order, found.source, found.version)
        with self._lock:
            if self._ordered is None or self._ordered[0] != key:
                self._ordered = (key, ordered_rows(order, found))
            rows = self._ordered[1]
        here = self.here()
        return rows if here is None else rows[here[rows]]

    def marks(self) -> dict[str, str]:
        """Return path -> `keep` or `reject`, by the latest mark of each picture that was not undone."""
        return {row.winner: row.kind for row in self.session.answers() if row.kind in MARKS}

    def mark(self, path: str, mark: str | None, time: str | None) -> None:
        """Log a mark, in place of an earlier one of the picture; None takes it back."""
        if mark is not None and mark not in MARKS:
            raise BadRequest(f"a mark must be one of {', '.join(MARKS)}")
        with self._answering:
            for row in self.session.answers():
                if row.kind in MARKS and row.winner == path:
                    self.session.undo(row.time)
            if mark is not None:
                self.session.mark(path, keep=mark == "keep", time=time)
        self.learner.notice()

    def disagreements(self) -> list[Disagreement]:
        """Return the answers that the model would have given otherwise, the clearest first."""
        learnt = self.learner.learnt
        if learnt is None:
            return []
        row_of, here = self.session.scores.row_of, self.session.holds
        rows = [row for row in pairs_only(self.session.answers()) if row.time not in self._settled and here(row.winner)]
        found = [
            Disagreement(row.time, row.winner, row.loser, float(lead))
            for row in rows
            if here(row.loser)
            and (lead := learnt.left_out[row_of[row.loser]] - learnt.left_out[row_of[row.winner]]) > 0
        ]
        return sorted(found, key=lambda one: -one.lead)[:MOST_DISAGREEMENTS]

    def settle(self, time: str, change: bool) -> str:
        """Keep an answer that the model disagrees with, or change it to the other picture; return its time then."""
        with self._answering:
            answer = [row for row in pairs_only(self.session.answers()) if row.time == time]
            if not answer:
                raise BadRequest("there is no such answer any more")
            self._settled.add(time)
            if change:
                (row,) = answer
                self.session.undo(time)
                pictures = [row.winner, row.loser]
                time = self.session.choose(pictures, row.loser, seconds=0.0, drawn="gallery", time=None)
                self._settled.add(time)
        self.learner.notice()
        return time


def pairs_only(rows: Sequence[Comparison]) -> list[Comparison]:
    """Return the choices between two pictures."""
    counts: dict[str, int] = {}
    for row in rows:
        counts[row.time] = counts.get(row.time, 0) + 1
    return [row for row in rows if row.kind == "choice" and counts[row.time] == 1]


def ordered_rows(order: str, found: KnownScores) -> np.ndarray:
    """Return the rows of all pictures in an order; equal ones keep their order, and unknown ones come last."""
    known = np.nan_to_num(found.scores, nan=-np.inf)
    if order == "worst":
        return np.argsort(np.nan_to_num(found.scores, nan=np.inf), kind="stable")
    if order == "unsure" and found.sigmas is not None:
        return np.argsort(-found.sigmas, kind="stable")
    return np.argsort(-known, kind="stable")


def _number(value: float) -> float | None:
    return round(float(value), 4) if np.isfinite(value) else None
