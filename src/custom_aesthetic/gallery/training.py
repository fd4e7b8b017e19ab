"""The real training, started on the page: its progress, verdict and report, and the scores of the trained model."""

import re
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from custom_aesthetic.gallery.jobs import ChildJob
from custom_aesthetic.labelling.plan import BadRequest

MOST_LINES = 400
IDLE, RUNNING, DONE, CANCELLED, FAILED = "idle", "running", "done", "cancelled", "failed"

FEATURES_PART = 0.3
"""Share of a training's time that is counted for its features."""

_FEATURES = re.compile(r"^features of .*: (\d+) of (\d+) pictures done")
_TRIALS = re.compile(r"^trial \d+: .*, (\d+) of (\d+)(?:, (.+ left))?")


@dataclass(frozen=True)
class Call:
    """A module of this library whose `main` is called in another process, with these arguments."""

    module: str
    arguments: tuple[str, ...]


class Training:
    """The training of a folder, one at a time; methods may be called from any thread."""

    def __init__(
        self,
        train: Call,
        score: Call,
        *,
        model: Path,
        report: Path,
        scores: Path,
        before: Callable[[], None],
        on_scores: Callable[[Path], None],
    ) -> None:
        """`train` writes the model and the report, then `score` writes the model's scores, which go to `on_scores`.

        `before` saves the scores that the training learns from.
        """
        self.model = model
        self.report = report
        self.state = IDLE
        self.is_scoring = False
        """Whether the trained model is scoring the folder for the gallery."""
        self._train, self._score, self._scores = train, score, scores
        self._before, self._on_scores = before, on_scores
        self._lines: deque[str] = deque(maxlen=MOST_LINES)
        self._job: ChildJob | None = None
        self._lock = threading.Lock()
        self._is_stopped = False
        self._report_before: int | None = None
        """Time of the report from before the training, which is not the training's; None if there was none."""

    def start(self) -> None:
        """Start the training; BadRequest if it is running or cannot be started."""
        with self._lock:
            if self.state == RUNNING:
                raise BadRequest("a training is running already")
            if self._job is not None:
                self._job.kill()
            self._before()
            self._report_before = _changed_at(self.report)
            self._lines.clear()
            self.is_scoring = False
            try:
                self._job = self._run(self._train, self._lines.append, self._ended)
            except OSError as error:
                self.state = FAILED
                self._lines.append(f"the training cannot be started: {error.strerror or error}")
                return
            self.state = RUNNING

    def cancel(self) -> None:
        """Stop the training; the trials finished so far are kept, and the next training goes on from there."""
        with self._lock:
            if self.state == RUNNING and self._job is not None:
                self._job.cancel()

    def stop(self) -> None:
        """End all work at once; nothing begins after it."""
        with self._lock:
            self._is_stopped = True
            if self._job is not None:
                self._job.kill()

    def status(self) -> dict[str, Any]:
        """Return the state, the share that is done (None if it is not known), the last lines, and the verdict."""
        lines = list(self._lines)
        told = [line for line in lines if line.strip()]
        return {
            "state": self.state,
            "share": share_done(lines) if self.state == RUNNING else None,
            "step": step_of(lines) if self.state == RUNNING else "",
            "lines": told[-8:],
            "verdict": verdict_of(lines) if self.state == DONE else [],
            "scoring": self.is_scoring,
            "report": self.state != RUNNING and _changed_at(self.report) not in (None, self._report_before),
        }

    def outcome(self) -> list[str]:
        """Return what the terminal says of the training at the end: the verdict, or why there is none; none if idle."""
        told = [line for line in self._lines if line.strip()]
        return {
            IDLE: [],
            RUNNING: ["the training was stopped; the next one goes on from the trials that it has finished"],
            DONE: [*verdict_of(list(self._lines)), f"the trained model is in {self.model}"],
            CANCELLED: ["the training was stopped on the page; the next one goes on from there"],
            FAILED: ["the training ended with an error:", *told[-8:]],
        }[self.state]

    def _run(self, call: Call, on_line: Callable[[str], None], on_end: Callable[[int], None]) -> ChildJob:
        return ChildJob(
            call.module,
            call.arguments,
            on_line=lambda line: on_line(line.rpartition("\r")[2].rstrip()),
            on_end=on_end,
            with_errors=True,
        )

    def _ended(self, status: int) -> None:
        with self._lock:
            assert self._job is not None
            if self._is_stopped:
                return
            if status:  # a training that had ended when it was told to stop is done
                self.state = CANCELLED if self._job.is_cancelled else FAILED
                return
            self.state, self.is_scoring = DONE, True
            try:
                self._job = self._run(self._score, lambda line: None, self._scored)
            except OSError:
                self.is_scoring = False

    def _scored(self, status: int) -> None:
        self.is_scoring = False
        if status == 0:
            self._on_scores(self._scores)


def _changed_at(file: Path) -> int | None:
    """Return when a file was written, nanoseconds; None if there is none."""
    try:
        return file.stat().st_mtime_ns
    except OSError:
        return None


def share_done(lines: Sequence[str]) -> float | None:
    """Return the share of the work that is done, 0...1, from the last line that says so; None if none does."""
    for line in reversed(lines):
        if found := _TRIALS.search(line):
            return FEATURES_PART + (1 - FEATURES_PART) * int(found[1]) / max(int(found[2]), 1)
        if found := _FEATURES.search(line):
            return FEATURES_PART * int(found[1]) / max(int(found[2]), 1)
    return None


def step_of(lines: Sequence[str]) -> str:
    """Return in words what a training does now, from the last line that says so."""
    for line in reversed(lines):
        if found := _TRIALS.search(line):
            left = "" if found[3] is None else f", {found[3]}"
            return f"Trial {found[1]} of {found[2]}{left}"
        if found := _FEATURES.search(line):
            return f"Features: {found[1]} of {found[2]} pictures"
    return "Starting"


def verdict_of(lines: Sequence[str]) -> list[str]:
    """Return the sentences on how good the model is: the last lines between two empty ones."""
    ends = [place for place, line in enumerate(lines) if not line]
    pairs = [(first, last) for first, last in pairwise(ends) if last > first + 1]
    return list(lines[pairs[-1][0] + 1 : pairs[-1][1]]) if pairs else []
