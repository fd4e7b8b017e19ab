"""Choice of the pictures to compare next, so that each comparison gives much information about the order.

`random` draws pictures uniformly. `adaptive` draws a picture that was seldom shown, and partners that have similar and
uncertain scores. `model`, for scores from features, draws from the pictures shown least the pair that tells the model
most: pictures unlike each other, in ways that no answer has compared yet. Once the taste is known roughly, it draws a
part of the pairs among the pictures that may be the best, because these are the ones that people look for. Some
adaptive pairs are random: they allow an unbiased test of the scores, and they correct a wrong start.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import expit

from custom_aesthetic.scores.bradley_terry import PRIOR_VARIANCE
from custom_aesthetic.scores.prior import FEATURE_SHARE

RANDOM_SHARE = 0.1

PICTURES_LOOKED_AT = 50
"""Number of pictures, those shown least, among which `model` looks for the pair that tells most."""

TOP_SHARE = 0.3
"""Share of the pairs that `model` draws among the pictures that may be the best."""

SHOWN_BEFORE_THE_TOP = 200
"""Number of pictures shown, in 100 pairs, before `model` draws any pair there: who knows the taste knows the best."""

TOP_PICTURES = 0.1
FEWEST_AT_THE_TOP = 20
"""The best tenth of the pictures, but at least this many, are the ones that may be the best."""

PARTNERS_LOOKED_AT = 1000


@dataclass(frozen=True)
class Standing:
    """State of the pictures, (n_pictures,) each: scores and standard errors in logits, and numbers of times shown."""

    scores: np.ndarray
    sigmas: np.ndarray
    shown: np.ndarray
    axes: np.ndarray | None = None
    """(n_pictures, n_axes), for `model`: the part of the scores' errors that comes from features; axes @ axes.T is its
    covariance."""


def after_choice(standing: Standing, winner: int, losers: Sequence[int]) -> Standing:
    """Return the approximate standing after a choice, used until the scores are fitted again.

    It takes one Newton step for the pictures involved and ignores their dependence on others, so it is fast enough to
    draw the next pair immediately.
    """
    return after_comparisons(standing, [(winner, loser, 1.0) for loser in losers])


def after_comparisons(standing: Standing, comparisons: Sequence[tuple[int, int, float]]) -> Standing:
    """Return the approximate standing after an answer, as (winner, loser, weight) of its comparisons."""
    scores, variances, shown = standing.scores.copy(), standing.sigmas**2, standing.shown.copy()
    for winner, loser, share in comparisons:
        probability = expit(scores[winner] - scores[loser])
        weight = share * probability * (1 - probability)
        step = share * (1 - probability) / (1 + weight * (variances[winner] + variances[loser]))
        scores[winner] += variances[winner] * step
        scores[loser] -= variances[loser] * step
        before = variances[winner], variances[loser]
        variances[winner] = 1 / (1 / before[0] + weight / (1 + weight * before[1]))
        variances[loser] = 1 / (1 / before[1] + weight / (1 + weight * before[0]))
    shown[list({row for winner, loser, _ in comparisons for row in (winner, loser)})] += 1
    return Standing(scores, np.sqrt(variances), shown)


def draw_group(
    standing: Standing,
    generator: np.random.Generator,
    *,
    number: int = 2,
    strategy: str = "adaptive",
    avoid: Collection[frozenset[int]] = (),
) -> tuple[list[int], str]:
    """Return `number` pictures to show together, in random order, and how they were drawn.

    `avoid` contains groups that should not be drawn (the last ones shown or skipped), as long as there are others. The
    second value is the strategy, or `random`.
    """
    n_pictures = len(standing.scores)
    number = min(number, n_pictures)
    chance = generator.uniform()
    drawn = "random" if strategy == "adaptive" and chance < RANDOM_SHARE else strategy
    among = None
    knows_the_taste = standing.shown.sum() >= SHOWN_BEFORE_THE_TOP
    if drawn == "model" and knows_the_taste and chance < TOP_SHARE:
        among = may_be_the_best(standing)
        number = min(number, len(among))
    group: list[int] = []
    for _ in range(20):
        group = (
            _random_group(n_pictures, generator, number)
            if drawn == "random"
            else _near(standing, generator, number)
            if standing.axes is None
            else _telling(standing, standing.axes, generator, number, among)
        )
        if frozenset(group) not in avoid:
            break
    else:
        group = _any_other(n_pictures, generator, number, avoid) or group
    return [group[k] for k in generator.permutation(number)], drawn


def draw_fresh(
    standing: Standing,
    generator: np.random.Generator,
    *,
    number: int,
    strategy: str = "adaptive",
    avoid: Collection[frozenset[int]] = (),
) -> tuple[list[int], str]:
    """Return `number` pictures to show one by one or as a grid, in random order, and how they were drawn.

    All strategies but `random` take pictures that were shown least. Single pictures to `avoid` are left out, as long as
    there are others.
    """
    n_pictures = len(standing.scores)
    turn = generator.uniform(size=n_pictures) + (0 if strategy == "random" else standing.shown)
    turn[[place for group in avoid if len(group) == 1 for place in group]] = np.inf
    if number >= n_pictures:
        return [int(place) for place in generator.permutation(n_pictures)], strategy
    return [int(place) for place in generator.permutation(np.argpartition(turn, number - 1)[:number])], strategy


def pair_gain(standing: Standing, first: int, others: np.ndarray) -> np.ndarray:
    """Return the expected information from comparing `first` with each of `others`, (n_others,); higher is better.

    It is p (1 - p) times the variance of the score difference, where p includes the uncertainty of both scores
    (MacKay's approximation).
    """
    variance = standing.sigmas[first] ** 2 + standing.sigmas[others] ** 2
    lead = standing.scores[first] - standing.scores[others]
    probability = expit(lead / np.sqrt(1 + np.pi / 8 * variance))
    return probability * (1 - probability) * variance


def _random_group(n_pictures: int, generator: np.random.Generator, number: int) -> list[int]:
    return [int(picture) for picture in generator.choice(n_pictures, number, replace=False)]


def may_be_the_best(standing: Standing) -> np.ndarray:
    """Return the pictures that are among the best if their scores are one standard error higher."""
    number = min(max(FEWEST_AT_THE_TOP, round(TOP_PICTURES * len(standing.scores))), len(standing.scores))
    hoped = standing.scores + standing.sigmas
    return np.argpartition(-hoped, number - 1)[:number]


def _near(standing: Standing, generator: np.random.Generator, number: int) -> list[int]:
    """Return one of the pictures shown least, and the partners with the highest gain, up to a random factor."""
    everyone = np.arange(len(standing.scores))
    first = int(np.argmin(standing.shown + generator.uniform(size=len(everyone))))
    others = everyone
    if len(everyone) > PARTNERS_LOOKED_AT:
        others = generator.choice(everyone, PARTNERS_LOOKED_AT, replace=False)
    others = others[others != first]
    worth = pair_gain(standing, first, others) * np.exp(generator.uniform(size=len(others)))
    best = others[np.argpartition(-worth, number - 2)[: number - 1]]
    return [first, *(int(picture) for picture in best)]


def _telling(
    standing: Standing,
    axes: np.ndarray,
    generator: np.random.Generator,
    number: int,
    among: np.ndarray | None = None,
) -> list[int]:
    """Return, of the pictures shown least, the pair that tells most, up to a random factor, and what adds most to it.

    Only pictures of `among` are drawn, if it is given.
    """
    everyone = np.arange(len(standing.scores)) if among is None else among
    n_looked_at = max(number, min(PICTURES_LOOKED_AT, len(everyone) // 2))
    turn = standing.shown[everyone] + generator.uniform(size=len(everyone))
    least = everyone[np.argpartition(turn, n_looked_at - 1)[:n_looked_at]]
    worth = features_gain(standing.scores[least], axes[least], standing.shown[least])
    worth *= np.exp(generator.uniform(size=worth.shape))
    np.fill_diagonal(worth, 0)
    group = [int(place) for place in np.unravel_index(np.argmax(worth), worth.shape)]
    while len(group) < number:
        more = worth[group].sum(axis=0)
        more[group] = -1
        group.append(int(np.argmax(more)))
    return [int(least[place]) for place in group]


def features_gain(scores: np.ndarray, axes: np.ndarray, shown: np.ndarray) -> np.ndarray:
    """Return the expected information from comparing each picture with each, (n_pictures, n_pictures).

    As `pair_gain`, but where errors from features (`Standing.axes`) have something in common: however uncertain the
    scores of two like pictures are, features do not tell which is better. The rest of an error is the picture's own,
    and each time that it is shown adds at most 1/4 to its precision.
    """
    products = axes @ axes.T
    alone = np.diag(products) + 1 / (1 / (PRIOR_VARIANCE * (1 - FEATURE_SHARE)) + shown / 4)
    variance = np.maximum(alone[:, None] + alone - 2 * products, 0)
    probability = expit((scores[:, None] - scores) / np.sqrt(1 + np.pi / 8 * variance))
    gain: np.ndarray = probability * (1 - probability) * variance
    return gain


def _any_other(
    n_pictures: int, generator: np.random.Generator, number: int, avoid: Collection[frozenset[int]]
) -> list[int] | None:
    for _ in range(200):
        group = _random_group(n_pictures, generator, number)
        if frozenset(group) not in avoid:
            return group
    return None
