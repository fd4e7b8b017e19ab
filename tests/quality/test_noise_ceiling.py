"""The noise ceiling against worlds in which the true scores are known."""

from pathlib import Path

import numpy as np
import pytest
from scipy.special import expit

from custom_aesthetic.quality import metrics
from custom_aesthetic.quality.noise_ceiling import (
    ceiling_of_comparisons,
    comparison_sigmas,
    noise_ceiling,
    rating_sigmas,
)
from custom_aesthetic.scores.bradley_terry import fit_scores, flat_prior
from custom_aesthetic.scores.score_files import read_scores


@pytest.mark.parametrize("noise", [0.2, 0.7, 1.5])
def test_the_ceiling_of_noisy_means_is_what_the_truth_itself_reaches(noise: float) -> None:
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


def comparisons(n_answers: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """True scores (150,), and winners and losers of answers by the Bradley-Terry model."""
    generator = np.random.default_rng(1)
    truth = 1.5 * generator.normal(size=150)
    first = generator.integers(0, 150, size=n_answers)
    second = (first + generator.integers(1, 150, size=n_answers)) % 150
    won = generator.random(n_answers) < expit(truth[first] - truth[second])
    return truth, np.where(won, first, second), np.where(won, second, first)


@pytest.mark.parametrize("n_answers", [450, 3000])
def test_the_ceiling_of_a_comparison_log_is_what_the_truth_reaches(n_answers: int) -> None:
    truth, winners, losers = comparisons(n_answers)
    scores = fit_scores(winners, losers, flat_prior(150))
    found = ceiling_of_comparisons(winners, losers, 150)
    assert found is not None
    assert found.spearman.value == pytest.approx(metrics.spearman(scores, truth).statistic, abs=0.05)
    assert found.ab.value == pytest.approx(metrics.ab(scores, truth), abs=0.03)
    with_unseen = ceiling_of_comparisons(winners, losers, 300)
    assert with_unseen is not None
    assert with_unseen.spearman.value == pytest.approx(found.spearman.value, abs=0.02)


def test_the_sigma_of_many_comparisons_is_the_error_that_they_leave() -> None:
    truth, winners, losers = comparisons(6000)
    counts = np.bincount(np.concatenate([winners, losers]), minlength=150)
    scores = fit_scores(winners, losers, flat_prior(150, 100.0))
    errors = (scores - scores.mean()) - (truth - truth.mean())
    sigmas = comparison_sigmas(scores, counts)
    assert np.sqrt(np.mean(np.square(errors / sigmas))) == pytest.approx(1, abs=0.15)


def test_an_image_never_judged_has_no_sigma_and_does_not_count() -> None:
    assert np.isnan(comparison_sigmas(np.zeros(3), np.array([0, 4, 8]))).tolist() == [True, False, False]
    np.testing.assert_allclose(comparison_sigmas(np.zeros(3), np.array([0, 4, 8]))[1:], [1, 0.5**0.5])
    np.testing.assert_allclose(rating_sigmas(np.array([2.0, 2.0]), np.array([0, 4])), [np.nan, 1.0])
    scores = np.arange(20.0)
    sigmas = np.ones(20)
    with_unknown = noise_ceiling(np.append(scores, 1e6), np.append(sigmas, np.nan), posterior=False)
    assert with_unknown == noise_ceiling(scores, sigmas, posterior=False)


def test_scores_without_noise_have_no_ceiling_below_one() -> None:
    found = noise_ceiling(np.arange(30.0), np.zeros(30), posterior=False)
    assert found is not None
    assert found.spearman == pytest.approx((1, 1, 1))
    assert found.ab.value == 1
    assert found.reliability == 1


@pytest.mark.parametrize(("n_images", "sigma"), [(9, 0.1), (40, 50.0)])
def test_too_few_images_or_nothing_but_noise_cannot_tell(n_images: int, sigma: float) -> None:
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
