"""The difference from a prior model: what is believed of good, useless and opposite priors, and by how many scores."""

import numpy as np
import pytest
from numpy.typing import NDArray

from custom_aesthetic.priors.difference import (
    FEATURE_VARIANCES,
    MEAN_VARIANCE,
    TRUSTS,
    Trust,
    _averaged,
    fit_difference,
    out_of_fold,
)

Array = NDArray[np.float64]
N_IMAGES, N_FEATURES = 400, 120
RANDOM = np.random.default_rng(5)
FEATURES = RANDOM.normal(size=(N_IMAGES, N_FEATURES)) + 3
TASTE = FEATURES @ RANDOM.normal(size=N_FEATURES) / N_FEATURES**0.5
SCORES = 5 + TASTE + 1.5 * RANDOM.normal(size=N_IMAGES)
NEW = np.arange(200, N_IMAGES)


def likeness_to_taste(prior: Array, n_scores: int) -> float:
    model = fit_difference(FEATURES, SCORES, prior, np.arange(n_scores))
    assert model is not None
    return float(np.corrcoef(model.predict(FEATURES[NEW], prior[NEW]), TASTE[NEW])[0, 1])


def test_a_good_prior_of_any_unit_lifts_few_scores() -> None:
    without = likeness_to_taste(RANDOM.normal(size=N_IMAGES), 25)
    prior = 1000 - 30 + 40 * (TASTE + RANDOM.normal(size=N_IMAGES))
    assert likeness_to_taste(prior, 25) > without + 0.2
    assert likeness_to_taste(prior, 25) == pytest.approx(likeness_to_taste(1e-6 * prior, 25), abs=1e-6)


def test_the_slope_is_in_the_units_of_both_and_falls_to_nothing_where_the_prior_says_nothing() -> None:
    good, useless, opposite = (
        fit_difference(FEATURES, SCORES, prior, np.arange(200))
        for prior in (10 * TASTE, 10 * RANDOM.normal(size=N_IMAGES), -10 * TASTE)
    )
    assert good is not None and useless is not None and opposite is not None
    assert 0.05 < good.slope < 0.11
    assert abs(useless.slope) < 0.01
    assert -0.11 < opposite.slope < -0.05


def test_the_mean_over_the_grid_is_that_of_dense_gaussian_processes() -> None:
    n_images = 12
    likeness = FEATURES[:n_images] @ FEATURES[:n_images].T / N_FEATURES
    prior, scores = (values[:n_images] for values in (TASTE, SCORES))
    prior, scores = ((values - values.mean()) / values.std() for values in (prior, scores))

    def dense(variance: float, trust: Trust) -> tuple[float, Array]:
        kernel = variance * likeness + trust.variance * np.outer(prior, prior) + MEAN_VARIANCE + np.eye(n_images)
        rest = scores - trust.mean * prior
        solved = np.linalg.solve(kernel, rest)
        noise = rest @ solved / (n_images - 1)
        evidence = trust.probability * noise ** (-(n_images - 1) / 2) / np.sqrt(np.linalg.det(kernel))
        return evidence, trust.mean * prior + (kernel - np.eye(n_images)) @ solved

    points = [dense(variance, trust) for variance in FEATURE_VARIANCES for trust in TRUSTS]
    expected = sum(evidence * fitted for evidence, fitted in points) / sum(evidence for evidence, _ in points)
    fit = _averaged(likeness, prior, scores)
    np.testing.assert_allclose(likeness @ fit.duals + fit.slope * prior + fit.bias, expected, atol=1e-8)


def test_scores_out_of_fold_never_see_the_score_of_the_image() -> None:
    folds = [(np.setdiff1d(np.arange(40), part), part) for part in np.split(np.arange(40), 4)]
    before = out_of_fold(FEATURES, SCORES, TASTE, folds)
    changed = SCORES.copy()
    changed[:10] += 100
    after = out_of_fold(FEATURES, changed, TASTE, folds)
    assert before is not None and after is not None
    np.testing.assert_array_equal(before[:10], after[:10])
    assert not np.isclose(before[10:40], after[10:40]).any()
    assert np.isnan(before[40:]).all()


@pytest.mark.parametrize(
    ("features", "scores", "prior"),
    [
        (FEATURES, SCORES, np.full(N_IMAGES, 4.2)),
        (FEATURES, np.ones(N_IMAGES), TASTE),
        (np.ones_like(FEATURES), SCORES, TASTE),
        (FEATURES[:2], SCORES[:2], TASTE[:2]),
    ],
)
def test_there_is_no_model_where_nothing_can_be_learnt(features: Array, scores: Array, prior: Array) -> None:
    rows = np.arange(len(features))
    assert fit_difference(features, scores, prior, rows) is None
    assert out_of_fold(features, scores, prior, [(rows, rows)]) is None
