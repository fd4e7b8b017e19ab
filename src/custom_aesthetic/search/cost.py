"""What heads cost on this machine: the time of the most expensive trial, and where they train faster."""

import itertools
import logging
import math
import time
from collections.abc import Callable
from dataclasses import replace

from torch import Tensor

from custom_aesthetic.heads.training import Goal, Job, train, train_jobs
from custom_aesthetic.search.space import FIRST_TRIAL
from custom_aesthetic.search.trials import Problem
from custom_aesthetic.settings.head_parameters import SearchSpace

log = logging.getLogger(__name__)

CHEAP_STEPS = 20_000
"""A trial with fewer steps than this takes at most a minute or two and is not measured."""

COSTLY_SECONDS = 60.0
"""A trial that takes longer than this is reported."""

STEPS_MEASURED, EPOCHS_MEASURED = 10, 4
"""Steps per epoch and epochs of the measurement; the fastest epoch counts."""

SECONDS_MEASURED, MOST_EPOCHS_MEASURED = 0.7, 1000
"""How long heads are trained to see how fast that is."""


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


def cpu_is_faster(problem: Problem, space: SearchSpace, *, n_heads: int, n_workers: int) -> bool:
    """Return whether CPU workers train heads faster than the problem's accelerator trains `n_heads` side by side.

    Both are measured for a moment on the data of the problem; `n_workers` are taken to be that many times as fast as a
    worker alone. The log says what was found.
    """
    device = problem.data.features.device
    stacked = head_steps_a_second(problem, space, n_heads)
    workers = n_workers * head_steps_a_second(problem.on_cpu(), space, 1)
    log.info(
        "heads train faster on %s: about %.0f training steps a second by %d workers on the CPU, and %.0f by %d heads "
        "side by side on %s",
        *("the CPU" if workers > stacked else device, workers, n_workers, stacked, n_heads, device),
    )
    return workers > stacked


class _MeasuredError(Exception):
    """Enough has been measured."""


def head_steps_a_second(problem: Problem, space: SearchSpace, n_heads: int) -> float:
    """Return how many training steps of typical heads are done in a second, `n_heads` side by side."""
    parameters = replace(FIRST_TRIAL, **_middle(space), train_epochs=MOST_EPOCHS_MEASURED)
    rows = problem.data.train_rows[: STEPS_MEASURED * parameters.batch_size]
    n_steps_an_epoch = math.ceil(len(rows) / parameters.batch_size)
    ended: list[float] = []

    def on_epoch(epoch: int, score: float) -> None:
        ended.append(time.perf_counter())
        if epoch > 1 and ended[-1] - ended[0] > SECONDS_MEASURED:
            raise _MeasuredError

    def evaluate(outputs_of: Callable[[Tensor], Tensor]) -> float:
        outputs_of(rows[:1])  # waits until the device has done its steps
        return 0.0

    goal = Goal(problem.objective.loss_model, evaluate, higher_is_better=True)
    jobs = [Job(parameters, seed, on_epoch) for seed in range(n_heads)]
    layers = int(space.first_layer_size.high), int(space.second_layer_size.high)
    for _ in train_jobs(replace(problem.data, train_rows=rows), jobs, goal, n_at_once=n_heads, layers=layers):
        pass
    counted = ended[n_heads:]  # the first epoch of each head warms up
    return len(counted) * n_steps_an_epoch / (counted[-1] - ended[n_heads - 1])


def _middle(space: SearchSpace) -> dict[str, int]:
    """Return sizes in the geometric middle of their ranges."""
    names = ("first_layer_size", "second_layer_size", "batch_size")
    return {name: round(math.sqrt(getattr(space, name).low * getattr(space, name).high)) for name in names}


def say_time(seconds: float) -> str:
    """Return a time in readable form: 45 s, 3 min, 1 h 20 min."""
    if seconds < 90:
        return f"{math.ceil(seconds)} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
