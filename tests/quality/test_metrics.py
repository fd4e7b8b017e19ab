"""Metrics against slow, obvious formulas and libraries, and their properties."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from custom_aesthetic.quality import metrics

few_values = st.lists(st.tuples(st.integers(-3, 3), st.integers(-3, 3)), min_size=0, max_size=12)


def arrays(pairs: list[tuple[int, int]]) -> tuple[np.ndarray, np.ndarray]:
    table = np.array(pairs, dtype=float).reshape(-1, 2)
    return table[:, 0], table[:, 1]


def slow_ab(scores: np.ndarray, predictions: np.ndarray) -> float:
    right, counted = 0.0, 0
    for i in range(len(scores)):
        for j in range(i):
            if scores[i] != scores[j]:
                counted += 1
                order = (scores[i] - scores[j]) * (predictions[i] - predictions[j])
                right += 1 if order > 0 else 0.5 if order == 0 else 0
    return right / counted if counted else math.nan


@given(few_values)
def test_ab_is_the_share_of_pairs_in_order(pairs: list[tuple[int, int]]) -> None:
    scores, predictions = arrays(pairs)
    assert metrics.ab(scores, predictions) == pytest.approx(slow_ab(scores, predictions), nan_ok=True)


@given(few_values)
def test_ab_of_reversed_predictions_is_one_minus_ab(pairs: list[tuple[int, int]]) -> None:
    scores, predictions = arrays(pairs)
    found = metrics.ab(scores, predictions)
    assert metrics.ab(scores, -predictions) == pytest.approx(1 - found, nan_ok=True)


def test_ab_is_exact_for_many_images() -> None:
    generator = np.random.default_rng(0)
    scores, predictions = generator.normal(size=3000).round(1), generator.normal(size=3000).round(1)
    order = np.sign(scores[:, None] - scores) * np.sign(predictions[:, None] - predictions)
    counted = scores[:, None] != scores
    assert metrics.ab(scores, predictions) == (order[counted].sum() + counted.sum()) / (2 * counted.sum())


def test_ab_counts_a_million_images_exactly() -> None:
    scores = np.arange(1_000_000.0)
    predictions = scores.copy()
    predictions[[0, -1]] = predictions[[-1, 0]]  # swaps the first and the last: 2 x 999,999 - 1 pairs are out of order
    n_pairs = 1_000_000 * 999_999 // 2
    assert metrics.ab(scores, predictions) == 1 - (2 * 999_999 - 1) / n_pairs


def test_a_constant_model_orders_half_the_pairs() -> None:
    assert metrics.ab(np.array([1.0, 2, 3]), np.zeros(3)) == 0.5


def test_the_correlations_equal_those_of_scipy() -> None:
    generator = np.random.default_rng(1)
    scores, predictions = generator.normal(size=50).round(1), generator.normal(size=50).round(1)
    assert metrics.spearman(scores, predictions).statistic == stats.spearmanr(scores, predictions).statistic
    assert metrics.pearson(scores, predictions).p_value == stats.pearsonr(scores, predictions).pvalue


@pytest.mark.parametrize("n_levels", [2, 5, 1000])
def test_spearman_alone_equals_that_of_scipy_even_with_ties(n_levels: int) -> None:
    generator = np.random.default_rng(n_levels)
    scores, predictions = generator.integers(0, n_levels, (2, 200)).astype(float)
    found = metrics.compute("spearman", scores, predictions, divider=0.0)
    assert found == pytest.approx(stats.spearmanr(scores, predictions).statistic, abs=1e-12)
    assert math.isnan(metrics.compute("spearman", scores, np.ones(200), divider=0.0))


@pytest.mark.parametrize("name", ["ab", "spearman", "pearson"])
@pytest.mark.parametrize("scores", [[], [1.0], [2.0, 2.0, 2.0]])
def test_order_metrics_are_undefined_without_different_scores(name: str, scores: list[float]) -> None:
    values = np.array(scores)
    assert math.isnan(metrics.compute(name, values, np.arange(len(values), dtype=float), divider=0))


@pytest.mark.parametrize("name", ["spearman", "pearson"])
def test_a_correlation_with_constant_predictions_is_undefined(name: str) -> None:
    assert math.isnan(metrics.compute(name, np.array([1.0, 2, 3]), np.ones(3), divider=0))


@pytest.mark.parametrize("name", metrics.HIGHER_IS_BETTER)
def test_metrics_of_no_images_are_undefined(name: str) -> None:
    none = np.array([])
    assert math.isnan(metrics.compute(name, none, none, divider=0, weights=none, sigmas=none))


@pytest.mark.parametrize(("name", "higher"), metrics.HIGHER_IS_BETTER.items())
def test_the_scores_themselves_are_the_best_predictions(name: str, higher: bool) -> None:
    generator = np.random.default_rng(2)
    scores = generator.normal(size=40)
    more = {"divider": 0.0, "weights": np.ones(40), "sigmas": np.full(40, 0.5)}
    best = metrics.compute(name, scores, scores, **more)
    worse = metrics.compute(name, scores, generator.normal(size=40), **more)
    assert best > worse if higher else best < worse


def test_accuracy_counts_scores_equal_to_the_divider_as_good() -> None:
    assert metrics.accuracy(np.array([1.0, 2, 3]), np.array([2.0, 1, 5]), 2.0) == pytest.approx(1 / 3)
    assert metrics.accuracy(np.array([2.0, 2.0]), np.array([2.0, 1.9]), 2.0) == 0.5


def test_nll_equals_that_of_pytorch() -> None:
    generator = np.random.default_rng(3)
    scores, predictions, sigmas = generator.normal(size=(3, 20))
    sigmas[0] = 1e-9  # its variance is below the minimum
    expected = torch.nn.GaussianNLLLoss()(
        torch.from_numpy(predictions), torch.from_numpy(scores), torch.from_numpy(sigmas**2)
    )
    assert metrics.nll(scores, predictions, sigmas) == pytest.approx(float(expected))


@given(st.floats(0.1, 10), st.floats(-5, 5))
def test_order_and_correlations_do_not_depend_on_the_units_of_the_model(scale: float, shift: float) -> None:
    generator = np.random.default_rng(4)
    scores, predictions = generator.normal(size=(2, 15))
    for name in ("ab", "spearman", "pearson"):
        found = metrics.compute(name, scores, predictions, divider=0)
        assert metrics.compute(name, scores, scale * predictions + shift, divider=0) == pytest.approx(found)


def test_wmse_weighs_each_image() -> None:
    found = metrics.wmse(np.array([0.0, 0.0]), np.array([1.0, 2.0]), np.array([3.0, 0.5]))
    assert found == (3 * 1 + 0.5 * 4) / 2
