"""Select pictures by their scores, and convert scores to stars."""

import numpy as np

from custom_aesthetic.base.errors import UserError

N_STARS = 5


def select(
    scores: np.ndarray, *, top: int | None = None, above: float | None = None, percentile: float | None = None
) -> np.ndarray:
    """Return the rows that meet all given conditions, best first; all rows if there is no condition.

    `scores` is (n_images,). `above` and `percentile` (0 ... 100, of all scores) keep scores strictly above the limit.
    Equal scores keep their order.
    """
    rows = np.argsort(-scores, kind="stable")
    if above is not None:
        rows = rows[scores[rows] > above]
    if percentile is not None and len(scores):
        rows = rows[scores[rows] > np.percentile(scores, percentile)]
    if top is not None:
        rows = rows[:top]
    return rows


def stars(scores: np.ndarray) -> np.ndarray:
    """Return 1 ... 5 stars for each score, (n_images,), by fifths of all scores; equal scores get equal stars."""
    if not len(scores):
        return np.zeros(0, dtype=int)
    below = np.searchsorted(np.sort(scores), scores, side="left") / len(scores)
    return np.minimum(1 + (below * N_STARS).astype(int), N_STARS)


def check_selected(n_selected: int, n_images: int) -> None:
    """Raise UserError if no picture is selected."""
    if n_selected == 0:
        raise UserError(f"none of the {n_images} pictures is selected; relax --top, --above or --percentile")
