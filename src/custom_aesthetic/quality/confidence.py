"""Bootstrap confidence intervals, over images, of Spearman, AB, and the difference in Spearman of two models.

A resample is a row of counts: an image drawn c times counts c times in ranks and pairs, so that no arrays need to be
resampled (Efron and Tibshirani, An Introduction to the Bootstrap, 1993). Spearman and 2 AB - 1 lie in -1...1 and have
skewed distributions near the ends, so their intervals are symmetric on the scale of Fisher's z.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from custom_aesthetic.base.arrays import Array
from custom_aesthetic.quality import metrics

Counts = NDArray[np.float32]
"""(n_resamples, n_images): how often each resample drew each image; rows sum to n_images."""

ENDS = (0.025, 0.975)
"""Shares below the ends of an interval."""

HALF_WIDTH = float(ndtri(ENDS[1]))
"""Half the width of an interval, in standard errors."""

FEWEST_IMAGES = 5
BOOTSTRAP_UP_TO = 2000
"""With more images, the spread is estimated from disjoint blocks of images instead, in O(n log n)."""

N_BLOCKS = 50

OUT_OF_FOLD_SPREAD = 1.4
"""How much wider an interval is around an out-of-fold figure. Folds share their training images, so their errors go
together, which resampling of images does not see (Bates, Hastie and Tibshirani, Cross-validation: what does it estimate
and how well does it do it?, 2024). Measured on single raters; see docs/log.md."""


class Interval(NamedTuple):
    """A figure and the ends of its interval; all nan if it is undefined, only the ends nan if images are too few."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.4f} ({self.low:.4f} ... {self.high:.4f})"


class _Figure(NamedTuple):
    """A figure in -1...1 of scores and predictions."""

    of_all: Callable[[Array, Array], float]
    resampled: Callable[[Array, Array, Counts], Array]
    """Returns it within each resample, (n_resamples,)."""


def interval_of(draws: Array) -> Interval:
    """Return the mean of draws, (n_draws,), and their central 95 % interval; all nan if one of the draws is."""
    return Interval(float(np.mean(draws)), *(float(end) for end in np.quantile(draws, ENDS)))


def spearman_interval(
    scores: Array, predictions: Array, *, out_of_fold: bool = False, seed: int = 0, n_resamples: int = 1000
) -> Interval:
    """Return Spearman's correlation of two arrays (n_images,) and its interval.

    `out_of_fold` tells that the predictions of different images come from different models, of one cross-validation.
    """
    figure = _Figure(_spearman, resampled_spearman)
    return _interval(figure, scores, predictions, out_of_fold=out_of_fold, seed=seed, n_resamples=n_resamples)


def ab_interval(
    scores: Array, predictions: Array, *, out_of_fold: bool = False, seed: int = 0, n_resamples: int = 1000
) -> Interval:
    """Return the share of pairs in the right order, 0...1, of two arrays (n_images,) and its interval.

    `out_of_fold` is that of `spearman_interval`.
    """
    figure = _Figure(_ab_surplus, lambda *resampled: 2 * resampled_ab(*resampled) - 1)
    found = _interval(figure, scores, predictions, out_of_fold=out_of_fold, seed=seed, n_resamples=n_resamples)
    return Interval(*((value + 1) / 2 for value in found))


def _interval(
    figure: _Figure, scores: Array, predictions: Array, *, out_of_fold: bool, seed: int, n_resamples: int
) -> Interval:
    """Return the figure and its interval, symmetric on the scale of Fisher's z."""
    value = figure.of_all(scores, predictions)
    if len(scores) > BOOTSTRAP_UP_TO:
        spread = _spread_of_blocks([scores, predictions], lambda *block: _z(figure.of_all(*block)), seed)
    else:
        counts = _counts(len(scores), n_resamples, seed)
        spread = _spread(_fisher(figure.resampled(scores, predictions, counts)))
    centre, half = _z(value), HALF_WIDTH * spread * (OUT_OF_FOLD_SPREAD if out_of_fold else 1)
    return Interval(value, math.tanh(centre - half), math.tanh(centre + half))


def spearman_difference(
    scores: Array, first: Array, second: Array, *, seed: int = 0, n_resamples: int = 1000
) -> Interval:
    """Return the Spearman of `first` minus that of `second` on the same images, with its interval.

    Both are evaluated on the same resamples (a paired bootstrap), so that differences between images do not widen the
    interval. All arrays are (n_images,).
    """
    value = _spearman_difference(scores, first, second)
    if len(scores) > BOOTSTRAP_UP_TO:
        spread = _spread_of_blocks([scores, first, second], _spearman_difference, seed)
    else:
        counts = _counts(len(scores), n_resamples, seed)
        spread = _spread(resampled_spearman(scores, first, counts) - resampled_spearman(scores, second, counts))
    half = HALF_WIDTH * spread
    return Interval(value, value - half, value + half)


def resampled_spearman(scores: Array, predictions: Array, counts: Counts) -> Array:
    """Return Spearman's correlation within each resample, (n_resamples,); nan where it is undefined.

    It equals the correlation of arrays in which each image is repeated as often as it was drawn.
    """
    return _correlation(counts, _centred_ranks(scores, counts), _centred_ranks(predictions, counts))


def resampled_pearson(scores: Array, predictions: Array, counts: Counts) -> Array:
    """Return Pearson's correlation within each resample, (n_resamples,); nan where it is undefined."""
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    first, second = (values - (shares @ values)[:, None] for values in (scores, predictions))
    return _correlation(counts, first, second)


