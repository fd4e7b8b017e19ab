"""The samplers, which choose the parameters of the next trial, and the pruners, which end unpromising trials early."""

import warnings
from collections.abc import Sequence

import optuna
from optuna.pruners import BasePruner
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial

N_REPORTS = 10
"""A trial reports to the pruner after every tenth of its training, so that trials of any length are comparable."""

WARM_START_TRIALS = 10
"""Copies of each starting trial given to CMA-ES, which uses the best tenth of all: one of each."""


def make_sampler(name: str, seed: int | None, start: Sequence[FrozenTrial] = ()) -> BaseSampler:
    """Return the sampler of that name; a seed makes it reproducible. Raises ValueError for an unknown name.

    CMA-ES starts in the middle of the trials `start`, all of one value, with a deviation of a tenth of each range and
    as wide as they lie apart, instead of in the middle of the ranges: the first dozens of trials then vary sensible
    configurations.

    TPE counts running trials as bad ones (constant liar), so that parallel trials spread out. QMC draws from one
    sequence that all workers of a study share, so its scrambling has the same seed in every worker.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return _make_sampler(name, seed, start)


def _make_sampler(name: str, seed: int | None, start: Sequence[FrozenTrial]) -> BaseSampler:
    match name:
        case "CmaEs":
            known = list(start) * WARM_START_TRIALS or None
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
    """Return a different seed for each worker and each time a study is resumed; None without a model seed."""
    if model_seed is None:
        return None
    return (1_000_003 * model_seed + 1_009 * worker + n_trials_before) % 2**32


def make_pruner(name: str, n_reports: int = N_REPORTS) -> BasePruner:
    """Return the pruner of that name; ValueError for an unknown name.

    Trials report at steps 1 to `n_reports`: after each tenth of a training, or after each fold.
    """
    match name:
        case "none":
            return optuna.pruners.NopPruner()
        case "median":
            return optuna.pruners.MedianPruner(n_startup_trials=10, n_warmup_steps=min(2, n_reports - 1))
        case "hyperband":
            return optuna.pruners.HyperbandPruner(min_resource=1, max_resource=n_reports, reduction_factor=3)
    raise ValueError(f"no such pruner: {name}")


def report_at(epoch: int, n_epochs: int) -> int | None:
    """Return which tenth of its training, 1 to 10, a trial completes with this epoch; None within a tenth."""
    tenth = epoch * N_REPORTS // n_epochs
    return tenth if tenth > (epoch - 1) * N_REPORTS // n_epochs else None
