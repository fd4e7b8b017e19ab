"""Which heads to average: greedy forward selection from predictions made once, without any further training.

Caruana, Niculescu-Mizil, Crew and Ksikes, Ensemble selection from libraries of models, 2004: the member that helps the
mean most is added, again and again, and may be added twice.
"""

import math
from collections.abc import Callable, Sequence

import numpy as np

from src.metrics import Array


def select_ensemble(
    predictions: Array, goodness: Callable[[Array], float], *, n_members: int, n_first: int = 1
) -> tuple[int, ...]:
    """Return the members' indices, at most `n_members`, sorted, one that counts twice named twice.

    `predictions` (n_heads, n_images) should be out of sample, such as those on the eval set or out of fold, and
    `goodness` says of mean predictions (n_images,) how good they are, higher being better (negate an error). It starts
    from the best `n_first` heads and ends with the best ensemble met on the way, so the result is on these images
    never worse than the best head alone; on others it may be, and less so with more heads at the start (5 is usual).
    Heads whose goodness is undefined are left out. ValueError if all are.
    """
    single = np.array([goodness(rows) for rows in predictions])
    usable = np.flatnonzero(np.isfinite(single))
    if usable.size == 0:
        raise ValueError("no head has a defined goodness")
    ranked = usable[np.argsort(-single[usable], kind="stable")].tolist()
    members: list[int] = []
    best: tuple[float, list[int]] = (-math.inf, [])
    total = np.zeros(predictions.shape[1])
    while len(members) < n_members:
        if len(members) < n_first and len(members) < len(ranked):
            chosen = ranked[len(members)]
            reached = goodness((total + predictions[chosen]) / (len(members) + 1))
        else:
            chosen, reached = _most_helpful(total, len(members), predictions, ranked, goodness)
        members.append(chosen)
        total = total + predictions[chosen]
        if reached > best[0]:
            best = (reached, list(members))
    return tuple(sorted(best[1]))


def _most_helpful(
    total: Array, n_members: int, predictions: Array, candidates: Sequence[int], goodness: Callable[[Array], float]
) -> tuple[int, float]:
    """Return the head whose addition makes the mean best, the first of equals, and how good that is."""
    reached = [goodness((total + predictions[head]) / (n_members + 1)) for head in candidates]
    finite = [value if math.isfinite(value) else -math.inf for value in reached]
    best = int(np.argmax(finite))
    return candidates[best], finite[best]
