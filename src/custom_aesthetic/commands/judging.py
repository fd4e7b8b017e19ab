"""Load the pictures that a model is judged by: run the model, or read its scores from a file."""

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from custom_aesthetic.base.arrays import Array
from custom_aesthetic.base.errors import UserError
from custom_aesthetic.base.files import existing_file, is_file
from custom_aesthetic.features.precomputed import PrecomputedTable, given_scores, is_from_table, open_table
from custom_aesthetic.features.table import FeatureTable
from custom_aesthetic.heads.learnt_pictures import KEY, from_text, is_copy
from custom_aesthetic.heads.model_file import Model, load_model
from custom_aesthetic.heads.prediction import PictureScores, check_name, score_pictures
from custom_aesthetic.pictures.folders import find_images
from custom_aesthetic.report.judged_pictures import Flags, JudgedPictures
from custom_aesthetic.scores.choice_log import log_of_scores, read_answers
from custom_aesthetic.scores.image_splits import split_column
from custom_aesthetic.scores.out_of_fold import COLUMN, SIGMA_COLUMN, out_of_fold_file, read_out_of_fold
from custom_aesthetic.scores.score_files import (
    ScoreTable,
    find_score_file,
    name_some,
    read_scores,
    usual_score_file,
)
from custom_aesthetic.scores.splits import read_split_file
from custom_aesthetic.settings.analysis import ModelScoreSettings
from custom_aesthetic.settings.training import FeatureSettings, ImageSettings

log = logging.getLogger(__name__)

LEARNT_COLUMN = "learnt_from"
"""Column in a file of model scores: 1 for a picture that the model has learnt from, else 0."""


def load_judged_pictures(
    images: ImageSettings, source: ModelScoreSettings, features: FeatureSettings, device: torch.device
) -> JudgedPictures:
    """Return the pictures with their scores and the scores of the model, which is run now or read from a file.

    The pictures are those of the score file; without a score file, those in the directory or in the file of model
    scores. With a table of features they are those of the table, and the image files need not exist. Pictures without
    a model score are left out with a warning.
    """
    directory = Path(images.directory)
    given = open_table(directory, features)
    file, table = _given_scores(directory, images.scores, source, given)
    if source.model is not None:
        found = _run_model(directory, table, images.split, source.model, features, device, given)
    else:
        found = _read_judged(directory, table, images, source)
    if file is None:
        return found
    return replace(found, answers=read_answers(log_of_scores(directory, str(file))))


def _read_judged(
    directory: Path, table: ScoreTable | None, images: ImageSettings, source: ModelScoreSettings
) -> JudgedPictures:
    """Return the pictures with the model scores in a file."""
    if source.model_scores is not None:
        origin = find_file(directory, source.model_scores, "--model_scores")
        said = _read_model_scores(origin)
    elif table is not None and "model_score" in table.columns:
        origin, said = find_score_file(directory, images.scores), _said(table, table.columns["model_score"])
    else:
        raise UserError(
            "no model scores: give a model by --model, a file of its scores by --model_scores, or a score file with a "
            "column model_score"
        )
    wanted = table.paths if table is not None else tuple(said)
    paths = [path for path in wanted if path in said and math.isfinite(said[path].model_score)]
    _report_missing(set(wanted) - set(paths), f"have no model score in {origin}")
    if not paths:
        raise UserError(
            f"none of the {len(wanted)} pictures has a model score in {origin}; check --model_scores and -d"
        )
    recorded = _recorded_splits(directory / images.split, table)
    rows = [said[path] for path in paths]
    out_of_fold = np.array([row.out_of_fold for row in rows])
    folded = any(math.isfinite(row.out_of_fold) for row in said.values())
    by_split = learnt_by_split(recorded, paths, folded=folded)
    told = np.array([row.learnt is not None for row in rows])
    learnt = np.where(told, [bool(row.learnt) for row in rows], by_split) | np.isfinite(out_of_fold)
    return JudgedPictures(
        directory,
        _given(table, paths),
        np.array([row.model_score for row in rows]),
        _splits(recorded, paths),
        learnt,
        out_of_fold,
        facts={"Model scores": str(origin)},
    )


def find_file(directory: Path, name: str, option: str) -> Path:
    """Return the file as `existing_file` does; log it if a relative path is not in the directory."""
    file = existing_file(directory, name, option)
    if file == Path(name) and not file.is_absolute():
        log.info("%s=%s is not in %s, so it is read from %s", option, name, directory, Path.cwd())
    return file


