"""How well even a perfect model could do: the given scores are themselves uncertain, and nothing can predict noise.

True scores are drawn as the given ones and their standard errors allow, and a model that knew them is judged by the
given scores, as every model is.
"""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from custom_aesthetic.base.arrays import Array
from custom_aesthetic.quality import metrics
from custom_aesthetic.quality.confidence import Interval
from custom_aesthetic.scores.bradley_terry import fit_scores, flat_prior, standard_errors

Rows = NDArray[np.int64]

FEWEST_IMAGES = 10
MOST_IMAGES = 2000
"""Images beyond which a random part of them serves: the ceiling does not depend on their number, only its spread."""


class Ceiling(NamedTuple):
    """The Spearman and AB that a perfect model reaches on such scores: mean, and ends that hold 95 % of the draws."""

    spearman: Interval
    ab: Interval
    reliability: float
    """Share of the scores' variance that is not noise, 0...1."""


def rating_sigmas(deviations: Array, n_ratings: Array) -> Array:
    """Return the standard error of each mean rating, (n_images,): deviation of its ratings / root of their number.

    nan for an image without ratings.
    """
    return np.divide(
        deviations, np.sqrt(n_ratings), out=np.full(len(n_ratings), np.nan), where=np.asarray(n_ratings) > 0
    )


def comparison_sigmas(scores: Array, n_comparisons: Array) -> Array:
    """Return about the standard error of each score, (n_images,), from how often its image was compared.

    `scores` are taken as logits of the Bradley-Terry model and opponents as picked at random: a comparison then tells
    p (1 - p) about the score, p being the probability of winning it, and the variance is one over the sum (the Fisher
    information; Bradley and Terry, Biometrika 1952). Opponents count as known, which makes it a little too small. nan
    for an image that was never compared.
    """
    sample = np.quantile(scores, (np.arange(200) + 0.5) / 200)
    wins = expit(np.asarray(scores)[:, None] - sample)
    told = np.asarray(n_comparisons) * (wins * (1 - wins)).mean(1)
    return np.sqrt(np.divide(1, told, out=np.full(len(told), np.nan), where=told > 0))


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
    kept = np.ones(len(given)) if posterior else true_variance / (true_variance + noise)
    centres = given.mean() + kept * (given - given.mean())
    deviations = np.sqrt(noise * kept)
    draws = [centres + deviations * generator.normal(size=len(given)) for _ in range(n_draws)]
    return Ceiling(
        spearman=_summary([metrics.spearman(given, truth).statistic for truth in draws]),
        ab=_summary([metrics.ab(given, truth) for truth in draws]),
        reliability=min(spread / true_variance if posterior else true_variance / spread, 1.0),
    )


def ceiling_of_comparisons(winners: Rows, losers: Rows, n_images: int, *, seed: int = 0) -> Ceiling | None:
    """Return the ceiling of scores that are fitted to a comparison log, `winners` and `losers` being image indices.

    Only images that were compared count.
    """
    prior = flat_prior(n_images)
    scores = fit_scores(winners, losers, prior)
    sigmas = standard_errors(scores, winners, losers, prior)
    compared = np.bincount(np.concatenate([winners, losers]), minlength=n_images) > 0
    return noise_ceiling(scores, np.where(compared, sigmas, math.nan), posterior=True, seed=seed)


def _summary(values: list[float]) -> Interval:
    low, high = np.quantile(values, (0.025, 0.975))
    return Interval(float(np.mean(values)), float(low), float(high))
