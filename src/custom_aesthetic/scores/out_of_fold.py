"""Out-of-fold predictions: for each picture that a model with folds learnt from, what heads that never saw it say.

They lie beside the model file, as `NAME.out_of_fold.csv`. The model file's metadata holds their fingerprint, so that a
file left by another training is never taken for this model's.
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

COLUMN = "out_of_fold_score"
FINGERPRINT = "out_of_fold"
"""The key of the model file's metadata that holds the fingerprint."""


def out_of_fold_file(model_file: Path) -> Path:
    """Return where the out-of-fold predictions of a model file lie: `model.out_of_fold.csv` beside it."""
    return model_file.with_name(f"{model_file.stem}.out_of_fold.csv")


def out_of_fold_bytes(paths: Sequence[str], scores: Sequence[float] | Array, predictions: Array) -> bytes:
    """Return the content of the file, as CSV; scores and predictions are (n_images,), in the units of the scores."""
    columns = {"score": [float(score) for score in scores], COLUMN: [float(str(np.float32(p))) for p in predictions]}
    return csv_bytes(ScoreTable(tuple(paths), columns))


def fingerprint(content: bytes) -> str:
    """Return what ties out-of-fold predictions to their model file, for its metadata under FINGERPRINT."""
    return hashlib.sha256(content).hexdigest()


def write_out_of_fold(
    model_file: Path, paths: Sequence[str], scores: Sequence[float] | Array, predictions: Array
) -> str:
    """Write the predictions beside the model file; return the fingerprint that its metadata should hold."""
    content = out_of_fold_bytes(paths, scores, predictions)
    write_atomically(out_of_fold_file(model_file), content)
    return fingerprint(content)


def read_out_of_fold(model_file: Path) -> dict[str, float]:
    """Return path -> out-of-fold prediction of a model file; empty where it has none.

    A file whose fingerprint is not the one in the model file belongs to another training: it is not used, and a
    warning says so. Raises UserError for a file that is this model's by name but is damaged.
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
    return dict(zip(table.paths, table.columns[COLUMN], strict=True))


def _recorded_fingerprint(model_file: Path) -> str | None:
    """Return the fingerprint in the model file; None where the file has none or is not a model file."""
    try:
        with safetensors.safe_open(model_file, framework="numpy") as opened:
            return (opened.metadata() or {}).get(FINGERPRINT)
    except (OSError, safetensors.SafetensorError):
        return None
