"""Processes that run trials of one study in parallel on this machine: this one, and workers that it starts."""

import contextlib
import logging
import multiprocessing
import os
import pickle
import signal
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.connection import wait as wait_for_connections
from pathlib import Path
from typing import Any

import optuna
import torch
from optuna.trial import FrozenTrial

from custom_aesthetic.base.database_urls import scrubbed
from custom_aesthetic.base.errors import UserError
from custom_aesthetic.base.interrupts import deaf_children, obey_lost, uninterrupted, wait
from custom_aesthetic.base.processes import spare_last_collection
from custom_aesthetic.search.optuna_private import storage_of
from custom_aesthetic.search.sampling import N_REPORTS, make_pruner, make_sampler, sampler_seed
from custom_aesthetic.search.shared_data import SharedProblem, share
from custom_aesthetic.search.storage import open_storage, patiently
from custom_aesthetic.search.study import Claims, Dead, bury, bury_silent, counts, process_name
from custom_aesthetic.search.trials import WAIT_SECONDS, Ended, Order, Problem, TrialPlan, run_trials

log = logging.getLogger(__name__)

PATIENCE_AFTER_STOP_SECONDS = 0.7
"""How long workers may take to stop before they are killed; short, so that Ctrl-C takes less than two seconds."""

EXIT_ORPHANED = 3
"""Exit status of a worker whose parent process has died."""

MOST_DEATHS = 3
"""Workers that may die in a row before the search ends with an error."""

TURNS = "turns"
"""Name of the lock file by which the processes take turns, in the folder that they share."""

START_SECONDS = 3.0
"""Processor time that the start of a worker takes, nearly all of it for its imports."""

CHECK_SECONDS = 0.05
"""How often messages of the workers are handled while this process trains."""


@dataclass(frozen=True)
class Place:
    """The database and name of a study, with its sampler and pruner."""

    database: str
    name: str
    sampler: str
    pruner: str
    start: tuple[FrozenTrial, ...] = ()
    """The trials that the sampler starts from."""
    n_reports: int = N_REPORTS
    """How often a trial reports to the pruner."""

    def load(self, storage: Any, seed: int | None) -> optuna.Study:
        """Return the study with its sampler, seeded, and its pruner."""
        return patiently(
            optuna.load_study,
            study_name=self.name,
            storage=storage,
            sampler=make_sampler(self.sampler, seed, self.start),
            pruner=make_pruner(self.pruner, self.n_reports),
        )


def work(claims: Claims, problem: Problem, plan: TrialPlan, *, ask: Callable[[], Order], on_end: Callable) -> None:
    """Run trials until the study is complete, including those of processes that have died."""
    while ask() is Order.GO_ON:
        run_trials(claims, problem, plan, ask=ask, on_end=on_end)
        if ask() is not Order.GO_ON or claims.is_done():
            return
        bury_silent(claims.study)
        wait(WAIT_SECONDS)


