"""The searched parameters of a head: their ranges, a sound first choice, and what a trial draws."""

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial

from custom_aesthetic.heads.training import HeadParameters
from custom_aesthetic.settings.training import INTEGER_PARAMETERS, Range, SearchSpace

FIRST_TRIAL = HeadParameters(**{field.name: field.metadata["first"] for field in fields(SearchSpace)})
"""A sound configuration for some hundred images; brought into the bounds given, it is a study's first trial."""


def searched_parameters(space: SearchSpace, *, weighs_states: bool) -> dict[str, Range]:
    """Return name -> range of the parameters of a head; `log_weight_lr` only where hidden states are weighed."""
    ranges = {field.name: getattr(space, field.name) for field in fields(space)}
    if not weighs_states:
        del ranges["log_weight_lr"]
    return ranges


def distribution(name: str, bounds: Range) -> IntDistribution | FloatDistribution:
    """Return what a searched parameter is drawn from."""
    if name in INTEGER_PARAMETERS:
        return IntDistribution(int(bounds.low), int(bounds.high))
    return FloatDistribution(bounds.low, bounds.high)


def suggest(trial: optuna.Trial, space: SearchSpace, *, weighs_states: bool) -> HeadParameters:
    """Return the trial's parameters; those whose range is a point are not searched.

    Those that the head does not use are as in FIRST_TRIAL.
    """
    values: dict[str, Any] = {}
    for name, bounds in searched_parameters(space, weighs_states=weighs_states).items():
        if bounds.is_fixed:
            values[name] = bounds.low
        elif name in INTEGER_PARAMETERS:
            values[name] = trial.suggest_int(name, int(bounds.low), int(bounds.high))
        else:
            values[name] = trial.suggest_float(name, bounds.low, bounds.high)
    return replace(FIRST_TRIAL, **values)


def first_parameters(space: SearchSpace, *, weighs_states: bool) -> dict[str, float]:
    """Return the searched parameters of the first trial: FIRST_TRIAL brought into the bounds."""
    return clipped_parameters(vars(FIRST_TRIAL), space, weighs_states=weighs_states)


def clipped_parameters(values: Mapping[str, Any], space: SearchSpace, *, weighs_states: bool) -> dict[str, float]:
    """Return those of the values that are searched, brought into the bounds."""
    ranges = searched_parameters(space, weighs_states=weighs_states)
    return {
        name: bounds.clip(values[name]) for name, bounds in ranges.items() if not bounds.is_fixed and name in values
    }


def starting_point(space: SearchSpace, *, weighs_states: bool) -> FrozenTrial | None:
    """Return the first trial as one that a sampler may start from; None where nothing is searched."""
    parameters = first_parameters(space, weighs_states=weighs_states)
    if not parameters:
        return None
    ranges = searched_parameters(space, weighs_states=weighs_states)
    distributions: dict[str, BaseDistribution] = {name: distribution(name, ranges[name]) for name in parameters}
    values = {name: int(value) if name in INTEGER_PARAMETERS else value for name, value in parameters.items()}
    return optuna.trial.create_trial(value=0.0, params=values, distributions=distributions)
