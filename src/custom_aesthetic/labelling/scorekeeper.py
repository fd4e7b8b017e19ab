"""The scores of a session: fitted to the whole log, written to the score files, and judged, in the background."""

import logging
import threading
import time
from collections.abc import Sequence

import numpy as np

from custom_aesthetic.base.errors import UserError
from custom_aesthetic.labelling.figures import FEWEST_CHOICES, RandomPairs, random_pairs
from custom_aesthetic.labelling.plan import PairPlan
from custom_aesthetic.labelling.score_files import ScoreFiles, score_table, write_score_files
from custom_aesthetic.scores.bradley_terry import PRIOR_VARIANCE, Prior, fit_scores, standard_errors
from custom_aesthetic.scores.choice_log import PICTURE_KINDS, Comparison, ComparisonLog
from custom_aesthetic.scores.evidence import LINES, Evidence, evidence, times_shown
from custom_aesthetic.scores.pairing import Standing, after_comparisons
from custom_aesthetic.scores.prior import extended
from custom_aesthetic.scores.score_files import SIGMA

log = logging.getLogger(__name__)

SECONDS_BETWEEN_WRITES = 2.0
SECONDS_TO_STOP = 0.5
REST = 2.0
"""The background thread waits this many times as long as its last update took, to leave the processor to the page."""


class Scorekeeper:
    """Keeps the scores of a log up to date; every method may be called from any thread.

    `lock` guards the log and `standing`, and is shared with the session.
    """

    def __init__(self, plan: PairPlan, files: ScoreFiles, comparisons: ComparisonLog) -> None:
        self.plan = plan
        self.lock = threading.RLock()
        self.row_of = {path: row for row, path in enumerate(plan.paths)}
        self.row_of_all = {**self.row_of, **{line: len(self.row_of) + place for place, line in enumerate(LINES)}}
        """Also the rows of the lines that stars and marks are compared with, behind those of the pictures."""
        self.random_pairs: RandomPairs | None = None
        self._files = files
        self._log = comparisons
        self._writing = threading.Lock()
        self._changed = threading.Event()
        self._stopping = threading.Event()
        self._worker: threading.Thread | None = None
        self.standing: Standing = self._fit(comparisons.answers(), None)

    def take(self, rows: Sequence[Comparison]) -> None:
        """Change the standing by an answer, approximately, until the next update; wake the background thread."""
        with self.lock:
            self.standing = self._caught_up(self.standing, rows)
        self.wake()

    def wake(self) -> None:
        """Let the background thread fit the scores again."""
        self._changed.set()

    def update(self, *, with_figures: bool = True) -> None:
        """Fit the scores to the whole log and write them, then estimate their quality."""
        with self._writing:
            with self.lock:
                self._log.refresh()
                answers, n_rows, start = self._log.answers(), len(self._log.rows), self.standing.scores
            fitted = self._fit(answers, start)
            with self.lock:
                self.standing = self._caught_up(fitted, self._log.rows[n_rows:])
            self._write(fitted)
        if with_figures:
            self.random_pairs = self._worth(fitted, answers)

    def start(self) -> None:
        """Start the background thread that keeps the scores up to date."""
        self._worker = threading.Thread(target=self._work, name="scores", daemon=True)
        self._worker.start()
        self.wake()

    def stop(self) -> None:
        """Stop the background thread and write the scores of the whole log."""
        self._stopping.set()
        self.wake()
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
                log.error("cannot write the scores (%s); all answers are saved in %s", error, self._log.file.name)
            taken = time.monotonic() - begun
            self._stopping.wait(max(REST * taken, min(SECONDS_BETWEEN_WRITES, len(self.plan.paths) / 1000)))

    def _evidence(self, answers: Sequence[Comparison]) -> tuple[Evidence, Prior]:
        """Return what the answers say, and the prior of pictures and, if there are stars or marks, lines."""
        if not any(row.kind in PICTURE_KINDS for row in answers):
            return evidence(answers, self.row_of), self.plan.prior
        return evidence(answers, self.row_of_all), extended(self.plan.prior, len(LINES), PRIOR_VARIANCE)

    def _fit(self, answers: Sequence[Comparison], start: np.ndarray | None) -> Standing:
        (winners, losers, weights, *_), prior = self._evidence(answers)
        n_pictures = len(self.row_of)
        if start is not None:
            start = np.concatenate([start, np.zeros(len(prior.mean) - n_pictures)])
        scores = fit_scores(winners, losers, prior, weights=weights, start=start)
        sigmas = standard_errors(scores, winners, losers, prior, weights=weights)
        return Standing(scores[:n_pictures], sigmas[:n_pictures], times_shown(answers, self.row_of))

    def _worth(self, fitted: Standing, answers: Sequence[Comparison]) -> RandomPairs | None:
        found, prior = self._evidence(answers)
        if len(np.unique(found.answers)) < FEWEST_CHOICES:
            return None
        return random_pairs(fitted.scores, found, prior, self.plan.n_here)

    def _caught_up(self, standing: Standing, rows: Sequence[Comparison]) -> Standing:
        """Return the standing, updated by answers given since; stars and marks only count as shown."""
        given = [row for row in rows if row.drawn != "undo"]
        winners, losers, weights, *_ = evidence(given, self.row_of)
        comparisons = list(zip(winners.tolist(), losers.tolist(), weights.tolist(), strict=True))
        caught_up = after_comparisons(standing, comparisons)
        return Standing(caught_up.scores, caught_up.sigmas, standing.shown + times_shown(given, self.row_of))

    def _write(self, standing: Standing) -> None:
        numbers = {
            "score": standing.scores * self.plan.scale + self.plan.shift,
            SIGMA: standing.sigmas * self.plan.scale,
        }
        write_score_files(self._files, score_table(self.plan.paths, numbers, standing.shown, self._files.start))


def rounded(figure: Sequence[float]) -> list[float]:
    """Return a figure and its interval with four digits after the point."""
    return [round(float(value), 4) for value in figure]
