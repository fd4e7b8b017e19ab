"""A scoring session: draws the pictures to compare, logs each choice, keeps the scores up to date in the background."""

import logging
import math
import statistics
import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from custom_aesthetic.base.errors import UserError
from custom_aesthetic.labelling.score_files import OURS, ScoreFiles, score_table, write_score_files
from custom_aesthetic.scores.bradley_terry import Prior, fit_scores, standard_errors
from custom_aesthetic.scores.choice_log import Comparison, ComparisonLog, make_choice, undo_rows
from custom_aesthetic.scores.pairing import Standing, after_choice, draw_group, expected_rank_change, random_rank_change

log = logging.getLogger(__name__)

GROUPS_REMEMBERED = 50
GROUPS_COMING = 4
"""Groups that the page may hold without an answer: the one shown and those loaded ahead."""
COMING_SIGMA = 0.7
ANSWERS_FOR_AGREEMENT = 200
FEWEST_FOR_AGREEMENT = 10
SECONDS_BETWEEN_WRITES = 2.0


class BadRequest(UserError):
    """What the page asked makes no sense; asking again will not help."""


@dataclass(frozen=True)
class Plan:
    """What a session works with; rows of all arrays are `paths`."""

    paths: tuple[str, ...]
    """Pictures on the disk first, then those that only the log or the start names."""
    n_here: int
    """How many of them are on the disk: only these are shown."""
    prior: Prior
    scale: float
    """Scores are written as scale x logits + shift."""
    shift: float
    number_to_compare: int = 2
    strategy: str = "adaptive"


