"""A finished trial as text: its parameters and its metrics on every set."""

from collections.abc import Iterator

from custom_aesthetic.quality.judge import SETS
from custom_aesthetic.quality.metrics import HIGHER_IS_BETTER
from custom_aesthetic.search.study import FrozenTrial
from custom_aesthetic.search.trials import recorded_parameters

ONLY_WITH_WEIGHTS = "log_weight_lr"


def describe_trial(trial: FrozenTrial, *, verbose: bool = True, folded: bool = False) -> Iterator[str]:
    """Yield one line per parameter, a table of metrics by set, and, with `verbose`, best epoch, time and seed.

    Parameters that the trial does not use are shown with `verbose` only. With folds (`folded`), the metrics of `eval`
    are labelled "out of fold", those of `train` "learnt from", and those of `full` are left out.
    """
    for name, value in vars(recorded_parameters(trial)).items():
        if verbose or name != ONLY_WITH_WEIGHTS or name in trial.params:
            yield f"  {name:18} {value:.5g}"
    names = (
        dict(zip(SETS, ("learnt from", "out of fold", ""), strict=True)) if folded else {name: name for name in SETS}
    )
    sets = [name for name in SETS if names[name]]
    yield f"  {'metric':18} " + " ".join(f"{names[name]:>13}" for name in sets)
    for metric in HIGHER_IS_BETTER:
        values = [trial.user_attrs.get(f"{name}_{metric}") for name in sets]
        if any(value is not None for value in values):
            cells = (f"{'undefined' if value is None else format(value, '.4g'):>13}" for value in values)
            yield f"  {metric:18} " + " ".join(cells)
    attributes = trial.user_attrs
    if verbose:
        yield f"  best epoch {attributes['best_epoch']}, {attributes['seconds']} s, seed {attributes['seed']}"
