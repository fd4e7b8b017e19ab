"""Diagnostics of a model's errors, on data that can be checked by eye, and against slow, obvious loops."""

import itertools

import numpy as np
import pytest

from custom_aesthetic.quality import metrics
from custom_aesthetic.quality.diagnostics import calibration, errors_by_model_score, extremes, order_by_distance


def test_all_pairs_are_binned_and_their_mean_is_ab() -> None:
    scores, models = np.random.default_rng(0).normal(size=(2, 50)).round(1)
    bins = order_by_distance(scores, models)
    n_counted = sum(first != second for first, second in itertools.combinations(scores, 2))
    assert sum(one.n_pairs for one in bins) == n_counted
    mean = sum(one.share_right * one.n_pairs for one in bins) / n_counted
    assert mean == pytest.approx(metrics.ab(scores, models))


def test_pairs_are_binned_by_the_distance_of_their_scores() -> None:
    scores = np.array([0.0, 1.0, 10.0, 11.0])
    close, far = order_by_distance(scores, np.array([1.0, 0.0, 11.0, 10.0]), n_bins=2)
    assert (close.share_right, close.low, close.high) == (pytest.approx(1 / 3), 1.0, 9.5)  # 1, 1 wrong; 9 right
    assert (far.share_right, far.high) == (1.0, 11.0)


def test_a_pair_with_equal_model_scores_is_half_right() -> None:
    (only,) = order_by_distance(np.array([1.0, 2.0]), np.array([5.0, 5.0]))
    assert (only.share_right, only.n_pairs) == (0.5, 1)


@pytest.mark.parametrize("scores", [[], [1.0], [2.0, 2.0, 2.0]])
def test_without_different_scores_there_are_no_bins(scores: list[float]) -> None:
    assert order_by_distance(np.array(scores), np.arange(len(scores), dtype=float)) == ()


def test_a_sample_of_the_pairs_gives_nearly_the_same_result_as_all_pairs() -> None:
    scores, noise = np.random.default_rng(0).normal(size=(2, 400))
    every = order_by_distance(scores, scores + noise, n_bins=4)
    sample = order_by_distance(scores, scores + noise, n_bins=4, most_pairs=20_000)
    assert sum(one.n_pairs for one in sample) <= 20_000
    np.testing.assert_allclose([one.share_right for one in sample], [one.share_right for one in every], atol=0.03)


def test_error_bins_contain_the_mean_of_each_part() -> None:
    models = np.arange(40.0)[::-1]
    errors = np.where(models < 20, -1.0, 3.0)
    bins = errors_by_model_score(models, errors, n_bins=2)
    assert [one.mean for one in bins] == [-1.0, 3.0]
    assert [one.centre for one in bins] == [9.5, 29.5]


def test_correct_sigmas_have_the_nominal_coverage() -> None:
    generator = np.random.default_rng(0)
    sigmas = generator.uniform(0.5, 2, size=5000)
    found = calibration(generator.normal(size=5000) * sigmas, np.zeros(5000), sigmas)
    np.testing.assert_allclose(found.coverage, found.levels, atol=0.03)
    assert all(one.found == pytest.approx(one.predicted, rel=0.15) for one in found.bins)


def test_too_small_sigmas_have_too_low_coverage() -> None:
    errors = np.random.default_rng(0).normal(size=500)
    found = calibration(errors, np.zeros(500), np.full(500, 0.25))
    assert (found.coverage < found.levels - 0.03).all()


def test_extremes_are_ordered_and_leave_out_nan() -> None:
    highest, lowest = extremes(np.array([2.0, np.nan, 5.0, 1.0]), 2)
    assert (highest.tolist(), lowest.tolist()) == ([2, 0], [3, 0])
