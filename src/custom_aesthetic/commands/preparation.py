"""Prepare a search from its arguments: match scores with images, settle their split, load their features."""

import hashlib
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from custom_aesthetic.base.arrays import Array
from custom_aesthetic.base.errors import UserError
from custom_aesthetic.base.files import is_file
from custom_aesthetic.base.text import hashable
from custom_aesthetic.extractors import FeatureExtractor, build_extractors
from custom_aesthetic.features.hidden_states import (
    HeadInput,
    make_head_input,
    resolve_modes,
    spell_modes,
    states_asked,
)
from custom_aesthetic.features.precomputed import PrecomputedTable, given_scores, is_from_table
from custom_aesthetic.features.table import FeatureTable
from custom_aesthetic.features.views import SEPARATOR, load_asked_features
from custom_aesthetic.heads.fold_training import Fold
from custom_aesthetic.heads.training_data import TrainingData, standardise
from custom_aesthetic.pictures.folders import find_images
from custom_aesthetic.priors.given import GivenPrior, check_features, prior_scores
from custom_aesthetic.quality.answers import answers_behind
from custom_aesthetic.quality.judge import Judge, check_scores
from custom_aesthetic.scores.choice_log import Comparison, log_of_scores, read_answers
from custom_aesthetic.scores.evidence import Evidence
from custom_aesthetic.scores.folds import make_folds
from custom_aesthetic.scores.image_splits import (
    KnownSplit,
    known_split,
    near_duplicates,
    record_split,
    settle_split,
    with_split,
)
from custom_aesthetic.scores.score_files import ScoreTable, name_some
from custom_aesthetic.scores.splits import NAMES
from custom_aesthetic.search.succession import check_newest
from custom_aesthetic.search.trials import Problem
from custom_aesthetic.settings.training import (
    FeatureSettings,
    ImageSettings,
    ObjectiveSettings,
    SplitSettings,
    TrainingArguments,
)

log = logging.getLogger(__name__)

FEWEST_IMAGES = 4

AUTO_FOLDS = 4
MOST_FOR_AUTO_FOLDS = 5000
"""With more scored images, `--folds=auto` is 1: the eval set is then large enough, and training is 4 times faster."""


@dataclass(frozen=True)
class ScoredImages:
    """The scored images that exist, each with its split in the column `split`."""

    directory: Path
    table: ScoreTable
    known: KnownSplit
    """The part of the split that is known before the features are loaded."""
    log: Path
    """The log of answers that the scores may come from; it need not exist."""

    @cached_property
    def answers(self) -> list[Comparison]:
        """The answers in the log."""
        return read_answers(self.log)

    @property
    def answers_behind(self) -> Evidence | None:
        """What the answers say of the images, by their rows, if they alone give scores like these; else None."""
        return answers_behind(self.answers, self.table, is_made=False)

    def record_split(self) -> None:
        """Write new assignments to the split file; call this only after all checks."""
        record_split(self.table, self.known)


def load_scored_images(
    images: ImageSettings, split: SplitSettings, features: PrecomputedTable | None = None
) -> ScoredImages:
    """Return the scored images with a first split, which `load_head_input` settles; write nothing.

    Scored images that do not exist, or are not in the table of features if there is one, are left out with a warning,
    and pictures without a score are counted. UserError if fewer than four remain, if all scores are equal, or if the
    train or the eval set is empty.
    """
    directory = Path(images.directory)
    file, table = given_scores(directory, images.scores, features)
    if features is None:
        missing = [path for path in table.paths if not is_file(directory / path)]
    else:
        missing = features.missing(table.paths)
    if missing:
        log.warning("left out %d scored images that do not exist: %s", len(missing), name_some(missing))
    place = directory if features is None else features.file
    table = keep_rows(table, set(missing), f"scored images of {file} found in {place}")
    n_unscored = len(set(find_images(directory) if features is None else features.paths) - set(table.paths))
    if n_unscored:
        log.info("%d pictures in %s have no score and are not used", n_unscored, place)
    if np.ptp(np.asarray(table.scores)) == 0:
        raise UserError(
            f"all {len(table)} scores in {file} are equal, so there is no taste to learn; give better pictures higher "
            "scores"
        )
    known = known_split(table, directory / images.split, split)
    return ScoredImages(directory, with_split(table, known, split), known, log_of_scores(directory, str(file)))


