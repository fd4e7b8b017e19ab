"""Coordination of processes and machines on one study: counting its trials, claiming the next, finding dead ones."""

import contextlib
import logging
import os
import socket
import threading
import uuid
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

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
"""The type, for modules that show a study and do not import Optuna."""

IDENTITY = "identity"
"""User attribute of a study: everything that its scores depend on."""

PROCESS = "process"
"""User attribute of a trial: the process that runs it."""

FAILURE = "failure"
"""User attribute of a trial: why training with its parameters failed."""

KEPT = "aesthetic:kept"
"""System attribute of a study, which the dashboard does not show: the names of the texts kept with the study."""

MOST_CHARACTERS = 60_000
"""The most characters in one attribute."""

OWNERLESS_LIMIT = timedelta(minutes=1)
"""A running trial without an owner is abandoned after this time, since a process records itself at once."""

TURN_SECONDS = 5
"""If a process holds the turn for longer than this, it has died, and the next one continues."""

MOST_PROCESSES = 64
"""The most processes that may claim a trial of one study at the same moment."""

SILENCE_LIMIT = timedelta(hours=1)
"""In a storage without heartbeats, a running trial of another machine counts as alive for at most this long."""


def counts(trial: FrozenTrial) -> bool:
    """Return whether a trial counts towards `--trials`: complete, pruned, or failed because of its parameters."""
    return trial.state in (TrialState.COMPLETE, TrialState.PRUNED) or FAILURE in trial.user_attrs


def n_finished(study: optuna.Study) -> int:
    """Return how many trials count towards `--trials`."""
    return sum(map(counts, patiently(study.get_trials, deepcopy=False)))


def complete_trials(study: optuna.Study) -> list[FrozenTrial]:
    """Return the complete trials of a study, best first, older first among equals."""
    return best_first(study, patiently(study.get_trials, deepcopy=False))


