"""The learning curve: how much more scored pictures would improve a model.

Ridge regression is fitted to parts of the training images, and a power law to its results. It takes seconds where a
search takes hours, and gains from more pictures much as heads do. The law is spearman(n) = ceiling - drop x n **
-exponent (Hestness et al., Deep learning scaling is predictable, empirically, 2017).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from custom_aesthetic.base.arrays import Array
from custom_aesthetic.quality import metrics
from custom_aesthetic.quality.baselines import fit_ridge
from custom_aesthetic.quality.confidence import Interval

Rows = NDArray[np.int64]

FEWEST_IMAGES = 60
MOST_IMAGES = 1500
"""Of more images a random sample is used."""

HELD_OUT_FRACTION = 0.25
SHARES = (0.25, 0.35, 0.5, 0.7, 1.0)
"""Sizes of the training sets, as shares of the images that are not held out."""

EXPONENTS = np.linspace(0.2, 1.5, 27)
FARTHEST = 4.0
"""The law is extrapolated to at most this many times the number of scored images."""


@dataclass(frozen=True)
class LearningCurve:
    """Held-out Spearman of ridge regression by number of training images, and the expected gain from more images."""

    sizes: tuple[int, ...]
    spearmans: tuple[float, ...]
    """Means over the repeats."""
    gains: Mapping[int, Interval | None]
    """Number of additional pictures -> gain in Spearman with its 95 % interval; None if it cannot be estimated."""

    def __str__(self) -> str:
        if not self.sizes:
            return f"too few scored pictures to estimate the gain from more (at least {FEWEST_IMAGES} are needed)"
        measured = ", ".join(f"{rho:.3f} from {n}" for n, rho in zip(self.sizes, self.spearmans, strict=True))
        return (
            "the gain from more scores is estimated with a simpler model than yours (ridge), which learns from parts "
            f"of your pictures and is judged by the rest; its Spearman: {measured} pictures"
        )

    def gain_in_ab(self, extra: int, spearman: float) -> Interval | None:
        """Return how much `extra` more scores add to the share of pairs in the right order, 0...1.

        The gain in Spearman is added to `spearman`, that of the model. None if it cannot be estimated.
        """
        gain = self.gains.get(extra)
        if gain is None or not math.isfinite(spearman):
            return None
        return Interval(*(_ab_of(spearman + rise) - _ab_of(spearman) for rise in gain))


def _ab_of(spearman: float) -> float:
    """Return the share of pairs in the right order that corresponds to a Spearman, for normally distributed scores.

    Both are functions of Pearson's correlation then (Kruskal, Ordinal measures of association, 1958).
    """
    pearson = 2 * math.sin(math.pi * min(max(spearman, -1.0), 1.0) / 6)
    return 0.5 + math.asin(pearson) / math.pi


def learning_curve(
    features: Array,
    scores: Array,
    rows: Rows,
    *,
    extras: Sequence[int] = (100, 200, 400),
    n_repeats: int = 12,
    seed: int = 0,
) -> LearningCurve:
    """Return the learning curve of ridge on these rows of features (n_images, n_features) and scores (n_images,).

    Each repeat holds out another quarter of the rows and learns from nested parts of the rest. Gains are relative to
    a model that learns from all of `rows`. A gain is None with fewer than FEWEST_IMAGES rows, if the curve does not
    clearly rise, and beyond FARTHEST times the number of rows. The interval is the spread of the law over bootstrapped
    repeats; it does not include the errors of ridge regression and of the law as models.
    """
    if len(rows) < FEWEST_IMAGES or np.ptp(scores[rows]) == 0:
        return LearningCurve((), (), dict.fromkeys(extras))
    generator = np.random.default_rng(seed)
    pool = generator.permutation(rows)[:MOST_IMAGES]
    n_held_out = round(HELD_OUT_FRACTION * len(pool))
    sizes = tuple(round(share * (len(pool) - n_held_out)) for share in SHARES)
    repeats = np.array([_repeat(features, scores, generator.permutation(pool), sizes) for _ in range(n_repeats)])
    drawn = [repeats[generator.integers(0, n_repeats, size=n_repeats)].mean(0) for _ in range(200)]
    whole, laws = fit_law(sizes, repeats.mean(0)), [fit_law(sizes, curve) for curve in drawn]
    rise = repeats[:, -1] - repeats[:, len(sizes) // 2]
    rises = rise.mean() > 2 * rise.std(ddof=1) / math.sqrt(n_repeats)
    gains = {extra: _gain(whole, laws, len(rows), extra) if rises else None for extra in extras}
    return LearningCurve(sizes, tuple(repeats.mean(0).tolist()), gains)


def _repeat(features: Array, scores: Array, order: Rows, sizes: Sequence[int]) -> list[float]:
    """Return the held-out Spearman at each size; constant predictions count as 0."""
    held_out, rest = order[max(sizes) :], order[: max(sizes)]
    found = [fit_ridge(features, scores, rest[:size])(features[held_out]) for size in sizes]
    return [float(np.nan_to_num(metrics.spearman(scores[held_out], rows).statistic)) for rows in found]


def fit_law(sizes: Sequence[int], spearmans: Array) -> tuple[float, float, float]:
    """Return (ceiling, drop, exponent) of the law with the least squares; drop is at least 0, ceiling at most 1."""
    best = (math.inf, float(np.mean(spearmans)), 0.0, 1.0)
    for exponent in EXPONENTS:
        power = np.asarray(sizes, dtype=float) ** -exponent
        slope = _slope(power, spearmans)
        ceiling, drop = float(np.mean(spearmans) + slope * power.mean()), slope
        if ceiling > 1:
            ceiling, drop = 1.0, float(power @ (1 - spearmans) / (power @ power))
        error = float(np.square(ceiling - drop * power - spearmans).sum())
        if error < best[0]:
            best = (error, ceiling, drop, float(exponent))
    return best[1:]


def _slope(power: Array, spearmans: Array) -> float:
    spread = power - power.mean()
    return max(float(-(spread @ spearmans) / (spread @ spread)), 0.0)


def _gain(
    law: tuple[float, float, float], laws: Sequence[tuple[float, float, float]], n_images: int, extra: int
) -> Interval | None:
    if n_images + extra > FARTHEST * n_images:
        return None

    def rise(law: tuple[float, float, float]) -> float:
        _, drop, exponent = law
        return drop * (n_images**-exponent - (n_images + extra) ** -exponent)

    low, high = np.quantile([rise(drawn) for drawn in laws], (0.025, 0.975))
    return Interval(rise(law), float(low), float(high))
