"""The noise ceiling: how well a perfect model would do, since the given scores are uncertain.

True scores are drawn from their distribution given the scores and standard errors. A model that predicts them exactly
is then judged by the given scores, like any other model.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from custom_aesthetic.base.arrays import Array
from custom_aesthetic.quality import metrics
from custom_aesthetic.quality.confidence import Interval

FEWEST_IMAGES = 10
MOST_IMAGES = 2000
"""Of more images a random sample is used; the ceiling does not depend on their number, only its spread does."""

RATINGS_BORROWED = 4
"""Weight of the variance of all images in that of one image, as a number of ratings."""


class Ceiling(NamedTuple):
    """The Spearman and AB that a perfect model reaches on such scores: means, and central 95 % intervals of draws."""

    spearman: Interval
    ab: Interval
    reliability: float
    """The share of the scores' variance that is not noise, 0...1."""


def rating_sigmas(deviations: Array, n_ratings: Array) -> Array:
    """Return the standard error of each mean rating, (n_images,): deviation of its ratings / root of their number.

    The deviation of few ratings is unreliable, so each variance is shrunk towards that of all images, as if there were
    `RATINGS_BORROWED` more ratings with it. nan for an image without ratings; a single rating gets the variance of all.
    """
    n_ratings = np.asarray(n_ratings, dtype=np.float64)
    freedom = np.where(np.isfinite(deviations), np.maximum(n_ratings - 1, 0), 0)
    squares = freedom * np.square(np.nan_to_num(deviations))
    if freedom.sum() == 0:
        return np.full(len(n_ratings), np.nan)
    common = squares.sum() / freedom.sum()
    variances = (squares + RATINGS_BORROWED * common) / (freedom + RATINGS_BORROWED)
    return np.sqrt(np.divide(variances, n_ratings, out=np.full(len(n_ratings), np.nan), where=n_ratings > 0))


def noise_ceiling(
    scores: Array, sigmas: Array, *, posterior: bool, n_draws: int = 200, seed: int = 0
) -> Ceiling | None:
    """Return the ceiling for scores (n_images,) with standard errors (n_images,).

    `posterior` is the kind of scores. True: the scores are already shrunk towards the mean, like scores from
    comparisons with a prior, and each true score is distributed around the given one with deviation sigma. False: the
    scores are plain means or estimates, each a true score plus an error with deviation sigma; the true scores have the
    remaining variance, and each is distributed around the given one, shrunk towards the mean (Efron and Morris, Stein's
    paradox in statistics, 1977).

    Images whose sigma is nan are left out. Returns None for fewer than 10 images or equal scores, and if the noise is
    as large as the spread of the scores.
    """
    known = np.flatnonzero(np.isfinite(sigmas) & np.isfinite(scores))
    generator = np.random.default_rng(seed)
    if len(known) > MOST_IMAGES:
        known = generator.permutation(known)[:MOST_IMAGES]
    given, noise = np.asarray(scores)[known], np.square(np.asarray(sigmas)[known])
    if len(given) < FEWEST_IMAGES or np.ptp(given) == 0:
        return None
    spread = float(np.var(given, ddof=1))
    true_variance = spread + float(noise.mean()) if posterior else spread - float(noise.mean())
    if true_variance <= 0:
        return None
    if posterior:
        draws = given + np.sqrt(noise) * generator.normal(size=(n_draws, len(given)))
    else:
        draws = _draw_shrunk(given, noise, spread, n_draws, generator)
    reliability = min(spread / true_variance if posterior else true_variance / spread, 1.0)
    return _ceiling(given, draws, reliability)


def _draw_shrunk(
    given: Array, noise: Array, spread: float, n_draws: int, generator: np.random.Generator
) -> NDArray[np.float64]:
    """Return draws of the true scores, (n_draws, n_images), for scores with errors; their variance is drawn too."""
    total = spread * (len(given) - 1) / generator.chisquare(len(given) - 1, size=n_draws)
    true_variance = np.maximum(total - noise.mean(), 1e-3 * spread)[:, None]
    kept = true_variance / (true_variance + noise)
    centres = given.mean() + kept * (given - given.mean())
    return np.asarray(centres + np.sqrt(noise * kept) * generator.normal(size=(n_draws, len(given))))


def _ceiling(given: Array, draws: NDArray[np.float64], reliability: float) -> Ceiling:
    return Ceiling(
        spearman=_summary([metrics.spearman(given, truth).statistic for truth in draws]),
        ab=_summary([metrics.ab(given, truth) for truth in draws]),
        reliability=reliability,
    )


def ceiling_of_draws(scores: Array, draws: Array) -> Ceiling | None:
    """Return the ceiling for scores (n_images,) whose true scores are drawn, (n_draws, n_images).

    None for fewer than 10 images or equal scores.
    """
    if len(scores) < FEWEST_IMAGES or np.ptp(scores) == 0:
        return None
    correlations = [metrics.pearson(scores, truth).statistic for truth in draws]
    return _ceiling(scores, draws, float(np.mean(np.square(correlations))))


def _summary(values: list[float]) -> Interval:
    low, high = np.quantile(values, (0.025, 0.975))
    return Interval(float(np.mean(values)), float(low), float(high))
