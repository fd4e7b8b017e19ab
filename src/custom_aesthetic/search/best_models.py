"""Writing of a search's model file: the best head while the search runs, the average of the best N at its end.

Every trial records its parameters and seed, so any machine can train any head of the study again. With a database
server, the first machine to finish publishes its files in the database, in a separate study, and the others copy them.
All machines thus end with identical files, even if their processors round differently.
"""

import base64
import contextlib
import hashlib
import logging
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import optuna
import torch
from optuna.trial import FrozenTrial, TrialState
from torch import Tensor

from custom_aesthetic.base.errors import UserError
from custom_aesthetic.base.files import write_atomically
from custom_aesthetic.heads.fold_training import train_on_all, with_head_of_all
from custom_aesthetic.heads.linear_members import HEADS, share_explained, share_of_all
from custom_aesthetic.heads.model_file import FLATTERY, load_model
from custom_aesthetic.heads.predictor import Predictor
from custom_aesthetic.heads.trained_head import TrainedHead, weighted_mean
from custom_aesthetic.heads.training import DivergedError, HeadParameters
from custom_aesthetic.priors.joining import join_members
from custom_aesthetic.quality.optimism import Blended, Choice, Optimism, optimism, unpack_outputs
from custom_aesthetic.scores.folds import fold_levels
from custom_aesthetic.scores.out_of_fold import out_of_fold_file, read_out_of_fold
from custom_aesthetic.search.optuna_private import storage_of
from custom_aesthetic.search.storage import patiently
from custom_aesthetic.search.study import FAILURE, complete_trials
from custom_aesthetic.search.trials import (
    OUTPUTS,
    Ended,
    Problem,
    recorded_parameters,
    retrain,
    trials_to_average,
)

log = logging.getLogger(__name__)

CHUNK_CHARACTERS = 60_000
"""A published file is split into attributes of this length, which also fit MySQL's text columns of 65,535 bytes."""

MODEL_BYTES = "model_bytes"
"""Attribute: length of the model file within the published content; the rest is the out-of-fold predictions."""

TRIALS_KEY, STUDY_KEY = "trial", "study"
"""Metadata keys for the origin of a model file."""


@dataclass(frozen=True)
class BestModel:
    """A model to write to a file: one head, or the mean of several."""

    predictor: Predictor
    outputs: Tensor
    """Outputs for all images, (n_images, n_outputs), in the units of the scores."""
    state_weights: tuple[tuple[float, ...], ...]
    """Hidden-state weights of the best head, as in TrainedHead."""
    trials: tuple[FrozenTrial, ...]
    """The trials of its heads, best first."""
    metrics: dict[str, float]
    """By name (`eval_ab`, ...), without the folds' levels; empty for one head without folds, whose trial has them."""
    origin: dict[str, str]
    """The metadata that identify study and trials."""
    blend: dict[str, float] = field(default_factory=dict)
    """The weights of the mean of the heads and of the linear models, by name; empty where no linear model joins."""


@dataclass(frozen=True)
class ModelFiles:
    """The contents of the model file and of the file of out-of-fold predictions beside it."""

    model: bytes
    out_of_fold: bytes | None = None
    """None without folds."""


MakeFiles = Callable[[BestModel], ModelFiles]
"""Returns the contents of the files for a model."""


