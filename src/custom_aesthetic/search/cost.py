"""Estimate of how long the most expensive trial of a search would take on this machine."""

import itertools
import math
import time
from dataclasses import replace

from custom_aesthetic.heads.training import train
from custom_aesthetic.search.space import FIRST_TRIAL
from custom_aesthetic.search.trials import Problem
from custom_aesthetic.settings.training import SearchSpace

CHEAP_STEPS = 20_000
"""A trial with fewer steps than this takes at most a minute or two and is not measured."""

COSTLY_SECONDS = 60.0
"""A trial that takes longer than this is reported."""

STEPS_MEASURED, EPOCHS_MEASURED = 10, 4
"""Steps per epoch and epochs of the measurement; the fastest epoch counts."""


def costly_trial(problem: Problem, space: SearchSpace) -> str | None:
    """Return a sentence on the most expensive trial and its approximate time; None if that is below a minute."""
    n_steps = int(space.train_epochs.high) * math.ceil(len(problem.data.train_rows) / space.batch_size.low)
    if n_steps < CHEAP_STEPS:
        return None
    seconds = n_steps * _seconds_per_step(problem, space)
    if seconds < COSTLY_SECONDS:
        return None
    return (
        f"a trial with batch size {int(space.batch_size.low)} and {int(space.train_epochs.high)} epochs of "
        f"{len(problem.data.train_rows):,} training images takes up to {say_time(seconds)} on this machine; raise "
        "--min_batch_size, or lower --max_train_epochs or the layers' --max_..._size, to limit that"
    )


def _seconds_per_step(problem: Problem, space: SearchSpace) -> float:
    """Return the time of one training step of the largest head on the smallest batch, measured on a few steps."""
    parameters = replace(
        FIRST_TRIAL,
        first_layer_size=int(space.first_layer_size.high),
        second_layer_size=int(space.second_layer_size.high),
        batch_size=int(space.batch_size.low),
        train_epochs=EPOCHS_MEASURED,
    )
    rows = problem.data.train_rows[: STEPS_MEASURED * parameters.batch_size]
    ended: list[float] = []
    train(
        replace(problem.data, train_rows=rows),
        parameters,
        loss_model=problem.objective.loss_model,
        seed=0,
        evaluate=lambda outputs_of: 0.0,
        higher_is_better=True,
        on_epoch=lambda epoch, score: ended.append(time.perf_counter()),
    )
    epochs = [later - earlier for earlier, later in itertools.pairwise(ended)]
    return min(epochs) / math.ceil(len(rows) / parameters.batch_size)


def say_time(seconds: float) -> str:
    """Return a time in readable form: 45 s, 3 min, 1 h 20 min."""
    if seconds < 90:
        return f"{math.ceil(seconds)} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
