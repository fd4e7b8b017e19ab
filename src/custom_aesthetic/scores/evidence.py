"""What the answers of every kind say about the scores: weighted comparisons among the pictures and a few lines.

- A choice among N pictures is N - 1 comparisons.
- A tie is half a win for each side.
- A pick is the comparison of each picked picture with each that was not, with a lower weight: together they weigh
  `PICK_WEIGHT` for each picture of the grid.
- Stars are comparisons with the lines between the stars: a picture with four stars lies above the lines below four,
  three and two, and below the line above four. The lines are like pictures whose scores are fitted with the others, so
  nothing is assumed of how generous the stars are. Each comparison follows the ordinal (cumulative logit) model, but
  they are not independent of each other, so each weighs `STAR_WEIGHT`.
- A mark is a comparison with the line between what is kept and what is rejected.

The weights are those at which the standard errors of simulated judges' scores hold (docs/log.md).
"""

import math
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import NamedTuple

import numpy as np
from scipy.stats import binomtest

from custom_aesthetic.scores.choice_log import STARS, Comparison

STAR_LINES = tuple(f"\0above {stars} stars" for stars in STARS[:-1])
KEEP_LINE = "\0kept"
LINES = (*STAR_LINES, KEEP_LINE)
"""Names of the lines, which no picture can have; they stand among the pictures of a fit."""

PICK_WEIGHT = 0.5
"""Weight of a grid's comparisons together, for each of its pictures."""

FEWEST_REPEATS = 5
"""Number of repeated pairs needed before a ceiling is estimated."""

STAR_WEIGHT = 0.5
"""Weight of the comparison of a picture with one of the lines between stars."""

_LINES_BELOW_AND_ABOVE = {
    **{f"stars{stars}": (STAR_LINES[: stars - 1], STAR_LINES[stars - 1 :], STAR_WEIGHT) for stars in STARS},
    "keep": ((KEEP_LINE,), (), 1.0),
    "reject": ((), (KEEP_LINE,), 1.0),
}
"""Kind of an answer about one picture -> the lines below it, the lines above it, and the weight of each comparison."""


class Evidence(NamedTuple):
    """Weighted comparisons, arrays (n_comparisons,); `winners` and `losers` are rows of pictures or lines."""

    winners: np.ndarray
    losers: np.ndarray
    weights: np.ndarray
    answers: np.ndarray
    """Number of the answer that a comparison belongs to."""
    is_choice: np.ndarray
    """Whether the answer is a choice; others are not predicted one by one."""

    @property
    def rows(self) -> np.ndarray:
        """The rows that are compared, sorted."""
        return np.unique(np.concatenate([self.winners, self.losers]))

    def among(self, rows: np.ndarray) -> "Evidence":
        """Return the comparisons of these rows with each other."""
        inside = np.isin(self.winners, rows) & np.isin(self.losers, rows)
        return Evidence(*(column[inside] for column in self))


def evidence(rows: Sequence[Comparison], row_of: Mapping[str, int]) -> Evidence:
    """Return what the rows of a log say, in order of time; what is not in `row_of` is left out.

    `row_of` contains the pictures and, where stars and marks shall count, the lines.
    """
    found: list[tuple[int, int, float, int, bool]] = []
    for number, (_, group) in enumerate(groupby(sorted(rows), key=lambda row: (row.time, row.kind))):
        answer = list(group)
        found += [
            (row_of[winner], row_of[loser], weight, number, answer[0].kind == "choice")
            for winner, loser, weight in _comparisons(answer)
            if winner in row_of and loser in row_of
        ]
    columns = list(zip(*found, strict=True)) if found else [()] * 5
    kinds = (int, int, float, int, bool)
    return Evidence(*(np.array(column, dtype=kind) for column, kind in zip(columns, kinds, strict=True)))


def times_shown(rows: Sequence[Comparison], row_of: Mapping[str, int]) -> np.ndarray:
    """Return in how many comparisons, stars, marks and grids each of `row_of` took part, (len(row_of),)."""
    seen = [(row.time, name) for row in rows if row.kind != "pick" for name in (row.winner, row.loser)]
    in_grids = {(row.time, name) for row in rows if row.kind == "pick" for name in (row.winner, row.loser)}
    places = [row_of[name] for _, name in (*seen, *in_grids) if name in row_of]
    return np.bincount(np.array(places, dtype=int), minlength=len(row_of)).astype(float)


class Consistency(NamedTuple):
    """How often pairs that were shown again, sides swapped, were answered the same, and what follows."""

    repeats: int
    """Number of pairs that were shown again."""
    same: float
    """Number of same answers; a tie and a choice are half the same."""
    low: float
    high: float
    """Ends of the 95 % interval (Wilson) of the share of same answers, 0...1."""
    ceiling: float | None
    """Share of the answers to such pairs that a perfect model agrees with, 0.5...1; None if it is not known.

    Who gives the same answer twice with probability r = q^2 + (1 - q)^2 gives the more probable one with probability q.
    """


def consistency(rows: Sequence[Comparison]) -> Consistency | None:
    """Return how consistent the answers in the rows of a log are; None if no pair was shown again.

    A repeated pair (drawn by `repeat`) is compared with the last answer before it.
    """
    last: dict[frozenset[str], str] = {}
    same: list[float] = []
    for row in sorted(rows):
        if row.kind not in ("choice", "tie"):
            continue
        pair, answer = frozenset((row.winner, row.loser)), row.winner if row.kind == "choice" else ""
        if row.drawn == "repeat" and pair in last:
            same.append(1.0 if answer == last[pair] else 0.5 if "" in (answer, last[pair]) else 0.0)
        last[pair] = answer
    if not same:
        return None
    ends = binomtest(round(sum(same)), len(same)).proportion_ci(method="wilson")
    share = sum(same) / len(same)
    known = len(same) >= FEWEST_REPEATS and share > 0.5
    ceiling = (1 + math.sqrt(2 * share - 1)) / 2 if known else None
    return Consistency(len(same), sum(same), round(float(ends.low), 4), round(float(ends.high), 4), ceiling)


def _comparisons(answer: Sequence[Comparison]) -> list[tuple[str, str, float]]:
    """Return (winner, loser, weight) of one answer's comparisons."""
    kind = answer[0].kind
    if kind == "choice":
        return [(row.winner, row.loser, 1.0) for row in answer]
    if kind == "tie":
        halves = [(row.winner, row.loser, 0.5) for row in answer]
        return [*halves, *((loser, winner, weight) for winner, loser, weight in halves)]
    if kind == "pick":
        n_pictures = len({name for row in answer for name in (row.winner, row.loser)})
        return [(row.winner, row.loser, PICK_WEIGHT * n_pictures / len(answer)) for row in answer]
    picture, (below, above, weight) = answer[0].winner, _LINES_BELOW_AND_ABOVE[kind]
    return [*((picture, line, weight) for line in below), *((line, picture, weight) for line in above)]
