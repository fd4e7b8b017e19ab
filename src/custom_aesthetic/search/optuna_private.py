"""What Optuna keeps to itself and this program needs; checked with Optuna 4.5 and 5.0.

Each function says why the public interface does not do, and uses the public one where the private one is missing.
"""

import contextlib
import inspect
import json
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import ModuleType, SimpleNamespace
from typing import Any

import optuna
import sqlalchemy
import sqlalchemy.orm
from optuna.distributions import BaseDistribution
from optuna.storages import BaseStorage
from optuna.trial import TrialState

models: ModuleType | None
try:
    from optuna.storages._rdb import models
except ImportError:
    models = None


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


def write_attributes(storage: BaseStorage, trial: int, attributes: Mapping[str, Any]) -> None:
    """Write the user attributes of a running trial.

    Optuna writes one attribute in a transaction, of which a trial here needs about 20; this writes all in one.
    """
    engine = engine_of(storage)
    if engine is None or models is None:
        for name, value in attributes.items():
            storage.set_trial_user_attr(trial, name, value)
        return
    with sqlalchemy.orm.Session(engine) as session, session.begin():
        stored = session.query(models.TrialUserAttributeModel).filter_by(trial_id=trial)
        stored.filter(models.TrialUserAttributeModel.key.in_(list(attributes))).delete(synchronize_session=False)
        rows = [{"trial_id": trial, "key": key, "value_json": json.dumps(attributes[key])} for key in attributes]
        session.execute(sqlalchemy.insert(models.TrialUserAttributeModel), rows)


class _Collecting:
    """A storage that keeps the parameters it is to write for later."""

    def __init__(self, storage: BaseStorage) -> None:
        self.storage = storage
        self.parameters: list[tuple[str, float, BaseDistribution]] = []

    def set_trial_param(self, trial_id: int, name: str, value: float, distribution: BaseDistribution) -> None:
        self.parameters.append((name, value, distribution))

    def __getattr__(self, name: str) -> Any:
        return getattr(self.storage, name)


@contextlib.contextmanager
def parameters_in_one_go(trial: optuna.Trial, write: Callable[..., None]) -> Iterator[None]:
    """Write what the trial suggests within the block at its end, in one transaction where Optuna takes one for each.

    `write` calls a function with arguments, and may call it again where the database does not answer.
    """
    storage = trial.storage
    engine = engine_of(storage)
    if engine is None or models is None:
        yield
        return
    collecting: Any = _Collecting(storage)
    trial.storage = collecting
    try:
        yield
    finally:
        trial.storage = storage
    if collecting.parameters:
        write(_write_parameters, engine, trial_id(trial), collecting.parameters)


def _write_parameters(engine: Any, trial: int, parameters: Sequence[tuple[str, float, BaseDistribution]]) -> None:
    assert models is not None
    with sqlalchemy.orm.Session(engine) as session, session.begin():
        # Replaces those of an attempt that failed part-way. A trial that is run again has others already.
        stored = session.query(models.TrialParamModel).filter_by(trial_id=trial)
        names = [name for name, _, _ in parameters]
        stored.filter(models.TrialParamModel.param_name.in_(names)).delete(synchronize_session=False)
        rows = [
            {
                "trial_id": trial,
                "param_name": name,
                "param_value": value,
                "distribution_json": optuna.distributions.distribution_to_json(distribution),
            }
            for name, value, distribution in parameters
        ]
        session.execute(sqlalchemy.insert(models.TrialParamModel), rows)
