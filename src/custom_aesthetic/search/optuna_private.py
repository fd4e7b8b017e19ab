"""What Optuna keeps to itself and this program needs; checked with Optuna 4.5 and 5.0.

Each function says why the public interface does not do, and uses the public one where the private one is missing.
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
    """Return the storage of a study. Public Optuna takes a storage but does not give it back."""
    return study._storage


def trial_id(trial: optuna.Trial | optuna.trial.FrozenTrial) -> int:
    """Return the id of a trial in its storage, by which storages take heartbeats, states and attributes."""
    return trial._trial_id


def innermost(storage: BaseStorage) -> BaseStorage:
    """Return the database behind Optuna's cache: `load_study` wraps it, and only the database takes heartbeats."""
    return getattr(storage, "_backend", storage)


def writable(study: optuna.Study, trial: optuna.trial.FrozenTrial) -> Any:
    """Return what `save_note` reads of a trial. Public Optuna has no way to write to a trial that has ended."""
    return SimpleNamespace(storage=storage_of(study), study=study, _trial_id=trial_id(trial))


def fail(study: optuna.Study, trial: optuna.trial.FrozenTrial) -> bool:
    """Fail a running trial of another process; return whether it was still running.

    `Study.tell` would do the same, but reports a missing value of a trial that another process ends at that moment.
    """
    try:
        return storage_of(study).set_trial_state_values(trial_id(trial), state=TrialState.FAIL)
    except (optuna.exceptions.UpdateFinishedTrialError, RuntimeError):  # RuntimeError before Optuna 4.2
        return False


def make_retry(n_times: int) -> Callable[[optuna.Study, optuna.trial.FrozenTrial], None]:
    """Return the callback that queues a trial again. Optuna 4.9 renamed it."""
    storages: Any = optuna.storages
    kind = getattr(storages, "RetryHeartbeatStaleTrialCallback", None) or storages.RetryFailedTrialCallback
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return kind(max_retry=n_times)


def callback_option() -> str:
    """Return the name of RDBStorage's argument for that callback."""
    known = inspect.signature(optuna.storages.RDBStorage).parameters
    name = "heartbeat_stale_trial_callback"
    return name if name in known else "failed_trial_callback"


@contextlib.contextmanager
def held(lock: Any) -> Iterator[None]:
    """Hold the lock of a journal file."""
    lock.acquire()
    try:
        yield
    finally:
        lock.release()


def engine_of(storage: BaseStorage) -> sqlalchemy.Engine | None:
    """Return the database's engine; None where the storage is no database, or one behind a proxy."""
    return getattr(innermost(storage), "engine", None)