def _given_scores(
    directory: Path, name: str | None, source: ModelScoreSettings, features: PrecomputedTable | None
) -> tuple[Path | None, ScoreTable | None]:
    """Return the scores given, from a score file or the table of features, and where; None if there are none.

    UserError if they are needed: if there is neither a model nor a file of its scores.
    """
    known = features is not None and "score" in features.columns(("score",))
    if name is None and directory.is_dir() and usual_score_file(directory) is None and not known:
        if source.model is None and source.model_scores is None:
            find_score_file(directory, name)
        log.info("no score file in %s, so only the model's scores are shown", directory)
        return None, None
    return given_scores(directory, name, features)


def _run_model(
    directory: Path,
    table: ScoreTable | None,
    split: str,
    name: str,
    features: FeatureSettings,
    device: torch.device,
    given: PrecomputedTable | None,
) -> JudgedPictures:
    """Return the pictures with the scores of the model, which runs on the table of features if one is given."""
    file = find_file(directory, name, "--model")
    model = load_model(file)
    if given is None:
        wanted = find_images(directory) if table is None else table.paths
        there = [path for path in wanted if is_file(directory / path)]
    else:
        check_name(model, features.features_name)
        wanted = given.paths if table is None else table.paths
        missing = set(given.missing(wanted))
        there = [path for path in wanted if path not in missing]
    _report_missing(set(wanted) - set(there), f"are not in {directory if given is None else given.file}")
    if not there:
        raise UserError(f"no pictures to score in {directory}: {len(wanted)} listed, none found; check -d")
    found = score_pictures(
        model,
        directory,
        there,
        device=device,
        extractor_model=features.feature_extractor_model,
        fp16=features.fp16_features,
        offline=features.offline,
        table=given,
    )
    recorded = _recorded_splits(directory / split, table)
    by_folds = read_out_of_fold(file) if model.folded else {}
    learnt = _learnt_of(model, found, learnt_by_split(recorded, found.paths, folded=model.folded), by_folds)
    out_of_fold = np.array([by_folds.get(path, math.nan) for path in found.paths])
    judged = JudgedPictures(
        directory,
        _given(table, found.paths),
        short_floats(found.scores),
        _splits(recorded, found.paths),
        learnt,
        np.where(learnt, out_of_fold, math.nan),
        judged_sigmas(found.sigmas, file, found.paths, learnt),
        found.features,
        model_facts(file, model, found.features),
        chosen_by(recorded, found.paths, learnt & np.isfinite(out_of_fold), folded=model.folded),
        model.ab_flattery,
        model.eval_chose,
    )
    _advise(file, model, judged, set(by_folds), recorded)
    return judged


def judged_sigmas(sigmas: Array | None, model_file: Path, paths: Sequence[str], learnt: Flags) -> Array | None:
    """Return the sigmas to judge, (n_images,): out of fold of pictures that the model has learnt from, or nan."""
    if sigmas is None:
        return None
    by_folds = read_out_of_fold(model_file, SIGMA_COLUMN) if learnt.any() else {}
    return np.where(learnt, [by_folds.get(path, math.nan) for path in paths], sigmas)


def learnt_by_split(recorded: Mapping[str, str], paths: Sequence[str], *, folded: bool) -> Flags:
    """Return, by the split, whether the model has learnt from each picture: from train and, with folds, from eval.

    A model has not learnt from a picture without a recorded split.
    """
    taught = ("train", "eval") if folded else ("train",)
    return np.array([recorded.get(path) in taught for path in paths], dtype=bool)


def chosen_by(recorded: Mapping[str, str], paths: Sequence[str], by_folds: Flags, *, folded: bool) -> Flags:
    """Return whether each picture was used to choose the best trials: with folds those of `by_folds`, else eval."""
    return by_folds if folded else np.array([recorded.get(path) == "eval" for path in paths], dtype=bool)


def _learnt_of(model: Model, found: PictureScores, by_split: Flags, by_folds: Mapping[str, float]) -> Flags:
    """Return whether the model has learnt from each picture, by the marks in its file, else by split and paths."""
    told = from_text(model.metadata.get(KEY, ""))
    if is_from_table(found.features) and "average" in (model.modes or ()):
        told = None  # the marks are of all hidden states, and the table holds their mean
    copies = np.zeros(len(by_split), bool) if told is None else is_copy(found.features.values.numpy(), told)
    if told is not None and told.is_complete:
        return copies
    return copies | by_split | np.array([path in by_folds for path in found.paths], dtype=bool)