class BestModels:
    """Keeps the heads of the best trials in memory and writes the model file."""

    def __init__(
        self,
        study: optuna.Study,
        problem: Problem,
        *,
        wide_head: HeadParameters,
        n_heads: int,
        file: Path,
        make_files: MakeFiles,
        shared: bool,
    ) -> None:
        """`wide_head` are the parameters of heads of all images, of which each of the best `n_heads` trials gets one.

        `shared` tells whether other machines fill the same study, so that the files are published.
        """
        self.wide_head = wide_head
        self.study, self.problem, self.n_heads = study, problem, n_heads
        self.file, self.make_files, self.shared = file, make_files, shared
        self._heads: dict[int, TrainedHead] = {}
        self._optimism: tuple[list[int], Optimism | None] | None = None
        """The numbers of the trials, and their optimism."""
        self._blended: Blended | None = None
        """How the heads' mean and other members add up, for the images that trials are chosen by."""

    def take(self, ended: Ended) -> None:
        """Keep the head of a trial if it is among the best so far; write the model file if it is the best."""
        if ended.head is None:
            return
        best = self._trials()
        self._heads[ended.number] = ended.head
        self._heads = {trial.number: self._heads[trial.number] for trial in best if trial.number in self._heads}
        if best and best[0].number == ended.number:
            self._write(self.make_files(self._combine([self._head(best[0])], best[:1])))

    def _trials(self) -> list[FrozenTrial]:
        return trials_to_average(self.study, self.problem, self.n_heads)

    def _write(self, files: ModelFiles) -> None:
        """Write both files, the model last. If only the first is written, the fingerprints reveal the mismatch."""
        if files.out_of_fold is not None:
            write_atomically(out_of_fold_file(self.file), files.out_of_fold)
        write_atomically(self.file, files.model)

    def optimism(self) -> Optimism | None:
        """Return how much choosing the best trials inflates their scores; None if it cannot be computed.

        It needs the saved outputs of all trials, which older studies and studies of very many images do not have; the
        log then says that it is not known.
        """
        trials = complete_trials(self.study)
        numbers = [trial.number for trial in trials]
        if self._optimism is None or self._optimism[0] != numbers:
            self._optimism = numbers, self._find_optimism(trials)
        return self._optimism[1]

    def _find_optimism(self, trials: list[FrozenTrial]) -> Optimism | None:
        judge, rows = self.problem.judge, self.problem.rows_that_choose
        scores = judge.scores[rows]
        kept = [unpack_outputs(trial.system_attrs.get(OUTPUTS, ""), scores) for trial in trials]
        outputs = [found for found in kept if found is not None]
        if len(outputs) < len(trials):
            if len(trials) > 1:
                log.warning(
                    "how much choosing among %d trials flatters the best ones is not known, because some of them were "
                    "saved without their outputs for the %d images that choose; --fraction_for_test measures a model "
                    "on images that do not",
                    *(len(trials), len(rows)),
                )
            return None
        weights = None if judge.weights is None else judge.weights[rows]
        choice = Choice(self.problem.objective.metric, scores, judge.divider, weights)
        found = optimism(choice, outputs, n_kept=self.n_heads, blended=self._blended)
        best = trials[0].value if trials else None
        if found is None or best is None:
            return None
        return replace(found, chosen=best)  # exact, while the saved outputs are rounded to half precision

    def _flattery(self) -> dict[str, str]:
        """Return how much choosing raises AB on the images the trials were chosen by, as metadata of the model file."""
        found = None if self.problem.objective.set_for_scoring == "train" else self.optimism()
        return {FLATTERY: f"{0.0 if found is None else found.ab_flattery:.6f}"}

    def finish(self) -> tuple[FrozenTrial, ...]:
        """Write the model file from the best heads of the whole study; return their trials, best first.

        Raises UserError if no trial is complete.
        """
        trials = self._trials()
        if not trials:
            raise UserError(f"no trial of study {self.study.study_name} produced a model: {_failures(self.study)}")
        published = _published(self.study, trials) if self.shared else None
        if published is not None:
            if not self._holds(published):
                self._write(published)
            return tuple(trials)
        best = complete_trials(self.study)[0]
        if best.number not in {trial.number for trial in trials}:
            log.info(
                "trial %d is better alone, but its head is large: in a mean of several it adds nothing but size",
                best.number,
            )
        if not self._is_current(trials):
            model = self._combine(self._heads_of(trials), trials)
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

    def _heads_of(self, trials: list[FrozenTrial]) -> list[TrainedHead]:
        """Return the heads that the final model averages: those of the trials, each joined by a head of all images.

        Heads of all images have learnt more and are wide, which is better where scores can be predicted well. The
        folds' heads have learnt less of each score, which is better where scores are noisy; see docs/log.md.
        """
        folded, problem = [self._head(trial) for trial in trials], self.problem
        if not problem.folds:
            return folded
        said = _without_levels(problem, weighted_mean(folded)).outputs[:, 0].double().numpy()
        known = np.concatenate([fold.left_out for fold in problem.folds])
        share = share_of_all(share_explained(said[known], problem.judge.scores[known]))
        return [self._join_head_of_all(trial, head, share) for trial, head in zip(trials, folded, strict=True)]

    def _join_head_of_all(self, trial: FrozenTrial, head: TrainedHead, share: float) -> TrainedHead:
        if share == 0:
            return head
        seed = _seed_of(trial) + len(self.problem.folds)  # that of no fold's head
        try:
            on_all = train_on_all(self.problem.data, self.wide_head, self.problem.goal, seed=seed)
        except DivergedError:
            return head
        return with_head_of_all(head, on_all, self.problem.folds, share)

    def _combine(self, heads: list[TrainedHead], trials: list[FrozenTrial]) -> BestModel:
        """Return the model that averages these heads, which are those of the trials."""
        origin = _origin(self.study, trials)
        first, mean = heads[0], weighted_mean(heads) if len(heads) > 1 else heads[0]
        if len(heads) == 1 and self.problem.prior is None:
            alone = _without_levels(self.problem, first)
            metrics = self.problem.measure_all(alone) if self.problem.folds else {}
            return BestModel(first.predictor, alone.outputs, first.state_weights, tuple(trials), metrics, origin)
        joined, weights = join_linear(self.problem, mean)
        self._blended, self._optimism = self._what_blends(mean, joined, weights), None
        return BestModel(
            predictor=joined.predictor,
            outputs=joined.outputs,
            state_weights=first.state_weights,
            trials=tuple(trials),
            metrics=self.problem.measure_all(joined),
            origin=origin,
            blend=weights,
        )

    def _what_blends(self, mean: TrainedHead, joined: TrainedHead, weights: dict[str, float]) -> Blended | None:
        if not weights:
            return None
        rows = self.problem.rows_that_choose
        heads, scores = (head.outputs[rows, 0].double().numpy() for head in (mean, joined))
        return Blended(weights[HEADS], scores - weights[HEADS] * heads)

    def _head(self, trial: FrozenTrial) -> TrainedHead:
        if trial.number not in self._heads:
            log.info("training the head of trial %d again, which another process or run trained", trial.number)
            self._heads[trial.number] = retrain(self.problem, recorded_parameters(trial), _seed_of(trial))
        return self._heads[trial.number]

    def _is_current(self, trials: list[FrozenTrial]) -> bool:
        """Return whether the files already hold the model of these trials and its out-of-fold predictions."""
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


