"""The quick model beside the page: features found or computed, the model fitted again as answers come, and its figures.

All work is done in other processes (`feature_work`, `model_work`) that yield to the page and end with it.
"""

import contextlib
import json
import logging
import shutil
import tempfile
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from custom_aesthetic.base.machine import n_cores
from custom_aesthetic.base.processes import folder_prefix
from custom_aesthetic.gallery.feature_work import BASIS_FILE, GROUPS_FILE
from custom_aesthetic.gallery.jobs import ChildJob
from custom_aesthetic.gallery.model_work import ANSWERS_FILE, PRIOR_FILE, RESULT_FILE, Learnt, standing_of
from custom_aesthetic.labelling.session import Session
from custom_aesthetic.scores.bradley_terry import PRIOR_VARIANCE, Prior
from custom_aesthetic.scores.choice_log import Comparison
from custom_aesthetic.scores.evidence import LINES, evidence
from custom_aesthetic.scores.pairing import Standing
from custom_aesthetic.scores.prior import FEATURE_SHARE, extended

log = logging.getLogger(__name__)

NAP_SECONDS = 0.5
REST = 1.5
"""Between two fits the model rests this many times as long as the last one took."""

DEFAULT_EXTRACTOR = "efficientnet-lite2"
"""The packaged extractor, which needs no download."""

# States of the model, as the page knows them.
CHECKING, ASKING, EXTRACTING, LEARNING, FAILED, OFF = "checking", "asking", "extracting", "learning", "failed", "off"


@dataclass(frozen=True)
class FeatureSource:
    """Where the features of the quick model come from."""

    directory: Path
    extractor: str = DEFAULT_EXTRACTOR
    device: str | None = None
    offline: bool = False


