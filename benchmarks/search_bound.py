"""The bound of the machine: the matrix products and the memory traffic of the steps of a search."""

import time
from collections.abc import Sequence

import torch

from benchmarks.search_sets import Timing, n_steps, total_steps
from custom_aesthetic.heads.training import HeadParameters
from custom_aesthetic.search.trials import Problem


def time_bound(problem: Problem, n_inputs: int, sets: Sequence[HeadParameters]) -> Timing:
    """Time (e): the matrix products and memory traffic of one step of every set, times its number of steps."""
    seconds = 0.0
    n_train = len(problem.data.train_rows)
    for parameters in sets:
        batch_size = min(parameters.batch_size, n_train)
        sizes = (n_inputs, parameters.first_layer_size, parameters.second_layer_size)
        seconds += n_steps(parameters, n_train) * (_products_seconds(batch_size, *sizes) + _traffic_seconds(*sizes))
    return Timing(seconds, total_steps(problem, sets))


def _products_seconds(n_rows: int, n_inputs: int, first: int, second: int) -> float:
    """Return the time of the eight matrix products of a step, forward and backward, into existing buffers."""
    inputs, hidden, last = torch.randn(n_rows, n_inputs), torch.randn(n_rows, first), torch.randn(n_rows, second)
    weights = torch.randn(first, n_inputs), torch.randn(second, first), torch.randn(1, second)
    outer = torch.randn(n_rows, 1)
    to_first, to_second, to_outer = torch.empty(n_rows, first), torch.empty(n_rows, second), torch.empty(n_rows, 1)
    gradients = [torch.empty_like(weight) for weight in weights]

    def step() -> None:
        torch.mm(inputs, weights[0].T, out=to_first)
        torch.mm(hidden, weights[1].T, out=to_second)
        torch.mm(last, weights[2].T, out=to_outer)
        torch.mm(outer.T, last, out=gradients[2])
        torch.mm(outer, weights[2], out=to_second)
        torch.mm(last.T, hidden, out=gradients[1])
        torch.mm(last, weights[1], out=to_first)
        torch.mm(hidden.T, inputs, out=gradients[0])

    return _seconds(step)


def _traffic_seconds(n_inputs: int, first: int, second: int) -> float:
    """Return the time to read weights, gradients and both moments and to write all but the gradients.

    It is timed as three additions, which move nine numbers per weight, while AdamW needs to move seven.
    """
    n_numbers = (n_inputs + 1) * first + (first + 1) * second + second + 1
    weights, gradients, mean, square = (torch.zeros(n_numbers) for _ in range(4))

    def step() -> None:
        weights.add_(mean)
        mean.add_(gradients)
        square.add_(gradients)

    return _seconds(step) * 7 / 9


def _seconds(step) -> float:  # type: ignore[no-untyped-def]
    """Return the seconds per call: the median of several rounds of a few milliseconds."""
    step()
    start = time.perf_counter()
    step()
    n_calls = max(1, int(0.005 / max(time.perf_counter() - start, 1e-6)))
    rounds = []
    for _ in range(7):
        start = time.perf_counter()
        for _ in range(n_calls):
            step()
        rounds.append((time.perf_counter() - start) / n_calls)
    return sorted(rounds)[len(rounds) // 2]
