"""Estimate how good the scores are, each figure with its 95 % interval."""

from typing import NamedTuple

import numpy as np
from scipy.special import expit

from custom_aesthetic.quality.confidence import Interval, interval_of
from custom_aesthetic.scores.bradley_terry import Prior
from custom_aesthetic.scores.evidence import Evidence
from custom_aesthetic.scores.posterior import draw_true_scores

FEWEST_CHOICES = 20
"""Number of choices needed before any figure is shown."""

MOST_PAIRS = 20_000
"""With more pairs than this, a random sample of the pairs is used."""


class RandomPairs(NamedTuple):
    """The quality of the scores on random pairs, which are easier to order than the pairs that the user compares."""

    right: Interval
    """Share of pairs that the scores put in the true order, 0...1, higher is better; equal scores count one half."""
    predicted: Interval
    """Share of the user's answers that the scores predict; lower than `right`, because people are inconsistent."""


def random_pairs(scores: np.ndarray, answers: Evidence, prior: Prior, n_here: int, *, seed: int = 0) -> RandomPairs:
    """Return the quality of these scores, (n_pictures,), on random pairs of the first `n_here` pictures.

    The true scores are unknown, so they are drawn from their posterior given the answers, including the posterior of
    the user's consistency.
    """
    first, second = _pairs(n_here, np.random.default_rng(seed))
    truths, lapses = draw_true_scores(answers.winners, answers.losers, prior, weights=answers.weights, seed=seed)
    says = np.sign(scores[first] - scores[second])
    right, predicted = np.empty(len(truths)), np.empty(len(truths))
    for place, truth in enumerate(truths):
        lead = says * (truth[first] - truth[second])
        right[place] = 0.5 + 0.5 * np.mean(np.sign(lead))
        predicted[place] = lapses[place] / 2 + (1 - lapses[place]) * np.mean(expit(lead))
    return RandomPairs(interval_of(right), interval_of(predicted))


def _pairs(n_pictures: int, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    if n_pictures * (n_pictures - 1) // 2 <= MOST_PAIRS:
        first, second = np.triu_indices(n_pictures, 1)
        return first, second
    first = generator.integers(n_pictures, size=MOST_PAIRS)
    return first, (first + generator.integers(1, n_pictures, size=MOST_PAIRS)) % n_pictures
