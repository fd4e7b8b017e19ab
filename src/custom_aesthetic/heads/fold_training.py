"""Training by cross-validation: one head for each fold, scored on the images that it did not learn from."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from custom_aesthetic.heads.predictor import Predictor, average
from custom_aesthetic.heads.trained_head import TrainedHead
from custom_aesthetic.heads.training import DivergedError, Goal, HeadParameters, train
from custom_aesthetic.heads.training_data import TrainingData

Rows = NDArray[np.int64]


@dataclass(frozen=True)
class Fold:
    """The images left out of one fold, and the training data of all other images."""

    data: TrainingData
    """Standardised by the statistics of the other images alone."""
    left_out: Rows


def train_folds(
    folds: Sequence[Fold],
    parameters: HeadParameters,
    goal: Goal,
    *,
    seed: int,
    on_epoch: Callable[[int, float], None] | None = None,
    on_fold: Callable[[int, Rows, Tensor], None] | None = None,
) -> TrainedHead:
    """Return the mean of the folds' heads, scored on the images that each fold leaves out.

    `outputs` of the result are out of fold for images that a fold leaves out, and the mean of all heads for other
    images; `seen_outputs` are the mean of the heads that learnt from the image. Each head is taken after its last
    epoch, because choosing the epoch by the left-out images would bias the score.

    `on_epoch(epoch, nan)` is called after each epoch, and `on_fold(n_done, rows, outputs)` after each fold, where
    `rows` are the images left out so far and `outputs` (n_images, n_outputs) are out of fold for them. Both may raise
    an exception to end the training. Raises DivergedError if the outputs are not finite.
    """
    heads: list[TrainedHead] = []
    for index, fold in enumerate(folds):
        heads.append(
            train(
                fold.data,
                parameters,
                loss_model=goal.loss_model,
                seed=seed + index,
                evaluate=lambda _: float("nan"),
                higher_is_better=goal.higher_is_better,
                on_epoch=on_epoch,
            )
        )
        if on_fold is not None:
            on_fold(len(heads), *_out_of_fold(folds[: len(heads)], heads))
    every = torch.stack([head.outputs for head in heads])
    if not torch.isfinite(every).all():
        raise DivergedError("the outputs are not finite")
    left_out = torch.zeros(len(folds), every.shape[1], dtype=torch.bool)
    for index, fold in enumerate(folds):
        left_out[index, torch.from_numpy(fold.left_out)] = True
    unseen = _mean_where(every, left_out | ~left_out.any(0))
    return TrainedHead(
        make_predictor=partial(_mean_head, heads),
        score=goal.evaluate(lambda rows: unseen[rows]),
        epoch=parameters.train_epochs,
        outputs=unseen,
        state_weights=heads[0].state_weights,
        seen_outputs=_mean_where(every, ~left_out),
    )


def _out_of_fold(folds: Sequence[Fold], heads: Sequence[TrainedHead]) -> tuple[Rows, Tensor]:
    """Return the images that these folds leave out, and outputs of all images that are out of fold for them."""
    outputs = heads[0].outputs.clone()
    for fold, head in zip(folds, heads, strict=True):
        outputs[fold.left_out] = head.outputs[fold.left_out]
    return np.unique(np.concatenate([fold.left_out for fold in folds])), outputs


def _mean_head(heads: Sequence[TrainedHead]) -> Predictor:
    return average([head.predictor for head in heads])


def _mean_where(outputs: Tensor, counted: Tensor) -> Tensor:
    """Return the mean of outputs (heads, images, n_outputs) over the heads that `counted` (heads, images) selects."""
    weights = counted.float()[..., None]
    return (outputs * weights).sum(0) / weights.sum(0)