def _worker(connection: Connection, shared: SharedProblem, plan: TrialPlan, place: Place, seed: int | None) -> None:
    """Run trials in a worker process; sends its name, every finished trial, and finally that it is done."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes; the parent process handles it
    torch.set_num_threads(1)
    is_stopped = threading.Event()
    threading.Thread(target=_listen, args=(connection, is_stopped), daemon=True).start()

    def ask() -> Order:
        return Order.STOP if is_stopped.is_set() else Order.GO_ON

    try:
        study = place.load(open_storage(place.database), seed)
        name = process_name()
        connection.send(("name", name))
        claims = Claims(study, plan.n_trials, name, shared.folder / TURNS)
        work(claims, shared.attach(), plan, ask=ask, on_end=lambda end: _send(connection, end))
        connection.send(("done", None))
    except (BrokenPipeError, ConnectionResetError):
        return  # the parent process has died
    except UserError as error:
        connection.send(("user error", str(error)))
    except Exception:
        connection.send(("error", scrubbed(traceback.format_exc(), place.database)))
    finally:
        spare_last_collection()


def _listen(connection: Connection, is_stopped: threading.Event) -> None:
    """Wait for the order to stop. If the parent process has died, exit soon, even in the middle of a trial."""
    try:
        connection.recv()
        is_stopped.set()
    except (EOFError, OSError):
        is_stopped.set()
        time.sleep(PATIENCE_AFTER_STOP_SECONDS)
        os._exit(EXIT_ORPHANED)


def _send(connection: Connection, ended: Ended) -> None:
    # Plain pickle sends tensors as bytes. Multiprocessing's would send handles to the memory of this process.
    connection.send(("ended", pickle.dumps(ended)))


class _Worker:
    """A worker process, as seen from the parent process."""

    def __init__(self, context: Any, arguments: tuple) -> None:
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=_worker, args=(theirs, *arguments), daemon=True)
        with deaf_children():
            self.process.start()
        theirs.close()
        self.name = ""
        self.is_done = False

    @property
    def may_run_a_trial(self) -> bool:
        """Whether the worker has sent its name, which it does before its first trial, and has not ended."""
        return bool(self.name) and not self.is_done and self.process.is_alive()

    def receive(self) -> list[tuple[str, Any]]:
        """Return the messages received so far, as pairs of kind and content."""
        messages = []
        try:
            while self.connection.poll():
                messages.append(self.connection.recv())
        except (EOFError, OSError):
            pass
        return messages

    def ask_to_stop(self) -> None:
        with contextlib.suppress(OSError):
            self.connection.send("stop")


def _wait_for_any(workers: Sequence[_Worker], seconds: float | None = None) -> None:
    """Wait until one of the workers has sent a message or ended, at most for that many seconds."""
    wait_for_connections([item for worker in workers for item in (worker.connection, worker.process.sentinel)], seconds)


class Workers:
    """This process and its workers, which `run` starts where that pays and always ends, also after an exception."""

    def __init__(self, study: optuna.Study, folder: Path, plan: TrialPlan, place: Place) -> None:
        """`folder` takes the files that the processes share; it must exist as long as the search runs."""
        self.study, self.folder, self.plan, self.place = study, folder, plan, place
        self.context = multiprocessing.get_context("spawn")
        self.workers: list[_Worker] = []
        self.names: set[str] = set()
        self.n_started = self.n_deaths = self.n_ended = 0
        trials = patiently(study.get_trials, deepcopy=False)
        self.n_trials_before, self.n_lacking = len(trials), plan.n_trials - sum(map(counts, trials))
        self.begun, self.last_check = time.process_time(), time.monotonic()
        self.shared: SharedProblem | None = None

    def run(self, n_processes: int, on_end: Callable[[Ended], None], problem: Problem) -> None:
        """Run the trials in up to `n_processes` processes, this one included.

        Workers start once the rest of the search is expected to take much longer than their start. One that dies is
        replaced, and its trial is queued again. Raises UserError if too many workers die in a row.
        """
        study = self.place.load(storage_of(self.study), self._next_seed())
        claims = Claims(study, self.plan.n_trials, process_name(), self.folder / TURNS)

        def ended(trial: Ended) -> None:
            self.n_ended += 1
            on_end(trial)

        def ask() -> Order:
            if time.monotonic() - self.last_check > CHECK_SECONDS:
                self._start_all(n_processes, problem)
                self._check_all(ended)
                self.last_check = time.monotonic()
            return Order.GO_ON

        try:
            work(claims, problem, self.plan, ask=ask, on_end=ended)
            while busy := [worker for worker in self.workers if worker.may_run_a_trial]:
                obey_lost()
                _wait_for_any(busy)
                self._check_all(ended)
        finally:
            with uninterrupted():
                self._end(ended)

    def _start_all(self, n_processes: int, problem: Problem) -> None:
        """Start all workers that would find a trial to run, once that pays."""
        n_workers = min(n_processes, self.n_lacking - self.n_ended) - 1
        if self.shared is None and n_workers > 0 and self.pays():
            self.shared = share(problem, self.folder)
            for _ in range(n_workers):
                self._start()

    def pays(self) -> bool:
        """Return whether the rest of the search would take this process twice as long as a worker takes to start.

        Trials are expected to take as long as those so far, and the first one at least as long as it has taken. Both
        are processor time, which does not depend on what else the machine does.
        """
        seconds_a_trial = (time.process_time() - self.begun) / max(self.n_ended, 1)
        return seconds_a_trial * (self.n_lacking - self.n_ended) > 2 * START_SECONDS

    def _check_all(self, on_end: Callable[[Ended], None]) -> None:
        """Handle the messages of all workers, and replace those that have died."""
        for worker in list(self.workers):
            with uninterrupted():
                self._check(worker, on_end)

    def _next_seed(self) -> int | None:
        self.n_started += 1
        return sampler_seed(self.plan.model_seed, worker=self.n_started, n_trials_before=self.n_trials_before)

    def _start(self) -> None:
        seed = self._next_seed()
        with uninterrupted():
            self.workers.append(_Worker(self.context, (self.shared, self.plan, self.place, seed)))

    def _check(self, worker: _Worker, on_end: Callable[[Ended], None]) -> None:
        is_dead = not worker.process.is_alive()
        self._receive(worker, on_end)
        if is_dead:
            self.workers.remove(worker)
            if not worker.is_done:
                self._replace(worker)

    def _receive(self, worker: _Worker, on_end: Callable[[Ended], None]) -> None:
        """Handle the messages of a worker."""
        for kind, content in worker.receive():
            match kind:
                case "name":
                    worker.name = content
                    self.names.add(content)
                case "ended":
                    self.n_deaths = 0
                    on_end(pickle.loads(content))
                case "done":
                    worker.is_done = True
                case "user error":
                    raise UserError(content)
                case _:
                    raise RuntimeError(f"a worker failed:\n{content}")

    def _replace(self, worker: _Worker) -> None:
        self.n_deaths += 1
        buried = bury(self.study, Dead({worker.name}), retry=True) if worker.name else []
        which = ", ".join(f"trial {trial.number} is run again" for trial in buried) or "it was not running a trial"
        log.warning("a worker died (exit code %s); %s", worker.process.exitcode, which)
        if self.n_deaths > MOST_DEATHS:
            raise UserError(
                f"{self.n_deaths} workers died in a row (exit code {worker.process.exitcode}), perhaps because memory "
                "ran out; use fewer --workers"
            )
        self._start()

    def _end(self, on_end: Callable[[Ended], None]) -> None:
        """End all workers, keep the trials they have finished, and mark none of their trials as running."""
        left, self.workers = self.workers, []
        for worker in left:
            worker.ask_to_stop()
        deadline = time.monotonic() + PATIENCE_AFTER_STOP_SECONDS
        while (seconds := deadline - time.monotonic()) > 0:
            busy = [worker for worker in left if worker.may_run_a_trial]
            if not busy:
                break
            _wait_for_any(busy, seconds)
            for worker in busy:
                self._receive_last(worker, on_end)
        for worker in left:
            worker.process.kill()
            self._receive_last(worker, on_end)
        if left:
            bury(self.study, Dead(self.names), retry=False)
        for worker in left:
            worker.process.join()

    def _receive_last(self, worker: _Worker, on_end: Callable[[Ended], None]) -> None:
        # The search is already ending, by Ctrl-C or an error, which an error of a worker must not replace.
        with contextlib.suppress(UserError, RuntimeError):
            self._receive(worker, on_end)
