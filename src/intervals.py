"""How sure the statistics are: bootstrap intervals over images."""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from src import metrics
from src.metrics import Array

N_RESAMPLES = 1000
MOST_IMAGES_RESAMPLED = 2000
FEWEST_IMAGES = 3


class Interval(NamedTuple):
    """Bounds that hold the statistic with 95 % confidence; both nan where it is undefined or images are too few."""

    low: float
    high: float


UNKNOWN = Interval(math.nan, math.nan)


class Intervals(NamedTuple):
    """The intervals of the statistics of some images."""

    ab: Interval
    spearman: Interval
    pearson: Interval


def bootstrap_intervals(
    scores: Array, model_scores: Array, *, n_resamples: int = N_RESAMPLES, seed: int = 0
) -> Intervals:
    """Return percentile bootstrap intervals of two arrays (n_images,): images are drawn again, with both scores.

    Of more than 2000 images a random 2000 are drawn from; the spread found is then scaled by sqrt(2000 / n_images), so
    that a large folder costs no more than a small one.
    """
    if len(scores) < FEWEST_IMAGES or not np.isfinite(model_scores).all():
        return Intervals(UNKNOWN, UNKNOWN, UNKNOWN)
    generator = np.random.default_rng(seed)
    kept = np.arange(len(scores))
    if len(scores) > MOST_IMAGES_RESAMPLED:
        kept = np.sort(generator.choice(len(scores), MOST_IMAGES_RESAMPLED, replace=False))
    x, y = scores[kept], model_scores[kept]
    draws = generator.integers(len(kept), size=(n_resamples, len(kept)))
    shrink = math.sqrt(len(kept) / len(scores))

    def interval(estimate: float, of_kept: float, replicates: Array) -> Interval:
        replicates = replicates[np.isfinite(replicates)]
        if not math.isfinite(estimate) or len(replicates) < n_resamples / 2:
            return UNKNOWN
        low, high = np.quantile(replicates, [0.025, 0.975])
        return Interval(float(estimate + shrink * (low - of_kept)), float(estimate + shrink * (high - of_kept)))

    ranks = (stats.rankdata(values[draws], axis=1) for values in (x, y))
    return Intervals(
        ab=interval(metrics.ab(scores, model_scores), metrics.ab(x, y), ab_of_draws(x, y, draws)),
        spearman=interval(
            metrics.spearman(scores, model_scores).statistic, metrics.spearman(x, y).statistic, _correlations(*ranks)
        ),
        pearson=interval(
            metrics.pearson(scores, model_scores).statistic,
            metrics.pearson(x, y).statistic,
            _correlations(x[draws], y[draws]),
        ),
    )


def ab_of_draws(scores: Array, model_scores: Array, draws: NDArray[np.int64]) -> Array:
    """Return `metrics.ab` of each row of `draws` (n_resamples, n_drawn), which holds rows of the images.

    Images count as often as they are drawn, so all resamples are two products of matrices.
    """
    n_images = len(scores)
    order = np.sign(scores[:, None] - scores[None, :]).astype(np.float32)
    agreement = order * np.sign(model_scores[:, None] - model_scores[None, :]).astype(np.float32)
    times = np.stack([np.bincount(draw, minlength=n_images) for draw in draws]).astype(np.float32)
    counted, surplus = (
        np.einsum("ri,ri->r", times @ pairs, times, dtype=np.float64) for pairs in (np.abs(order), agreement)
    )
    with np.errstate(invalid="ignore"):
        return (surplus + counted) / (2 * counted)


def _correlations(x: Array, y: Array) -> Array:
    """Return Pearson's correlation of each row of x and y, (n_resamples, n_drawn); nan where a row is constant."""
    x = x - x.mean(axis=1, keepdims=True)
    y = y - y.mean(axis=1, keepdims=True)
    scale = np.sqrt((x**2).sum(axis=1) * (y**2).sum(axis=1))
    with np.errstate(invalid="ignore", divide="ignore"):
        return (x * y).sum(axis=1) / scale
