"""Several workers and machines on one study, tested with real processes, kills and Ctrl-C."""

import contextlib
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import FrozenTrial, TrialState

from custom_aesthetic.heads.model_file import load_model
from custom_aesthetic.heads.predictor import predict
from custom_aesthetic.search import workers
from custom_aesthetic.search.storage import close_storage, open_storage
from custom_aesthetic.search.trials import TrialPlan, recorded_parameters, retrain
from custom_aesthetic.search.workers import Place, Workers, _Worker
from custom_aesthetic.settings.declaration import Range
from tests.conftest import ROOT
from tests.problems import RAW, SPACE, run_search, small_problem
from tests.search.test_run import states, trials_in

SMALL = ["--max_first_layer_size=20", "--max_second_layer_size=12", "--min_first_layer_size=10", "--workers=2"]
QUICK = [*SMALL, "--max_train_epochs=6", "--min_batch_size=8"]
LONG = [*SMALL, "--min_train_epochs=20000", "--max_train_epochs=20000", "--min_batch_size=8"]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}

only_posix = pytest.mark.skipif(sys.platform == "win32", reason="needs signals between processes, as on POSIX systems")


@pytest.fixture
def pictures(colour_pictures: Path) -> Path:
    rows = [
        f"{file.relative_to(colour_pictures).as_posix()},{int(file.stem) / 10}"
        for file in sorted(colour_pictures.rglob("*.png"))
    ]
    (colour_pictures / "scores.csv").write_text("\n".join(["relative_path,score", *rows]))
    return colour_pictures


