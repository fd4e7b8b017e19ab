"""Training by cross-validation."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from custom_aesthetic.heads.fold_training import Fold, train_folds
from custom_aesthetic.heads.predictor import predict
from custom_aesthetic.heads.training import DivergedError, Goal, train
from custom_aesthetic.heads.training_data import standardise
from custom_aesthetic.scores.folds import make_folds
from tests.heads.test_training import CPU, PARAMETERS

N_IMAGES, N_KEPT_APART = 60, 6


def pure_noise() -> tuple[list[Fold], Tensor, Tensor]:
    """Return folds, features and scores that are unrelated to the features; the last images are in no fold."""
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(N_IMAGES, 30, generator=generator)
    scores = torch.randn(N_IMAGES, generator=generator)
    rows = np.arange(N_IMAGES - N_KEPT_APART)
    parts = make_folds([str(row) for row in range(N_IMAGES)], rows, 3, seed=0)
    folds = [
        Fold(standardise(features, scores, torch.from_numpy(learnt), device=CPU), left_out)
        for learnt, left_out in parts
    ]
    return folds, features, scores


def correlation(outputs: Tensor, scores: Tensor) -> float:
    kept = slice(N_IMAGES - N_KEPT_APART)
    return float(torch.corrcoef(torch.stack([outputs[kept, 0], scores[kept]]))[0, 1])


def goal_for(scores: Tensor) -> Goal:
    def evaluate(outputs_of: Callable[[Tensor], Tensor]) -> float:
        return correlation(outputs_of(torch.arange(N_IMAGES)), scores)

    return Goal("mse", evaluate, higher_is_better=True)


def test_noise_is_learnt_in_the_folds_but_not_predicted_out_of_fold() -> None:
    folds, _, scores = pure_noise()
    head = train_folds(folds, PARAMETERS, goal_for(scores), seed=1)
    assert head.seen_outputs is not None
    assert correlation(head.seen_outputs, scores) > 0.9
    assert abs(head.score) < 0.4
    assert head.score == pytest.approx(correlation(head.outputs, scores))


def test_each_image_is_predicted_by_the_head_that_did_not_learn_from_it() -> None:
    folds, _, scores = pure_noise()
    head = train_folds(folds, PARAMETERS, goal_for(scores), seed=1)
    for index, fold in enumerate(folds):
        alone = train(
            fold.data,
            PARAMETERS,
            loss_model="mse",
            seed=1 + index,
            evaluate=lambda _: float("nan"),
            higher_is_better=True,
        )
        assert alone.epoch == PARAMETERS.train_epochs
        assert torch.equal(head.outputs[fold.left_out], alone.outputs[fold.left_out])


def test_the_predictor_is_the_mean_of_the_heads_of_all_folds() -> None:
    folds, features, scores = pure_noise()
    head = train_folds(folds, PARAMETERS, goal_for(scores), seed=1)
    apart = slice(N_IMAGES - N_KEPT_APART, None)
    torch.testing.assert_close(predict(head.predictor, features)[apart], head.outputs[apart], atol=1e-4, rtol=1e-4)
    assert head.predictor.layers == (3 * PARAMETERS.first_layer_size, 3 * PARAMETERS.second_layer_size)


def test_a_fold_that_diverges_ends_the_trial() -> None:
    folds, _, scores = pure_noise()
    with pytest.raises(DivergedError):
        train_folds(folds, replace(PARAMETERS, log_lr=30.0), goal_for(scores), seed=1)
