"""Where a study is kept: any Optuna storage URL, a journal file, or nothing."""

import logging

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
