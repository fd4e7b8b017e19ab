"""The search space: the ranges of a head's parameters, the parameters of the first trial, and drawing of new ones."""

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial

from custom_aesthetic.heads.training import HeadParameters
from custom_aesthetic.settings.training import INTEGER_PARAMETERS, Range, SearchSpace

FIRST_TRIAL = HeadParameters(**{field.name: field.metadata["first"] for field in fields(SearchSpace)})
"""A sensible configuration for a few hundred images; clipped to the bounds, it is the first trial of a study."""


def searched_parameters(space: SearchSpace, *, weighs_states: bool) -> dict[str, Range]:
    """Return name -> range of a head's parameters; `log_weight_lr` only if hidden-state weights are trained."""
    ranges = {field.name: getattr(space, field.name) for field in fields(space)}
    if not weighs_states:
        del ranges["log_weight_lr"]
    return ranges


def distribution(name: str, bounds: Range) -> IntDistribution | FloatDistribution:
    """Return the Optuna distribution of a parameter."""
    if name in INTEGER_PARAMETERS:
        return IntDistribution(int(bounds.low), int(bounds.high))
    return FloatDistribution(bounds.low, bounds.high)


def suggest(trial: optuna.Trial, space: SearchSpace, *, weighs_states: bool) -> HeadParameters:
    """Return the parameters of a trial, drawn by its sampler.

    Parameters whose range is a single value are not searched. Parameters that the head does not use have the values of
    FIRST_TRIAL.
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
    """Return the searched parameters of the first trial: FIRST_TRIAL, clipped to the bounds."""
    return clipped_parameters(vars(FIRST_TRIAL), space, weighs_states=weighs_states)


def clipped_parameters(values: Mapping[str, Any], space: SearchSpace, *, weighs_states: bool) -> dict[str, float]:
    """Return the values of the searched parameters, clipped to the bounds; other values are left out."""
    ranges = searched_parameters(space, weighs_states=weighs_states)
    return {
        name: bounds.clip(values[name]) for name, bounds in ranges.items() if not bounds.is_fixed and name in values
    }


def starting_point(space: SearchSpace, *, weighs_states: bool) -> FrozenTrial | None:
    """Return the first trial in the form that a sampler can start from; None if no parameter is searched."""
    parameters = first_parameters(space, weighs_states=weighs_states)
    if not parameters:
        return None
    ranges = searched_parameters(space, weighs_states=weighs_states)
    distributions: dict[str, BaseDistribution] = {name: distribution(name, ranges[name]) for name in parameters}
    values = {name: int(value) if name in INTEGER_PARAMETERS else value for name, value in parameters.items()}
    return optuna.trial.create_trial(value=0.0, params=values, distributions=distributions)
