"""Which pictures to show next: pairs, single pictures or grids, and now and then a pair that was answered before."""

import logging
import math
from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from custom_aesthetic.base.errors import UserError
from custom_aesthetic.labelling.plan import PairPlan
from custom_aesthetic.scores.choice_log import Comparison
from custom_aesthetic.scores.pairing import Standing, draw_fresh, draw_group

log = logging.getLogger(__name__)

GROUPS_REMEMBERED = 50
GROUPS_SKIPPED = 500
"""Number of skipped groups that are not asked again."""

GROUPS_COMING = 4
"""Number of unanswered groups that the page can hold: the group shown and the groups loaded ahead."""
COMING_SIGMA = 0.7

GRID = 12
"""Number of pictures in the grid of the mode `pick`."""

ANSWERS_BEFORE_REPEATS = 30
REPEAT_SHARE = 0.05
REPEAT_DISTANCE = 25
"""A pair is asked again when at least this many answers were given since."""


class Drawing:
    """Draws what to show; it remembers what was shown, skipped, or cannot be read. Not safe for several threads."""

    def __init__(self, plan: PairPlan, seed: int | None) -> None:
        self.plan = plan
        self.generator = np.random.default_rng(seed)
        self.unusable: dict[str, str] = {}
        """Path -> reason, for pictures that cannot be read."""
        self._row = {path: row for row, path in enumerate(plan.paths)}
        self._recent: deque[frozenset[int]] = deque(maxlen=GROUPS_REMEMBERED)
        self._skipped: deque[frozenset[int]] = deque(maxlen=GROUPS_SKIPPED)
        self._usable = np.arange(plan.n_here)
        self._withdrawn: set[int] = set()
        self._left: dict[frozenset[str], str] = {}

    def next_group(
        self, standing: Standing, answers: Callable[[], Sequence[Comparison]], model: Standing | None = None
    ) -> tuple[list[str], str]:
        """Return the paths to show next, and how they were drawn; UserError if too few pictures can be shown.

        `answers` returns the rows of all answers so far. What a `model` says of the pictures, if there is one, takes
        the place of `standing`, which knows pictures with answers only.
        """
        if len(self._usable) < 2:
            raise UserError("fewer than two pictures can be shown; add some to the directory")
        again = self._repeat(answers) if self.plan.mode == "pair" and self.plan.number_to_compare == 2 else None
        if again is not None:
            return again, "repeat"
        strategy, mode = self.plan.strategy, self.plan.mode
        if model is not None and strategy == "adaptive":
            standing, strategy = model, "model"
        here = self._as_if_answered(standing)
        number = {"stars": 1, "pick": GRID}.get(mode, self.plan.number_to_compare)
        draw = draw_group if mode == "pair" else draw_fresh
        number = min(number, len(self._usable))
        places, drawn = draw(here, self.generator, number=number, strategy=strategy, avoid=self._lately(number))
        rows = [int(self._usable[place]) for place in places]
        self._recent.append(frozenset(rows))
        return [self.plan.paths[row] for row in rows], drawn

    def skip(self, pictures: Sequence[str]) -> None:
        """Do not ask this group again soon."""
        self._skipped.append(frozenset(self._row[path] for path in pictures))

    def saw(self, pictures: Sequence[str]) -> None:
        """Remember on which side a picture of a pair was, so that the sides are swapped when it is asked again."""
        if len(pictures) == 2:
            self._left[frozenset(pictures)] = pictures[0]

    def leave_out(self, path: str, reason: str) -> None:
        """Stop showing a picture that cannot be read."""
        if path in self._row and path not in self.unusable:
            self.unusable[path] = reason
            self._set_usable()
            log.warning("left out %s: %s", path, reason)

    def withdraw(self, paths: Iterable[str]) -> None:
        """Stop showing pictures that are no longer there."""
        self._withdrawn |= {self._row[path] for path in paths if path in self._row}
        self._set_usable()

    def restore(self, paths: Iterable[str]) -> None:
        """Show withdrawn pictures again; those that could not be read are tried again, as they may just have moved."""
        back = [path for path in paths if path in self._row]
        self._withdrawn -= {self._row[path] for path in back}
        self.unusable = {path: reason for path, reason in self.unusable.items() if path not in back}
        self._set_usable()

    def _set_usable(self) -> None:
        left_out = self._withdrawn | {self._row[path] for path in self.unusable}
        self._usable = np.array([row for row in range(self.plan.n_here) if row not in left_out], dtype=int)
        kept = [group for group in self._recent if not group & left_out]
        self._recent = deque(kept, maxlen=GROUPS_REMEMBERED)

    def _as_if_answered(self, standing: Standing) -> Standing:
        """Return the standing of the usable pictures, as if the groups on their way to the page were answered."""
        coming = sorted({row for group in list(self._recent)[-GROUPS_COMING:] for row in group})
        sigmas, shown = standing.sigmas.copy(), standing.shown.copy()
        sigmas[coming] *= COMING_SIGMA
        shown[coming] += 1
        usable = self._usable
        axes = None if standing.axes is None else standing.axes[usable]
        return Standing(standing.scores[usable], sigmas[usable], shown[usable], axes)

    def _repeat(self, answers: Callable[[], Sequence[Comparison]]) -> list[str] | None:
        """Return a pair that was answered a while ago and not asked again since, with sides swapped; None mostly."""
        if self.generator.uniform() >= REPEAT_SHARE:
            return None
        rows = answers()
        pairs = pairs_of(rows)
        if len(pairs) < ANSWERS_BEFORE_REPEATS:
            return None
        again = {frozenset((row.winner, row.loser)) for row in rows if row.drawn == "repeat"}
        again |= {frozenset(self.plan.paths[row] for row in group) for group in list(self._recent)[-REPEAT_DISTANCE:]}
        usable = set(self._usable.tolist())
        open_pairs = [
            pair
            for pair in pairs[:-REPEAT_DISTANCE]
            if pair not in again and all(self._row.get(path) in usable for path in pair)
        ]
        if not open_pairs:
            return None
        pair = open_pairs[self.generator.integers(len(open_pairs))]
        self._recent.append(frozenset(self._row[path] for path in pair))
        first, second = sorted(pair)
        left = self._left.get(pair, first if self.generator.uniform() < 0.5 else second)
        return [second, first] if left == first else [first, second]

    def _lately(self, number: int) -> set[frozenset[int]]:
        """Return the recent and skipped groups, as places in `_usable`; at most half of all groups."""
        n_kept = max(1, math.comb(len(self._usable), number) // 2)
        usable = set(self._usable.tolist())
        groups = [group for group in (*self._skipped, *self._recent) if len(group) == number and group <= usable]
        places = [np.searchsorted(self._usable, sorted(group)) for group in groups[-n_kept:]]
        return {frozenset(int(place) for place in group) for group in places}


def pairs_of(rows: Sequence[Comparison]) -> list[frozenset[str]]:
    """Return the pair of each choice or tie between two pictures, in order of time."""
    n_rows = Counter(row.time for row in rows)
    return [
        frozenset((row.winner, row.loser)) for row in rows if n_rows[row.time] == 1 and row.kind in ("choice", "tie")
    ]
