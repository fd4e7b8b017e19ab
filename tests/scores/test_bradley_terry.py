"""Bradley-Terry scores and standard errors, compared with slow, obvious code and with the library choix."""

import choix
import numpy as np
import pytest
from scipy.special import expit
from scipy.stats import spearmanr

from custom_aesthetic.scores import bradley_terry
from custom_aesthetic.scores.bradley_terry import (
    Prior,
    covariance,
    feature_basis,
    fit_scores,
    flat_prior,
    standard_errors,
)


def answers(truth: np.ndarray, n_comparisons: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    pairs = np.array([generator.choice(len(truth), 2, replace=False) for _ in range(n_comparisons)])
    first = generator.uniform(size=n_comparisons) < expit(truth[pairs[:, 0]] - truth[pairs[:, 1]])
    ordered = np.where(first[:, None], pairs, pairs[:, ::-1])
    return ordered[:, 0], ordered[:, 1]


def test_scores_equal_those_of_the_library_choix():
    winners, losers = answers(np.linspace(-2, 2, 15), 80)
    precision = 0.5
    theirs = choix.opt_pairwise(
        15, list(zip(winners.tolist(), losers.tolist(), strict=True)), alpha=precision / 2, tol=1e-9
    )
    ours = fit_scores(winners, losers, flat_prior(15, 1 / precision))
    np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_without_comparisons_the_scores_are_those_of_the_prior():
    prior = Prior(np.array([1.0, -1.0, 0.5]), np.array([1.0, 4.0, 9.0]))
    none = np.array([], dtype=int)
    np.testing.assert_allclose(fit_scores(none, none, prior), prior.mean)
    np.testing.assert_allclose(standard_errors(prior.mean, none, none, prior), [1, 2, 3])


def test_a_picture_that_always_wins_has_the_highest_score_and_it_is_finite():
    winners, losers = np.array([0] * 50 + [1]), np.array([1] * 25 + [2] * 25 + [2])
    scores = fit_scores(winners, losers, flat_prior(3))
    assert np.isfinite(scores).all()
    assert scores[0] > scores[1] > scores[2]


@pytest.mark.parametrize("with_features", [False, True])
def test_the_covariance_is_the_inverse_of_the_numerical_hessian(with_features):
    generator = np.random.default_rng(1)
    basis = generator.normal(size=(6, 2)) if with_features else None
    prior = Prior(generator.normal(size=6), generator.uniform(0.5, 2, size=6), basis)
    winners, losers = answers(generator.normal(size=6), 20)
    scores = fit_scores(winners, losers, prior)
    full = np.diag(prior.variance) + (0 if basis is None else basis @ basis.T)

    def slope(at: np.ndarray) -> np.ndarray:
        gradient = np.linalg.solve(full, at - prior.mean)
        for winner, loser in zip(winners, losers, strict=True):
            gradient[winner] -= expit(at[loser] - at[winner])
            gradient[loser] += expit(at[loser] - at[winner])
        return gradient

    np.testing.assert_allclose(slope(scores), 0, atol=1e-5)
    step = 1e-5
    hessian = np.array([(slope(scores + step * row) - slope(scores - step * row)) / (2 * step) for row in np.eye(6)])
    np.testing.assert_allclose(covariance(scores, winners, losers, prior), np.linalg.inv(hessian), rtol=1e-4)


@pytest.mark.parametrize("with_features", [False, True])
@pytest.mark.parametrize("n_comparisons", [100, 1500])
def test_the_method_for_many_pictures_agrees_with_the_exact_one(monkeypatch, with_features, n_comparisons):
    generator = np.random.default_rng(2)
    truth = generator.normal(size=300) * 1.5
    basis = feature_basis(np.outer(truth, [1.0, 0.5]) + generator.normal(size=(300, 2)), 2.0) if with_features else None
    prior = Prior(np.zeros(300), np.full(300, 0.5), basis)
    winners, losers = answers(truth, n_comparisons)
    exact_scores = fit_scores(winners, losers, prior)
    exact_sigmas = standard_errors(exact_scores, winners, losers, prior)
    monkeypatch.setattr(bradley_terry, "EXACT_UP_TO", 10)
    np.testing.assert_allclose(fit_scores(winners, losers, prior), exact_scores, atol=1e-4)
    sigmas = standard_errors(exact_scores, winners, losers, prior)
    np.testing.assert_allclose(sigmas, exact_sigmas, rtol=0.08)
    assert np.mean(sigmas <= exact_sigmas * 1.001) > 0.95


def test_the_method_for_many_pictures_is_exact_on_a_tree(monkeypatch):
    winners, losers = np.array([0, 0, 1, 1, 4, 4]), np.array([1, 2, 3, 4, 1, 5])
    prior = Prior(np.zeros(6), np.linspace(0.5, 2, 6))
    scores = fit_scores(winners, losers, prior)
    exact = standard_errors(scores, winners, losers, prior)
    monkeypatch.setattr(bradley_terry, "EXACT_UP_TO", 1)
    np.testing.assert_allclose(standard_errors(scores, winners, losers, prior), exact, rtol=1e-6)


def test_standard_errors_match_the_actual_errors():
    truth = np.random.default_rng(3).normal(size=200) * 1.5
    winners, losers = answers(truth, 3000)
    prior = flat_prior(200)
    scores = fit_scores(winners, losers, prior)
    off = (scores - scores.mean() - truth + truth.mean()) / standard_errors(scores, winners, losers, prior)
    assert 0.8 < off.std() < 1.2


def test_features_order_pictures_without_comparisons():
    generator = np.random.default_rng(4)
    features = generator.normal(size=(200, 10))
    truth = features @ generator.normal(size=10) * 0.6
    winners, losers = answers(truth[:150], 900)
    prior = Prior(np.zeros(200), np.full(200, 0.5), feature_basis(features, 2.0))
    scores = fit_scores(winners, losers, prior)
    assert spearmanr(scores[150:], truth[150:]).statistic > 0.8
    flat = fit_scores(winners, losers, flat_prior(200))
    assert np.ptp(flat[150:]) == 0


def test_the_basis_of_constant_features_is_empty():
    assert feature_basis(np.ones((5, 3)), 1.0).shape == (5, 0)


def test_ten_thousand_pictures_with_fifty_thousand_comparisons_are_fitted():
    truth = np.random.default_rng(5).normal(size=10_000) * 1.5
    generator = np.random.default_rng(6)
    pairs = generator.integers(10_000, size=(50_000, 2))
    pairs = pairs[pairs[:, 0] != pairs[:, 1]]
    first = generator.uniform(size=len(pairs)) < expit(truth[pairs[:, 0]] - truth[pairs[:, 1]])
    ordered = np.where(first[:, None], pairs, pairs[:, ::-1])
    scores = fit_scores(ordered[:, 0], ordered[:, 1], flat_prior(10_000))
    sigmas = standard_errors(scores, ordered[:, 0], ordered[:, 1], flat_prior(10_000))
    assert spearmanr(scores, truth).statistic > 0.8
    assert np.isfinite(sigmas).all()