def best_first(study: optuna.Study, trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """Return the complete trials among `trials`, best first by the study's direction, older first among equals."""
    complete = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    sign = -1 if study.direction == optuna.study.StudyDirection.MAXIMIZE else 1
    return sorted(complete, key=lambda trial: (sign * (trial.value or 0.0), trial.number))


@dataclass
class Claims:
    """Claims trials of a study for this process until the study has `n_trials` finished trials."""

    study: optuna.Study
    n_trials: int
    process: str
    """The name of this process, from `process_name`."""
    turns: Path | None = None
    """Path of the lock file by which the processes of this machine take turns; None for a single process."""

    def is_done(self) -> bool:
        """Return whether the study has all its trials."""
        return n_finished(self.study) >= self.n_trials

    def claim(self) -> optuna.Trial | None:
        """Return a trial to run; None if the finished and running trials together are enough."""
        with self._turn():
            n_taken = self._n_taken()
            if n_taken >= self.n_trials:
                return None
            trial = patiently(_ask, self.study)
            is_near_the_end = n_taken >= self.n_trials - MOST_PROCESSES
            if is_near_the_end and self._n_taken(below=trial.number) >= self.n_trials:
                # Another machine claimed the last trial at the same moment; older trials take precedence.
                patiently(self.study.tell, trial, state=TrialState.FAIL)
                return None
            patiently(trial.set_user_attr, PROCESS, self.process)
            beat(self.study, trial_id(trial))
            return trial

    @contextlib.contextmanager
    def _turn(self) -> Iterator[None]:
        """Hold the lock within the block, so that no other process of this machine claims a trial."""
        if self.turns is None:
            yield
            return
        lock = JournalFileOpenLock(str(self.turns), grace_period=TURN_SECONDS)
        lock.acquire()
        try:
            yield
        finally:
            with contextlib.suppress(RuntimeError):  # another process has taken over the lock after TURN_SECONDS
                lock.release()

    def _n_taken(self, below: int | None = None) -> int:
        """Return how many trials are finished or running and alive; `below` limits the numbers of running trials."""
        trials = patiently(self.study.get_trials, deepcopy=False)
        return sum(
            counts(trial) or (_may_be_alive(trial) and (below is None or trial.number < below)) for trial in trials
        )


def _ask(study: optuna.Study) -> optuna.Trial:
    with warnings.catch_warnings():
        # Optuna sends heartbeats only inside Study.optimize; here `heartbeats` sends them.
        warnings.filterwarnings("ignore", "Heartbeat of storage", UserWarning)
        return study.ask()


def _may_be_alive(trial: FrozenTrial) -> bool:
    if trial.state != TrialState.RUNNING or trial.datetime_start is None:
        return False
    return datetime.now() - trial.datetime_start < SILENCE_LIMIT


def process_name() -> str:
    """Return a unique name for this process: machine, process id, start time of the process, random digits."""
    return f"{machine_name()} {os.getpid()} {start_of(os.getpid()) or 0} {uuid.uuid4().hex[:8]}"


def machine_name() -> str:
    """Return a name for this machine: host name and hardware address."""
    return f"{socket.gethostname()}-{uuid.getnode():x}"


def bury(study: optuna.Study, is_dead: "Dead", *, retry: bool) -> list[FrozenTrial]:
    """Mark the running trials of dead processes as failed, queue them again once if `retry`, and return them."""
    buried = []
    for trial in patiently(study.get_trials, deepcopy=False, states=(TrialState.RUNNING,)):
        owner = trial.user_attrs.get(PROCESS, "")
        if not (is_dead(owner) if owner else _is_abandoned(trial)):
            continue
        if not patiently(fail, study, trial):
            continue
        buried.append(trial)
        if retry:
            retry_once(study, patiently(storage_of(study).get_trial, trial_id(trial)))
    return buried


def _is_abandoned(trial: FrozenTrial) -> bool:
    """Return whether a running trial without an owner is so old that its process died while claiming it."""
    return trial.datetime_start is not None and datetime.now() - trial.datetime_start > OWNERLESS_LIMIT


class Dead:
    """Predicate on process names: whether the process is known to have died."""

    def __init__(self, names: set[str] | None = None) -> None:
        """`names` are the dead processes; None asks the system about the processes of this machine."""
        self.names = names

    def __call__(self, name: str) -> bool:
        if self.names is not None:
            return name in self.names
        machine, _, rest = name.partition(" ")
        process_id, *others = rest.split()
        start = int(others[0]) if len(others) > 1 else None  # older versions did not record the start time
        return machine == machine_name() and not is_running(int(process_id), start)


def beat(study: optuna.Study, number: int) -> None:
    """Record a heartbeat for the running trial with that id, if the storage supports heartbeats."""
    storage = innermost(storage_of(study))
    if isinstance(storage, RDBStorage):
        patiently(storage.record_heartbeat, number)


def bury_silent(study: optuna.Study) -> None:
    """Fail, and queue again, running trials without recent heartbeats or of dead processes on this machine."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        patiently(optuna.storages.fail_stale_trials, study)
    bury(study, Dead(), retry=True)


@contextlib.contextmanager
def heartbeats(study: optuna.Study, running: set[int]) -> Iterator[None]:
    """Send heartbeats within the block for the trial ids in `running`, a set that may change."""
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


@contextlib.contextmanager
def kept_texts(study: optuna.Study) -> Iterator[dict[str, str]]:
    """Yield name -> text of what is kept with a study; what the block adds or changes is kept after it.

    Texts may be of any length: they are cut into attributes that also fit MySQL's columns, of 65,535 bytes.
    """
    storage = storage_of(study)
    number = patiently(storage.get_study_id_from_name, study.study_name)
    attributes = patiently(storage.get_study_system_attrs, number)
    before = {name: _joined(attributes, name) for name in attributes.get(KEPT, [])}
    texts = dict(before)
    yield texts
    for name, text in texts.items():
        if text == before.get(name):
            continue
        parts = [text[start : start + MOST_CHARACTERS] for start in range(0, len(text), MOST_CHARACTERS)]
        for index, part in enumerate(parts):
            patiently(storage.set_study_system_attr, number, f"{KEPT} {name} {index}", part)
        patiently(storage.set_study_system_attr, number, f"{KEPT} {name} parts", len(parts))
    if texts.keys() != before.keys():
        patiently(storage.set_study_system_attr, number, KEPT, sorted(texts))


def _joined(attributes: Mapping[str, Any], name: str) -> str:
    """Return a text from its parts, which is incomplete if its writer was killed; readers must check it."""
    parts = range(int(attributes.get(f"{KEPT} {name} parts", 0)))
    return "".join(str(attributes.get(f"{KEPT} {name} {index}", "")) for index in parts)
