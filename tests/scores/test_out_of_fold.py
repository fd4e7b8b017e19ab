"""Files of out-of-fold predictions: they are read back exactly, and only for the model they were written with."""

import logging
from pathlib import Path

import numpy as np
import pytest
import torch

from custom_aesthetic.base.errors import UserError
from custom_aesthetic.heads.model_file import save_model
from custom_aesthetic.heads.predictor import from_layers
from custom_aesthetic.scores.out_of_fold import (
    FINGERPRINT,
    SIGMA_COLUMN,
    fingerprint,
    out_of_fold_bytes,
    out_of_fold_file,
    read_out_of_fold,
    write_out_of_fold,
)

PATHS = ("a.png", "sub/b, c.png", "sub/d.png")
SCORES = (1.0, 2.5, -3.0)
PREDICTIONS = np.array([0.9, 2.0, 1 / 3])


def write_model(file: Path, **metadata: str) -> None:
    layers = [
        (torch.ones(2, 2), torch.zeros(2)),
        (torch.ones(2, 2), torch.zeros(2)),
        (torch.ones(1, 2), torch.zeros(1)),
    ]
    save_model(file, from_layers(layers), metadata)


def write_both(file: Path, predictions: np.ndarray = PREDICTIONS) -> None:
    write_model(file, **{FINGERPRINT: write_out_of_fold(file, PATHS, SCORES, predictions)})


def test_predictions_are_read_back_in_the_precision_of_a_head(tmp_path: Path) -> None:
    write_both(tmp_path / "my.model.safetensors")
    file = tmp_path / "my.model.out_of_fold.csv"
    assert file.read_text(encoding="utf-8").splitlines()[0] == "relative_path,score,out_of_fold_score"
    assert out_of_fold_file(tmp_path / "my.model.safetensors") == file
    read = read_out_of_fold(tmp_path / "my.model.safetensors")
    assert tuple(read) == PATHS
    np.testing.assert_array_equal(np.float32(list(read.values())), np.float32(PREDICTIONS))


def test_a_model_without_folds_has_no_predictions(tmp_path: Path) -> None:
    write_model(tmp_path / "model.safetensors")
    assert read_out_of_fold(tmp_path / "model.safetensors") == {}
    write_out_of_fold(tmp_path / "model.safetensors", PATHS, SCORES, PREDICTIONS)
    assert read_out_of_fold(tmp_path / "model.safetensors") == {}, "the file is left from an earlier model"
    assert read_out_of_fold(tmp_path / "nothing.safetensors") == {}


def test_the_predictions_of_another_model_are_not_used(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_both(tmp_path / "model.safetensors")
    write_out_of_fold(tmp_path / "model.safetensors", PATHS, SCORES, PREDICTIONS + 1)
    with caplog.at_level(logging.WARNING):
        assert read_out_of_fold(tmp_path / "model.safetensors") == {}
    assert "was not written with model.safetensors" in caplog.text


@pytest.mark.parametrize("content", ["", "relative_path,score\na.png,1\n", 'relative_path,score,out_of_fold_score\n"a'])
def test_a_damaged_file_is_an_error_that_names_it(tmp_path: Path, content: str) -> None:
    write_both(tmp_path / "model.safetensors")
    (tmp_path / "model.out_of_fold.csv").write_text(content)
    with pytest.raises(UserError, match=r"model\.out_of_fold\.csv"):
        read_out_of_fold(tmp_path / "model.safetensors")


def test_sigmas_are_kept_beside_the_predictions_where_there_are_any(tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    write_both(file)
    assert read_out_of_fold(file, SIGMA_COLUMN) == {}
    content = out_of_fold_bytes(PATHS, SCORES, PREDICTIONS, np.array([0.1, 0.2, 1 / 3]))
    write_model(file, **{FINGERPRINT: fingerprint(content)})
    out_of_fold_file(file).write_bytes(content)
    assert read_out_of_fold(file, SIGMA_COLUMN) == dict(
        zip(PATHS, [0.1, 0.2, float(str(np.float32(1 / 3)))], strict=True)
    )
    assert list(read_out_of_fold(file)) == list(PATHS)
