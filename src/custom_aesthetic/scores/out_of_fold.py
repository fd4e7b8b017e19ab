"""Files of out-of-fold predictions: the scores of training pictures by heads that did not learn from them.

They are in `NAME.out_of_fold.csv` beside the model file. The metadata of the model file contain their fingerprint, so
that a file left by another training is never used for this model.
"""

import hashlib
import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import safetensors

from custom_aesthetic.base.arrays import Array
from custom_aesthetic.base.files import is_file, write_atomically
from custom_aesthetic.scores.score_files import ScoreTable, csv_bytes, read_scores

log = logging.getLogger(__name__)

COLUMN, SIGMA_COLUMN = "out_of_fold_score", "out_of_fold_sigma"
FINGERPRINT = "out_of_fold"
"""The key of the fingerprint in the model file's metadata."""

LEVELS, TAKEN_OFF = "out_of_fold_levels", "taken off"
"""Key and value in the metadata where the predictions lack the folds' levels, which earlier versions left in them."""


def out_of_fold_file(model_file: Path) -> Path:
    """Return the path of a model file's out-of-fold predictions: `model.out_of_fold.csv` for `model.safetensors`."""
    return model_file.with_name(f"{model_file.stem}.out_of_fold.csv")


def out_of_fold_bytes(
    paths: Sequence[str], scores: Sequence[float] | Array, predictions: Array, sigmas: Array | None = None
) -> bytes:
    """Return the content of the CSV file; scores and predictions are (n_images,), in the units of the scores."""
    columns = {"score": [float(score) for score in scores], COLUMN: _short(predictions)}
    if sigmas is not None:
        columns[SIGMA_COLUMN] = _short(sigmas)
    return csv_bytes(ScoreTable(tuple(paths), columns))


def _short(values: Array) -> list[float]:
    return [float(str(np.float32(value))) for value in values]


def fingerprint(content: bytes) -> str:
    """Return the fingerprint that links out-of-fold predictions to their model file; metadata key FINGERPRINT."""
    return hashlib.sha256(content).hexdigest()


def write_out_of_fold(
    model_file: Path, paths: Sequence[str], scores: Sequence[float] | Array, predictions: Array
) -> str:
    """Write the predictions beside the model file; return the fingerprint for its metadata."""
    content = out_of_fold_bytes(paths, scores, predictions)
    write_atomically(out_of_fold_file(model_file), content)
    return fingerprint(content)


def read_out_of_fold(model_file: Path, column: str = COLUMN) -> dict[str, float]:
    """Return path -> out-of-fold prediction of a model file, or its sigma by that column; empty where it has none.

    If the fingerprint in the model file does not match, the file belongs to another training: it is not used, and a
    warning is logged. Raises UserError for a damaged file.
    """
    file = out_of_fold_file(model_file)
    expected = _recorded_fingerprint(model_file)
    if expected is None or not is_file(file):
        return {}
    table = read_scores(file, required=("score", COLUMN))
    if fingerprint(file.read_bytes()) != expected:
        log.warning(
            "%s was not written with %s and is not used; run the training again to get both", file, model_file.name
        )
        return {}
    return dict(zip(table.paths, table.columns[column], strict=True)) if column in table.columns else {}


def _recorded_fingerprint(model_file: Path) -> str | None:
    """Return the fingerprint in the model file; None if there is none, or if the file is not a model file."""
    try:
        with safetensors.safe_open(model_file, framework="numpy") as opened:
            return (opened.metadata() or {}).get(FINGERPRINT)
    except (OSError, safetensors.SafetensorError):
        return None
