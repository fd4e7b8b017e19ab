"""The model file of a search: the best head as soon as there is one, the best N averaged at the end.

Every trial records its parameters and its seed, so that any machine can train any head of the study again. On a
database server the machine that ends first also publishes its file there, in a study of its own, and the others take
that one: so all end with the same file, bit by bit, though their processors may round differently.
"""

import base64
import contextlib
import hashlib
import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import optuna
import torch
from optuna.trial import FrozenTrial, TrialState
from torch import Tensor

from custom_aesthetic.base.errors import UserError
from custom_aesthetic.base.files import write_atomically
from custom_aesthetic.heads.model_file import FLATTERY, load_model
from custom_aesthetic.heads.predictor import Predictor, average
from custom_aesthetic.heads.trained_head import TrainedHead
from custom_aesthetic.quality.optimism import Choice, Optimism, optimism, unpack_outputs
from custom_aesthetic.scores.out_of_fold import out_of_fold_file, read_out_of_fold
from custom_aesthetic.search.optuna_private import storage_of
from custom_aesthetic.search.storage import patiently
from custom_aesthetic.search.study import FAILURE, complete_trials
from custom_aesthetic.search.trials import OUTPUTS, Ended, Problem, recorded_parameters, retrain

log = logging.getLogger(__name__)

CHUNK_CHARACTERS = 60_000
"""A published file is cut into attributes that also fit MySQL's text columns, of 65,535 bytes."""

MODEL_BYTES = "model_bytes"
"""How much of what is published is the model file; the rest is the out-of-fold predictions."""

TRIALS_KEY, STUDY_KEY = "trial", "study"
"""What a model file says of its origin, in its metadata."""


@dataclass(frozen=True)
class BestModel:
    """A model to be written to a file."""

    predictor: Predictor
    outputs: Tensor
    """(n_images, n_outputs) of all images, in the units of the scores."""
    state_weights: tuple[tuple[float, ...], ...]
    """As in TrainedHead; of the best head alone."""
    trials: tuple[FrozenTrial, ...]
    """Whose heads it is the mean of, best first."""
    metrics: dict[str, float]
    """Of several heads, their mean's own metrics by name (`eval_ab`, ...); those of one head are its trial's."""
    origin: dict[str, str]
    """The metadata by which the file is known again."""


@dataclass(frozen=True)
class ModelFiles:
    """The bytes of the model file, and of the out-of-fold predictions that lie beside it."""

    model: bytes
    out_of_fold: bytes | None = None
    """None without folds."""


MakeFiles = Callable[[BestModel], ModelFiles]


class BestModels:
    """Keeps the heads of the best trials, and the model file."""

    def __init__(
        self, study: optuna.Study, problem: Problem, *, n_heads: int, file: Path, make_files: MakeFiles, shared: bool
    ) -> None:
        self.study, self.problem, self.n_heads = study, problem, n_heads
        self.file, self.make_files, self.shared = file, make_files, shared
        self._heads: dict[int, TrainedHead] = {}

    def take(self, ended: Ended) -> None:
        """Keep the head of a trial that is one of the best so far; write it to the file if it is the best."""
        if ended.head is None:
            return
        best = complete_trials(self.study)[: self.n_heads]
        self._heads[ended.number] = ended.head
        self._heads = {trial.number: self._heads[trial.number] for trial in best if trial.number in self._heads}
        if best and best[0].number == ended.number:
            self._write(self.make_files(self._combine(best[:1])))

    def _write(self, files: ModelFiles) -> None:
        """Write both files, the model last; where the second write fails, the fingerprints differ and show it."""
        if files.out_of_fold is not None:
            write_atomically(out_of_fold_file(self.file), files.out_of_fold)
        write_atomically(self.file, files.model)

    def optimism(self) -> Optimism | None:
        """Return how much the choice of the best trials flatters them; None where it cannot be computed.

        That is so where a trial has no outputs kept with it: an older study, or more images than are kept.
        """
        judge, rows = self.problem.judge, self.problem.rows_that_choose
        scores = judge.scores[rows]
        trials = complete_trials(self.study)
        kept = [unpack_outputs(trial.system_attrs.get(OUTPUTS, ""), scores) for trial in trials]
        outputs = [own for own in kept if own is not None]
        if len(outputs) < len(trials):
            return None
        weights = None if judge.weights is None else judge.weights[rows]
        choice = Choice(self.problem.objective.metric, scores, judge.divider, weights)
        found = optimism(choice, outputs, n_kept=self.n_heads)
        best = trials[0].value if trials else None
        if found is None or best is None:
            return None
        return replace(found, chosen=best)  # half precision rounded the outputs that are kept

    def _flattery(self) -> dict[str, str]:
        """Return how much choosing adds to AB on the images that chose, as metadata of the model file."""
        found = None if self.problem.objective.set_for_scoring == "train" else self.optimism()
        return {FLATTERY: f"{0.0 if found is None else found.ab_flattery:.6f}"}

    def finish(self) -> tuple[FrozenTrial, ...]:
        """Bring the model file to the best heads of the whole study; return their trials, best first.

        UserError where no trial is complete.
        """
        trials = complete_trials(self.study)[: self.n_heads]
        if not trials:
            raise UserError(f"no trial of study {self.study.study_name} gave a model: {_failures(self.study)}")
        published = _published(self.study, trials) if self.shared else None
        if published is not None:
            if not self._holds(published):
                self._write(published)
            return tuple(trials)
        if not self._is_current(trials):
            model = self._combine(trials)
            files = self.make_files(replace(model, origin={**model.origin, **self._flattery()}))
            self._write(_publish(self.study, trials, files) if self.shared else files)
        elif self.shared:
            first = _publish(self.study, trials, self._read())
            if not self._holds(first):
                self._write(first)
        return tuple(trials)

    def _read(self) -> ModelFiles:
        beside = out_of_fold_file(self.file)
        return ModelFiles(self.file.read_bytes(), beside.read_bytes() if self.problem.folds else None)

    def _holds(self, files: ModelFiles) -> bool:
        beside = out_of_fold_file(self.file)
        return (
            self.file.exists()
            and self.file.read_bytes() == files.model
            and (files.out_of_fold is None or (beside.exists() and beside.read_bytes() == files.out_of_fold))
        )

    def _combine(self, trials: list[FrozenTrial]) -> BestModel:
        heads = [self._head(trial) for trial in trials]
        origin = _origin(self.study, trials)
        first = heads[0]
        if len(heads) == 1:
            return BestModel(first.predictor, first.outputs, first.state_weights, tuple(trials), {}, origin)
        seen = [head.seen_outputs for head in heads if head.seen_outputs is not None]
        mean = replace(
            first,
            outputs=torch.stack([head.outputs for head in heads]).mean(0),
            seen_outputs=torch.stack(seen).mean(0) if seen else None,
        )
        return BestModel(
            predictor=average([head.predictor for head in heads]),
            outputs=mean.outputs,
            state_weights=first.state_weights,
            trials=tuple(trials),
            metrics=self.problem.measure_all(mean),
            origin=origin,
        )

    def _head(self, trial: FrozenTrial) -> TrainedHead:
        if trial.number not in self._heads:
            log.info("training the head of trial %d again, which was not trained here", trial.number)
            seed = int(trial.user_attrs["seed"])
            self._heads[trial.number] = retrain(self.problem, recorded_parameters(trial), seed)
        return self._heads[trial.number]

    def _is_current(self, trials: list[FrozenTrial]) -> bool:
        """Return whether the files hold the model of these trials, and its out-of-fold predictions, already."""
        if not self.file.exists():
            return False
        with contextlib.suppress(UserError):
            metadata = load_model(self.file).metadata
            if self.problem.folds and not read_out_of_fold(self.file):
                return False
            return FLATTERY in metadata and all(
                metadata.get(key) == value for key, value in _origin(self.study, trials).items()
            )
        return False


