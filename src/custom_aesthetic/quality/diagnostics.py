"""Diagnostics of a model's errors: by model score, by the distance of two scores, and against its predicted sigma."""

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from custom_aesthetic.base.arrays import Array

MOST_PAIRS = 2_000_000

EXPECTED_WITHIN_ONE = math.erf(1 / math.sqrt(2))
EXPECTED_WITHIN_TWO = math.erf(2 / math.sqrt(2))
"""The shares of a normal distribution within one and two standard deviations: 0.683 and 0.954."""


class DistanceBin(NamedTuple):
    """Pairs of pictures whose scores differ by `low` to `high`, and the share of them in the right order, 0...1."""

    low: float
    high: float
    share_right: float
    n_pairs: int


class ErrorBin(NamedTuple):
    """The mean model score in a bin, and the mean, 10 % quantile and 90 % quantile of the errors in it."""

    centre: float
    mean: float
    low: float
    high: float


class SigmaBin(NamedTuple):
    """Pictures with similar predicted sigmas: root mean square of the sigmas, and root mean squared error."""

    predicted: float
    found: float
    n_images: int


@dataclass(frozen=True)
class Calibration:
    """Comparison of the predicted sigmas of an nll model with its errors."""

    levels: Array
    """Nominal coverage (n_levels,), 0...1, of central intervals of a normal distribution."""
    coverage: Array
    """Actual shares of pictures in these intervals (n_levels,); equal to `levels` if the sigmas are right."""
    bins: tuple[SigmaBin, ...]


def order_by_distance(
    scores: Array, model_scores: Array, *, n_bins: int = 10, seed: int = 0, most_pairs: int = MOST_PAIRS
) -> tuple[DistanceBin, ...]:
    """Return how often the model orders two pictures right, in bins by the difference of their scores.

    Bins hold equal numbers of pairs, as far as ties allow. Pairs with equal scores do not count, and a pair with equal
    model scores counts as half right. Of more than `most_pairs` pairs a random sample is used.
    """
    first, second = _pairs(len(scores), most_pairs, seed)
    distances = scores[first] - scores[second]
    orders = np.sign(distances) * np.sign(model_scores[first] - model_scores[second])
    counted = distances != 0
    distances, right = np.abs(distances[counted]), (orders[counted] + 1) / 2
    if len(distances) == 0:
        return ()
    edges = np.unique(np.quantile(distances, np.linspace(0, 1, n_bins + 1)))
    bins = np.clip(np.searchsorted(edges, distances, side="right") - 1, 0, max(len(edges) - 2, 0))
    n_pairs = np.bincount(bins)
    n_right = np.bincount(bins, weights=right)
    uppers = edges[1:] if len(edges) > 1 else edges
    return tuple(
        DistanceBin(float(edges[i]), float(uppers[i]), float(n_right[i] / n_pairs[i]), int(n_pairs[i]))
        for i in range(len(n_pairs))
        if n_pairs[i]
    )


def _pairs(n_images: int, most_pairs: int, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    if n_images * (n_images - 1) // 2 <= most_pairs:
        first, second = np.triu_indices(n_images, k=1)
        return first, second
    generator = np.random.default_rng(seed)
    first = generator.integers(n_images, size=most_pairs)
    return first, (first + generator.integers(1, n_images, size=most_pairs)) % n_images


def errors_by_model_score(model_scores: Array, errors: Array, *, n_bins: int = 10) -> tuple[ErrorBin, ...]:
    """Return statistics of the errors (n_images,) in bins of about equally many pictures, by ascending model score."""
    order = np.argsort(model_scores, kind="stable")
    parts = np.array_split(order, min(n_bins, max(len(order) // 10, 1)))
    return tuple(
        ErrorBin(
            float(np.mean(model_scores[part])), float(np.mean(errors[part])), *map(float, _middle_80(errors[part]))
        )
        for part in parts
        if len(part)
    )


def _middle_80(values: Array) -> Array:
    return np.quantile(values, [0.1, 0.9])


def calibration(scores: Array, model_scores: Array, sigmas: Array, *, n_bins: int = 10) -> Calibration:
    """Return how well predicted sigmas (n_images,) agree with the actual errors; all arrays are (n_images,)."""
    levels = np.linspace(0.05, 0.95, 19)
    deviations = np.abs(scores - model_scores) / np.maximum(np.abs(sigmas), 1e-12)
    coverage = np.array([np.mean(deviations <= limit) for limit in stats.norm.ppf((1 + levels) / 2)])
    order = np.argsort(np.abs(sigmas), kind="stable")
    parts = np.array_split(order, min(n_bins, max(len(order) // 10, 1)))
    bins = tuple(
        SigmaBin(_root_mean_square(sigmas[part]), _root_mean_square((scores - model_scores)[part]), len(part))
        for part in parts
        if len(part)
    )
    return Calibration(levels, coverage, bins)


def _root_mean_square(values: Array) -> float:
    return float(np.sqrt(np.mean(values**2)))


def extremes(values: Array, n_wanted: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the rows of the highest values, highest first, and of the lowest, lowest first, without nan."""
    known = np.flatnonzero(np.isfinite(values))
    ascending = known[np.argsort(values[known], kind="stable")]
    return ascending[::-1][:n_wanted], ascending[:n_wanted]


class Coverage(NamedTuple):
    """Shares of images, 0...1, whose score lies within one and two sigma; nan without images."""

    within_one: float
    within_two: float
    n_images: int

    @property
    def verdict(self) -> str:
        """`too small`, `too large`, or `honest` if the shares are within two standard errors of the expected ones."""
        for share, expected in ((self.within_one, EXPECTED_WITHIN_ONE), (self.within_two, EXPECTED_WITHIN_TWO)):
            tolerance = 2 * math.sqrt(expected * (1 - expected) / self.n_images) if self.n_images else math.inf
            if abs(share - expected) > tolerance:
                return "too small" if share < expected else "too large"
        return "honest"

    def __str__(self) -> str:
        return (
            f"{self.within_one:.1%} of {self.n_images} scores lie within one sigma, {self.within_two:.1%} within two "
            f"(expected {EXPECTED_WITHIN_ONE:.1%} and {EXPECTED_WITHIN_TWO:.1%})"
        )


def coverage(scores: Array, predictions: Array, sigmas: Array) -> Coverage:
    """Return the shares of scores within one and two sigma of their prediction; all arrays are (n_images,)."""
    if len(scores) == 0:
        return Coverage(math.nan, math.nan, 0)
    errors = np.abs(scores - predictions)
    return Coverage(float(np.mean(errors <= sigmas)), float(np.mean(errors <= 2 * sigmas)), len(scores))
