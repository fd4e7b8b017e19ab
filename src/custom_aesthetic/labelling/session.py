"""A labelling session: it draws the pictures to compare, logs each choice and keeps the scores up to date."""

import logging
import math
import statistics
import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from custom_aesthetic.base.errors import UserError
from custom_aesthetic.labelling.figures import FEWEST_CHOICES, Answers, RandomPairs, held_out, random_pairs
from custom_aesthetic.labelling.score_files import OURS, ScoreFiles, score_table, write_score_files
from custom_aesthetic.scores.bradley_terry import Prior, fit_scores, standard_errors
from custom_aesthetic.scores.choice_log import Comparison, ComparisonLog, make_choice, undo_rows
from custom_aesthetic.scores.pairing import Standing, after_choice, draw_group

log = logging.getLogger(__name__)

GROUPS_REMEMBERED = 50
GROUPS_COMING = 4
"""Number of unanswered groups that the page can hold: the group shown and the groups loaded ahead."""
COMING_SIGMA = 0.7
SECONDS_BETWEEN_WRITES = 2.0
SECONDS_TO_STOP = 0.5
REST = 2.0
"""The background thread waits this many times as long as its last update took, to leave the processor to the page."""


class BadRequest(UserError):
    """The request is invalid; repeating it does not help."""


@dataclass(frozen=True)
class PairPlan:
    """The pictures and settings of a session; rows of all arrays are in the order of `paths`."""

    paths: tuple[str, ...]
    """Pictures on the disk first, then pictures known only from the log or the starting scores."""
    n_here: int
    """Number of pictures on the disk; only these are shown."""
    prior: Prior
    scale: float
    """Scores are written as scale x logits + shift."""
    shift: float
    number_to_compare: int = 2
    strategy: str = "adaptive"


