"""Where a study is kept: a database, a journal file, a gRPC proxy in front of a database, or nothing."""

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
GRACE_SECONDS = 60
"""A trial whose process gave no sign for this long has died with it."""

BUSY_SECONDS = 60
"""How long SQLite waits for another process that writes."""

PROXY_SECONDS = 15
"""How long a gRPC proxy may take to answer at the start."""

PATIENCE_SECONDS = 120
"""How long a search waits for a database that does not answer: long enough for a restart."""

retry_once = make_retry(1)
"""What happens to a trial that died with its process: it is queued again, once."""

LONGEST_REASON = 200
"""Characters of what a library says of a damaged file."""

TELLING_SECONDS = 3
"""After so long a wait the user is told what is being waited for."""

LASTING = ("is full", "No space left", "readonly", "ead-only", "Permission denied", "no such ", "has no column")
"""Words of databases for what waiting does not mend."""

MADE_BY_ANOTHER = ("already exists", "locked", "UNIQUE constraint", "duplicate", "Duplicate")
"""Words of databases where another process makes the tables at the same moment."""

FIRST_OPENING_SECONDS = 60
"""How long the first process to open a database may take to make its tables."""

_opened: set[str] = set()
"""The databases that this process has opened: messages of their drivers are shown without their passwords."""

DRIVERS = {"postgresql": ("psycopg2", "psycopg2-binary"), "mysql": ("pymysql", "PyMySQL")}
"""Kind of database -> the driver used where the URL names none, and the package that brings it."""


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


def is_server(database: str) -> bool:
    """Return whether the database is one that several machines may share over a network."""
    return "://" in database and not database.startswith("sqlite")


def with_driver(database: str) -> str:
    """Return the URL with its driver named where it names none: SQLAlchemy's own choice may not be installed."""
    kind, separator, rest = database.partition("://")
    return f"{kind}+{DRIVERS[kind][0]}://{rest}" if separator and kind in DRIVERS else database


def _open_journal(file: str) -> BaseStorage:
    try:
        Path(file).open("ab").close()  # makes it where it is missing, and fails here where it may not be written
        if not is_journal(Path(file)):
            raise UserError(f"--database={file} is no journal file of Optuna; name another file")
    except OSError as error:
        raise UserError(f"--database={file} cannot be opened: {error.strerror}; choose another place") from None
    return _read_journal(file)


def _read_journal(file: str) -> BaseStorage:
    """Return the storage of a journal that can be read from end to end; UserError where it cannot."""
    try:
        storage = optuna.storages.JournalStorage(Journal(file))
        for study in storage.get_all_studies():
            storage.get_all_trials(storage.get_study_id_from_name(study.study_name), deepcopy=False)
    except Exception as error:
        # Optuna checks nothing that it reads: damage shows as whatever the first wrong value leads to.
        reason = " ".join(f"{type(error).__name__} {error}".split())[:LONGEST_REASON]
        raise UserError(f"--database={file} is damaged ({reason}); restore it from a copy, or name another") from None
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
            f"--database={shown} is no address: {scrubbed(str(error), database)}; write grpc://host:port"
        ) from None
    except ConnectionError:
        raise UserError(
            f"--database={shown}: no gRPC proxy of Optuna answers there; start one by "
            "optuna.storages.run_grpc_proxy_server in front of a database (it does not work on a journal file)"
        ) from None
    return storage


