"""Worker processes that run trials of one study in parallel on this machine, and the parent process's part."""

import contextlib
import logging
import multiprocessing
import os
import pickle
import signal
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.connection import wait as wait_for_any
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
from custom_aesthetic.search.shared_data import SharedProblem
from custom_aesthetic.search.storage import open_storage, patiently
from custom_aesthetic.search.study import Claims, Dead, bury, bury_silent, process_name
from custom_aesthetic.search.trials import WAIT_SECONDS, Ended, Order, Problem, TrialPlan, run_trials

log = logging.getLogger(__name__)

PATIENCE_AFTER_STOP_SECONDS = 0.7
"""How long workers may take to stop before they are killed; short, so that Ctrl-C takes less than two seconds."""

EXIT_ORPHANED = 3
"""Exit status of a worker whose parent process has died."""

MOST_DEATHS = 3
"""Workers that may die in a row before the search ends with an error."""


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
        claims = Claims(study, plan.n_trials, name, shared.turns)
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


class Workers:
    """Worker processes, which `run` starts and always ends, also after an exception."""

    def __init__(self, study: optuna.Study, shared: SharedProblem, plan: TrialPlan, place: Place) -> None:
        self.study, self.shared, self.plan, self.place = study, shared, plan, place
        self.context = multiprocessing.get_context("spawn")
        self.workers: list[_Worker] = []
        self.names: set[str] = set()
        self.n_started = self.n_deaths = 0
        self.n_trials_before = len(study.get_trials(deepcopy=False))

    def run(self, n_workers: int, on_end: Callable[[Ended], None], problem: Problem) -> None:
        """Run the trials in `n_workers` processes. A worker that dies is replaced, and its trial is queued again.

        Starting a worker takes seconds. Until the first worker is ready, this process runs trials itself; then the
        last worker takes over its core. Raises UserError if too many workers die in a row.
        """
        try:
            for _ in range(max(1, n_workers - 1)):
                self._start()
            if self._run_first_trials(on_end, problem):
                return
            if n_workers > 1:
                self._start()
            while self.workers:
                obey_lost()
                wait_for_any([item for worker in self.workers for item in (worker.connection, worker.process.sentinel)])
                self._check_all(on_end)
        finally:
            with uninterrupted():
                self._end(on_end)

    def _run_first_trials(self, on_end: Callable[[Ended], None], problem: Problem) -> bool:
        """Run trials until a worker is ready; return whether the study is complete."""
        study = self.place.load(storage_of(self.study), self._next_seed())
        claims = Claims(study, self.plan.n_trials, process_name(), self.shared.turns)

        def ask() -> Order:
            self._check_all(on_end)
            return Order.BEGIN_NO_MORE if self.is_ready() else Order.GO_ON

        run_trials(claims, problem, self.plan, ask=ask, on_end=on_end)
        return claims.is_done()

    def is_ready(self) -> bool:
        """Return whether a worker is ready to run trials."""
        return bool(self.names)

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
            wait_for_any([item for worker in busy for item in (worker.connection, worker.process.sentinel)], seconds)
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