class Session:
    """State of one run of the A/B scorer; every method may be called from any thread."""

    def __init__(
        self, plan: PairPlan, files: ScoreFiles, comparisons: ComparisonLog, *, seed: int | None = None
    ) -> None:
        self.plan = plan
        self.files = files
        self._log = comparisons
        self._row = {path: row for row, path in enumerate(plan.paths)}
        self._generator = np.random.default_rng(seed)
        self._lock = threading.RLock()
        self._writing = threading.Lock()
        self._changed = threading.Event()
        self._stopping = threading.Event()
        self._worker: threading.Thread | None = None
        self._recent: deque[frozenset[int]] = deque(maxlen=GROUPS_REMEMBERED)
        self._usable = np.arange(plan.n_here)
        self._unusable: dict[str, str] = {}
        self._random_pairs: RandomPairs | None = None
        self._seconds: dict[str, float] = {}
        self._n_at_start = comparisons.n_choices
        self._standing = self._fit()

    # --- requests of the page ------------------------------------------------------------------------------------

    def group(self) -> dict[str, Any]:
        """Return the pictures to show next, `{"pictures": [path, ...], "drawn": ...}`."""
        with self._lock:
            usable, standing = self._usable, self._standing
            if len(usable) < 2:
                raise UserError("fewer than two pictures can be shown; add some to the directory")
            number = min(self.plan.number_to_compare, len(usable))
            coming = sorted({row for group in list(self._recent)[-GROUPS_COMING:] for row in group})
            sigmas, shown = standing.sigmas.copy(), standing.shown.copy()
            sigmas[coming] *= COMING_SIGMA  # as if their answers were already known, so that other pictures are drawn
            shown[coming] += 1
            group, drawn = draw_group(
                Standing(standing.scores[usable], sigmas[usable], shown[usable]),
                self._generator,
                number=number,
                strategy=self.plan.strategy,
                avoid=self._lately(number),
            )
            rows = [int(usable[place]) for place in group]
            self._recent.append(frozenset(rows))
            return {"pictures": [self.plan.paths[row] for row in rows], "drawn": drawn}

    def choose(self, pictures: Sequence[str], winner: str, *, seconds: float, drawn: str, time: str | None) -> str:
        """Log that `winner` was chosen among `pictures`; return the time of the choice, which identifies it.

        The choice is on the disk before this returns. A choice sent twice (same time) counts once.
        """
        rows = [self._row.get(path) for path in pictures]
        if None in rows or winner not in pictures or not 2 <= len(set(pictures)) == len(pictures) <= 4:
            raise BadRequest("a choice must be between 2 to 4 different pictures of this directory")
        losers = [path for path in pictures if path != winner]
        choice = make_choice(winner, losers, seconds=seconds, drawn=drawn, time=time)
        with self._lock:
            self._log.refresh()
            if not self._log.choice_of(choice[0].time):
                self._log.append(choice)
                self._seconds[choice[0].time] = choice[0].seconds
                self._standing = after_choice(self._standing, self._row[winner], [self._row[path] for path in losers])
        self._changed.set()
        return choice[0].time

    def undo(self, time: str | None) -> dict[str, Any] | None:
        """Undo the choice made at `time`, or the last choice; return its group, or None if there is no such choice."""
        with self._lock:
            self._log.refresh()
            choice = self._log.last_choice() if time is None else self._log.choice_of(time)
            if not choice:
                return None
            self._log.append(undo_rows(choice))
            self._seconds.pop(choice[0].time, None)
        self._changed.set()
        return {"pictures": [choice[0].winner, *(row.loser for row in choice)], "drawn": choice[0].drawn}

    def leave_out(self, path: str, reason: str) -> None:
        """Stop showing a picture that cannot be read."""
        with self._lock:
            if path in self._row and path not in self._unusable:
                row = self._row[path]
                self._unusable[path] = reason
                self._usable = self._usable[self._usable != row]
                shown = [group for group in self._recent if row not in group]
                self._recent = deque(shown, maxlen=GROUPS_REMEMBERED)
                log.warning("left out %s: %s", path, reason)

    def holds(self, path: str) -> bool:
        """Return whether this is one of the pictures on the disk."""
        return self._row.get(path, self.plan.n_here) < self.plan.n_here

    def progress(self) -> dict[str, Any]:
        """Return the figures that the top of the page shows.

        `pace` is the median time of the last choices in seconds. `order_right` and `predicted` are the quality of the
        last update's scores on random pairs (see `RandomPairs`), `[value, low, high]`; they are None until there are
        `FEWEST_CHOICES` choices. `choices_to_go` is the number still missing.
        """
        with self._lock:
            paces = list(self._seconds.values())[-20:]
            shown = self._standing.shown[: self.plan.n_here]
            to_go = max(FEWEST_CHOICES - self._log.n_choices, 0)
            found = None if to_go else self._random_pairs
            return {
                "choices": self._log.n_choices,
                "choices_this_time": max(self._log.n_choices - self._n_at_start, 0),
                "choices_to_go": to_go,
                "pictures": self.plan.n_here,
                "seen": int((shown > 0).sum()),
                "pace": round(statistics.median(paces), 2) if paces else None,
                "order_right": None if found is None else _rounded(found.right),
                "predicted": None if found is None else _rounded(found.predicted),
                "unusable": len(self._unusable),
            }

    def summary(self) -> dict[str, Any]:
        """Write the scores, then return what the last page shows: progress, best and worst pictures, and file names.

        `held_out` is the share of choices that scores fitted without them predict, `[value, low, high]`.
        """
        self.update()
        found = self.held_out()
        with self._lock:
            here = [row for row in range(self.plan.n_here) if self._standing.shown[row] > 0]
            order = sorted(here, key=lambda row: -self._standing.scores[row])
            ranked = [self.plan.paths[row] for row in order]
            n_ends = min(5, len(ranked) // 2)
            files = [self.files.json.name, self.files.csv.name, self._log.file.name] if ranked else []
            worst = ranked[len(ranked) - n_ends :]
            return {**self.progress(), "held_out": found, "best": ranked[:n_ends], "worst": worst, "files": files}

    def held_out(self) -> list[float] | None:
        """Return the share of choices that scores fitted without them predict, and its 95 % interval.

        None until there are `FEWEST_CHOICES` choices. It is lower than the figures on random pairs, because the pairs
        that were shown have closer scores.
        """
        with self._lock:
            n_choices, choices = self._log.n_choices, self._log.choices()
        return None if n_choices < FEWEST_CHOICES else _rounded(held_out(self._answers(choices), self.plan.prior))

    # --- the scores --------------------------------------------------------------------------------------------

    def update(self, *, with_figures: bool = True) -> None:
        """Fit the scores to the whole log and write them, then estimate their quality."""
        with self._writing:
            with self._lock:
                self._log.refresh()
                choices, n_rows = self._log.choices(), len(self._log.rows)
            fitted = self._fit(choices)
            with self._lock:
                self._standing = self._caught_up(fitted, self._log.rows[n_rows:])
            self._write(fitted)
        if with_figures:
            self._random_pairs = self._worth(fitted, choices)

    def start(self) -> None:
        """Start the background thread that keeps the scores up to date."""
        self._worker = threading.Thread(target=self._work, name="scores", daemon=True)
        self._worker.start()
        self._changed.set()

    def stop(self) -> None:
        """Stop the background thread and write the scores of the whole log."""
        self._stopping.set()
        self._changed.set()
        if self._worker is not None:
            self._worker.join(SECONDS_TO_STOP)  # it may still be computing figures that are no longer needed
        self.update(with_figures=False)

    def _work(self) -> None:
        while not self._stopping.is_set():
            self._changed.wait()
            self._changed.clear()
            if self._stopping.is_set():
                return
            begun = time.monotonic()
            try:
                self.update()
            except UserError as error:
                log.error("cannot write the scores (%s); all choices are saved in %s", error, self._log.file.name)
            taken = time.monotonic() - begun
            self._stopping.wait(max(REST * taken, min(SECONDS_BETWEEN_WRITES, len(self.plan.paths) / 1000)))

    def _fit(self, choices: Sequence[Comparison] | None = None) -> Standing:
        winners, losers, _ = self._answers(self._log.choices() if choices is None else choices)
        start = self._standing.scores if hasattr(self, "_standing") else None
        scores = fit_scores(winners, losers, self.plan.prior, start=start)
        sigmas = standard_errors(scores, winners, losers, self.plan.prior)
        shown = np.bincount(np.concatenate([winners, losers]), minlength=len(self.plan.paths)).astype(float)
        return Standing(scores, sigmas, shown)

    def _answers(self, choices: Sequence[Comparison]) -> Answers:
        known = [row for row in choices if row.winner in self._row and row.loser in self._row]
        numbers: dict[str, int] = {}
        return Answers(
            np.array([self._row[row.winner] for row in known], dtype=int),
            np.array([self._row[row.loser] for row in known], dtype=int),
            np.array([numbers.setdefault(row.time, len(numbers)) for row in known], dtype=int),
        )

    def _worth(self, fitted: Standing, choices: Sequence[Comparison]) -> RandomPairs | None:
        answers = self._answers(choices)
        if len(np.unique(answers.choices)) < FEWEST_CHOICES:
            return None
        return random_pairs(fitted.scores, answers, self.plan.prior, self.plan.n_here)

    def _caught_up(self, fitted: Standing, rows: Sequence[Comparison]) -> Standing:
        """Return the fitted standing, updated by the choices made since the fit began."""
        for row in rows:
            if row.drawn != "undo" and row.winner in self._row and row.loser in self._row:
                fitted = after_choice(fitted, self._row[row.winner], [self._row[row.loser]])
        return fitted

    def _write(self, standing: Standing) -> None:
        numbers = {
            "score": standing.scores * self.plan.scale + self.plan.shift,
            OURS: standing.sigmas * self.plan.scale,
        }
        write_score_files(self.files, score_table(self.plan.paths, numbers, standing.shown, self.files.start))

    def _lately(self, number: int) -> set[frozenset[int]]:
        """Return the recent groups, which are not drawn again, as places in `_usable`; at most half of all groups."""
        n_kept = max(1, min(GROUPS_REMEMBERED, math.comb(len(self._usable), number) // 2))
        places = [np.searchsorted(self._usable, sorted(group)) for group in list(self._recent)[-n_kept:]]
        return {frozenset(int(place) for place in group) for group in places}


def _rounded(figure: Sequence[float]) -> list[float]:
    return [round(float(value), 4) for value in figure]


def with_names(plan: PairPlan, names: Sequence[str]) -> PairPlan:
    """Return the plan extended by pictures that are only in the log: their comparisons inform the other scores."""
    new = [name for name in dict.fromkeys(names) if name not in set(plan.paths)]
    if not new:
        return plan
    prior = plan.prior
    variance = np.concatenate([prior.variance, np.full(len(new), prior.variance.max())])
    basis = prior.basis
    if basis is not None:
        basis = np.concatenate([basis, np.zeros((len(new), basis.shape[1]))])
    extended = Prior(np.concatenate([prior.mean, np.zeros(len(new))]), variance, basis)
    return replace(plan, paths=(*plan.paths, *new), prior=extended)
