"""All storages that `--database` accepts, and the messages if one cannot be opened."""

import contextlib
import os
import random
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from pathlib import Path

import optuna
import pytest
import sqlalchemy
from optuna.trial import TrialState

from custom_aesthetic.base.errors import UserError
from custom_aesthetic.base.processes import start_of
from custom_aesthetic.search import storage as storages
from custom_aesthetic.search import study as studies
from custom_aesthetic.search.storage import (
    close_storage,
    is_server,
    open_storage,
    patiently,
)
from custom_aesthetic.search.study import Claims, Dead, bury, kept_texts, process_name
from tests.problems import run_search

PROXY = """
import sys, warnings
warnings.simplefilter("ignore")
import optuna
from optuna.storages.journal import JournalFileBackend
place = sys.argv[1]
if "://" in place:
    behind = optuna.storages.RDBStorage(place)
else:
    behind = optuna.storages.JournalStorage(JournalFileBackend(place))
optuna.storages.run_grpc_proxy_server(behind, host="127.0.0.1", port=int(sys.argv[2]))
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def served(place: str) -> Iterator[str]:
    """Yield the address of a gRPC proxy of Optuna in front of a database or a journal file."""
    pytest.importorskip("grpc", reason="grpcio is not installed")
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-c", PROXY, place, str(port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        yield f"grpc://127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def proxy(tmp_path: Path) -> Iterator[str]:
    with served(f"sqlite:///{tmp_path}/behind.sqlite") as address:
        yield address


def test_a_proxy_in_front_of_a_journal_file_is_refused(tmp_path: Path) -> None:
    with (
        served(f"{tmp_path}/journal") as address,
        pytest.raises(UserError, match="serves a journal file or memory, which does not work"),
    ):
        run_search(tmp_path, 1, database=address)


@pytest.mark.parametrize("kind", ["memory", "sqlite", "journal", "proxy"])
def test_a_search_works_and_resumes_in_every_storage(tmp_path: Path, kind: str, request: pytest.FixtureRequest) -> None:
    database = {"memory": "", "sqlite": f"sqlite:///{tmp_path}/db.sqlite", "journal": f"{tmp_path}/journal"}.get(kind)
    if database is None:
        database = request.getfixturevalue("proxy")
    (first,) = run_search(tmp_path, 3, database=database)
    assert {"eval_spearman", "train_ab", "seed", "seconds", "best_epoch"} <= set(first.user_attrs)
    if not database:
        return
    run_search(tmp_path, 5, database=database)
    storage = open_storage(database)
    study = optuna.load_study(study_name="aesthetic", storage=storage)
    assert [trial.state for trial in study.get_trials()] == [TrialState.COMPLETE] * 5
    close_storage(storage)


def test_sqlite_uses_a_write_ahead_log_and_waits_for_other_writers(tmp_path: Path) -> None:
    storage = open_storage(f"sqlite:///{tmp_path}/db.sqlite")
    with storage._backend.engine.connect() if hasattr(storage, "_backend") else storage.engine.connect() as connection:  # type: ignore[attr-defined]
        values = [
            connection.execute(sqlalchemy.text(f"PRAGMA {name}")).scalar()
            for name in ("journal_mode", "synchronous", "busy_timeout")
        ]
    assert values == ["wal", 1, 60_000]
    close_storage(storage)


def test_two_processes_never_claim_the_same_queued_trial(tmp_path: Path) -> None:
    database = f"sqlite:///{tmp_path}/db.sqlite"
    storage = open_storage(database)
    study = optuna.create_study(study_name="queue", storage=storage)
    for number in range(40):
        study.enqueue_trial({"x": number})

    def take_twenty(_: int) -> list[int]:
        storage = open_storage(database)
        claims = Claims(optuna.load_study(study_name="queue", storage=storage), 99, "someone")
        taken = [claims.claim() for _ in range(20)]
        close_storage(storage)
        return [trial.number for trial in taken if trial is not None]

    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(take_twenty, range(2))
    assert sorted(first + second) == list(range(40))
    close_storage(storage)


def test_parameters_drawn_during_an_outage_are_saved_beside_those_of_a_repeated_trial(tmp_path: Path) -> None:
    storage = open_storage(f"sqlite:///{tmp_path}/db.sqlite")
    study = optuna.create_study(storage=storage)
    has_b = optuna.create_trial(
        state=TrialState.WAITING, params={"b": 3}, distributions={"b": optuna.distributions.IntDistribution(0, 9)}
    )
    study.add_trial(has_b)
    trial = Claims(study, 9, "this process").claim()
    assert trial is not None
    engine = storage.engine  # type: ignore[attr-defined]
    written: list[str] = []

    @sqlalchemy.event.listens_for(engine, "before_cursor_execute")
    def down_once(connection: object, cursor: object, statement: str, *others: object) -> None:
        if statement.startswith("INSERT INTO trial_params"):
            written.append(statement)
            if len(written) == 1:
                raise sqlalchemy.exc.OperationalError("", {}, Exception("database is locked"))

    suggested = patiently(lambda: {name: trial.suggest_float(name, 0, 1) for name in "acd"})
    assert len(written) == 4
    assert storage.get_trial(trial._trial_id).params == {"b": 3, **suggested}
    study.tell(trial, 0.5)
    assert study.best_params == {"b": 3, **suggested}
    close_storage(storage)


@pytest.mark.parametrize(
    ("database", "words"),
    [
        ("mysql://someone@127.0.0.1:1/x", "needs the package PyMySQL"),
        ("grpc://127.0.0.1:1", "it does not work on a journal file"),
        ("postgresql://someone@127.0.0.1:1/x", "cannot be opened"),
        ("nonsense://x", "cannot be opened"),
        ("postgresql://someone@127.0.0.1:port/x", "invalid literal.*check the URL"),
        ("grpc://127.0.0.1:port", "is not a valid address"),
        ("sqlite:////nowhere/at/all/db.sqlite", "unable to open database file"),
        ("/nowhere/at/all/journal", "No such file or directory"),
    ],
)
def test_a_storage_that_cannot_be_opened_is_an_error(
    database: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storages, "PROXY_SECONDS", 0.5)
    with pytest.raises(UserError, match=words):
        open_storage(database)


def test_a_file_that_is_not_a_database_is_an_error_and_left_unchanged(tmp_path: Path) -> None:
    file = tmp_path / "db"
    file.write_bytes(b"no database at all" * 100)
    for database in (f"sqlite:///{file}", str(file)):
        with pytest.raises(UserError, match="db"):
            open_storage(database)
    assert file.read_bytes() == b"no database at all" * 100


def test_a_call_is_repeated_for_a_while_if_the_database_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    answers = iter([sqlalchemy.exc.OperationalError("select", {}, Exception("down"))] * 3 + ["up"])

    def ask() -> str:
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    assert patiently(ask) == "up"
    monkeypatch.setattr(storages, "PATIENCE_SECONDS", -1)
    answers = iter([sqlalchemy.exc.OperationalError("select", {}, Exception("down"))])
    with pytest.raises(UserError, match="does not answer: down; finished trials are kept"):
        patiently(ask)


@pytest.mark.parametrize(
    "error",
    [
        sqlalchemy.exc.OperationalError("insert", {}, Exception("database or disk is full")),
        sqlalchemy.exc.OperationalError("insert", {}, Exception("attempt to write a readonly database")),
        OSError(28, "No space left on device"),
    ],
)
def test_a_lasting_problem_is_an_error_at_once(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def ask() -> None:
        raise error

    monkeypatch.setattr(time, "sleep", lambda seconds: pytest.fail("the call was repeated"))
    with pytest.raises(UserError, match=r"cannot be used: .*; fix this"):
        patiently(ask)


def test_processes_take_turns_and_do_not_wait_long_for_a_dead_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(studies, "TURN_SECONDS", 3)
    database = f"sqlite:///{tmp_path}/db.sqlite"
    optuna.create_study(study_name="turns", storage=open_storage(database))

    def take(name: str) -> int:
        storage = open_storage(database)
        claims = Claims(optuna.load_study(study_name="turns", storage=storage), 5, name, tmp_path / "turns")
        n_taken = sum(claims.claim() is not None for _ in range(5))
        close_storage(storage)
        return n_taken

    (tmp_path / "turns.lock").touch()  # left by a process that died
    with ThreadPoolExecutor(3) as pool:
        assert sum(pool.map(take, "abc")) == 5
    storage = open_storage(database)
    trials = optuna.load_study(study_name="turns", storage=storage).get_trials()
    assert [trial.state for trial in trials] == [TrialState.RUNNING] * 5
    assert not (tmp_path / "turns.lock").exists()
    close_storage(storage)


def test_a_trial_without_an_owner_is_soon_abandoned(tmp_path: Path) -> None:
    storage = open_storage(f"{tmp_path}/journal")
    study = optuna.create_study(storage=storage)
    now = datetime.now()
    for age in (timedelta(seconds=5), timedelta(minutes=2)):
        study.add_trial(optuna.trial.create_trial(state=TrialState.RUNNING))
        study._storage._replay_result._trials[len(study.trials) - 1].datetime_start = now - age  # type: ignore[attr-defined]
    assert [trial.number for trial in bury(study, Dead(), retry=False)] == [1]


@pytest.mark.skipif(start_of(os.getpid()) is None, reason="the system does not report start times of processes")
def test_a_dead_process_is_recognised_even_if_another_one_has_its_id() -> None:
    is_dead = Dead()
    assert not is_dead(process_name())
    machine, number, start, rest = process_name().split()
    assert is_dead(f"{machine} {number} {int(start) - 1} {rest}")
    assert not is_dead(f"{machine} {number} {rest}"), "as older versions recorded it, without a start time"
    assert not is_dead(f"another {number} {int(start) - 1} {rest}")


def test_an_incomplete_entry_in_a_journal_is_removed(tmp_path: Path) -> None:
    database = f"{tmp_path}/journal"
    run_search(tmp_path, 2, database=database)
    with Path(database).open("ab") as stream:
        stream.write(b'{"op_code":4,"worker')
    run_search(tmp_path, 3, database=database)
    storage = open_storage(database)
    study = optuna.load_study(study_name="aesthetic", storage=storage)
    assert [trial.state for trial in study.get_trials()] == [TrialState.COMPLETE] * 3


def test_any_damage_to_a_journal_is_a_one_line_error_that_names_the_file(tmp_path: Path) -> None:
    file = tmp_path / "journal"
    run_search(tmp_path, 2, database=str(file))
    lines = file.read_bytes().splitlines(keepends=True)
    draw = random.Random(1)
    n_refused = 0
    for _ in range(200):
        damaged = list(lines)
        place = draw.randrange(len(lines))
        match draw.randrange(5):
            case 0:
                del damaged[place]
            case 1:
                damaged[place] = b'{"op_code":%d}\n' % draw.randrange(-3, 14)
            case 2:
                damaged[place] = draw.choice([b"[]\n", b"null\n", b"7\n", b'{"op_code":[]}\n', b"\xff\n", b"[" * 9999])
            case 3:
                at = draw.randrange(len(damaged[place]))
                damaged[place] = damaged[place][:at] + bytes([draw.randrange(256)]) + damaged[place][at + 1 :]
            case 4:
                damaged[place] = re.sub(rb"(?<=:)\d+", b'"x"', damaged[place])
        file.write_bytes(b"".join(damaged))
        try:
            close_storage(open_storage(str(file)))
        except UserError as error:
            n_refused += 1
            assert str(file) in str(error)
            assert "\n" not in str(error)
    assert n_refused > 50


OPEN_AT_ONCE = """
import sys, time
from custom_aesthetic.search.storage import open_storage, close_storage, patiently
import optuna
while time.time() < float(sys.argv[1]):
    pass
