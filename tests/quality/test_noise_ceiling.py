"""The noise ceiling, on simulated data with known true scores and on real ratings."""

from pathlib import Path

import numpy as np
import pytest
from scipy.special import expit

from custom_aesthetic.quality import metrics
from custom_aesthetic.quality.noise_ceiling import (
    ceiling_of_draws,
    noise_ceiling,
    rating_sigmas,
)
from custom_aesthetic.scores.bradley_terry import fit_scores, flat_prior
from custom_aesthetic.scores.posterior import draw_true_scores
from custom_aesthetic.scores.score_files import read_scores


@pytest.mark.parametrize("noise", [0.2, 0.7, 1.5])
def test_the_ceiling_of_noisy_means_is_what_the_true_scores_reach(noise: float) -> None:
    found, reached = [], []
    for seed in range(5):
        generator = np.random.default_rng(seed)
        truth = 3 + generator.normal(size=1500)
        sigmas = noise * generator.uniform(0.5, 1.5, size=1500)
        scores = truth + sigmas * generator.normal(size=1500)
        ceiling = noise_ceiling(scores, sigmas, posterior=False, n_draws=30)
        assert ceiling is not None
        assert ceiling.spearman.low < ceiling.spearman.value < ceiling.spearman.high
        assert ceiling.reliability == pytest.approx(1 / (1 + (sigmas**2).mean()), abs=0.08)
        found.append((ceiling.spearman.value, ceiling.ab.value))
        reached.append((metrics.spearman(scores, truth).statistic, metrics.ab(scores, truth)))
    np.testing.assert_allclose(np.mean(found, axis=0), np.mean(reached, axis=0), atol=0.02)


@pytest.mark.parametrize("spread", [0.6, 1.6, 6.0])
@pytest.mark.parametrize("n_answers", [300, 1200])
def test_the_ceiling_of_a_comparison_log_is_what_the_true_scores_reach(spread, n_answers) -> None:
    inside, off = [], []
    for seed in range(6):
        generator = np.random.default_rng(seed)
        truth = spread * generator.normal(size=100)
        first = generator.integers(0, 100, size=n_answers)
        second = (first + generator.integers(1, 100, size=n_answers)) % 100
        won = generator.random(n_answers) < expit(truth[first] - truth[second])
        winners, losers = np.where(won, first, second), np.where(won, second, first)
        scores = fit_scores(winners, losers, flat_prior(100))
        found = ceiling_of_draws(scores, draw_true_scores(winners, losers, flat_prior(100), seed=seed).scores)
        assert found is not None
        reached = metrics.ab(scores, truth)
        inside.append(found.ab.low <= reached <= found.ab.high)
        off.append(found.ab.value - reached)
    assert sum(inside) >= 5
    assert abs(np.mean(off)) < 0.04


def test_draws_give_no_ceiling_for_equal_scores_or_few_images() -> None:
    draws = np.random.default_rng(0).normal(size=(20, 30))
    assert ceiling_of_draws(np.arange(30.0), draws) is not None
    assert ceiling_of_draws(np.zeros(30), draws) is None
    assert ceiling_of_draws(np.arange(9.0), draws[:, :9]) is None


def test_the_interval_contains_the_figure_of_a_perfect_model_on_mean_ratings() -> None:
    inside = []
    for seed in range(40):
        generator = np.random.default_rng(seed)
        truth = generator.normal(size=80)
        ratings = truth[:, None] + 1.5 * generator.normal(size=(80, 5))
        means = ratings.mean(axis=1)
        found = noise_ceiling(
            means, rating_sigmas(ratings.std(axis=1, ddof=1), np.full(80, 5)), posterior=False, n_draws=60
        )
        assert found is not None
        inside.append(found.ab.low <= metrics.ab(means, truth) <= found.ab.high)
    assert sum(inside) >= 34


def test_an_image_without_ratings_has_no_sigma_and_is_left_out() -> None:
    np.testing.assert_allclose(rating_sigmas(np.array([2.0, 2.0]), np.array([0, 4])), [np.nan, 1.0])
    np.testing.assert_allclose(rating_sigmas(np.array([np.nan, 2.0]), np.array([1, 4])), [2.0, 1.0])
    assert np.isnan(rating_sigmas(np.array([np.nan, np.nan]), np.array([1, 0]))).all()
    scores = np.arange(20.0)
    sigmas = np.ones(20)
    with_unknown = noise_ceiling(np.append(scores, 1e6), np.append(sigmas, np.nan), posterior=False)
    assert with_unknown == noise_ceiling(scores, sigmas, posterior=False)


def test_scores_without_noise_have_a_ceiling_of_one() -> None:
    found = noise_ceiling(np.arange(30.0), np.zeros(30), posterior=False)
    assert found is not None
    assert found.spearman == pytest.approx((1, 1, 1))
    assert found.ab.value == 1
    assert found.reliability == 1


@pytest.mark.parametrize(("n_images", "sigma"), [(9, 0.1), (40, 50.0)])
def test_too_few_images_or_pure_noise_give_no_ceiling(n_images: int, sigma: float) -> None:
    assert noise_ceiling(np.arange(float(n_images)), np.full(n_images, sigma), posterior=False) is None
    assert noise_ceiling(np.ones(40), np.full(40, 0.1), posterior=True) is None


def test_mean_ratings_of_a_hundred_people_leave_a_ceiling_near_one(data_folder: Path) -> None:
    rated = read_scores(data_folder / "photos" / "scores.csv")
    counted = read_scores(data_folder / "photos" / "score.json").select(rated.paths)
    sigmas = rating_sigmas(
        np.array(rated.columns["score_sd"], dtype=float), np.array(counted.columns["comparisons"], dtype=float)
    )
    found = noise_ceiling(np.array(rated.scores), sigmas, posterior=False)
    assert found is not None
    assert 0.97 < found.spearman.value < 1
    assert 0.93 < found.ab.value < 1
