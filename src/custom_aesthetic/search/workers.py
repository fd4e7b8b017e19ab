"""Processes that run trials of one study side by side on this machine, and the one that minds them."""

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
"""How long workers may take to end by themselves; then they are ended. Ctrl-C takes less than two seconds."""

EXIT_ORPHANED = 3

MOST_DEATHS = 3
"""Workers that may die in a row before the search gives up."""


@dataclass(frozen=True)
class Place:
    """Where the study is, and how the next parameters are chosen."""

    database: str
    name: str
    sampler: str
    pruner: str
    start: FrozenTrial | None = None
    """Where the sampler starts from."""
    n_reports: int = N_REPORTS
    """How often a trial reports to the pruner."""

    def load(self, storage: Any, seed: int | None) -> optuna.Study:
        return patiently(
            optuna.load_study,
            study_name=self.name,
            storage=storage,
            sampler=make_sampler(self.sampler, seed, self.start),
            pruner=make_pruner(self.pruner, self.n_reports),
        )


def work(claims: Claims, problem: Problem, plan: TrialPlan, *, ask: Callable[[], Order], on_end: Callable) -> None:
    """Run trials until the study has all that it is to have, those of processes that died included."""
    while ask() is Order.GO_ON:
        run_trials(claims, problem, plan, ask=ask, on_end=on_end)
        if ask() is not Order.GO_ON or claims.is_done():
            return
        bury_silent(claims.study)
        wait(WAIT_SECONDS)


def _worker(connection: Connection, shared: SharedProblem, plan: TrialPlan, place: Place, seed: int | None) -> None:
    """What a worker process runs: it sends every trial that ends, and last its own end."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes; the one that minds them decides
    torch.set_num_threads(1)
    told = threading.Event()
    threading.Thread(target=_listen, args=(connection, told), daemon=True).start()

    def ask() -> Order:
        return Order.STOP if told.is_set() else Order.GO_ON

    try:
        study = place.load(open_storage(place.database), seed)
        name = process_name()
        connection.send(("name", name))
        claims = Claims(study, plan.n_trials, name, shared.turns)
        work(claims, shared.attach(), plan, ask=ask, on_end=lambda end: _send(connection, end))
        connection.send(("done", None))
    except (BrokenPipeError, ConnectionResetError):
        return  # the one that minds this process is gone
    except UserError as error:
        connection.send(("user error", str(error)))
    except Exception:
        connection.send(("error", scrubbed(traceback.format_exc(), place.database)))
    finally:
        spare_last_collection()


def _listen(connection: Connection, told: threading.Event) -> None:
    """Wait for the word to stop; where the one that minds this process is gone, end it soon, whatever it does."""
    try:
        connection.recv()
        told.set()
    except (EOFError, OSError):
        told.set()
        time.sleep(PATIENCE_AFTER_STOP_SECONDS)
        os._exit(EXIT_ORPHANED)


def _send(connection: Connection, ended: Ended) -> None:
    # Plain pickle: the tensors go as bytes, not as handles to this process's memory.
    connection.send(("ended", pickle.dumps(ended)))


class _Worker:
    """A worker process as its minder sees it."""

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
        """Whether it has begun to work and has not ended; it gives its name before its first trial."""
        return bool(self.name) and not self.is_done and self.process.is_alive()

    def receive(self) -> list[tuple[str, Any]]:
        """Return what the worker has sent by now."""
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
    """Worker processes, started by `run` and none left when it ends, however it ends."""

    def __init__(self, study: optuna.Study, shared: SharedProblem, plan: TrialPlan, place: Place) -> None:
        self.study, self.shared, self.plan, self.place = study, shared, plan, place
        self.context = multiprocessing.get_context("spawn")
        self.workers: list[_Worker] = []
        self.names: set[str] = set()
        self.n_started = self.n_deaths = 0
        self.n_trials_before = len(study.get_trials(deepcopy=False))

    def run(self, n_workers: int, on_end: Callable[[Ended], None], problem: Problem) -> None:
        """Run the trials in so many processes; a worker that dies is replaced, and its trial queued again.

        This process runs the first trials itself, until the first worker has started, which takes seconds; it then
        leaves its core to the last worker.
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
                wait_for_any([item for own in self.workers for item in (own.connection, own.process.sentinel)])
                self._mind_all(on_end)
        finally:
            with uninterrupted():
                self._end(on_end)

    def _run_first_trials(self, on_end: Callable[[Ended], None], problem: Problem) -> bool:
        """Return whether they were all."""
        study = self.place.load(storage_of(self.study), self._next_seed())
        claims = Claims(study, self.plan.n_trials, process_name(), self.shared.turns)

        def ask() -> Order:
            self._mind_all(on_end)
            return Order.BEGIN_NO_MORE if self.is_ready() else Order.GO_ON

        run_trials(claims, problem, self.plan, ask=ask, on_end=on_end)
        return claims.is_done()

    def is_ready(self) -> bool:
        """Return whether a worker has started to work."""
        return bool(self.names)

    def _mind_all(self, on_end: Callable[[Ended], None]) -> None:
        """See to what all workers have sent, and to their deaths."""
        for worker in list(self.workers):
            with uninterrupted():
                self._mind(worker, on_end)

    def _next_seed(self) -> int | None:
        self.n_started += 1
        return sampler_seed(self.plan.model_seed, worker=self.n_started, n_trials_before=self.n_trials_before)

    def _start(self) -> None:
        seed = self._next_seed()
        with uninterrupted():
            self.workers.append(_Worker(self.context, (self.shared, self.plan, self.place, seed)))

    def _mind(self, worker: _Worker, on_end: Callable[[Ended], None]) -> None:
        is_dead = not worker.process.is_alive()
        self._hear(worker, on_end)
        if is_dead:
            self.workers.remove(worker)
            if not worker.is_done:
                self._replace(worker)

    def _hear(self, worker: _Worker, on_end: Callable[[Ended], None]) -> None:
        """Take what a worker has sent."""
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
        which = ", ".join(f"trial {trial.number} is run again" for trial in buried) or "it ran no trial"
        log.warning("a worker died (exit code %s); %s", worker.process.exitcode, which)
        if self.n_deaths > MOST_DEATHS:
            raise UserError(
                f"{self.n_deaths} workers died in a row (exit code {worker.process.exitcode}), perhaps for want of "
                "memory; use fewer --workers"
            )
        self._start()

    def _end(self, on_end: Callable[[Ended], None]) -> None:
        """End all workers, keep what they have finished, and leave none of their trials marked as running."""
        left, self.workers = self.workers, []
        for worker in left:
            worker.ask_to_stop()
        deadline = time.monotonic() + PATIENCE_AFTER_STOP_SECONDS
        while (patience := deadline - time.monotonic()) > 0 and (busy := [own for own in left if own.may_run_a_trial]):
            wait_for_any([item for own in busy for item in (own.connection, own.process.sentinel)], patience)
            for worker in busy:
                self._hear_last(worker, on_end)
        for worker in left:
            worker.process.kill()
            self._hear_last(worker, on_end)
        if left:
            bury(self.study, Dead(self.names), retry=False)
        for worker in left:
            worker.process.join()

    def _hear_last(self, worker: _Worker, on_end: Callable[[Ended], None]) -> None:
        # The search is ending already, by Ctrl-C or by an error that is to be told; a second one would hide it.
        with contextlib.suppress(UserError, RuntimeError):
            self._hear(worker, on_end)
