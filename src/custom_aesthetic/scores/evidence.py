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

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import NamedTuple

import numpy as np

from custom_aesthetic.scores.choice_log import STARS, Comparison

STAR_LINES = tuple(f"\0above {stars} stars" for stars in STARS[:-1])
KEEP_LINE = "\0kept"
LINES = (*STAR_LINES, KEEP_LINE)
"""Names of the lines, which no picture can have; they stand among the pictures of a fit."""

PICK_WEIGHT = 0.5
"""Weight of a grid's comparisons together, for each of its pictures."""

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