for place in sys.argv[2:]:
    storage = open_storage(place)
    study = patiently(optuna.create_study, study_name="s", storage=storage, load_if_exists=True)
    patiently(study.set_user_attr, str(time.time()), 1)
    close_storage(storage)
"""


def test_several_processes_can_open_a_new_database_at_the_same_moment(tmp_path: Path) -> None:
    places = [f"sqlite:///{tmp_path}/{number}.sqlite" for number in range(12)]
    command = [sys.executable, "-c", OPEN_AT_ONCE, str(time.time() + 6), *places]
    processes = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(3)]
    ended = [(process.communicate(timeout=120)[1], process.returncode) for process in processes]
    assert [code for _, code in ended] == [0, 0, 0], ended


def test_only_database_servers_can_be_shared_over_a_network() -> None:
    assert is_server("postgresql://a/b")
    assert is_server("grpc://a:1")
    assert not is_server("sqlite:///a")
    assert not is_server("journal")
    assert not is_server("")


@pytest.mark.parametrize("database", ["sqlite:///kept.sqlite", "journal.log"])
def test_texts_of_any_length_are_kept_with_a_study_and_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, database: str
) -> None:
    monkeypatch.chdir(tmp_path)
    for written in ({"a": "x" * 150_000, "b": ""}, {"a": "short", "c": "new"}, {}):
        storage = open_storage(database)
        study = optuna.create_study(study_name="mine", storage=storage, load_if_exists=True)
        with kept_texts(study) as texts:
            texts.update(written)
        close_storage(storage)
    storage = open_storage(database)
    study = optuna.load_study(study_name="mine", storage=storage)
    with kept_texts(study) as texts:
        assert texts == {"a": "short", "b": "", "c": "new"}
    number = storage.get_study_id_from_name("mine")
    assert all(len(str(value)) <= 60_000 for value in storage.get_study_system_attrs(number).values())
    close_storage(storage)
