"""A finished trial in words: its parameters, its metrics on every set, and what it took."""

from collections.abc import Iterator

from custom_aesthetic.quality.judge import SETS
from custom_aesthetic.quality.metrics import HIGHER_IS_BETTER
from custom_aesthetic.search.study import FrozenTrial
from custom_aesthetic.search.trials import recorded_parameters


def describe_trial(trial: FrozenTrial) -> Iterator[str]:
    """Yield the lines: parameters, one a line; a table of metrics by set; epoch, time and seed."""
    for name, value in vars(recorded_parameters(trial)).items():
        yield f"  {name:18} {value:.5g}"
    yield f"  {'metric':18} " + " ".join(f"{name:>9}" for name in SETS)
    for metric in HIGHER_IS_BETTER:
        values = [trial.user_attrs.get(f"{name}_{metric}") for name in SETS]
        if any(value is not None for value in values):
            cells = (f"{'undefined' if value is None else format(value, '.4f'):>9}" for value in values)
            yield f"  {metric:18} " + " ".join(cells)
    attributes = trial.user_attrs
    yield f"  best epoch {attributes['best_epoch']}, {attributes['seconds']} s, seed {attributes['seed']}"
