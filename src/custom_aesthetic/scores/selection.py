"""Select pictures by their scores, and convert scores to stars and to tags."""

from collections import Counter
from collections.abc import Hashable, Sequence

import numpy as np

from custom_aesthetic.base.errors import UserError

N_STARS = 5

TAGS = {9: "score_9", **{tenth: f"score_{tenth}_up" for tenth in range(8, 3, -1)}}
"""Tenth of all scores, 9 for the best -> its tag: `score_8_up` says that 80 % of the pictures are worse."""


def select(
    scores: np.ndarray,
    *,
    top: int | None = None,
    worst: int | None = None,
    above: float | None = None,
    below: float | None = None,
    percentile: float | None = None,
    per_group: int | None = None,
    groups: Sequence[Hashable] = (),
) -> np.ndarray:
    """Return the rows that meet all given conditions, best first, or worst first with `worst`.

    `scores` is (n_images,). `above`, `below` and `percentile` (0 ... 100, of all scores) are limits that no selected
    score is equal to. Of the rows within them, `per_group` keeps the first of each group, in the order of the result;
    of these, `top` and `worst` keep the first. `groups` names the group of each row. Equal scores keep their order.
    """
    rows = np.argsort(-scores if worst is None else scores, kind="stable")
    if above is not None:
        rows = rows[scores[rows] > above]
    if below is not None:
        rows = rows[scores[rows] < below]
    if percentile is not None and len(scores):
        rows = rows[scores[rows] > np.percentile(scores, percentile)]
    if per_group is not None:
        rows = first_of_each_group(rows, groups, per_group)
    return rows[: top if worst is None else worst]


def first_of_each_group(rows: np.ndarray, groups: Sequence[Hashable], most: int) -> np.ndarray:
    """Return the rows without those that come after `most` rows of their group."""
    seen: Counter[Hashable] = Counter()
    kept = np.zeros(len(rows), dtype=bool)
    for place, row in enumerate(rows):
        seen[groups[row]] += 1
        kept[place] = seen[groups[row]] <= most
    return rows[kept]


def check_conditions(
    *, top: int | None = None, worst: int | None = None, above: float | None = None, below: float | None = None
) -> None:
    """Raise UserError for conditions that no picture can meet or that contradict each other."""
    if top is not None and worst is not None:
        raise UserError(f"--top={top} and --worst={worst} cannot be combined; give only one")
    if above is not None and below is not None and above >= below:
        raise UserError(f"no score is above {above:g} and below {below:g}; give --above a smaller value than --below")


def stars(scores: np.ndarray) -> np.ndarray:
    """Return 1 ... 5 stars for each score, (n_images,), by fifths of all scores; equal scores get equal stars."""
    if not len(scores):
        return np.zeros(0, dtype=int)
    below = np.searchsorted(np.sort(scores), scores, side="left") / len(scores)
    return np.minimum(1 + (below * N_STARS).astype(int), N_STARS)


def score_tags(scores: np.ndarray) -> list[str | None]:
    """Return a quality tag for each score, by tenths of all scores, in the vocabulary of Pony Diffusion V6.

    `score_9` for the best tenth, then `score_8_up`, `score_7_up`, `score_6_up`, `score_5_up` and `score_4_up`, a tenth
    each; None for the rest, four tenths. A score's place is in the middle of those equal to it, so that equal scores
    have equal tags and a single picture is an average one.
    """
    in_order = np.sort(scores)
    twice_the_place = np.searchsorted(in_order, scores, "left") + np.searchsorted(in_order, scores, "right")
    tenths = 10 * twice_the_place // (2 * max(len(scores), 1))
    return [TAGS.get(int(tenth)) for tenth in tenths]


def check_selected(n_selected: int, n_images: int, options: str) -> None:
    """Raise UserError if no picture is selected; `options` names the conditions given."""
    if n_selected == 0:
        raise UserError(f"none of the {n_images} pictures is selected; relax {options}")
