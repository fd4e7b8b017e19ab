"""Given scores beside a model's, picture by picture: what the analysis, the report and the viewer show."""

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from custom_aesthetic.base.arrays import Array
from custom_aesthetic.base.errors import UserError
from custom_aesthetic.base.files import is_file
from custom_aesthetic.features.table import FeatureTable
from custom_aesthetic.heads.model_file import Model, load_model
from custom_aesthetic.heads.prediction import score_pictures
from custom_aesthetic.pictures.images import find_images
from custom_aesthetic.scores.image_splits import split_column
from custom_aesthetic.scores.score_files import SCORE_FILES, ScoreTable, find_score_file, name_some, read_scores
from custom_aesthetic.scores.splits import read_split_file
from custom_aesthetic.settings.training import FeatureSettings, ImageSettings, ModelScoreSettings

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Comparison:
    """Pictures with a model score. Arrays are (n_images,), and the rows of all fields go together."""

    directory: Path
    paths: tuple[str, ...]
    scores: Array
    """The scores given; nan where a picture has none."""
    model_scores: Array
    splits: tuple[str, ...]
    """`train`, `eval` or `test`; pictures of which no split is known count as `eval`."""
    sigmas: Array | None = None
    """Standard deviations that the model predicts, if it does."""
    features: FeatureTable | None = None
    """The features that the model scored, where a model was run."""
    folded: bool = False
    """Whether the model has learnt from the eval pictures too."""
    facts: Mapping[str, str] | None = None
    """Where the numbers come from, name -> value."""

    @property
    def errors(self) -> Array:
        """Score minus model score; nan where a picture has no score."""
        return self.scores - self.model_scores

    def rows(self, *, include_train_split: bool) -> list[int]:
        """Return the rows that are analysed: those with a score, without the training pictures unless included."""
        return [
            row
            for row, split in enumerate(self.splits)
            if (include_train_split or split != "train") and math.isfinite(self.scores[row])
        ]


def load_comparison(
    images: ImageSettings, source: ModelScoreSettings, features: FeatureSettings, device: torch.device
) -> Comparison:
    """Return the pictures, their scores and the scores of the model: run now, or from a file.

    The pictures are those of the score file; without a score file all pictures in the directory, or all that the file
    of model scores names. What has no partner is left out and named.
    """
    directory = Path(images.directory)
    table = _given_scores(directory, images.scores, source)
    if source.model is not None:
        return _run_model(directory, table, images.split, source.model, features, device)
    if source.model_scores is not None:
        file = find_file(directory, source.model_scores, "--model_scores")
        model_scores, origin = _read_model_scores(file), file
    elif table is not None and "model_score" in table.columns:
        column = zip(table.paths, table.columns["model_score"], strict=True)
        model_scores, origin = dict(column), find_score_file(directory, images.scores)
    else:
        raise UserError(
            "no model scores: give a model by --model, a file of its scores by --model_scores, or a score file with a "
            "column model_score"
        )
    wanted = table.paths if table is not None else tuple(model_scores)
    paths = [path for path in wanted if math.isfinite(model_scores.get(path, math.nan))]
    _report_missing(set(wanted) - set(paths), f"have no model score in {origin}")
    if not paths:
        raise UserError(
            f"none of the {len(wanted)} pictures has a model score in {origin}; check --model_scores and -d"
        )
    scores, splits = _scores_and_splits(directory / images.split, table, paths)
    return Comparison(
        directory,
        tuple(paths),
        scores,
        np.array([model_scores[path] for path in paths]),
        splits,
        facts={"Model scores": str(origin)},
    )


def find_file(directory: Path, name: str, option: str) -> Path:
    """Return the file, relative to the directory or a path of its own; UserError if it is neither."""
    for file in (directory / name, Path(name)):
        if file.is_file():
            return file
    raise UserError(f"{option}={name} is not there: looked in {directory} and {Path.cwd()}; check the path")


def _given_scores(directory: Path, name: str | None, source: ModelScoreSettings) -> ScoreTable | None:
    """Return the score file's table; None if there is no score file and the pictures are known without one."""
    if name is None and directory.is_dir() and not any((directory / usual).is_file() for usual in SCORE_FILES):
        if source.model is None and source.model_scores is None:
            find_score_file(directory, name)
        log.info("no score file in %s: the model's scores only", directory)
        return None
    return read_scores(find_score_file(directory, name))


def _run_model(
    directory: Path,
    table: ScoreTable | None,
    split: str,
    name: str,
    features: FeatureSettings,
    device: torch.device,
) -> Comparison:
    file = find_file(directory, name, "--model")
    model = load_model(file)
    wanted = find_images(directory) if table is None else table.paths
    there = [path for path in wanted if is_file(directory / path)]
    _report_missing(set(wanted) - set(there), f"are not in {directory}")
    if not there:
        raise UserError(f"no pictures to score in {directory}: {len(wanted)} named, none found; check -d")
    found = score_pictures(
        model,
        directory,
        there,
        device=device,
        extractor_model=features.feature_extractor_model,
        fp16=features.fp16_features,
    )
    scores, splits = _scores_and_splits(directory / split, table, found.paths)
    if model.folded and "eval" in splits:
        log.warning("the model was trained with --folds: it has learnt from the eval pictures too, which flatter it")
    return Comparison(
        directory,
        found.paths,
        scores,
        short_floats(found.scores),
        splits,
        found.sigmas,
        found.features,
        model.folded,
        model_facts(file, model, found.features),
    )


def splits_learnt(splits: Sequence[str], *, folded: bool) -> tuple[str, ...]:
    """Return the splits with `train` for all that the model has learnt from: of a folded model, eval too."""
    return tuple("train" if folded and split == "eval" else split for split in splits)


def model_facts(file: Path, model: Model, features: FeatureTable) -> dict[str, str]:
    """Return what a reader should know of a model, name -> value."""
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
    """Return float32 numbers as the float64 nearest to their shortest decimal form, so that files show few digits."""
    return np.array([float(str(np.float32(value))) for value in values])


def _read_model_scores(file: Path) -> dict[str, float]:
    """Return path -> model score: the column `model_score` where there is one, else `score`."""
    table = read_scores(file, required=())
    name = "model_score" if "model_score" in table.columns else "score"
    if name not in table.columns:
        raise UserError(f"--model_scores: {file} has neither a column model_score nor score; choose another file")
    return dict(zip(table.paths, table.columns[name], strict=True))


def _scores_and_splits(
    split_file: Path, table: ScoreTable | None, paths: Sequence[str]
) -> tuple[Array, tuple[str, ...]]:
    recorded = read_split_file(split_file) if split_file.is_file() else {}
    given: dict[str, float] = {}
    if table is not None:
        given = dict(zip(table.paths, table.scores, strict=True))
        recorded |= split_column(table)
    unknown = [path for path in paths if path not in recorded]
    if unknown:
        log.info("no split is known of %d of %d pictures: they count as evaluation pictures", len(unknown), len(paths))
    scores = np.array([given.get(path, math.nan) for path in paths], dtype=np.float64)
    return scores, tuple(recorded.get(path, "eval") for path in paths)


def _report_missing(paths: set[str], words: str) -> None:
    if paths:
        log.warning("left out %d pictures that %s: %s", len(paths), words, name_some(sorted(paths)))