def keep_rows(table: ScoreTable, left_out: set[str], what: str) -> ScoreTable:
    """Return the table without the paths `left_out`; UserError, about `what`, if fewer than four remain."""
    kept = [path for path in table.paths if path not in left_out]
    if len(kept) < FEWEST_IMAGES:
        raise UserError(f"only {len(kept)} {what}; at least {FEWEST_IMAGES} are needed: check -d and the paths")
    return table.select(kept) if left_out else table


def load_head_input(
    scored: ScoredImages,
    settings: FeatureSettings,
    split: SplitSettings,
    device: torch.device,
    table: PrecomputedTable | None = None,
    *,
    check: Callable[[str], None] = lambda features: None,
) -> tuple[ScoredImages, FeatureTable, HeadInput]:
    """Return the images that have features, their features (from the table, if given), and the input of a head.

    The split of the images is settled but not yet written. `check` is called before any picture is opened, with
    what the identity of a study will say of the features, and may raise UserError.
    """
    if table is not None:
        check(f"{table.name} 0 centre; join")
        features = table.load(scored.table.paths, fp16=settings.fp16_features)
        settled = settle_split(scored.table, scored.known, split, features.values)
        return replace(scored, table=settled), features, make_head_input(features, settings, ["join"])
    extractors = build_extractors(settings.feature_extractor_model, device, settings.offline)
    default_modes = [extractor.default_mode for extractor in extractors]
    check(planned_features(extractors, settings))  # an option that does not fit is an error before any work
    features = load_asked_features(scored.directory, scored.table.paths, extractors, settings)
    kept = keep_rows(scored.table, set(features.failures), f"readable scored images in {scored.directory}")
    kept = settle_split(kept, scored.known, split, features.values)
    return (
        replace(scored, table=kept),
        features,
        make_head_input(features, settings, default_modes),
    )


def settle_folds(arguments: TrainingArguments, scored: ScoredImages) -> TrainingArguments:
    """Return the arguments with `--folds=auto` replaced by a number, and log the reason.

    UserError if the given number of folds contradicts other arguments.
    """
    if arguments.split.folds != "auto":
        check_folds(arguments.split, arguments.objective)
        return arguments
    reason = _against_folds(arguments, scored)
    if reason:
        log.info("--folds=auto is 1 here, because %s", reason)
    else:
        log.info("every picture is judged by heads that have not seen it, in %d folds (--folds=auto)", AUTO_FOLDS)
    return replace(arguments, split=replace(arguments.split, folds=1 if reason else AUTO_FOLDS))


def _against_folds(arguments: TrainingArguments, scored: ScoredImages) -> str:
    """Return the reason why `auto` makes no folds; empty if it makes folds."""
    split, plain = arguments.split, SplitSettings()
    if scored.known.column:
        return "the score file has a column split"
    if arguments.images.split != ImageSettings("").split or split.fraction_for_eval != plain.fraction_for_eval:
        return "a split is asked for"
    if arguments.objective.set_for_scoring != "eval":
        return f"--set_for_scoring={arguments.objective.set_for_scoring} is given"
    return f"more than {MOST_FOR_AUTO_FOLDS:,} pictures are scored" if len(scored.table) > MOST_FOR_AUTO_FOLDS else ""


def check_folds(split: SplitSettings, objective: ObjectiveSettings) -> None:
    """Raise UserError if the folds contradict --set_for_scoring."""
    if split.n_folds > 1 and objective.set_for_scoring != "eval":
        raise UserError(
            f"--folds={split.folds} scores each image by a head that has not seen it, which --set_for_scoring="
            f"{objective.set_for_scoring} contradicts; remove one of them"
        )


