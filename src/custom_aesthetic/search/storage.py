"""Opening and closing of the storage of studies: a database, a journal file, a gRPC proxy, or memory."""

import contextlib
import functools
import logging
import random
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import optuna
import sqlalchemy.event
import sqlalchemy.exc
from optuna.exceptions import StorageInternalError
from optuna.storages import BaseStorage, RDBStorage

from custom_aesthetic.base import interrupts
from custom_aesthetic.base.database_urls import scrubbed, shown_url
from custom_aesthetic.base.errors import UserError
from custom_aesthetic.search.journal import Journal, is_journal
from custom_aesthetic.search.optuna_private import callback_option, engine_of, make_retry

log = logging.getLogger(__name__)
Result = TypeVar("Result")

HEARTBEAT_SECONDS = 20
"""Interval between the heartbeats of a running trial."""

GRACE_SECONDS = 60
"""A trial without a heartbeat for this long counts as dead."""

BUSY_SECONDS = 60
"""How long SQLite waits while another process writes."""

PROXY_SECONDS = 15
"""How long to wait for the first answer of a gRPC proxy."""

PATIENCE_SECONDS = 120
"""How long a search waits for a database that does not answer: long enough for a restart of the database."""

retry_once = make_retry(1)
"""Callback for a trial whose process has died: queues the trial again, once."""

LONGEST_REASON = 200
"""Maximum length of a library's error message about a damaged file, in characters."""

TELLING_SECONDS = 3
"""The log mentions a database that has not answered for this long."""

LASTING = ("is full", "No space left", "readonly", "ead-only", "Permission denied", "no such ", "has no column")
"""Parts of database error messages for problems that do not go away by waiting."""

MADE_BY_ANOTHER = ("already exists", "locked", "UNIQUE constraint", "duplicate", "Duplicate")
"""Parts of database error messages that appear when another process creates the tables at the same moment."""

FIRST_OPENING_SECONDS = 60
"""How long the first process to open a database may take to create its tables."""

_opened: set[str] = set()
"""The databases that this process has opened, whose passwords are removed from error messages."""

DRIVERS = {"postgresql": ("psycopg2", "psycopg2-binary"), "mysql": ("pymysql", "PyMySQL")}
"""Kind of database -> the driver used if the URL names none, and the package that contains it."""


