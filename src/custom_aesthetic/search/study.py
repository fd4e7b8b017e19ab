"""A study that many processes and machines fill together: whose trials count, who runs the next, who has died."""

import contextlib
import logging
import os
import socket
import threading
import uuid
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import optuna
from optuna.storages import RDBStorage
from optuna.storages.journal import JournalFileOpenLock
from optuna.trial import FrozenTrial, TrialState

from custom_aesthetic.base.errors import UserError
from custom_aesthetic.base.processes import is_running, start_of
from custom_aesthetic.search.optuna_private import fail, innermost, storage_of, trial_id
from custom_aesthetic.search.storage import HEARTBEAT_SECONDS, patiently, retry_once

log = logging.getLogger(__name__)

Study = optuna.Study
"""The type, for modules that show a study and load no Optuna."""

IDENTITY = "identity"
PROCESS = "process"
FAILURE = "failure"
"""User attributes: what a study's scores depend on; which process runs a trial; why a trial failed by itself."""

OWNERLESS_LIMIT = timedelta(minutes=1)
"""A process names itself in a trial as soon as it has taken it, so one that nobody is named in is soon given up."""

TURN_SECONDS = 5
"""A process that has not taken its trial after so long has died in doing so, and the next one goes on."""

MOST_PROCESSES = 64
"""Processes that may claim a trial of one study at the same moment."""

SILENCE_LIMIT = timedelta(hours=1)
"""In a storage without heartbeats, a running trial of another machine is waited for this long at most."""


def counts(trial: FrozenTrial) -> bool:
    """Return whether a trial counts towards `--trials`: complete, pruned, or failed by what it was."""
    return trial.state in (TrialState.COMPLETE, TrialState.PRUNED) or FAILURE in trial.user_attrs


def n_finished(study: optuna.Study) -> int:
    """Return how many trials count towards `--trials`."""
    return sum(map(counts, patiently(study.get_trials, deepcopy=False)))


def complete_trials(study: optuna.Study) -> list[FrozenTrial]:
    """Return the complete trials, best first; of equal ones the older first."""
    return best_first(study, patiently(study.get_trials, deepcopy=False))


def best_first(study: optuna.Study, trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """Return the complete ones of these trials, best first; of equal ones the older first."""
    complete = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    sign = -1 if study.direction == optuna.study.StudyDirection.MAXIMIZE else 1
    return sorted(complete, key=lambda trial: (sign * (trial.value or 0.0), trial.number))


@dataclass
class Claims:
    """Trials that this process runs in a study that is to reach `n_trials` finished ones."""

    study: optuna.Study
    n_trials: int
    process: str
    turns: Path | None = None
    """Where the processes of this machine leave the file by which they take turns; None for one process alone."""

    def is_done(self) -> bool:
        return n_finished(self.study) >= self.n_trials

    def claim(self) -> optuna.Trial | None:
        """Return a trial to run; None while those that others run may be all that is missing."""
        with self._turn():
            n_taken = self._n_taken()
            if n_taken >= self.n_trials:
                return None
            trial = patiently(_ask, self.study)
            is_near_the_end = n_taken >= self.n_trials - MOST_PROCESSES
            if is_near_the_end and self._n_taken(below=trial.number) >= self.n_trials:
                # Another machine took the last one at the same moment; the older trials go first.
                patiently(self.study.tell, trial, state=TrialState.FAIL)
                return None
            patiently(trial.set_user_attr, PROCESS, self.process)
            beat(self.study, trial_id(trial))
            return trial

    @contextlib.contextmanager
    def _turn(self) -> Iterator[None]:
        """Wait until no other process of this machine is taking a trial of the study."""
        if self.turns is None:
            yield
            return
        lock = JournalFileOpenLock(str(self.turns), grace_period=TURN_SECONDS)
        lock.acquire()
        try:
            yield
        finally:
            with contextlib.suppress(RuntimeError):  # it took so long that another one took the turn
                lock.release()

    def _n_taken(self, below: int | None = None) -> int:
        """Return how many trials are finished, or running and alive; of the running ones those below a number."""
        trials = patiently(self.study.get_trials, deepcopy=False)
        return sum(
            counts(trial) or (_may_be_alive(trial) and (below is None or trial.number < below)) for trial in trials
        )


def _ask(study: optuna.Study) -> optuna.Trial:
    with warnings.catch_warnings():
        # Optuna gives signs of life only inside Study.optimize; here `heartbeats` does.
        warnings.filterwarnings("ignore", "Heartbeat of storage", UserWarning)
        return study.ask()


def _may_be_alive(trial: FrozenTrial) -> bool:
    if trial.state != TrialState.RUNNING or trial.datetime_start is None:
        return False
    return datetime.now() - trial.datetime_start < SILENCE_LIMIT


def process_name() -> str:
    """Return a name for this process that no other one has: machine, process id, start of the process, random."""
    return f"{machine_name()} {os.getpid()} {start_of(os.getpid()) or 0} {uuid.uuid4().hex[:8]}"


def machine_name() -> str:
    return f"{socket.gethostname()}-{uuid.getnode():x}"


def bury(study: optuna.Study, is_dead: "Dead", *, retry: bool) -> list[FrozenTrial]:
    """Fail the running trials of dead processes, queue them again once if asked, and return them."""
    buried = []
    for trial in patiently(study.get_trials, deepcopy=False, states=(TrialState.RUNNING,)):
        owner = trial.user_attrs.get(PROCESS, "")
        if not (is_dead(owner) if owner else _was_never_begun(trial)):
            continue
        if not patiently(fail, study, trial):
            continue
        buried.append(trial)
        if retry:
            retry_once(study, patiently(storage_of(study).get_trial, trial_id(trial)))
    return buried


def _was_never_begun(trial: FrozenTrial) -> bool:
    """Return whether a running trial has had no process for so long that its process must have ended in taking it."""
    return trial.datetime_start is not None and datetime.now() - trial.datetime_start > OWNERLESS_LIMIT


class Dead:
    """Says of a process name whether that process is known to have ended."""

    def __init__(self, names: set[str] | None = None) -> None:
        self.names = names

    def __call__(self, name: str) -> bool:
        if self.names is not None:
            return name in self.names
        machine, _, rest = name.partition(" ")
        process_id, *others = rest.split()
        start = int(others[0]) if len(others) > 1 else None  # older versions recorded no start
        return machine == machine_name() and not is_running(int(process_id), start)


def beat(study: optuna.Study, number: int) -> None:
    """Give a sign of life for the running trial of that id, where the storage keeps such signs."""
    storage = innermost(storage_of(study))
    if isinstance(storage, RDBStorage):
        patiently(storage.record_heartbeat, number)


def bury_silent(study: optuna.Study) -> None:
    """Fail and queue again the trials of processes that gave no sign of life, or that ended on this machine."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        patiently(optuna.storages.fail_stale_trials, study)
    bury(study, Dead(), retry=True)


@contextlib.contextmanager
def heartbeats(study: optuna.Study, running: set[int]) -> Iterator[None]:
    """Meanwhile give signs of life for the trial ids in `running`, a set that may change."""
    ended = threading.Event()

    def run() -> None:
        while not ended.wait(HEARTBEAT_SECONDS):
            for number in list(running):
                with contextlib.suppress(UserError):
                    beat(study, number)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join(timeout=1)