class Session:
    """State of one run of the A/B scorer; every method may be called from any thread."""

    def __init__(self, plan: Plan, files: ScoreFiles, comparisons: ComparisonLog, *, seed: int | None = None) -> None:
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
        self._agreed: dict[str, float] = {}
        self._seconds: dict[str, float] = {}
        self._n_at_start = comparisons.n_choices
        self._standing = self._fit()

    # --- what the page asks ------------------------------------------------------------------------------------

    def group(self) -> dict[str, Any]:
        """The pictures to show next, `{"pictures": [path, ...], "drawn": ...}`."""
        with self._lock:
            usable, standing = self._usable, self._standing
            if len(usable) < 2:
                raise UserError("fewer than two pictures can be shown; add some to the directory")
            number = min(self.plan.number_to_compare, len(usable))
            coming = sorted({row for group in list(self._recent)[-GROUPS_COMING:] for row in group})
            sigmas, shown = standing.sigmas.copy(), standing.shown.copy()
            sigmas[coming] *= COMING_SIGMA  # as if their answers were known already: other pictures have their turn
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
        """Log that `winner` was chosen among `pictures`; return the choice's time, which names it.

        The choice is on the disk before this returns. The same choice sent twice (same time) counts once.
        """
        rows = [self._row.get(path) for path in pictures]
        if None in rows or winner not in pictures or not 2 <= len(set(pictures)) == len(pictures) <= 4:
            raise BadRequest("that is no choice between pictures of this directory")
        losers = [path for path in pictures if path != winner]
        choice = make_choice(winner, losers, seconds=seconds, drawn=drawn, time=time)
        with self._lock:
            self._log.refresh()
            if not self._log.choice_of(choice[0].time):
                self._note(choice)
                self._log.append(choice)
                self._standing = after_choice(self._standing, self._row[winner], [self._row[path] for path in losers])
        self._changed.set()
        return choice[0].time

    def undo(self, time: str | None) -> dict[str, Any] | None:
        """Take back the choice of that time, or the last one; return its group to show again, None if there is none."""
        with self._lock:
            self._log.refresh()
            choice = self._log.last_choice() if time is None else self._log.choice_of(time)
            if not choice:
                return None
            self._log.append(undo_rows(choice))
            self._agreed.pop(choice[0].time, None)
            self._seconds.pop(choice[0].time, None)
        self._changed.set()
        return {"pictures": [choice[0].winner, *(row.loser for row in choice)], "drawn": choice[0].drawn}

    def leave_out(self, path: str, reason: str) -> None:
        """Show a picture no more, as it cannot be read."""
        with self._lock:
            if path in self._row and path not in self._unusable:
                row = self._row[path]
                self._unusable[path] = reason
                self._usable = self._usable[self._usable != row]
                shown = [group for group in self._recent if row not in group]
                self._recent = deque(shown, maxlen=GROUPS_REMEMBERED)
                log.warning("left out %s: %s", path, reason)

    def holds(self, path: str) -> bool:
        """Whether this is one of the pictures on the disk."""
        return self._row.get(path, self.plan.n_here) < self.plan.n_here

    def progress(self) -> dict[str, Any]:
        """What the bar shows. `pace` is the median seconds of the last choices, `agreement` the share of recent
        answers that the scores of just before had foretold, `rank_change` the mean number of places by which a
        picture is expected to be off; None where there is too little to say. `settled` is 0 for a random order, 1 for
        a certain one."""
        with self._lock:
            foretold = list(self._agreed.values())[-ANSWERS_FOR_AGREEMENT:]
            paces = list(self._seconds.values())[-20:]
            shown = self._standing.shown[: self.plan.n_here]
            change, most = self._rank_change(), random_rank_change(self.plan.n_here)
            return {
                "choices": self._log.n_choices,
                "choices_this_time": max(self._log.n_choices - self._n_at_start, 0),
                "pictures": self.plan.n_here,
                "seen": int((shown > 0).sum()),
                "pace": round(statistics.median(paces), 2) if paces else None,
                "agreement": round(statistics.mean(foretold), 4) if len(foretold) >= FEWEST_FOR_AGREEMENT else None,
                "rank_change": round(change, 1) if self._log.n_choices else None,
                "settled": round(1 - change / most, 4),
                "unusable": len(self._unusable),
            }

    def summary(self) -> dict[str, Any]:
        """What the last page shows, after the scores are written: the best and the worst, and where the files are."""
        self.update()
        with self._lock:
            here = [row for row in range(self.plan.n_here) if self._standing.shown[row] > 0]
            order = sorted(here, key=lambda row: -self._standing.scores[row])
            ranked = [self.plan.paths[row] for row in order]
            n_ends = min(5, len(ranked) // 2)
            files = [self.files.json.name, self.files.csv.name, self._log.file.name] if ranked else []
            worst = ranked[len(ranked) - n_ends :]
            honest = {"honest_agreement": self.honest_agreement()}
            return {**self.progress(), **honest, "best": ranked[:n_ends], "worst": worst, "files": files}

    def honest_agreement(self) -> float | None:
        """Share of the answers on pairs drawn at random that scores fitted without these answers foretell.

        No choice of pairs by a model and no fit to the answer itself flatters it: what a newcomer's pair would give.
        None where there are too few of either kind.
        """
        choices = self._log.choices()
        asked = [row for row in choices if row.drawn == "random" and row.winner in self._row and row.loser in self._row]
        others = [row for row in choices if row.drawn != "random"]
        if len(asked) < FEWEST_FOR_AGREEMENT or len(others) < FEWEST_FOR_AGREEMENT:
            return None
        scores = self._fit(others).scores
        leads = np.array([scores[self._row[row.winner]] - scores[self._row[row.loser]] for row in asked])
        return round(float(np.mean((leads > 0) + 0.5 * (leads == 0))), 4)

    # --- the scores --------------------------------------------------------------------------------------------

    def update(self) -> None:
        """Fit the scores to the whole log, other windows' choices too, and write them."""
        with self._writing:
            with self._lock:
                self._log.refresh()
                choices, n_rows = self._log.choices(), len(self._log.rows)
            fitted = self._fit(choices)
            with self._lock:
                self._standing = self._caught_up(fitted, self._log.rows[n_rows:])
            self._write(fitted)

    def start(self) -> None:
        """Begin to keep the scores up to date in the background."""
        self._worker = threading.Thread(target=self._work, name="scores", daemon=True)
        self._worker.start()

    def stop(self) -> None:
        """End the background work; the scores on the disk are those of the whole log."""
        self._stopping.set()
        self._changed.set()
        if self._worker is not None:
            self._worker.join()
        self.update()

    def _work(self) -> None:
        while not self._stopping.is_set():
            self._changed.wait()
            self._changed.clear()
            if self._stopping.is_set():
                return
            try:
                self.update()
            except UserError as error:
                log.error("the scores cannot be written yet (%s); every choice is in %s", error, self._log.file.name)
            self._stopping.wait(min(SECONDS_BETWEEN_WRITES, len(self.plan.paths) / 1000))

    def _fit(self, choices: Sequence[Comparison] | None = None) -> Standing:
        choices = self._log.choices() if choices is None else choices
        known = [row for row in choices if row.winner in self._row and row.loser in self._row]
        winners = np.array([self._row[row.winner] for row in known], dtype=int)
        losers = np.array([self._row[row.loser] for row in known], dtype=int)
        start = self._standing.scores if hasattr(self, "_standing") else None
        scores = fit_scores(winners, losers, self.plan.prior, start=start)
        sigmas = standard_errors(scores, winners, losers, self.plan.prior)
        shown = np.bincount(np.concatenate([winners, losers]), minlength=len(self.plan.paths)).astype(float)
        return Standing(scores, sigmas, shown)

    def _caught_up(self, fitted: Standing, rows: Sequence[Comparison]) -> Standing:
        """The fitted standing with the choices made meanwhile."""
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

    def _note(self, choice: Sequence[Comparison]) -> None:
        scores = self._standing.scores
        leads = [scores[self._row[row.winner]] - scores[self._row[row.loser]] for row in choice]
        told = [float(lead > 0) for lead in leads if lead != 0]
        if told:
            self._agreed[choice[0].time] = statistics.mean(told)
        self._seconds[choice[0].time] = choice[0].seconds

    def _lately(self, number: int) -> set[frozenset[int]]:
        """The groups not to draw again now, as places among the usable; fewer where there are few groups at all."""
        n_kept = max(1, min(GROUPS_REMEMBERED, math.comb(len(self._usable), number) // 2))
        places = [np.searchsorted(self._usable, sorted(group)) for group in list(self._recent)[-n_kept:]]
        return {frozenset(int(place) for place in group) for group in places}

    def _rank_change(self) -> float:
        here = slice(0, self.plan.n_here)
        return expected_rank_change(self._standing.scores[here], self._standing.sigmas[here])


def with_names(plan: Plan, names: Sequence[str]) -> Plan:
    """The plan with pictures that are not on the disk but in the log: their comparisons still tell of the others."""
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
