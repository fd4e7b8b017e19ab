"""Priors on the scores before the first comparison."""

import numpy as np

from custom_aesthetic.scores.bradley_terry import PRIOR_VARIANCE
from custom_aesthetic.scores.prior import feature_prior, standardised, starting_prior, to_units


def test_guesses_keep_their_order_and_reduce_the_variance():
    prior = starting_prior(np.array([-1.0, 0.0, 1.0, np.nan]))
    assert prior.mean[0] < prior.mean[1] < prior.mean[2]
    assert prior.mean[3] == 0
    assert (prior.variance[:3] < prior.variance[3]).all()
    assert prior.variance[3] == PRIOR_VARIANCE


def test_without_guesses_all_pictures_have_the_same_prior():
    prior = starting_prior(np.full(3, np.nan))
    assert (prior.mean == 0).all()
    assert (prior.variance == PRIOR_VARIANCE).all()


def test_features_predict_missing_guesses():
    generator = np.random.default_rng(0)
    features = generator.normal(size=(100, 5))
    truth = features[:, 0]
    guesses = standardised(np.where(np.arange(100) < 80, truth, np.nan))
    prior = starting_prior(guesses, features)
    assert np.corrcoef(prior.mean[80:], truth[80:])[0, 1] > 0.95


def test_a_feature_prior_has_the_same_spread_as_one_without_features():
    features = np.random.default_rng(1).normal(size=(50, 200))
    prior = feature_prior(features)
    total = prior.variance + (prior.basis**2).sum(axis=1)
    assert abs(total.mean() / PRIOR_VARIANCE - 1) < 0.01


def test_starting_scores_are_converted_back_to_their_units():
    start = np.array([1.0, 4.5, np.nan, 7.0])
    scale, shift = to_units(start)
    known = np.isfinite(start)
    np.testing.assert_allclose(starting_prior(standardised(start)).mean[known] * scale + shift, start[known])


def test_equal_or_single_starting_scores_are_ignored():
    for start in (np.array([2.0, 2.0, np.nan]), np.array([2.0, np.nan, np.nan]), np.full(3, np.nan)):
        assert to_units(start) == (1.0, 0.0)
        assert np.isnan(standardised(start)).all()
