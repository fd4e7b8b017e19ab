"""The judge of heads: metrics on each set, and the check of scores before a training."""

import math

import numpy as np
import pytest
import torch

from custom_aesthetic.base.errors import UserError
from custom_aesthetic.quality.judge import Judge, check_scores

SCORES = np.array([1.0, 2.0, 3.0, 4.0, 2.0, 5.0])


def judge(scores: np.ndarray = SCORES, weights: np.ndarray | None = None) -> Judge:
    rows = {"train": np.arange(4), "eval": np.arange(4, 6), "full": np.arange(6)}
    return Judge(scores, rows, 2.5, weights)


def test_every_metric_is_computed_on_every_set() -> None:
    outputs = (SCORES + np.array([0, 0, 0, 0, 4, 0]))[:, None]
    found = judge(weights=np.full(6, 0.5)).measure_all(("mse", "wmse", "ab", "accuracy", "spearman"), outputs)
    assert found["train_mse"] == 0
    assert found["eval_mse"] == 8
    assert found["eval_wmse"] == 4
    assert found["full_mse"] == pytest.approx(16 / 6)
    assert (found["train_ab"], found["eval_ab"]) == (1, 0)
    assert found["eval_accuracy"] == 0.5
    assert found["eval_spearman"] == pytest.approx(-1)
    assert len(found) == 15


def test_an_undefined_metric_is_left_out() -> None:
    found = judge().measure_all(("spearman", "mse"), np.ones((6, 1)))
    assert set(found) == {"train_mse", "eval_mse", "full_mse"}


def test_nll_uses_the_sigma_output_or_else_the_error_on_the_training_images() -> None:
    outputs = np.stack([SCORES + 1, np.full(6, 1.0)], axis=1)
    with_sigma = judge().measure_all(("nll",), np.stack([SCORES + 1, np.full(6, 2.0)], axis=1))["eval_nll"]
    assert with_sigma == pytest.approx(0.5 * (math.log(4) + 1 / 4))
    assert judge().measure_all(("nll",), outputs[:, :1])["eval_nll"] == pytest.approx(0.5)


def test_measure_computes_only_the_outputs_of_its_set() -> None:
    asked = []

    def outputs_of(rows: torch.Tensor) -> torch.Tensor:
        asked.append(rows.tolist())
        return torch.from_numpy(SCORES[rows.numpy()])[:, None]

    assert judge().measure("spearman", "eval", outputs_of) == pytest.approx(1)
    assert asked == [[4, 5]]


@pytest.mark.parametrize(
    ("scores", "changes", "words"),
    [
        (SCORES, {"wanted": ("wmse",)}, "needs a column weight"),
        (np.array([1.0, 1, 1, 1, 2, 3]), {"loss_model": "ab"}, "all training scores are equal"),
        (np.array([1.0, 2, 3, 4, 5, 5]), {"metric": "spearman"}, "spearman is undefined on the eval set"),
        (np.array([1.0, 2, 3, 4, 5, 5]), {"metric": "ab"}, "ab is undefined on the eval set"),
    ],
)
def test_a_loss_or_metric_that_cannot_be_computed_is_an_error_before_training(
    scores: np.ndarray, changes: dict, words: str
) -> None:
    options = {"loss_model": "mse", "metric": "mse", "set_for_scoring": "eval", "wanted": (), **changes}
    with pytest.raises(UserError, match=words):
        check_scores(judge(scores), **options)
