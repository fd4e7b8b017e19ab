"""How the next parameters are chosen, and which trials are not worth finishing."""

import warnings

import optuna
from optuna.pruners import BasePruner
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial

N_REPORTS = 10
"""A trial reports at every tenth of its own training, so that trials of different lengths are compared alike."""

WARM_START_TRIALS = 10
"""CMA-ES starts from the best tenth of the trials that it is given, of which there must be one."""


def make_sampler(name: str, seed: int | None, start: FrozenTrial | None = None) -> BaseSampler:
    """Return the sampler of that name; a seed makes it repeatable.

    CMA-ES starts at the parameters of `start`, a tenth of each range round them, instead of from the middle of the
    ranges: the first dozens of trials are then variations of a sound configuration.

    TPE counts running trials as bad ones (constant liar), so that parallel trials spread out. The points of QMC are
    one sequence that all workers of a study share, so its scrambling has the same seed everywhere.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return _make_sampler(name, seed, start)


def _make_sampler(name: str, seed: int | None, start: FrozenTrial | None) -> BaseSampler:
    match name:
        case "CmaEs":
            known = None if start is None else [start] * WARM_START_TRIALS
            return optuna.samplers.CmaEsSampler(seed=seed, warn_independent_sampling=False, source_trials=known)
        case "random":
            return optuna.samplers.RandomSampler(seed=seed)
        case "QMC":
            return optuna.samplers.QMCSampler(
                seed=0, scramble=True, warn_independent_sampling=False, warn_asynchronous_seeding=False
            )
        case "TPE":
            return optuna.samplers.TPESampler(seed=seed, constant_liar=True)
        case "GP":
            return optuna.samplers.GPSampler(seed=seed)
    raise ValueError(f"no such sampler: {name}")


def sampler_seed(model_seed: int | None, *, worker: int, n_trials_before: int) -> int | None:
    """Return a seed of its own for each worker and each resumption; None without a model seed."""
    if model_seed is None:
        return None
    return (1_000_003 * model_seed + 1_009 * worker + n_trials_before) % 2**32


def make_pruner(name: str, n_reports: int = N_REPORTS) -> BasePruner:
    """Return the pruner of that name; trials report so often, from 1: at each tenth of a training, or each fold."""
    match name:
        case "none":
            return optuna.pruners.NopPruner()
        case "median":
            return optuna.pruners.MedianPruner(n_startup_trials=10, n_warmup_steps=min(2, n_reports - 1))
        case "hyperband":
            return optuna.pruners.HyperbandPruner(min_resource=1, max_resource=n_reports, reduction_factor=3)
    raise ValueError(f"no such pruner: {name}")


def report_at(epoch: int, n_epochs: int) -> int | None:
    """Return which tenth of its training a trial has ended with this epoch, 1 to 10; None within a tenth."""
    tenth = epoch * N_REPORTS // n_epochs
    return tenth if tenth > (epoch - 1) * N_REPORTS // n_epochs else None
