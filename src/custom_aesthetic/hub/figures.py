"""How good a model is, as its file says it: how often it is right, and its rank correlation, with intervals."""

import json
import math
from dataclasses import asdict, dataclass

KEY = "judged"
"""The key in the model file's metadata."""

OUT_OF_FOLD, TEST, EVAL = "out of fold", "test", "eval"

Bounds = tuple[float, float] | None
"""The ends of a 95 % interval; None where the images are too few."""


@dataclass(frozen=True)
class Figures:
    """Measured on images that the model has not learnt from."""

    judged_on: str
    """`out of fold`, `test` or `eval`."""
    n_images: int
    right_pairs: float
    """Share of pairs on which the model picks what the user picks, 0...1, as the verdict of the training says it."""
    right_pairs_bounds: Bounds
    spearman: float
    spearman_bounds: Bounds


def figures_to_text(figures: Figures) -> str:
    """Return the figures as a value of the metadata."""
    return json.dumps(asdict(figures))


def figures_from_text(text: str) -> Figures | None:
    """Return the figures of a model file; None where it has none, or none that can be read."""
    try:
        found = json.loads(text)
        figures = Figures(
            str(found["judged_on"]),
            int(found["n_images"]),
            float(found["right_pairs"]),
            _bounds(found["right_pairs_bounds"]),
            float(found["spearman"]),
            _bounds(found["spearman_bounds"]),
        )
    except (ValueError, KeyError, TypeError, RecursionError, OverflowError):
        return None
    numbers = (figures.right_pairs, figures.spearman, *(figures.right_pairs_bounds or ()))
    is_sound = figures.judged_on in (OUT_OF_FOLD, TEST, EVAL) and all(map(math.isfinite, numbers))
    return figures if is_sound else None


def _bounds(found: list[float] | None) -> Bounds:
    if found is None:
        return None
    low, high = found
    return (float(low), float(high)) if math.isfinite(low) and math.isfinite(high) else None