def _advise(file: Path, model: Model, judged: JudgedPictures, by_folds: set[str], recorded: Mapping[str, str]) -> None:
    """Warn about copies of training pictures, and about missing out-of-fold scores of a model with folds."""
    unjudged = judged.learnt & ~np.isfinite(judged.out_of_fold)
    if model.folded and not by_folds and unjudged.any():
        log.warning(
            "%s was trained with folds, but %s does not hold its out-of-fold scores: only pictures that it has not "
            "learnt from are judged; keep both files together, or run the same training command to write it again",
            file,
            out_of_fold_file(file),
        )
        return
    taught = ("train", "eval") if model.folded else ("train",)
    copies = [
        path for path, row in zip(judged.paths, unjudged, strict=True) if row and recorded.get(path) not in taught
    ]
    if copies:
        log.warning(
            "%d of %d pictures are copies of pictures that the model has learnt from, and are not judged: %s",
            len(copies),
            len(judged.paths),
            name_some(copies),
        )


def model_facts(file: Path, model: Model, features: FeatureTable) -> dict[str, str]:
    """Return the facts on a model that the report shows, name -> value."""
    named = {
        "loss_model": "Loss",
        "metric_for_scoring": "Chosen by",
        "hidden_states_used": "Hidden states",
        "hidden_states_mode": "Hidden states mode",
        "layers": "Hidden layers",
    }
    extractors = " + ".join(dict.fromkeys(block.extractor for block in features.blocks))
    facts = {"Model": str(file), "Features": extractors}
    return facts | {words: model.metadata[key] for key, words in named.items() if key in model.metadata}


def short_floats(values: Array) -> Array:
    """Convert float32 numbers to float64 by their shortest decimal form, so that they are written with few digits."""
    return np.array([float(str(np.float32(value))) for value in values])


class _Said(NamedTuple):
    """The entry of a picture in a file of model scores."""

    model_score: float
    out_of_fold: float
    """nan if not in the file."""
    learnt: bool | None
    """None if not in the file."""


def _read_model_scores(file: Path) -> dict[str, _Said]:
    """Return path -> entry of a file; the model score is the column `model_score` if there is one, else `score`."""
    table = read_scores(file, required=())
    name = "model_score" if "model_score" in table.columns else "score"
    if name not in table.columns:
        raise UserError(f"--model_scores: {file} has neither a column model_score nor score; give another file")
    return _said(table, table.columns[name])


def _said(table: ScoreTable, model_scores: Sequence[float]) -> dict[str, _Said]:
    nothing = [""] * len(table)
    out_of_fold = table.columns.get(COLUMN, nothing)
    learnt = table.columns.get(LEARNT_COLUMN, nothing)
    return {
        path: _Said(model_score, _number(by_folds), None if flag in ("", None) else _number(flag) != 0)
        for path, model_score, by_folds, flag in zip(table.paths, model_scores, out_of_fold, learnt, strict=True)
    }


def _number(value: object) -> float:
    try:
        return float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        return math.nan


def _recorded_splits(split_file: Path, table: ScoreTable | None) -> dict[str, str]:
    recorded = read_split_file(split_file) if split_file.is_file() else {}
    return recorded if table is None else recorded | split_column(table)


def _given(table: ScoreTable | None, paths: Sequence[str]) -> ScoreTable:
    """Return the rows of these pictures, with nan for the scores if there is no table."""
    return ScoreTable(tuple(paths), {"score": [math.nan] * len(paths)}) if table is None else table.select(paths)


def _splits(recorded: Mapping[str, str], paths: Sequence[str]) -> tuple[str, ...]:
    """Return the split of each picture."""
    unknown = [path for path in paths if path not in recorded]
    if unknown:
        log.info("%d of %d pictures have no split: they count as evaluation pictures", len(unknown), len(paths))
    return tuple(recorded.get(path, "eval") for path in paths)


def _report_missing(paths: set[str], words: str) -> None:
    if paths:
        log.warning("left out %d pictures that %s: %s", len(paths), words, name_some(sorted(paths)))