@contextlib.contextmanager
def machine(pictures: Path, *arguments: str) -> Iterator[subprocess.Popen]:
    """Run the training script during the block, in a separate process group, as a shell does."""
    command = [sys.executable, "-m", "tests.machine", f"-d={pictures}", *arguments]
    process = subprocess.Popen(
        command, cwd=ROOT, env=ENVIRONMENT, start_new_session=True, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        print(process.communicate()[0])  # pytest shows it if the test fails


def trials_of(database: str) -> list[FrozenTrial]:
    with contextlib.suppress(KeyError):
        storage = open_storage(database)
        try:
            return optuna.load_study(study_name="aesthetic", storage=storage).get_trials()
        finally:
            close_storage(storage)
    return []


def wait_for(condition: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition was not met in time"
        time.sleep(0.1)


def running(database: str) -> list[FrozenTrial]:
    """Return the running trials that have an owner and all their parameters."""
    trials = [trial for trial in trials_of(database) if trial.state == TrialState.RUNNING]
    return [trial for trial in trials if "process" in trial.user_attrs and "dropout" in trial.params]


def others(process: subprocess.Popen, database: str) -> list[FrozenTrial]:
    """Return the running trials of other processes, such as the workers of `process`."""
    return [trial for trial in running(database) if process_id(trial) != process.pid]


def process_id(trial: FrozenTrial) -> int:
    return int(trial.user_attrs["process"].split()[1])


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Let workers start at once, and this process wait until one is ready; return how many were started each time."""
    check_all, start_all = Workers._check_all, Workers._start_all
    numbers: list[int] = []

    def start(self: Workers, *arguments: Any) -> None:
        before = len(self.workers)
        start_all(self, *arguments)
        numbers.extend([len(self.workers) - before] * (len(self.workers) > before))

    def check(self: Workers, *arguments: Any) -> None:
        check_all(self, *arguments)
        while self.workers and not self.names:
            time.sleep(0.05)
            check_all(self, *arguments)

    monkeypatch.setattr(Workers, "pays", lambda self: True)
    monkeypatch.setattr(Workers, "_start_all", start)
    monkeypatch.setattr(Workers, "_check_all", check)
    monkeypatch.setattr(workers, "CHECK_SECONDS", 0)
    return numbers


def test_two_processes_run_exactly_the_wanted_number_of_trials_and_each_can_be_repeated(
    tmp_path: Path, started: list[int]
) -> None:
    space = replace(SPACE, train_epochs=Range(300, 300))
    (best,) = run_search(tmp_path, 9, workers="2", space=space)
    trials = trials_in(tmp_path)
    assert started == [1]
    assert states(trials) == ["COMPLETE"] * 9
    assert len({process_id(trial) for trial in trials} - {os.getpid()}) == 1
    for trial in trials:
        head = retrain(small_problem(), recorded_parameters(trial), trial.user_attrs["seed"])
        assert head.score == trial.value
        if trial.number == best.number:
            model = load_model(tmp_path / "model.safetensors")
            assert predict(model.predictor, RAW).equal(predict(head.predictor, RAW))


def test_a_search_that_is_soon_over_starts_no_worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Workers, "_start", lambda self: pytest.fail("a worker was started"))
    run_search(tmp_path, 4, workers="2")
    assert {process_id(trial) for trial in trials_in(tmp_path)} == {os.getpid()}


@pytest.mark.parametrize(
    ("n_trials", "n_ended", "seconds", "is_long"),
    [(20, 0, 0.2, False), (20, 0, 0.4, True), (20, 10, 5, False), (20, 10, 7, True), (2, 1, 5, False), (2, 1, 7, True)],
)
def test_workers_pay_where_the_rest_would_last_twice_as_long_as_their_start(
    n_trials: int, n_ended: int, seconds: float, is_long: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = optuna.create_study()
    for _ in range(3):
        study.add_trial(optuna.create_trial(value=0.0))
    plan, place = TrialPlan(SPACE, 3 + n_trials, 1, None), Place("", study.study_name, "random", "none")
    crew = Workers(study, tmp_path, plan, place)
    crew.n_ended, crew.begun = n_ended, time.process_time() - seconds
    assert crew.pays() is is_long


def test_no_more_workers_start_than_find_a_trial(tmp_path: Path, started: list[int]) -> None:
    run_search(tmp_path, 2, workers="9")
    assert started == [1]


def test_a_complete_search_does_not_wait_for_workers_that_are_still_starting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Workers, "pays", lambda self: True)
    monkeypatch.setattr(workers, "CHECK_SECONDS", 0)
    monkeypatch.setattr(_Worker, "receive", lambda self: [])  # so that it never becomes ready
    run_search(tmp_path, 4, workers="2")
    assert {process_id(trial) for trial in trials_in(tmp_path)} == {os.getpid()}
    assert not multiprocessing.active_children()


def test_processes_share_a_study_that_is_not_saved(tmp_path: Path, started: list[int]) -> None:
    (best,) = run_search(tmp_path, 5, workers="2", database="")
    assert started == [1]
    assert load_model(tmp_path / "model.safetensors").metadata["trial"] == str(best.number)
    assert [file.name for file in tmp_path.iterdir()] == ["model.safetensors"]


@only_posix
def test_ctrl_c_ends_all_workers_soon_and_leaves_no_running_trial(pictures: Path, tmp_path: Path) -> None:
    database = f"sqlite:///{tmp_path}/db.sqlite"
    with machine(pictures, *QUICK, "--trials=1", f"--database={database}") as first:
        assert first.wait(60) == 0
    model = (pictures / "model.safetensors").read_bytes()
    with machine(pictures, *LONG, "--trials=9", f"--database={database}") as process:
        wait_for(lambda: len(running(database)) == 2)
        ids = [process_id(trial) for trial in running(database)]
        os.killpg(process.pid, signal.SIGINT)
        output, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in output
    for worker in ids:
        with pytest.raises(ProcessLookupError):
            os.kill(worker, 0)
    assert sorted(set(states(trials_of(database)))) == ["COMPLETE", "FAIL"]
    assert (pictures / "model.safetensors").read_bytes() == model


@only_posix
@pytest.mark.parametrize("database", ["sqlite:///{}/db.sqlite", "{}/journal"], ids=["sqlite", "journal"])
def test_the_trial_of_a_killed_worker_is_run_again_once(pictures: Path, tmp_path: Path, database: str) -> None:
    place = database.format(tmp_path)
    arguments = [*SMALL, "--folds=1", "--min_train_epochs=5000", "--max_train_epochs=5000", "--min_batch_size=8"]
    with machine(pictures, *arguments, "--trials=5", f"--database={place}") as process:
        wait_for(lambda: len(others(process, place)) == 1)
        victim = others(process, place)[0]
        os.kill(process_id(victim), signal.SIGKILL)
        output, _ = process.communicate(timeout=100)
    assert process.returncode == 0, output
    assert f"a worker died (exit code -9); trial {victim.number} is run again" in output
    trials = trials_of(place)
    assert sorted(states(trials)) == ["COMPLETE"] * 5 + ["FAIL"]
    again = [trial for trial in trials if trial.system_attrs.get("failed_trial") == victim.number]
    assert [trial.params for trial in again] == [trials[victim.number].params]


@only_posix
def test_a_killed_search_can_be_continued_and_leaves_no_running_trial(pictures: Path, tmp_path: Path) -> None:
    database = f"sqlite:///{tmp_path}/db.sqlite"
    with machine(pictures, *LONG, "--trials=4", f"--database={database}") as process:
        wait_for(lambda: len(running(database)) == 2)
        ids = [process_id(trial) for trial in others(process, database)]
        os.kill(process.pid, signal.SIGKILL)
        wait_for(lambda: not any(Path(f"/proc/{worker}").exists() for worker in ids))
    quick = ["--min_train_epochs=2", "--max_train_epochs=5"]
    with machine(pictures, *QUICK, *quick, "--trials=3", f"--database={database}") as process:
        output, _ = process.communicate(timeout=60)
    assert process.returncode == 0, output
    trials = trials_of(database)
    assert "RUNNING" not in states(trials)
    assert states(trials).count("COMPLETE") == 3
