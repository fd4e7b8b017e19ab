"""How much a choice flatters: the best of many trials is best partly by luck, and the images that chose it know."""

import math
from typing import NamedTuple

import numpy as np

from src import metrics
from src.confidence import draw_counts, resampled_spearman
from src.metrics import HIGHER_IS_BETTER, Array


class Optimism(NamedTuple):
    """A metric of the chosen head on the images that chose it, and on images that chose nothing; nan if undefined."""

    metric: str
    chosen: float
    untouched: float

    @property
    def flattery(self) -> float:
        """By how much the choice flatters; above 0 it does, in either direction of the metric."""
        difference = self.chosen - self.untouched
        return difference if HIGHER_IS_BETTER[self.metric] else -difference

    def __str__(self) -> str:
        return (
            f"{self.metric} {self.chosen:.4f} on the images that chose the model, {self.untouched:.4f} on images that "
            f"chose nothing: the search flatters itself by {self.flattery:.4f}; believe the second"
        )


def optimism(metric: str, chosen: float, untouched: float) -> Optimism:
    """Return the optimism of a search: its best trial's score, and that head's on test or left-out images."""
    return Optimism(metric, chosen, untouched)


def corrected_spearman(scores: Array, predictions: Array, *, n_resamples: int = 200, seed: int = 0) -> Optimism:
    """Return the best head's Spearman, and what it is worth, where no image was kept apart to measure that.

    `predictions` (n_heads, n_images) are every trial's on the images that chose among them, with `scores`
    (n_images,). The choice is repeated on resamples, and each time the head chosen is judged by the images that were
    not drawn (Tsamardinos, Greasidou and Borboudakis, Bootstrapping the out-of-sample predictions for efficient and
    accurate cross-validation, 2018). nan where fewer than 10 images leave nothing to judge by.
    """
    alone = np.array([metrics.spearman(scores, rows).statistic for rows in predictions])
    usable = predictions[np.isfinite(alone)]
    if len(scores) < 10 or len(usable) == 0:
        return Optimism("spearman", float(np.nanmax(alone)) if len(usable) else math.nan, math.nan)
    counts = draw_counts(len(scores), n_resamples, seed)
    drawn = np.stack([resampled_spearman(scores, rows, counts) for rows in usable])
    left_out = (counts == 0).astype(np.float32)
    judged = np.stack([resampled_spearman(scores, rows, left_out) for rows in usable])
    winners = np.argmax(np.nan_to_num(drawn, nan=-2.0), axis=0)
    return Optimism("spearman", float(np.nanmax(alone)), float(np.nanmean(judged[winners, np.arange(n_resamples)])))