def _correlation(counts: Counts, first: Array, second: Array) -> Array:
    """Return the correlation within each resample of two arrays (n_resamples, n_images) that are already centred."""
    covariance = np.einsum("rn,rn,rn->r", counts, first, second)
    product = np.einsum("rn,rn->r", counts, first**2) * np.einsum("rn,rn->r", counts, second**2)
    return np.divide(covariance, np.sqrt(product), out=np.full(len(counts), np.nan), where=product > 0)


def resampled_ab(scores: Array, predictions: Array, counts: Counts) -> Array:
    """Return AB within each resample, (n_resamples,); nan where it is undefined.

    Takes O(n_images squared) for each resample of up to BOOTSTRAP_UP_TO images, O(n_images log n_images) beyond.
    """
    if len(scores) > BOOTSTRAP_UP_TO:
        drawn = (np.repeat(np.arange(len(scores)), own.astype(np.int64)) for own in counts)
        return np.array([metrics.ab(scores[rows], predictions[rows]) for rows in drawn])
    differ = np.sign(scores[:, None] - scores).astype(np.float32)
    order = differ * np.sign(predictions[:, None] - predictions).astype(np.float32)
    surplus = np.einsum("rn,rn->r", counts @ order, counts, dtype=np.float64)
    n_pairs = np.einsum("rn,rn->r", counts @ np.abs(differ), counts, dtype=np.float64)
    return 0.5 + 0.5 * np.divide(surplus, n_pairs, out=np.full(len(counts), np.nan), where=n_pairs > 0)


def draw_counts(n_images: int, n_resamples: int, seed: int) -> Counts:
    """Return how often each resample draws each image, (n_resamples, n_images)."""
    generator = np.random.default_rng(seed)
    return generator.multinomial(n_images, np.full(n_images, 1 / n_images), n_resamples).astype(np.float32)


def _counts(n_images: int, n_resamples: int, seed: int) -> Counts:
    """Return the counts of the resamples; no resamples if the images are too few to estimate the spread."""
    if n_images < FEWEST_IMAGES:
        return np.zeros((0, n_images), np.float32)
    return draw_counts(n_images, n_resamples, seed)


def _centred_ranks(values: Array, counts: Counts) -> Array:
    """Return each image's mean rank within each resample, minus the mean of all ranks, (n_resamples, n_images)."""
    if counts.size == 0:
        return np.zeros(counts.shape)
    group = np.unique(values, return_inverse=True)[1]
    order = np.argsort(group, kind="stable")
    starts = np.flatnonzero(np.diff(group[order], prepend=-1))
    in_group = np.add.reduceat(counts[:, order].astype(np.float64), starts, axis=1)
    up_to = np.cumsum(in_group, axis=1)
    ranks = up_to - (in_group - 1) / 2
    return (ranks - (up_to[:, -1:] + 1) / 2)[:, group]


def _spread_of_blocks(arrays: list[Array], figure: Callable[..., float], seed: int) -> float:
    """Return the standard error of a figure of many images, from its spread over disjoint random blocks of them.

    All these figures behave like means for large samples: their variance is proportional to 1 / number of images.
    """
    order = np.random.default_rng(seed).permutation(len(arrays[0]))
    found = [figure(*(values[rows] for values in arrays)) for rows in np.array_split(order, N_BLOCKS)]
    return _spread(np.array(found)) / math.sqrt(len(found))


def _spearman(scores: Array, predictions: Array) -> float:
    return metrics.spearman(scores, predictions).statistic


def _ab_surplus(scores: Array, predictions: Array) -> float:
    return 2 * metrics.ab(scores, predictions) - 1


def _spearman_difference(scores: Array, first: Array, second: Array) -> float:
    return _spearman(scores, first) - _spearman(scores, second)


def _fisher(values: Array) -> Array:
    return np.arctanh(np.clip(values, -1 + 1e-9, 1 - 1e-9))


def _z(value: float) -> float:
    return float(_fisher(np.array(value)))


def _spread(values: Array) -> float:
    defined = values[np.isfinite(values)]
    return float(np.std(defined, ddof=1)) if len(defined) >= 2 else math.nan


CHOSE = (
    "; the same pictures also chose the model, so the true figure is lower, and --folds=4 or --fraction_for_test=0.2 "
    "measures it"
)
"""The end of a sentence with a figure on the pictures by which epochs and trials were chosen."""


def interval_line(name: str, spearman: Interval, ab: Interval) -> str:
    """Return a line on the intervals of the figures of a set."""
    if not (math.isfinite(spearman.low) and math.isfinite(ab.low)):
        return f"{name} 95 % intervals: unknown, as there are too few pictures with different scores"
    return (
        f"{name} 95 % intervals: spearman {spearman.low:.3f} ... {spearman.high:.3f}, "
        f"AB {100 * ab.low:.1f} % ... {100 * ab.high:.1f} %"
    )


def share_in_words(share: Interval) -> str:
    """Return a sentence, without full stop, for a finite share of pairs in the right order (0...1)."""
    between = f"95 % interval {100 * share.low:.0f} to {100 * share.high:.0f}; " if math.isfinite(share.low) else ""
    return (
        f"Of two new pictures, the model picks the one you would {100 * share.value:.0f} times in 100 ({between}"
        "guessing gets 50)"
    )
