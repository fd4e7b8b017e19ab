"""The figures of the A/B page for simulated judges, whose true scores and answers are known."""

from typing import NamedTuple

import numpy as np
import pytest
from scipy.special import expit

from custom_aesthetic.labelling.figures import random_pairs
from custom_aesthetic.quality.confidence import Interval
from custom_aesthetic.scores.bradley_terry import Prior, fit_scores, flat_prior, standard_errors
from custom_aesthetic.scores.evidence import Evidence
from custom_aesthetic.scores.pairing import Standing, after_choice, draw_group

SPREAD = {0.65: 0.59, 0.8: 1.63, 0.95: 7.6}
"""Standard deviation of true scores, in logits -> share of random pairs that are answered in the true order."""

N_PICTURES = (60, 100, 60, 200, 60)


class World(NamedTuple):
    truth: np.ndarray
    scores: np.ndarray
    answers: Evidence
    prior: Prior


def choices(winners: np.ndarray, losers: np.ndarray, numbers: np.ndarray) -> Evidence:
    return Evidence(winners, losers, np.ones(len(winners)), numbers, np.ones(len(winners), dtype=bool))


def judged(
    n_pictures: int, consistency: float, comparisons_a_picture: int, seed: int, *, constant: bool = False
) -> World:
    """Simulate a folder after this number of adaptive choices.

    A judge tosses a coin on near ties; a `constant` judge is right equally often at any distance.
    """
    generator = np.random.default_rng([seed, round(100 * consistency)])
    spread = 1.0 if constant else SPREAD[consistency]
    truth, prior = spread * generator.normal(size=n_pictures), flat_prior(n_pictures)
    none = np.array([], dtype=int)
    standing = Standing(prior.mean, standard_errors(prior.mean, none, none, prior), np.zeros(n_pictures))
    made: list[tuple[int, int]] = []
    for choice in range(n_pictures * comparisons_a_picture // 2):
        (first, second), _ = draw_group(standing, generator)
        lead = truth[first] - truth[second]
        chance = (consistency if lead > 0 else 1 - consistency) if constant else expit(lead)
        won = generator.uniform() < chance
        made.append((first, second) if won else (second, first))
        standing = after_choice(standing, made[-1][0], made[-1][1:])
        if choice % 20 == 0:
            winners, losers = np.array(made).T
            scores = fit_scores(winners, losers, prior)
            standing = Standing(scores, standard_errors(scores, winners, losers, prior), standing.shown)
    winners, losers = np.array(made).T
    answers = choices(winners, losers, np.arange(len(made)))
    return World(truth, fit_scores(winners, losers, prior), answers, prior)


def holds(figure: Interval, truth: float) -> bool:
    return figure.low <= truth <= figure.high


def true_shares(world: World) -> tuple[float, float]:
    """Return the share of all pairs in the true order, and of the answers on them that the scores predict."""
    first, second = np.triu_indices(len(world.truth), 1)
    says, lead = np.sign(world.scores[first] - world.scores[second]), world.truth[first] - world.truth[second]
    return float(np.mean(0.5 + 0.5 * says * np.sign(lead))), float(np.mean(expit(says * lead)))


@pytest.mark.parametrize("consistency", [0.65, 0.8, 0.95])
@pytest.mark.parametrize("comparisons_a_picture", [4, 10])
def test_random_pairs_are_as_well_ordered_and_predicted_as_stated(consistency, comparisons_a_picture):
    right, predicted, off = [], [], []
    for seed, n_pictures in enumerate(N_PICTURES):
        world = judged(n_pictures, consistency, comparisons_a_picture, seed)
        found = random_pairs(world.scores, world.answers, world.prior, n_pictures, seed=seed)
        true_right, true_predicted = true_shares(world)
        right.append(holds(found.right, true_right))
        predicted.append(holds(found.predicted, true_predicted))
        off.append(found.right.value - true_right)
    assert sum(right) >= len(right) - 1
    assert sum(predicted) >= len(predicted) - 1
    assert abs(np.mean(off)) < 0.06


def test_a_worthless_first_guess_does_not_make_the_order_look_right():
    generator, n_pictures = np.random.default_rng(3), 60
    world = judged(n_pictures, 0.8, 10, seed=3)
    guess = Prior(1.25 * generator.normal(size=n_pictures), np.full(n_pictures, 0.675))
    scores = fit_scores(world.answers.winners, world.answers.losers, guess)
    found = random_pairs(scores, world.answers, guess, n_pictures)
    assert holds(found.right, true_shares(world._replace(scores=scores))[0])


def test_many_answers_of_a_consistent_judge_give_narrow_intervals():
    generator, n_pictures = np.random.default_rng(5), 40
    truth = 7.6 * generator.normal(size=n_pictures)
    first = generator.integers(n_pictures, size=4000)
    second = (first + generator.integers(1, n_pictures, size=4000)) % n_pictures
    won = generator.uniform(size=4000) < expit(truth[first] - truth[second])
    answers = choices(np.where(won, first, second), np.where(won, second, first), np.arange(4000))
    prior = flat_prior(n_pictures)
    scores = fit_scores(answers.winners, answers.losers, prior)
    found = random_pairs(scores, answers, prior, n_pictures)
    assert found.right.low > 0.96
    assert holds(found.right, true_shares(World(truth, scores, answers, prior))[0])


def test_the_order_of_ten_thousand_pictures_after_few_choices_is_hardly_better_than_chance():
    generator, n_pictures = np.random.default_rng(4), 10_000
    winners, losers = generator.permutation(n_pictures)[:600].reshape(2, -1)
    prior = flat_prior(n_pictures)
    scores = fit_scores(winners, losers, prior)
    found = random_pairs(scores, choices(winners, losers, np.arange(300)), prior, n_pictures)
    assert 0.5 <= found.right.value < 0.52


@pytest.mark.parametrize("consistency", [0.9, 0.95])
def test_the_figures_hold_for_a_judge_who_errs_equally_often_at_any_distance(consistency):
    right, predicted, off = [], [], []
    for seed in range(10):
        world = judged(60, consistency, 10, seed, constant=True)
        found = random_pairs(world.scores, world.answers, world.prior, 60, seed=seed)
        true_right = true_shares(world)[0]
        right.append(holds(found.right, true_right))
        predicted.append(holds(found.predicted, true_right * consistency + (1 - true_right) * (1 - consistency)))
        off.append(found.right.value - true_right)
    assert sum(right) >= 8, "5 of 10 without lapses"
    assert sum(predicted) >= 8, "5 to 7 of 10 without lapses"
    assert abs(np.mean(off)) < 0.015, "0.02 to 0.04 too low without lapses"