def _failures(study: optuna.Study) -> str:
    trials = patiently(study.get_trials, deepcopy=False)
    reasons = sorted({str(trial.user_attrs[FAILURE]) for trial in trials if FAILURE in trial.user_attrs})
    return "; ".join(reasons) or "no trial has ended"


def _origin(study: optuna.Study, trials: list[FrozenTrial]) -> dict[str, str]:
    """Return what names a model: the study, by its name and when its best trial ended, and the trials' numbers."""
    ended = trials[0].datetime_complete
    return {
        STUDY_KEY: f"{study.study_name} {ended.isoformat() if ended else ''}",
        TRIALS_KEY: ",".join(str(trial.number) for trial in trials),
    }


def _shelf(study: optuna.Study) -> optuna.Study:
    """Return the study beside a study that its published model files lie in, one a trial."""
    name = f"{study.study_name} - model files"
    return patiently(optuna.create_study, study_name=name, storage=storage_of(study), load_if_exists=True)


def _published(study: optuna.Study, trials: list[FrozenTrial]) -> ModelFiles | None:
    """Return the files that were published first for the mean of these trials, if any."""
    origin = _origin(study, trials)
    for shelved in patiently(_shelf(study).get_trials, deepcopy=False, states=(TrialState.COMPLETE,)):
        attributes = shelved.user_attrs
        if all(attributes.get(key) == value for key, value in origin.items()):
            text = "".join(attributes[f"part {index}"] for index in range(int(attributes["parts"])))
            content = base64.b64decode(text)
            if hashlib.sha256(content).hexdigest() == attributes["sha256"]:
                n_model = int(attributes.get(MODEL_BYTES, len(content)))
                return ModelFiles(content[:n_model], content[n_model:] or None)
    return None


def _publish(study: optuna.Study, trials: list[FrozenTrial], files: ModelFiles) -> ModelFiles:
    """Publish the files of these trials; return those that count, the first if two machines did so at once."""
    content = files.model + (files.out_of_fold or b"")
    text = base64.b64encode(content).decode()
    parts = [text[start : start + CHUNK_CHARACTERS] for start in range(0, len(text), CHUNK_CHARACTERS)]
    attributes = {f"part {index}": part for index, part in enumerate(parts)}
    # One transaction: the file is there whole or not at all.
    published = optuna.create_trial(
        value=0.0,
        user_attrs={
            **_origin(study, trials),
            "parts": len(parts),
            MODEL_BYTES: len(files.model),
            "sha256": hashlib.sha256(content).hexdigest(),
            **attributes,
        },
    )
    patiently(_shelf(study).add_trial, published)
    first = _published(study, trials)
    return files if first is None else first
