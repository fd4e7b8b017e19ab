"""Training by cross-validation."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from custom_aesthetic.heads.fold_training import Fold, train_fold_jobs, train_folds, train_on_all, with_head_of_all
from custom_aesthetic.heads.predictor import predict
from custom_aesthetic.heads.trained_head import TrainedHead
from custom_aesthetic.heads.training import DivergedError, Goal, Job, train
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


def test_heads_of_all_images_join_the_model_but_not_what_is_said_out_of_fold() -> None:
    folds, features, scores = pure_noise()
    folded = train_folds(folds, PARAMETERS, goal_for(scores), seed=1)
    apart = np.arange(N_IMAGES - N_KEPT_APART, N_IMAGES)
    data = standardise(features, scores, torch.arange(N_IMAGES - N_KEPT_APART), device=CPU)
    on_all = train_on_all(data, PARAMETERS, goal_for(scores), seed=1)
    assert on_all.epoch == PARAMETERS.train_epochs
    joined = with_head_of_all(folded, on_all, folds, 0.25)
    expected = 0.75 * predict(folded.predictor, features) + 0.25 * predict(on_all.predictor, features)
    torch.testing.assert_close(predict(joined.predictor, features), expected, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(joined.outputs[apart], expected[apart], atol=1e-4, rtol=1e-4)
    assert torch.equal(joined.outputs[: -len(apart)], folded.outputs[: -len(apart)])
    assert joined.seen_outputs is not None and folded.seen_outputs is not None
    torch.testing.assert_close(joined.seen_outputs, folded.seen_outputs.lerp(on_all.outputs, 0.25))


def test_a_head_of_all_images_that_diverges_is_told() -> None:
    _, features, scores = pure_noise()
    data = standardise(features, scores, torch.arange(N_IMAGES - N_KEPT_APART), device=CPU)
    with pytest.raises(DivergedError):
        train_on_all(data, replace(PARAMETERS, log_lr=30.0), goal_for(scores), seed=1)


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


def test_jobs_side_by_side_give_the_heads_that_they_give_alone() -> None:
    folds, _, scores = pure_noise()
    folds[1] = replace(folds[1], data=replace(folds[1].data, train_rows=folds[1].data.train_rows[:20]))
    stopped: list[int] = []

    def stop(n_done: int, rows: np.ndarray, outputs: Tensor) -> None:
        stopped.append(n_done)
        if n_done == 2:
            raise RuntimeError("pruned")

    varied = [replace(PARAMETERS, first_layer_size=size, train_epochs=3 + size % 4) for size in (20, 7, 12, 9)]
    jobs = [Job(parameters, 10 * number, number=number) for number, parameters in enumerate(varied)]
    jobs[2] = replace(jobs[2], on_fold=stop)
    layers = (20, PARAMETERS.second_layer_size)
    outcomes = train_fold_jobs(folds, jobs, goal_for(scores), n_at_once=3, layers=layers)
    found = {job.number: outcome for job, outcome in outcomes}
    assert str(found.pop(2)) == "pruned" and stopped == [1, 2] and len(found) == 3
    for number, head in found.items():
        alone = train_folds(folds, varied[number], goal_for(scores), seed=10 * number)
        assert isinstance(head, TrainedHead)
        torch.testing.assert_close(head.outputs, alone.outputs, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(head.seen_outputs, alone.seen_outputs, atol=1e-4, rtol=1e-4)
        assert head.score == pytest.approx(alone.score, abs=1e-4)