class Learner:
    """The quick model of a session; every method may be called from any thread."""

    def __init__(self, session: Session, source: FeatureSource) -> None:
        self.session = session
        self.source = source
        self.version = 0
        """Grows with every fit."""
        self.learnt: Learnt | None = None
        self.groups: dict[str, str] | None = None
        """Path -> name of its group of near-duplicates; None as long as it is not known."""
        self.state = CHECKING
        self.worth: Mapping[str, Any] | None = None
        """The figures of `model_work.as_json`, for the number of answers `n_judged`."""
        self.n_judged = 0
        self._n_answers = 0
        self._done = self._missing = 0
        self._reason = ""
        self._stopping = threading.Event()
        self._wake = threading.Event()
        self._idle = threading.Event()
        self._feature_job: ChildJob | None = None
        self._feature_run = 0
        """Number of the last feature job; later messages of earlier jobs, which were stopped, are ignored."""
        self._model_job: ChildJob | None = None
        self.folder = Path(tempfile.mkdtemp(prefix=folder_prefix()))

    # --- the features --------------------------------------------------------------------------------------------

    def begin(self) -> None:
        """Look for features in the cache; the model begins to learn if all are there."""
        if self.session.plan.prior.basis is not None:
            self._learn_from(self.session.plan.prior)
        self._run_features(only_if_cached=True)

    def extract(self) -> None:
        """Compute the features that are missing, in the background."""
        if self.state in (ASKING, FAILED):
            self.state, self._done, self._reason = EXTRACTING, 0, ""
            self._run_features(only_if_cached=False)

    def cancel(self) -> None:
        """Stop computing features; those computed so far are kept in the cache."""
        if self.state == EXTRACTING and self._feature_job is not None:
            self._feature_job.kill()
            self.state = ASKING

    def decline(self) -> None:
        """Do not ask for features again in this run."""
        if self.state in (ASKING, FAILED):
            self.state = OFF

    def stop(self) -> None:
        """End everything at once."""
        self._stopping.set()
        self._wake.set()
        for job in (self._feature_job, self._model_job):
            if job is not None:
                job.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _run_features(self, *, only_if_cached: bool) -> None:
        asked = {
            "directory": str(self.source.directory.resolve()),
            "extractor": self.source.extractor,
            "device": self.source.device,
            "offline": self.source.offline,
            "only_if_cached": only_if_cached,
            "output": str(self.folder),
            "threads": max(n_cores() // 2, 1),
        }
        self._feature_run += 1
        run = self._feature_run
        if self._feature_job is not None:
            self._feature_job.kill()
        try:
            self._feature_job = ChildJob(
                "custom_aesthetic.gallery.feature_work",
                [json.dumps(asked)],
                on_line=lambda line: self._hear(line) if run == self._feature_run else None,
                on_end=lambda status: self._ended(status) if run == self._feature_run else None,
            )
        except OSError as error:
            self._fail(f"no process can be started ({error.strerror})")

    def _hear(self, line: str) -> None:
        with contextlib.suppress(ValueError):
            message = json.loads(line)
            if isinstance(message, dict):
                self._take(message)

    def _take(self, message: Mapping[str, Any]) -> None:
        self._missing = message.get("missing", self._missing)
        self._done = message.get("done", self._done)
        if "error" in message:
            self._reason = message["error"]
        elif "basis" in message and self._model_job is None:
            with np.load(self.folder / BASIS_FILE) as found:
                prior = self._prior_of(json.loads(str(found["paths"])), found["basis"])
            self._learn_from(prior)
        elif "groups" in message:
            self.groups = json.loads((self.folder / GROUPS_FILE).read_bytes())

    def _ended(self, status: int) -> None:
        if self.state not in (CHECKING, EXTRACTING) or self._stopping.is_set():
            return
        if self.state == CHECKING and status == 0:
            self.state = ASKING
        else:
            self._fail(self._reason or f"the process that computes features ended with status {status}")

    def _fail(self, reason: str) -> None:
        self.state, self._reason = FAILED, reason
        log.warning("the model on the page cannot learn: %s", reason)

    def _prior_of(self, paths: list[str], basis: np.ndarray) -> Prior:
        """Return the prior of the session with these features, then lines for stars and marks.

        Pictures without features keep their own prior.
        """
        prior = self.session.plan.prior
        row_of = self.session.scores.row_of
        aligned = np.zeros((len(prior.mean), basis.shape[1]))
        known = [(row_of[path], place) for place, path in enumerate(paths) if path in row_of]
        rows, places = np.array(known, dtype=int).reshape(-1, 2).T
        aligned[rows] = basis[places] * np.sqrt(prior.variance[rows] / PRIOR_VARIANCE)[:, None]
        variance = prior.variance.copy()
        variance[rows] *= 1 - FEATURE_SHARE
        return extended(Prior(prior.mean, variance, aligned), len(LINES), PRIOR_VARIANCE)

    # --- the model -----------------------------------------------------------------------------------------------

    def _learn_from(self, prior: Prior) -> None:
        assert prior.basis is not None
        with (self.folder / PRIOR_FILE).open("wb") as stream:
            np.savez(stream, mean=prior.mean, variance=prior.variance, basis=prior.basis)
        self._model_job = ChildJob(
            "custom_aesthetic.gallery.model_work",
            [str(self.folder)],
            on_line=self._hear_model,
            on_end=lambda status: self._idle.set(),
            environment={"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"},
            listens=True,
        )
        self.state = LEARNING
        threading.Thread(target=self._learn, args=(self._model_job,), name="quick model", daemon=True).start()

    def notice(self) -> None:
        """Learn from answers that have come."""
        self._wake.set()

    def _learn(self, job: ChildJob) -> None:
        """Send the answers to the model whenever they have changed, with rests, until its process ends."""
        before: tuple[int, str] | None = None
        while not self._stopping.is_set() and job.is_running():
            rows = self.session.answers()
            now = (len(rows), max((row.time for row in rows), default=""))
            if now == before:
                self._wake.wait(NAP_SECONDS * 4)
                self._wake.clear()
                continue
            before, begun = now, time.monotonic()
            self._n_answers = len({row.time for row in rows})
            self._idle.clear()
            self._send(rows, job)
            while not self._idle.wait(NAP_SECONDS) and job.is_running():
                pass
            self._stopping.wait(max(NAP_SECONDS, REST * (time.monotonic() - begun)))
        if not self._stopping.is_set():
            self._model_job = None  # `extract` begins again
            self._fail("its process has ended; the terminal says why")

    def _send(self, rows: list[Comparison], job: ChildJob) -> None:
        found = evidence(rows, self.session.scores.row_of_all)
        with (self.folder / ANSWERS_FILE).open("wb") as stream:
            np.savez(stream, **found._asdict())
        job.send(json.dumps({"number": self._n_answers}))

    def _hear_model(self, line: str) -> None:
        with contextlib.suppress(ValueError):
            message = json.loads(line)
            if "fitted" in message:
                with np.load(self.folder / RESULT_FILE) as found:
                    n_pictures = len(self.session.scores.row_of)  # lines between stars follow them
                    self.learnt = Learnt(*(found[name][:n_pictures] for name in Learnt._fields))
                self.version += 1
            elif "judged" in message:
                self.worth, self.n_judged = message["worth"], message["judged"]
                self._idle.set()

    # --- its figures ---------------------------------------------------------------------------------------------

    def standing(self, shown: np.ndarray) -> Standing | None:
        """Return what the model says of all rows, to draw pairs by; None if it has not learnt yet."""
        return None if self.learnt is None else standing_of(self.learnt, shown)

    def status(self) -> dict[str, Any]:
        """Return what the page shows of the model: state, progress of the features, figures and the sentence."""
        return {
            "state": self.state,
            "extractor": self.source.extractor,
            "missing": self._missing,
            "done": self._done,
            "reason": self._reason,
            "version": self.version,
            "sentence": self.sentence(),
            "worth": self.worth,
            "grouped": self.groups is not None,
        }

    def sentence(self) -> str | None:
        """Return how good the model is, in words; None if it cannot be said yet."""
        return None if self.worth is None else in_words(self.worth)


def in_words(worth: Mapping[str, Any]) -> str:
    """Return the figures of a quick model as a sentence."""
    value, low, high = (round(100 * share) for share in worth["right"])
    text = f"A first model: {value} of 100 pairs right ({low}\N{EN DASH}{high})."
    if worth["forecast"] is None:
        return text
    later = round(100 * worth["forecast"][0])
    return f"{text} About {worth['more']} more answers: {later}."