def open_storage(database: str) -> BaseStorage:
    """Return the Optuna storage for the value of `--database`; UserError if it cannot be opened."""
    optuna.logging.set_verbosity(logging.ERROR)
    _opened.update((database, with_driver(database)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return _open(database)


def _open(database: str) -> BaseStorage:
    if not database:
        return optuna.storages.InMemoryStorage()
    if "://" not in database:
        return _open_journal(database)
    if database.startswith("grpc://"):
        return _open_proxy(database)
    return _open_database(database)


def is_there(database: str) -> bool:
    """Return whether a database that is a file exists; True for a server, which is not asked."""
    if database.startswith("sqlite:///"):
        return Path(database.removeprefix("sqlite:///").partition("?")[0]).exists()
    return "://" in database or Path(database).exists()


def is_server(database: str) -> bool:
    """Return whether several machines can share the database over a network."""
    return "://" in database and not database.startswith("sqlite")


def with_driver(database: str) -> str:
    """Return the URL with a driver added if it names none, because SQLAlchemy's default may not be installed."""
    kind, separator, rest = database.partition("://")
    return f"{kind}+{DRIVERS[kind][0]}://{rest}" if separator and kind in DRIVERS else database


def _open_journal(file: str) -> BaseStorage:
    try:
        Path(file).open("ab").close()  # creates a missing file, and fails if the file is not writable
        if not is_journal(Path(file)):
            raise UserError(f"--database={file} is not a journal file of Optuna; choose another file")
    except OSError as error:
        raise UserError(f"--database={file} cannot be opened: {error.strerror}; choose another place") from None
    return _read_journal(file)


def _read_journal(file: str) -> BaseStorage:
    """Return the storage of a journal file; UserError if any part of it is damaged."""
    try:
        storage = optuna.storages.JournalStorage(Journal(file))
        for study in storage.get_all_studies():
            storage.get_all_trials(storage.get_study_id_from_name(study.study_name), deepcopy=False)
    except Exception as error:
        # Optuna does not validate journal entries, so a damaged one can raise any exception.
        reason = " ".join(f"{type(error).__name__} {error}".split())[:LONGEST_REASON]
        raise UserError(
            f"--database={file} is damaged ({reason}); restore it from a backup, or choose another file"
        ) from None
    return storage


def _open_proxy(database: str) -> BaseStorage:
    shown = shown_url(database)
    try:
        address = urlsplit(database)
        from optuna.storages import GrpcStorageProxy

        storage = GrpcStorageProxy(host=address.hostname or "localhost", port=address.port or 13000)
        storage.wait_server_ready(timeout=PROXY_SECONDS)
    except ImportError:
        raise UserError(f"--database={shown} needs two packages: pip install grpcio protobuf") from None
    except ValueError as error:
        raise UserError(
            f"--database={shown} is not a valid address: {scrubbed(str(error), database)}; write grpc://host:port"
        ) from None
    except ConnectionError:
        raise UserError(
            f"--database={shown}: no gRPC proxy of Optuna answers there; start one with "
            "optuna.storages.run_grpc_proxy_server in front of a database (it does not work on a journal file)"
        ) from None
    return storage


def refuse_journal_behind_proxy(storage: BaseStorage, database: str) -> None:
    """Raise UserError if a gRPC proxy serves a journal file, because it would give the same trial to two processes.

    The proxy does not reveal what it serves. But databases number their studies from 1, and journal files and memory
    from 0, so the difference shows as soon as the storage holds a study.
    """
    if not database.startswith("grpc://"):
        return
    with contextlib.suppress(KeyError):
        patiently(storage.get_study_name_from_id, 0)
        raise UserError(
            f"--database={shown_url(database)}: the gRPC proxy there serves a journal file or memory, which does not "
            "work with several processes; start it in front of SQLite, PostgreSQL or MySQL"
        )


def _open_database(database: str) -> BaseStorage:
    sqlite = database.startswith("sqlite")
    options: dict[str, Any] = (
        {"connect_args": {"timeout": BUSY_SECONDS}} if sqlite else {"pool_pre_ping": True, "pool_recycle": 1800}
    )

    alive: dict[str, Any] = {
        "heartbeat_interval": HEARTBEAT_SECONDS,
        "grace_period": GRACE_SECONDS,
        callback_option(): retry_once,
    }

    def connect() -> RDBStorage:
        return RDBStorage(with_driver(database), engine_kwargs=options, **alive)

    try:
        storage = _first_opened(connect)
    except ImportError as error:
        kind = database.split(":")[0].split("+")[0]
        package = (
            DRIVERS[kind][1] if kind in DRIVERS else f"that its driver comes in ({scrubbed(str(error), database)})"
        )
        raise UserError(f"--database={kind}://... needs the package {package}: install it with pip") from None
    except (sqlalchemy.exc.SQLAlchemyError, StorageInternalError, RuntimeError, ValueError) as error:
        shown, reason = shown_url(database), _reason(error)
        raise UserError(f"--database={shown} cannot be opened: {reason}; check the URL, or choose another") from None
    if sqlite and ":memory:" not in database and database != "sqlite://":
        storage.engine.dispose()
        sqlalchemy.event.listen(storage.engine, "connect", _set_up_sqlite)
        sqlalchemy.event.listen(storage.engine, "begin", _begin_to_write)
    return storage


def _first_opened(connect: Callable[[], RDBStorage]) -> RDBStorage:
    """Return the opened database; waits if another process creates its tables at the same moment."""
    deadline = time.monotonic() + FIRST_OPENING_SECONDS
    while True:
        try:
            return connect()
        except (sqlalchemy.exc.DBAPIError, StorageInternalError) as error:
            if time.monotonic() > deadline or not any(words in _reason(error) for words in MADE_BY_ANOTHER):
                raise
        interrupts.wait(0.05 + 0.1 * random.random())  # random, so that two processes do not collide again


def _set_up_sqlite(connection: Any, record: Any) -> None:
    """Use a write-ahead log, synchronised with the disk at checkpoints: a power cut loses at most the last trials."""
    connection.isolation_level = None  # `_begin_to_write` begins transactions, not Python's driver
    with contextlib.closing(connection.cursor()) as cursor:
        cursor.execute("PRAGMA journal_mode=WAL")
        cursor.execute("PRAGMA synchronous=NORMAL")


def _begin_to_write(connection: sqlalchemy.Connection) -> None:
    """Take the write lock at the start of each transaction.

    Otherwise two workers could both read before either writes, and get the same queued trial.
    """
    connection.exec_driver_sql("BEGIN IMMEDIATE")


def patiently(call: Callable[..., Result], *arguments: Any, **options: Any) -> Result:
    """Return the result of a database call, repeated for up to PATIENCE_SECONDS while the database does not answer.

    Raises UserError after that, or at once for a problem that does not go away by waiting, such as a full disk.
    """
    start = time.monotonic()
    pause = 0.2
    is_logged = False
    while True:
        try:
            return call(*arguments, **options)
        except _outages() as error:
            reason = _reason(error)
            waited = time.monotonic() - start
            if any(words in reason for words in LASTING):
                raise UserError(
                    f"the database of the study cannot be used: {reason}; fix this, or choose another --database; "
                    "finished trials are kept, and the same command continues from there"
                ) from None
            if waited > PATIENCE_SECONDS:
                raise UserError(
                    f"the database of the study does not answer: {reason}; finished trials are kept, and the same "
                    "command continues from there"
                ) from None
            if waited > TELLING_SECONDS and not is_logged:
                log.info("the database of the study does not answer (%s); trying again", reason)
                is_logged = True
            interrupts.wait(pause)
            pause = min(2 * pause, 3.0)


def _reason(error: Exception) -> str:
    """Return the first line of the database's own error message, without passwords."""
    cause = getattr(error, "orig", None) or error.__cause__ or error
    line = str(getattr(cause, "orig", None) or cause).strip().partition("\n")[0]
    return functools.reduce(scrubbed, sorted(_opened), line)


@functools.cache
def _outages() -> tuple[type[Exception], ...]:
    """Return the types of errors that a database call raises while the database is down or busy."""
    try:
        from grpc import RpcError
    except ImportError:
        return (sqlalchemy.exc.DBAPIError, StorageInternalError, OSError)
    return (sqlalchemy.exc.DBAPIError, StorageInternalError, OSError, RpcError)


def close_storage(storage: BaseStorage) -> None:
    """Close the connections of a storage, which Optuna would leave to the garbage collector."""
    storage.remove_session()
    engine = engine_of(storage)
    if engine is not None:
        engine.dispose()


@contextlib.contextmanager
def opened_study(
    database: str, name: str, resolve: Callable[[BaseStorage, str], str] = lambda storage, name: name
) -> Iterator[optuna.Study]:
    """Yield the saved study of that name and close its storage afterwards; UserError if either does not exist.

    `resolve` may return another name to use, such as that of the newest successor.
    """
    if not is_there(database):
        raise UserError(f"--database={shown_url(database)} does not exist; use the --database of the training")
    storage = open_storage(database)
    try:
        names = patiently(optuna.get_all_study_names, storage)
        if name not in names:
            raise UserError(
                f"--name={name}: no such study in {shown_url(database)}; its studies: {', '.join(names) or 'none'}"
            )
        yield optuna.load_study(study_name=resolve(storage, name), storage=storage)
    finally:
        close_storage(storage)
