"""How well even a perfect model could do: the given scores are themselves uncertain, and nothing can predict noise.

True scores are drawn as the given ones and their standard errors allow, and a model that knew them is judged by the
given scores, as every model is.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from custom_aesthetic.base.arrays import Array
from custom_aesthetic.quality import metrics
from custom_aesthetic.quality.confidence import Interval
from custom_aesthetic.scores.bradley_terry import flat_prior
from custom_aesthetic.scores.posterior import draw_true_scores

Rows = NDArray[np.int64]

FEWEST_IMAGES = 10
MOST_IMAGES = 2000
"""Images beyond which a random part of them serves: the ceiling does not depend on their number, only its spread."""

RATINGS_BORROWED = 4


class Ceiling(NamedTuple):
    """The Spearman and AB that a perfect model reaches on such scores: mean, and ends that hold 95 % of the draws."""

    spearman: Interval
    ab: Interval
    reliability: float
    """Share of the scores' variance that is not noise, 0...1."""


def rating_sigmas(deviations: Array, n_ratings: Array) -> Array:
    """Return the standard error of each mean rating, (n_images,): deviation of its ratings / root of their number.

    A deviation of few ratings says little itself, so each variance is drawn towards that of all images, as if by
    `RATINGS_BORROWED` ratings more. nan for an image without ratings; one rating alone has the variance of all.
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
    """Return what a perfect model reaches on these scores (n_images,) with their standard errors (n_images,).

    `posterior` says what the scores are. True: they are already drawn towards the mean, as scores from comparisons
    with a prior are, and each true score lies around the given one with deviation sigma. False: they are plain means
    or estimates, each the true one plus an error of deviation sigma; the spread of the true ones is what remains of
    the given variance, and a true score lies around the given one drawn towards the mean (Efron and Morris, Stein's
    paradox in statistics, 1977). Images whose sigma is nan are left out. None where it cannot be told: fewer than 10
    images, or noise as large as the whole spread of the scores.
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
    """Draws of the true scores behind means with errors; the spread that is left for them is uncertain too."""
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


def ceiling_of_comparisons(scores: Array, winners: Rows, losers: Rows, *, seed: int = 0) -> Ceiling | None:
    """Return the ceiling of scores, (n_images,), that come from a comparison log; winners and losers are image rows.

    The judge's consistency is estimated from the answers: a standard error in the score file rests on a usual one.
    Only images that were compared count; None if they are fewer than 10 or their scores are equal.
    """
    compared, rows = np.unique(np.concatenate([winners, losers]), return_inverse=True)
    given = np.asarray(scores, dtype=np.float64)[compared]
    if len(compared) < FEWEST_IMAGES or np.ptp(given) == 0:
        return None
    draws = draw_true_scores(rows[: len(winners)], rows[len(winners) :], flat_prior(len(compared)), seed=seed)
    correlations = [metrics.pearson(given, truth).statistic for truth in draws]
    return _ceiling(given, draws, float(np.mean(np.square(correlations))))


def _summary(values: list[float]) -> Interval:
    low, high = np.quantile(values, (0.025, 0.975))
    return Interval(float(np.mean(values)), float(low), float(high))