def check_prior_fits(arguments: TrainingArguments) -> None:
    """Raise UserError where a prior model is given with settings that it cannot join."""
    reason = ""
    if arguments.split.n_folds == 1:
        reason = "needs scores that each fold leaves out: set --folds=4"
    elif arguments.objective.loss_model != "mse":
        reason = f"needs --loss_model=mse, not {arguments.objective.loss_model}"
    elif arguments.features.fixed_hidden_state_weights is not None:
        reason = "cannot join --fixed_hidden_state_weights; leave them away"
    if arguments.search.prior_model is not None and reason:
        raise UserError(f"--prior_model={arguments.search.prior_model} {reason}")


def make_judge(table: ScoreTable, objective: ObjectiveSettings, *, folded: bool = False) -> Judge:
    """Return the judge of the heads; UserError if the loss or the metric cannot be computed from these scores.

    With folds (`folded`), each set is train and eval together.
    """
    scores = np.asarray(table.scores, dtype=np.float64)
    split = np.asarray(table.columns["split"])
    rows = {name: np.flatnonzero(split == name) for name in ("train", "eval")}
    rows["full"] = np.flatnonzero(split != "test")
    if folded:
        rows = dict.fromkeys(rows, rows["full"])
    divider = objective.accuracy_divider
    divider = float(np.median(scores[rows["full"]])) if divider is None else divider
    judge = Judge(scores, rows, divider, _weights(table, objective))
    check_scores(
        judge,
        loss_model=objective.loss_model,
        metric=objective.metric,
        set_for_scoring=objective.set_for_scoring,
        wanted=objective.metrics,
    )
    return judge


def make_problem(
    table: ScoreTable,
    features: FeatureTable,
    head_input: HeadInput,
    objective: ObjectiveSettings,
    split: SplitSettings,
    device: torch.device,
    prior: GivenPrior | None = None,
    answers: Evidence | None = None,
) -> Problem:
    """Return the problem of the search; UserError if the loss or the metric cannot be computed from these scores."""
    judge = make_judge(table, objective, folded=split.n_folds > 1)
    identity = identify(table, features, head_input, objective, split, judge, prior)

    def data_of(train_rows: NDArray[np.int64]) -> TrainingData:
        return standardise(
            head_input.values,
            torch.from_numpy(judge.scores),
            torch.from_numpy(train_rows),
            device=device,
            weights=None if judge.weights is None else torch.from_numpy(judge.weights),
            mixtures=head_input.mixtures,
        )

    if split.n_folds == 1:
        return Problem(data_of(judge.rows["train"]), judge, objective, identity=identity)
    fitted = judge.rows["full"]
    folds = _folds(table, fitted, split, near_duplicates(table, split, features.values))
    return Problem(
        data_of(fitted),
        judge,
        objective,
        folds=tuple(Fold(data_of(learnt), left_out) for learnt, left_out in folds),
        inputs=head_input.values,
        answers=answers,
        prior=None if prior is None else prior_scores(prior, head_input.values, features.values.numpy(), table.paths),
        identity=identity,
    )


def _folds(
    table: ScoreTable, rows: NDArray[np.int64], split: SplitSettings, groups: Mapping[str, str]
) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Return the folds with near-duplicates together, or image by image if that would make too few folds."""
    folds = make_folds(table.paths, rows, split.n_folds, seed=split.eval_pick_seed, groups=groups)
    if len(folds) == split.n_folds:
        return folds
    log.warning("near-duplicates in one fold leave only %d folds, so near-duplicates are not kept together", len(folds))
    return make_folds(table.paths, rows, split.n_folds, seed=split.eval_pick_seed)


def settings_identity(
    features: str, objective: ObjectiveSettings, split: SplitSettings, prior: GivenPrior | None = None
) -> dict[str, str]:
    """Return the part of a study's identity that is known from the settings alone; `features` as planned."""
    started = {} if prior is None else {"prior": prior.digest}
    folds = {} if split.n_folds == 1 else {"folds": f"{split.n_folds} by seed {split.eval_pick_seed}"}
    return {
        "features": features,
        "loss_model": objective.loss_model,
        "metric_for_scoring": objective.metric,
        "set_for_scoring": objective.set_for_scoring,
        **folds,
        **started,
    }


