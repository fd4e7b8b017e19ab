"""Greedy selection of heads: laws, and a slow search of small cases."""

from itertools import combinations_with_replacement

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from src import metrics
from src.ensemble import select_ensemble

SCORES = np.random.default_rng(0).normal(size=25)


def spearman(predictions: np.ndarray) -> float:
    return metrics.spearman(SCORES, predictions).statistic


def minus_mse(predictions: np.ndarray) -> float:
    return -metrics.mse(SCORES, predictions)


def library(n_heads: int, noise: float, seed: int) -> np.ndarray:
    return SCORES + noise * np.random.default_rng(seed).normal(size=(n_heads, 25))


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 8), st.integers(1, 6), st.integers(1, 5), st.floats(0.1, 4), st.integers(0, 99))
def test_the_mean_of_the_members_is_never_worse_than_the_best_head(
    n_heads: int, n_members: int, n_first: int, noise: float, seed: int
) -> None:
    predictions = library(n_heads, noise, seed)
    for goodness in (spearman, minus_mse):
        members = select_ensemble(predictions, goodness, n_members=n_members, n_first=n_first)
        assert 1 <= len(members) <= n_members
        assert goodness(predictions[list(members)].mean(0)) >= max(map(goodness, predictions)) - 1e-12


def test_every_step_is_the_best_there_is() -> None:
    predictions = library(6, 1.5, 1)
    members: tuple[int, ...] = ()
    for size in range(1, 5):
        options = [tuple(sorted((*members, head))) for head in range(6)]
        step = max(options, key=lambda option: minus_mse(predictions[list(option)].mean(0)))
        found = select_ensemble(predictions, minus_mse, n_members=size)
        assert found == step
        members = step
    everything = max(
        minus_mse(predictions[list(option)].mean(0)) for option in combinations_with_replacement(range(6), 4)
    )
    assert minus_mse(predictions[list(members)].mean(0)) <= everything


def test_a_head_may_count_twice() -> None:
    good, offset = SCORES - 0.2, SCORES + 0.4
    assert select_ensemble(np.stack([offset, good]), minus_mse, n_members=3) == (0, 1, 1)


def test_errors_that_cancel_are_found_although_each_head_is_middling() -> None:
    noise = np.random.default_rng(1).normal(size=25)
    heads = np.stack([SCORES + noise, SCORES - noise, SCORES + 2 * np.random.default_rng(2).normal(size=25)])
    assert select_ensemble(heads, spearman, n_members=2) == (0, 1)


def test_an_undefined_head_is_never_a_member() -> None:
    predictions = np.stack([np.zeros(25), library(1, 1, 0)[0], np.full(25, np.nan)])
    assert set(select_ensemble(predictions, spearman, n_members=4)) == {1}
    with pytest.raises(ValueError, match="no head"):
        select_ensemble(predictions[[0, 2]], spearman, n_members=4)


def test_the_first_members_are_the_best_heads() -> None:
    predictions = np.stack([SCORES + 0.3, SCORES + 0.1, SCORES + 5, SCORES + 0.2])
    assert select_ensemble(predictions, minus_mse, n_members=1, n_first=3) == (1,)
    averaged = library(30, 3, 5)
    members = select_ensemble(averaged, spearman, n_members=5, n_first=5)
    ranked = np.argsort([-spearman(head) for head in averaged], kind="stable")
    assert set(members) <= set(ranked[:5].tolist())
