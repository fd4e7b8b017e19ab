"""Optimism: trials that know nothing are told from one that does."""

import math

import numpy as np
import pytest

from src import metrics
from src.optimism import corrected_spearman, optimism


def test_flattery_is_positive_where_the_choice_flatters_whatever_end_is_good() -> None:
    assert optimism("spearman", 0.8, 0.7).flattery == pytest.approx(0.1)
    assert optimism("mse", 0.2, 0.5).flattery == pytest.approx(0.3)
    assert optimism("ab", 0.7, 0.72).flattery == pytest.approx(-0.02)
    assert "flatters itself by 0.1000" in str(optimism("spearman", 0.8, 0.7))


def test_the_best_of_many_guesses_is_worth_nothing() -> None:
    worth = []
    for seed in range(5):
        generator = np.random.default_rng(seed)
        scores, guesses = generator.normal(size=60), generator.normal(size=(50, 60))
        found = corrected_spearman(scores, guesses, seed=seed)
        assert found.chosen == max(metrics.spearman(scores, rows).statistic for rows in guesses)
        assert found.chosen > 0.2
        worth.append(found.untouched)
    assert abs(np.mean(worth)) < 0.12


def test_the_correction_is_near_what_new_images_say() -> None:
    generator = np.random.default_rng(0)
    flattered, corrected, real = [], [], []
    for seed in range(15):
        scores = generator.normal(size=1060)
        heads = scores + generator.uniform(1.2, 1.4, size=(40, 1)) * generator.normal(size=(40, 1060))
        found = corrected_spearman(scores[:60], heads[:, :60], seed=seed, n_resamples=100)
        best = np.argmax([metrics.spearman(scores[:60], rows[:60]).statistic for rows in heads])
        flattered.append(found.chosen)
        corrected.append(found.untouched)
        real.append(metrics.spearman(scores[60:], heads[best, 60:]).statistic)
    assert np.mean(flattered) > np.mean(real) + 0.08
    assert np.mean(corrected) == pytest.approx(np.mean(real), abs=0.03)


def test_one_head_that_nothing_chose_is_hardly_corrected() -> None:
    generator = np.random.default_rng(0)
    scores = generator.normal(size=200)
    found = corrected_spearman(scores, (scores + generator.normal(size=200))[None])
    assert abs(found.flattery) < 0.02


def test_heads_without_a_correlation_and_few_images_are_undefined() -> None:
    assert math.isnan(corrected_spearman(np.arange(20.0), np.ones((2, 20))).chosen)
    few = corrected_spearman(np.arange(5.0), np.arange(5.0)[None])
    assert few.chosen == pytest.approx(1)
    assert math.isnan(few.untouched)
