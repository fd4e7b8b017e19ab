"""Choosing pictures in the gallery: by number or score, one per group, then what to do with them, after a dry run."""

import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np

from custom_aesthetic.base.errors import UserError
from custom_aesthetic.gallery.views import Gallery
from custom_aesthetic.labelling.plan import BadRequest
from custom_aesthetic.scores.selection import select

KINDS = ("copy", "link", "move", "stars", "captions", "list")
WITH_TARGET = ("copy", "link", "move", "list")
MOST_LINES = 300
"""Lines of a dry run that are sent to the page; the rest is counted."""


@dataclass(frozen=True)
class PictureOrder:
    """What to do with which pictures; rows are those of `paths`."""

    kind: str
    """One of KINDS."""
    target: Path | None
    """Directory, or for a list its file."""
    paths: tuple[str, ...]
    scores: np.ndarray
    rows: np.ndarray
    """The chosen ones, best first."""


@dataclass(frozen=True)
class Deed:
    """What an action did, or would do."""

    lines: Sequence[str]
    undo_file: Path | None = None
    """By which it can be taken back."""


class HalfDone(UserError):
    """An action ended before its end; the undo file takes back what was done."""

    def __init__(self, message: str, undo_file: Path) -> None:
        super().__init__(message)
        self.undo_file = undo_file


Act = Callable[[PictureOrder, bool], Deed]
"""Does an order, or with True only says what it would do; UserError if it cannot be done."""

TakeBack = Callable[[Path], Deed]


class Choosing:
    """The choice of pictures of a gallery; an order is shown as a dry run before it can be carried out."""

    def __init__(self, gallery: Gallery, act: Act, take_back: TakeBack) -> None:
        self._gallery = gallery
        self._act = act
        self._take_back = take_back
        self._planned: tuple[str, PictureOrder] | None = None
        self._undo: list[tuple[Path, tuple[str, ...]]] = []
        self._lock = Lock()

    def chosen(self, asked: Mapping[str, Any]) -> tuple[tuple[str, ...], np.ndarray, np.ndarray]:
        """Return paths and scores of the pictures that are there, and the rows that the request chooses, best first.

        `top` or `above`, and `per_group`. What is marked `keep` is always chosen, what is marked `reject` never.
        """
        top, above = _integer(asked, "top"), _real(asked, "above")
        found = self._gallery.scores(asked.get("source"))
        session = self._gallery.session
        here = self._gallery.here()
        there = np.isfinite(found.scores) if here is None else np.isfinite(found.scores) & here
        known = np.flatnonzero(there)
        paths = tuple(session.plan.paths[row] for row in known.tolist())
        scores = found.scores[known]
        marks = self._gallery.marks()
        keeps = np.array([marks.get(path) == "keep" for path in paths], dtype=bool)
        rejects = np.array([marks.get(path) == "reject" for path in paths], dtype=bool)
        ranked = np.where(rejects, -np.inf, scores)
        groups = self._gallery.learner.groups if asked.get("per_group") else None
        named = () if groups is None else [groups.get(path, path) for path in paths]
        rows = select(ranked, top=None, above=above, per_group=None if groups is None else 1, groups=named)
        rows = rows[~rejects[rows]][:top]
        more = np.flatnonzero(keeps & ~np.isin(np.arange(len(paths)), rows))
        rows = np.concatenate([rows, more])
        return paths, scores, rows[np.argsort(-scores[rows], kind="stable")]

    def count(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        """Return how many pictures are chosen, the ends of all scores, a place for them, and what can be taken back."""
        _, scores, rows = self.chosen(asked)
        ends = (float(scores.min()), float(scores.max())) if len(scores) else (0.0, 0.0)
        return {
            "chosen": len(rows),
            "of": len(scores),
            "low": ends[0],
            "high": ends[1],
            "suggested": str(self._place(f"{self._gallery.directory.resolve().name}-best")),
            "undo": self.can_undo(),
        }

    def _place(self, text: str) -> Path:
        """Return the place that the user typed; a relative one is beside the folder of pictures."""
        try:
            place = self._gallery.directory.resolve().parent / Path(text.strip()).expanduser()
            place.lstat()
        except FileNotFoundError:
            return place
        except (RuntimeError, ValueError, OSError) as error:  # ~nobody, half a character, a name that is too long
            reason = error.strerror if isinstance(error, OSError) else str(error)
            raise BadRequest(f"{text.strip()[:80]!a} cannot be a place ({reason}); type another path") from None
        return place

    def plan(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        """Return what the order would do, line by line, and the name by which `carry_out` does exactly that."""
        kind, target = asked.get("kind"), asked.get("target")
        if kind not in KINDS:
            raise BadRequest(f"kind must be one of {', '.join(KINDS)}")
        if kind in WITH_TARGET and (not isinstance(target, str) or not target.strip()):
            raise BadRequest(
                "say where to: the path of a folder outside this one" if kind != "list" else "name the file"
            )
        paths, scores, rows = self.chosen(asked)
        if not len(rows):
            raise BadRequest("no picture is chosen; move the slider")
        place = self._place(str(target)) if kind in WITH_TARGET else None
        order = PictureOrder(kind, place, paths, scores, rows)
        outcome = self._done(order, dry_run=True)
        name = secrets.token_urlsafe(12)
        with self._lock:
            self._planned = (name, order)
        return {"name": name, "chosen": len(rows), **_shown(outcome)}

    def carry_out(self, name: str) -> dict[str, Any]:
        """Do what was planned under this name, once; BadRequest if another order was planned since."""
        with self._lock:
            if self._planned is None or self._planned[0] != name:
                raise BadRequest("look at the dry run again: another one has replaced it")
            order, self._planned = self._planned[1], None
        moved = tuple(order.paths[row] for row in order.rows) if order.kind == "move" else ()
        try:
            outcome = self._done(order, dry_run=False)
        except HalfDone as error:
            self._undo.append((error.undo_file, moved))
            raise BadRequest(str(error)) from None
        finally:
            self._gallery.look_again(moved)
        if outcome.undo_file is not None:
            self._undo.append((outcome.undo_file, moved))
        return {"undo": self.can_undo(), **_shown(outcome)}

    def can_undo(self) -> str | None:
        """Return the undo file that `undo` would use next; None if there is nothing to take back."""
        return str(self._undo[-1][0]) if self._undo else None

    def undo(self) -> dict[str, Any]:
        """Take back the last order that can be taken back."""
        with self._lock:
            if not self._undo:
                raise BadRequest("there is nothing to take back")
            file, moved = self._undo.pop()
        try:
            outcome = self._take_back(file)
        except UserError as error:
            if file.exists():
                self._undo.append((file, moved))  # what was in the way can be cleared
            raise BadRequest(str(error)) from None
        finally:
            self._gallery.look_again(moved)
        return {"undo": self.can_undo(), **_shown(outcome)}

    def _done(self, order: PictureOrder, *, dry_run: bool) -> Deed:
        try:
            return self._act(order, dry_run)
        except HalfDone:
            raise
        except UserError as error:
            raise BadRequest(str(error)) from None


def _shown(outcome: Deed) -> dict[str, Any]:
    return {"lines": list(outcome.lines[:MOST_LINES]), "more_lines": max(len(outcome.lines) - MOST_LINES, 0)}


def _integer(asked: Mapping[str, Any], name: str) -> int | None:
    value = asked.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**53:
        raise BadRequest(f"{name} must be a number of pictures")
    return value


def _real(asked: Mapping[str, Any], name: str) -> float | None:
    value = asked.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not np.isfinite(value):
        raise BadRequest(f"{name} must be a number")
    return float(value)
