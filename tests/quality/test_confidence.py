"""Confidence intervals: fast resampling equals slow resampling, and the intervals have their nominal coverage."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from custom_aesthetic.quality import metrics
from custom_aesthetic.quality.confidence import (
    BOOTSTRAP_UP_TO,
    Interval,
    ab_interval,
    draw_counts,
    resampled_ab,
    resampled_spearman,
    spearman_difference,
    spearman_interval,
)

few_values = st.lists(st.tuples(st.integers(-3, 3), st.integers(-3, 3)), min_size=2, max_size=12)


def excludes_zero(interval: Interval) -> bool:
    return interval.low > 0 or interval.high < 0


def noisy_copy(scores: np.ndarray, noise: float, seed: int) -> np.ndarray:
    return scores + noise * np.random.default_rng(seed).normal(size=len(scores))


@settings(max_examples=40)
@given(few_values, st.integers(0, 99))
def test_resampled_figures_equal_those_of_repeated_images(pairs: list[tuple[int, int]], seed: int) -> None:
    scores, predictions = np.array(pairs, dtype=float).T
    counts = draw_counts(len(scores), 5, seed)
    assert (counts.sum(1) == len(scores)).all()
    correlations, shares = (
        resampled_spearman(scores, predictions, counts),
        resampled_ab(scores, predictions, counts),
    )
    for row, correlation, share in zip(counts.astype(int), correlations, shares, strict=True):
        drawn, said = np.repeat(scores, row), np.repeat(predictions, row)
        assert correlation == pytest.approx(metrics.spearman(drawn, said).statistic, nan_ok=True)
        assert share == pytest.approx(metrics.ab(drawn, said), nan_ok=True)


@pytest.mark.parametrize("interval", [spearman_interval, ab_interval])
def test_an_interval_contains_its_figure_and_is_reproducible(interval) -> None:  # type: ignore[no-untyped-def]
    scores = np.random.default_rng(0).normal(size=80)
    predictions = noisy_copy(scores, 1, 1)
    found = interval(scores, predictions)
    assert found.low < found.value < found.high
    assert interval(scores, predictions) == found
    assert interval(scores, predictions, seed=1) != found


@pytest.mark.parametrize("interval", [spearman_interval, ab_interval])
def test_an_interval_is_wider_around_an_out_of_fold_figure(interval) -> None:  # type: ignore[no-untyped-def]
    scores = np.random.default_rng(0).normal(size=80)
    predictions = noisy_copy(scores, 1, 1)
    plain, wider = (interval(scores, predictions, out_of_fold=by_folds) for by_folds in (False, True))
    assert wider.value == plain.value
    assert wider.high - wider.low > 1.2 * (plain.high - plain.low)


def test_the_figures_equal_the_metrics() -> None:
    scores = np.random.default_rng(0).normal(size=40)
    predictions = noisy_copy(scores, 1, 1)
    assert spearman_interval(scores, predictions).value == metrics.spearman(scores, predictions).statistic
    assert ab_interval(scores, predictions).value == pytest.approx(metrics.ab(scores, predictions))


def test_intervals_contain_the_truth_about_as_often_as_their_level() -> None:
    """With a correlation of 0.7 the true values are 6/pi asin(0.35) for Spearman and 1/2 + asin(0.7)/pi for AB."""
    true_spearman, true_ab = 6 / math.pi * math.asin(0.35), 0.5 + math.asin(0.7) / math.pi
    generator = np.random.default_rng(0)
    held = []
    for seed in range(150):
        scores = generator.normal(size=60)
        predictions = 0.7 * scores + math.sqrt(1 - 0.49) * generator.normal(size=60)
        spearman = spearman_interval(scores, predictions, seed=seed, n_resamples=200)
        ab = ab_interval(scores, predictions, seed=seed, n_resamples=200)
        held.append((spearman.low < true_spearman < spearman.high, ab.low < true_ab < ab.high))
    assert ((np.mean(held, axis=0) >= 0.89) & (np.mean(held, axis=0) < 1)).all()


@pytest.mark.parametrize("interval", [spearman_interval, ab_interval])
def test_for_many_images_the_intervals_agree_with_the_bootstrap(interval) -> None:  # type: ignore[no-untyped-def]
    scores = np.random.default_rng(0).normal(size=BOOTSTRAP_UP_TO + 1)
    predictions = noisy_copy(scores, 1, 1)
    blocks, bootstrap = interval(scores, predictions), interval(scores[:-1], predictions[:-1], n_resamples=200)
    assert blocks.high - blocks.low == pytest.approx(bootstrap.high - bootstrap.low, rel=0.35)


def test_a_paired_difference_can_be_significant_although_the_intervals_overlap() -> None:
    scores = np.random.default_rng(0).normal(size=200)
    better = noisy_copy(scores, 1, 1)
    worse = noisy_copy(better, 0.4, 2)
    assert spearman_interval(scores, better).low < spearman_interval(scores, worse).high
    found = spearman_difference(scores, better, worse)
    assert found.low > 0
    assert excludes_zero(found)
    assert spearman_difference(scores, worse, better).high < 0


def test_two_equally_good_models_rarely_differ_significantly() -> None:
    generator = np.random.default_rng(0)
    wrong = 0
    for seed in range(60):
        scores = generator.normal(size=60)
        first, second = scores + generator.normal(size=(2, 60))
        wrong += excludes_zero(spearman_difference(scores, first, second, seed=seed, n_resamples=200))
    assert wrong <= 9  # 3 are expected; 10 or more have a probability of 0.001


def test_a_model_does_not_differ_from_a_rescaled_copy() -> None:
    scores = np.random.default_rng(0).normal(size=50)
    predictions = noisy_copy(scores, 1, 1)
    assert spearman_difference(scores, predictions, 3 * predictions + 1) == Interval(0, 0, 0)


@pytest.mark.parametrize("interval", [spearman_interval, ab_interval])
def test_too_few_images_have_a_figure_but_no_interval(interval) -> None:  # type: ignore[no-untyped-def]
    found = interval(np.array([1.0, 2, 3]), np.array([1.0, 2, 3]))
    assert found.value == 1
    assert math.isnan(found.low)
    assert not excludes_zero(found)


@pytest.mark.parametrize("n_images", [0, 1, 30])
def test_constant_scores_leave_everything_undefined(n_images: int) -> None:
    constant, some = np.ones(n_images), np.arange(n_images, dtype=float)
    assert all(math.isnan(value) for value in spearman_interval(constant, some))
    assert all(math.isnan(value) for value in ab_interval(constant, some))
    assert all(math.isnan(value) for value in spearman_difference(constant, some, some))