def refuse_journal_behind_proxy(storage: BaseStorage, database: str) -> None:
    """Raise UserError where a gRPC proxy serves a journal file: it would give one trial to two processes.

    The proxy does not tell what it serves, but databases number their studies from 1, a journal (and memory) from 0.
    Only a storage that holds a study can be told apart.
    """
    if not database.startswith("grpc://"):
        return
    with contextlib.suppress(KeyError):
        patiently(storage.get_study_name_from_id, 0)
        raise UserError(
            f"--database={shown_url(database)}: the gRPC proxy there stands in front of a journal file or memory, "
            "which does not work for several processes; start it in front of SQLite, PostgreSQL or MySQL"
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
    """Return the opened database; where another process makes its tables at the same moment, wait for that."""
    deadline = time.monotonic() + FIRST_OPENING_SECONDS
    while True:
        try:
            return connect()
        except (sqlalchemy.exc.DBAPIError, StorageInternalError) as error:
            if time.monotonic() > deadline or not any(words in _reason(error) for words in MADE_BY_ANOTHER):
                raise
        interrupts.wait(0.05 + 0.1 * random.random())  # at random, so that they do not meet again


def _set_up_sqlite(connection: Any, record: Any) -> None:
    """Write ahead, and leave it to the checkpoints to wait for the disk: a power cut loses the last trials at most."""
    connection.isolation_level = None  # transactions are begun below, not by Python's driver
    with contextlib.closing(connection.cursor()) as cursor:
        cursor.execute("PRAGMA journal_mode=WAL")
        cursor.execute("PRAGMA synchronous=NORMAL")


def _begin_to_write(connection: sqlalchemy.Connection) -> None:
    """Wait for one's turn at the start of a transaction: two that first read and then write would undo each other.

    Without it two workers can be given the same queued trial.
    """
    connection.exec_driver_sql("BEGIN IMMEDIATE")


def patiently(call: Callable[..., Result], *arguments: Any, **options: Any) -> Result:
    """Return what the call returns; a database that does not answer is asked again for a while, then UserError."""
    start = time.monotonic()
    pause = 0.2
    is_told = False
    while True:
        try:
            return call(*arguments, **options)
        except _outages() as error:
            reason = _reason(error)
            waited = time.monotonic() - start
            if any(words in reason for words in LASTING):
                raise UserError(
                    f"the database of the study cannot be used: {reason}; mend that, or choose another --database: "
                    "what was finished is kept, and the same command goes on from there"
                ) from None
            if waited > PATIENCE_SECONDS:
                raise UserError(
                    f"the database of the study does not answer: {reason}; what was finished is kept, and the same "
                    "command goes on from there"
                ) from None
            if waited > TELLING_SECONDS and not is_told:
                log.info("the database of the study does not answer (%s); trying again", reason)
                is_told = True
            interrupts.wait(pause)
            pause = min(2 * pause, 3.0)


def _reason(error: Exception) -> str:
    """Return the first line of what the database itself said, without passwords."""
    said = getattr(error, "orig", None) or error.__cause__ or error
    line = str(getattr(said, "orig", None) or said).strip().partition("\n")[0]
    return functools.reduce(scrubbed, sorted(_opened), line)


@functools.cache
def _outages() -> tuple[type[Exception], ...]:
    """Return the errors that a database gives while it is down or busy."""
    try:
        from grpc import RpcError
    except ImportError:
        return (sqlalchemy.exc.DBAPIError, StorageInternalError, OSError)
    return (sqlalchemy.exc.DBAPIError, StorageInternalError, OSError, RpcError)


def close_storage(storage: BaseStorage) -> None:
    """Close the connections of a storage; Optuna itself leaves them to the garbage collector."""
    storage.remove_session()
    engine = engine_of(storage)
    if engine is not None:
        engine.dispose()


@contextlib.contextmanager
def opened_study(
    database: str, name: str, resolve: Callable[[BaseStorage, str], str] = lambda storage, name: name
) -> Iterator[optuna.Study]:
    """Yield the study of that name; UserError if the storage is not there or has no such study.

    `resolve` may return another name for it, such as that of its newest successor.
    """
    if database.startswith("sqlite:///") and not Path(database.removeprefix("sqlite:///")).exists():
        raise UserError(f"--database={shown_url(database)} is not there; give the one of the training")
    storage = open_storage(database)
    try:
        names = patiently(optuna.get_all_study_names, storage)
        if name not in names:
            raise UserError(
                f"--name={name}: no such study in {shown_url(database)}; there are: {', '.join(names) or 'none'}"
            )
        yield optuna.load_study(study_name=resolve(storage, name), storage=storage)
    finally:
        close_storage(storage)
