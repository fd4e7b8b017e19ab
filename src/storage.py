"""Where a study is kept: any Optuna storage URL, a journal file, or nothing."""

import logging
from pathlib import Path

import optuna
import sqlalchemy.exc
from optuna.storages import BaseStorage
from optuna.storages.journal import JournalFileBackend

from src.errors import UserError


def open_storage(database: str) -> BaseStorage:
    """Return the Optuna storage for the value of `--database`; UserError if it cannot be opened."""
    optuna.logging.set_verbosity(logging.WARNING)
    if not database:
        return optuna.storages.InMemoryStorage()
    if "://" not in database:
        return optuna.storages.JournalStorage(JournalFileBackend(database))
    try:
        return optuna.storages.RDBStorage(database)
    except (sqlalchemy.exc.SQLAlchemyError, RuntimeError, ImportError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"--database={database} cannot be opened: {reason}; check the URL, or choose another") from None


def close_storage(storage: BaseStorage) -> None:
    """Close the connections of a storage; Optuna itself leaves them to the garbage collector."""
    storage.remove_session()
    engine = getattr(getattr(storage, "_backend", storage), "engine", None)
    if engine is not None:
        engine.dispose()


def load_study(database: str, name: str) -> optuna.Study:
    """Return the study of that name; UserError if the storage is not there or has no such study."""
    if database.startswith("sqlite:///") and not Path(database.removeprefix("sqlite:///")).exists():
        raise UserError(f"--database={database} is not there; give the one of the training")
    storage = open_storage(database)
    try:
        return optuna.load_study(study_name=name, storage=storage)
    except KeyError:
        names = ", ".join(optuna.get_all_study_names(storage)) or "none"
        raise UserError(f"--name={name}: no such study in {database}; there are: {names}") from None