def planned_features(extractors: Sequence[FeatureExtractor], settings: FeatureSettings) -> str:
    """Return what `identify` will say of the features, but for the number of columns, which shows in the features."""
    modes = resolve_modes(
        settings.hidden_states_mode,
        [extractor.default_mode for extractor in extractors],
        weight_hidden_states=settings.weight_hidden_states,
    )
    asked = states_asked(settings.hidden_states_used, len(extractors))
    states = [extractor.default_hidden_states for extractor in extractors] if asked is None else asked
    view = SEPARATOR.join(settings.views)
    blocks = [
        f"{extractor.name} {state} {view}".strip()
        for extractor, states_of_one in zip(extractors, states, strict=True)
        for state in states_of_one
    ]
    fixed = settings.fixed_hidden_state_weights
    if fixed is not None:
        weights = [f"{torch.tensor(fixed[:-1]).tolist()} {fixed[-1]}"] * len(extractors)
        return "; ".join([*blocks, "join", *weights])
    return "; ".join([*blocks, "weight" if "weight" in modes else spell_modes(modes)])


def identify(
    table: ScoreTable,
    features: FeatureTable,
    head_input: HeadInput,
    objective: ObjectiveSettings,
    split: SplitSettings,
    judge: Judge,
    prior: GivenPrior | None = None,
) -> dict[str, str]:
    """Return what the results of a study depend on: name -> text or hash."""
    blocks = [f"{block.extractor} {block.hidden_state} {block.view}".strip() for block in features.blocks]
    fixed = [f"{weights.tolist()} {bias}" for weights, bias, _ in head_input.fixed]
    mode = "weight" if head_input.mixtures else head_input.mode
    identity = {
        "images": _digest(table.paths),
        "scores": _digest([repr(float(score)) for score in table.scores]),
        "split": _digest(table.columns["split"]),
        **settings_identity(
            "; ".join([*blocks, mode, *fixed, f"{head_input.values.shape[1]} columns"]), objective, split, prior
        ),
    }
    if is_from_table(features):
        identity["table"] = hashlib.sha256(features.values.numpy().data).hexdigest()
    if judge.weights is not None:
        identity["weights"] = _digest([repr(float(weight)) for weight in judge.weights])
    if objective.metric == "accuracy":
        identity["accuracy_divider"] = repr(judge.divider)
    return identity


def check_plan(arguments: TrainingArguments, prior: GivenPrior | None, features: str) -> None:
    """Raise UserError, before the features are computed, where the prior takes others, or the study has others."""
    if prior is not None:
        check_features(prior, features)
    if arguments.search.trials > 0:
        settings = settings_identity(features, arguments.objective, arguments.split, prior)
        check_newest(arguments.study.database, arguments.study.name, settings)


def _digest(items: Sequence[str]) -> str:
    return hashlib.sha256(hashable("\0".join(items))).hexdigest()


def _weights(table: ScoreTable, objective: ObjectiveSettings) -> Array | None:
    if "wmse" not in objective.metrics or "weight" not in table.columns:
        return None
    weights = np.asarray(table.columns["weight"], dtype=np.float64)
    bad = [path for path, weight in zip(table.paths, weights, strict=True) if not weight >= 0]
    if bad or not weights.any():
        raise UserError(
            f"the weight is missing or not above 0 for {name_some(bad or list(table.paths))}; give every image a weight"
        )
    return weights / weights.mean() if objective.normalise_weights else weights


def describe(table: ScoreTable, n_folds: int = 1) -> str:
    """Return the number of images and of each split; with folds, train and eval are counted together."""
    split = list(table.columns["split"])
    if n_folds > 1:
        n_test = split.count("test")
        return f"{len(table)} scored images: {len(table) - n_test} in {n_folds} folds" + f", {n_test} test" * (
            n_test > 0
        )
    counts = ", ".join(f"{split.count(name)} {name}" for name in NAMES if name in split)
    return f"{len(table)} scored images: {counts}"
