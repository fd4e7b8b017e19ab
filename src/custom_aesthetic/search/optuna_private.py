"""All uses of Optuna's private interface; checked with Optuna 4.5 and 5.0.

Each function says why the public interface is not enough, and falls back to it where the private one is missing.
"""

import contextlib
import inspect
import warnings
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import optuna
import sqlalchemy
from optuna.storages import BaseStorage
from optuna.trial import TrialState


def storage_of(study: optuna.Study) -> BaseStorage:
    """Return the storage of a study, which has no public attribute."""
    return study._storage


def trial_id(trial: optuna.Trial | optuna.trial.FrozenTrial) -> int:
    """Return the id of a trial, which storages need for heartbeats, states and attributes; it is not public."""
    return trial._trial_id


def innermost(storage: BaseStorage) -> BaseStorage:
    """Return the database behind the cache that `load_study` wraps it in; only the database accepts heartbeats."""
    return getattr(storage, "_backend", storage)


def writable(study: optuna.Study, trial: optuna.trial.FrozenTrial) -> Any:
    """Return a stand-in for a finished trial, to which public Optuna cannot write; `save_note` accepts it."""
    return SimpleNamespace(storage=storage_of(study), study=study, _trial_id=trial_id(trial))


def fail(study: optuna.Study, trial: optuna.trial.FrozenTrial) -> bool:
    """Mark a running trial of another process as failed; return whether it was still running.

    `Study.tell` logs a misleading warning about a missing value if the other process ends the trial at that moment.
    """
    try:
        return storage_of(study).set_trial_state_values(trial_id(trial), state=TrialState.FAIL)
    except (optuna.exceptions.UpdateFinishedTrialError, RuntimeError):  # RuntimeError before Optuna 4.2
        return False


def make_retry(n_times: int) -> Callable[[optuna.Study, optuna.trial.FrozenTrial], None]:
    """Return the callback that queues a dead trial again, up to `n_times`. Optuna 4.9 renamed its class."""
    storages: Any = optuna.storages
    kind = getattr(storages, "RetryHeartbeatStaleTrialCallback", None) or storages.RetryFailedTrialCallback
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return kind(max_retry=n_times)


def callback_option() -> str:
    """Return the name of RDBStorage's argument for the callback of `make_retry`, which depends on the version."""
    known = inspect.signature(optuna.storages.RDBStorage).parameters
    name = "heartbeat_stale_trial_callback"
    return name if name in known else "failed_trial_callback"


@contextlib.contextmanager
def held(lock: Any) -> Iterator[None]:
    """Hold the lock of a journal file within the block."""
    lock.acquire()
    try:
        yield
    finally:
        lock.release()


def engine_of(storage: BaseStorage) -> sqlalchemy.Engine | None:
    """Return the SQLAlchemy engine of a database; None for a storage without one, such as a proxy."""
    return getattr(innermost(storage), "engine", None)
