"""Running of trials in one process, and what happens to running trials when it is ordered to end."""

from collections.abc import Callable
from dataclasses import replace

import optuna
import pytest
import torch

from custom_aesthetic.heads.fold_training import Fold
from custom_aesthetic.heads.training_data import standardise
from custom_aesthetic.search.space import FIRST_TRIAL, WIDE_HEAD, clipped_head
from custom_aesthetic.search.study import Claims
from custom_aesthetic.search.trials import LARGEST, Ended, Order, Problem, TrialPlan, run_trials, trials_to_average
from custom_aesthetic.settings.declaration import Range
from custom_aesthetic.settings.head_parameters import SearchSpace
from tests.problems import RAW, SCORES, SPACE, small_problem

SIX_EPOCHS = replace(SPACE, train_epochs=Range(6, 6))


def by_folds() -> Problem:
    rows = torch.arange(30)
    parts = [(rows[rows % 2 != left_out], rows[rows % 2 == left_out]) for left_out in (0, 1)]
    folds = [Fold(standardise(RAW, SCORES, seen, device=torch.device("cpu")), unseen.numpy()) for seen, unseen in parts]
    return replace(small_problem(), folds=tuple(folds))


def run(problem: Problem, ask: Callable[[], Order], n_at_once: int = 1) -> tuple[list[Ended], list[str]]:
    """Run up to five trials; return the finished ones, and the states of all that were started."""
    study = optuna.create_study(direction="maximize")
    ended: list[Ended] = []
    plan = TrialPlan(SIX_EPOCHS, 5, 1, 0, n_at_once)
    run_trials(Claims(study, 5, "this process"), problem, plan, ask=ask, on_end=ended.append)
    return ended, [trial.state.name for trial in study.trials]


def after(n_asked: int, order: Order) -> Callable[[], Order]:
    """Return a function that returns GO_ON `n_asked` times, and then always `order`."""
    left = [Order.GO_ON] * n_asked
    return lambda: left.pop() if left else order


@pytest.mark.parametrize("n_at_once", [1, 3])
def test_trials_run_until_the_study_is_complete(n_at_once: int) -> None:
    ended, states = run(small_problem(), lambda: Order.GO_ON, n_at_once)
    assert sorted(end.number for end in ended) == [0, 1, 2, 3, 4]
    assert states == ["COMPLETE"] * 5


@pytest.mark.parametrize("n_at_once", [1, 3])
def test_stop_abandons_the_running_trials_within_an_epoch(n_at_once: int) -> None:
    ended, states = run(small_problem(), after(n_at_once + 2, Order.STOP), n_at_once)
    assert ended == []
    assert states == ["FAIL"] * n_at_once


@pytest.mark.parametrize(
    ("widths", "n_kept", "averaged"),
    [
        ((64, 300, 48, 64, 100), 3, [0, 2, 3]),
        ((300, 64, 48, 300, 48), 4, [0, 1, 2, 4]),  # a large one joins where there are too few others
        ((300, 64, 48), 1, [0]),
        ((300, 200, 400), 2, [0, 1]),
    ],
)
def test_large_heads_are_left_out_of_a_mean_where_there_are_others(
    widths: tuple[int, ...], n_kept: int, averaged: list[int]
) -> None:
    study = optuna.create_study(direction="minimize")
    for value, width in enumerate(widths):
        parameters = vars(replace(FIRST_TRIAL, first_layer_size=width))
        study.add_trial(optuna.trial.create_trial(value=value, user_attrs=parameters))
    assert [trial.number for trial in trials_to_average(study, small_problem(), n_kept)] == averaged


def test_a_head_that_is_not_searched_keeps_to_the_ranges() -> None:
    space = replace(SearchSpace(), first_layer_size=Range(500, 900), dropout=Range(0.25, 0.25))
    head = clipped_head(WIDE_HEAD, space)
    assert (head.first_layer_size, head.dropout) == (500, 0.25)
    assert head == replace(WIDE_HEAD, first_layer_size=500, dropout=0.25)


def test_the_file_of_the_default_ensemble_stays_below_25_megabytes() -> None:
    n_features, n_fold_heads, n_kept = 2480, 16, 4
    first = n_fold_heads * FIRST_TRIAL.first_layer_size + n_kept * WIDE_HEAD.first_layer_size
    second = n_fold_heads * FIRST_TRIAL.second_layer_size + n_kept * WIDE_HEAD.second_layer_size
    assert 20e6 < 4 * LARGEST * first * (n_features + second) < 25e6


@pytest.mark.parametrize("n_asked", [4, 9], ids=["in the first fold", "in the second fold"])
def test_a_cross_validated_trial_can_be_abandoned_in_any_fold(n_asked: int) -> None:
    ended, states = run(by_folds(), after(n_asked, Order.STOP))
    assert ended == []
    assert states == ["FAIL"]
