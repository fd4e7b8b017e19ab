"""The search space: the ranges of a head's parameters, the parameters of the first trial, and drawing of new ones."""

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial

from custom_aesthetic.heads.training import HeadParameters
from custom_aesthetic.settings.declaration import Range
from custom_aesthetic.settings.head_parameters import INTEGER_PARAMETERS, SearchSpace

FIRST_TRIAL = HeadParameters(**{field.name: field.metadata["first"] for field in fields(SearchSpace)})
"""A sensible configuration for a few hundred images; clipped to the bounds, it is the first trial of a study."""

GENTLE_TRIAL = replace(FIRST_TRIAL, first_layer_size=48, train_epochs=25, log_lr=-3.2, input_dropout=0.5, dropout=0.3)
"""The second trial: it learns less from each score, which is better where scores are noisy."""

WIDE_HEAD = replace(FIRST_TRIAL, first_layer_size=192, second_layer_size=48)
"""The heads of all images, which join the mean where the scores can be predicted well. They are wide, which predicts
smooth scores better, and not searched, because no image is left out to judge them; see docs/log.md."""

LOG_SCALED = ("first_layer_size", "second_layer_size", "batch_size")
"""Searched on a logarithmic scale: 1000 units differ from 900 as 20 do from 18."""


def searched_parameters(space: SearchSpace, *, weighs_states: bool) -> dict[str, Range]:
    """Return name -> range of a head's parameters; `log_weight_lr` only if hidden-state weights are trained."""
    ranges = {field.name: getattr(space, field.name) for field in fields(space)}
    if not weighs_states:
        del ranges["log_weight_lr"]
    return ranges


def distribution(name: str, bounds: Range) -> IntDistribution | FloatDistribution:
    """Return the Optuna distribution of a parameter."""
    if name in INTEGER_PARAMETERS:
        return IntDistribution(int(bounds.low), int(bounds.high), log=name in LOG_SCALED)
    return FloatDistribution(bounds.low, bounds.high)


def clipped_head(head: HeadParameters, space: SearchSpace) -> HeadParameters:
    """Return the head with every parameter within its range, also those that are not searched."""
    return HeadParameters(**{name: getattr(space, name).clip(value) for name, value in vars(head).items()})


def is_linear(trials: Sequence[FrozenTrial]) -> bool:
    """Return whether trials come from an earlier version, which searched sizes on a linear scale."""
    found = [trial.distributions[name] for trial in trials for name in LOG_SCALED if name in trial.distributions]
    return any(isinstance(one, IntDistribution) and not one.log for one in found)


def suggest(
    trial: optuna.Trial, space: SearchSpace, *, weighs_states: bool, linear_sizes: bool = False
) -> HeadParameters:
    """Return the parameters of a trial, drawn by its sampler.

    Parameters whose range is a single value are not searched. Parameters that the head does not use have the values of
    FIRST_TRIAL.
    """
    values: dict[str, Any] = {}
    for name, bounds in searched_parameters(space, weighs_states=weighs_states).items():
        if bounds.is_fixed:
            values[name] = bounds.low
        elif name in INTEGER_PARAMETERS:
            values[name] = trial.suggest_int(
                name, int(bounds.low), int(bounds.high), log=name in LOG_SCALED and not linear_sizes
            )
        else:
            values[name] = trial.suggest_float(name, bounds.low, bounds.high)
    return replace(FIRST_TRIAL, **values)


def first_parameters(space: SearchSpace, *, weighs_states: bool) -> list[dict[str, float]]:
    """Return the searched parameters of the first trials: FIRST_TRIAL and GENTLE_TRIAL, clipped to the bounds."""
    both = (
        clipped_parameters(vars(trial), space, weighs_states=weighs_states) for trial in (FIRST_TRIAL, GENTLE_TRIAL)
    )
    first, second = both
    return [first] if first == second else [first, second]


def clipped_parameters(values: Mapping[str, Any], space: SearchSpace, *, weighs_states: bool) -> dict[str, float]:
    """Return the values of the searched parameters, clipped to the bounds; other values are left out."""
    ranges = searched_parameters(space, weighs_states=weighs_states)
    return {
        name: bounds.clip(values[name]) for name, bounds in ranges.items() if not bounds.is_fixed and name in values
    }


def starting_points(space: SearchSpace, *, weighs_states: bool) -> tuple[FrozenTrial, ...]:
    """Return the first trials in the form that a sampler can start from; none if no parameter is searched."""
    ranges = searched_parameters(space, weighs_states=weighs_states)
    found = []
    for parameters in first_parameters(space, weighs_states=weighs_states):
        distributions: dict[str, BaseDistribution] = {name: distribution(name, ranges[name]) for name in parameters}
        values = {name: int(value) if name in INTEGER_PARAMETERS else value for name, value in parameters.items()}
        if values:
            found.append(optuna.trial.create_trial(value=0.0, params=values, distributions=distributions))
    return tuple(found)
