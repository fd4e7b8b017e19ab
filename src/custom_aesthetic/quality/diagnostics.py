"""Diagnostics of a model's errors: by model score, by the distance of two scores, and against its predicted sigma."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from custom_aesthetic.base.arrays import Array

MOST_PAIRS = 2_000_000


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
