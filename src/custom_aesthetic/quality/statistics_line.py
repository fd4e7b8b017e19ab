"""The statistics line, which compares model scores with given scores. Scripts parse it, so its format is fixed."""

import math
from dataclasses import dataclass

import numpy as np

from custom_aesthetic.base.arrays import Array
from custom_aesthetic.quality import metrics
from custom_aesthetic.quality.metrics import Correlation


@dataclass(frozen=True)
class Statistics:
    """Statistics of model scores and given scores of some images; undefined values are nan."""

    n_images: int
    score_mean: float
    score_deviation: float
    """Sample standard deviation, in units of the scores."""
    model_mean: float
    model_deviation: float
    spearman: Correlation
    pearson: Correlation
    ab: float
    """Share of pairs in the right order, 0...1; 1 is best."""


def statistics(scores: Array, model_scores: Array) -> Statistics | None:
    """Return the statistics of two arrays (n_images,); None for fewer than two images."""
    if len(scores) < 2:
        return None
    return Statistics(
        n_images=len(scores),
        score_mean=float(np.mean(scores)),
        score_deviation=float(np.std(scores, ddof=1)),
        model_mean=float(np.mean(model_scores)),
        model_deviation=float(np.std(model_scores, ddof=1)),
        spearman=metrics.spearman(scores, model_scores),
        pearson=metrics.pearson(scores, model_scores),
        ab=metrics.ab(scores, model_scores),
    )


def statistics_line(name: str, scores: Array, model_scores: Array) -> str:
    """Return the statistics line of a set of images, or a note that images are too few or all scores equal."""
    found = statistics(scores, model_scores)
    if found is None:
        return f"{name} : {len(scores):>5} images, too few for statistics"
    if np.ptp(scores) == 0:
        return f"{name} : {len(scores):>5} images, all have the score {scores[0]:.3f}: no statistics"
    return (
        f"{name} : {found.n_images:>5} images, "
        f"db score {found.score_mean:>6.3f} +/- {found.score_deviation:>4.2f}, "
        f"model score {found.model_mean:>6.3f} +/- {found.model_deviation:>4.2f}, "
        f"spearman {_correlation(found.spearman)}, pearson {_correlation(found.pearson)}, AB {100 * found.ab:>6.2f}%"
    )


def _correlation(correlation: Correlation) -> str:
    if not math.isfinite(correlation.statistic):
        return "undefined (p= undefined)"
    if not math.isfinite(correlation.p_value):
        return f"{correlation.statistic:>6.4f} (p= undefined)"
    return f"{correlation.statistic:>6.4f} (p={correlation.p_value:>8.1e})"