def join_linear(problem: Problem, heads: TrainedHead) -> tuple[TrainedHead, dict[str, float]]:
    """Return the blend of the heads' mean and linear models, and its weights by name; the heads alone if none join.

    Linear models join where heads are judged out of fold and learn the mean of the scores, by the loss `mse`. What is
    said out of fold lacks the levels of the folds either way.
    """
    joined = None
    if problem.folds and len(problem.inputs) and problem.objective.loss_model == "mse":
        folds = [fold.rows for fold in problem.folds]
        joined = join_members(
            heads, problem.inputs.numpy(), problem.judge.scores, folds, problem.prior, problem.answers
        )
    return (_without_levels(problem, heads), {}) if joined is None else joined


def _without_levels(problem: Problem, head: TrainedHead) -> TrainedHead:
    """Return a head whose outputs out of fold lack the levels of the folds; see `fold_levels`."""
    if not problem.folds:
        return head
    outputs = head.outputs.clone()
    outputs[:, 0] -= torch.from_numpy(fold_levels(problem.judge.scores, [fold.rows for fold in problem.folds]))
    return replace(head, outputs=outputs)


def _seed_of(trial: FrozenTrial) -> int:
    return int(trial.user_attrs["seed"])


def _failures(study: optuna.Study) -> str:
    trials = patiently(study.get_trials, deepcopy=False)
    reasons = sorted({str(trial.user_attrs[FAILURE]) for trial in trials if FAILURE in trial.user_attrs})
    return "; ".join(reasons) or "no trial has ended"


def _origin(study: optuna.Study, trials: list[FrozenTrial]) -> dict[str, str]:
    """Return the metadata that identify a model: study name with the end of its best trial, and trial numbers."""
    ended = trials[0].datetime_complete
    return {
        STUDY_KEY: f"{study.study_name} {ended.isoformat() if ended else ''}",
        TRIALS_KEY: ",".join(str(trial.number) for trial in trials),
    }


def _shelf(study: optuna.Study) -> optuna.Study:
    """Return the separate study that holds the published files of a study, one trial for each model."""
    name = f"{study.study_name} - model files"
    return patiently(optuna.create_study, study_name=name, storage=storage_of(study), load_if_exists=True)


def _published(study: optuna.Study, trials: list[FrozenTrial]) -> ModelFiles | None:
    """Return the files first published for these trials; None if there are none."""
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
    """Publish the files of these trials; return the first published ones, if two machines publish at once."""
    content = files.model + (files.out_of_fold or b"")
    text = base64.b64encode(content).decode()
    parts = [text[start : start + CHUNK_CHARACTERS] for start in range(0, len(text), CHUNK_CHARACTERS)]
    attributes = {f"part {index}": part for index, part in enumerate(parts)}
    # One transaction: the files are published completely or not at all.
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
