"""One trial judged by cross-validation: a head for each fold, scored by what it says of the images it never saw."""

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
    """One part of the images left out, and the training data of the others, standardised by the others alone."""

    data: TrainingData
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
    """Return the mean of the folds' heads, scored on the images that each left out.

    Its `outputs` are out of fold for the images that are left out once, and the mean of all heads for the others;
    `seen_outputs` are the mean of the heads that learnt from the image. Every head is that of its last epoch: to choose
    the epoch by the fold left out would flatter it. `on_epoch` is called after each epoch with nan for a score, and
    `on_fold` after each fold: how many are done, the images that they left out, and the outputs for every image, of
    which those of the images left out are out of fold; both may end the training by an exception. Raises DivergedError
    when the outputs are not finite.
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
    """Return the images that these folds left out, and outputs that are out of fold for them."""
    outputs = heads[0].outputs.clone()
    for fold, head in zip(folds, heads, strict=True):
        outputs[fold.left_out] = head.outputs[fold.left_out]
    return np.unique(np.concatenate([fold.left_out for fold in folds])), outputs


def _mean_head(heads: Sequence[TrainedHead]) -> Predictor:
    return average([head.predictor for head in heads])


def _mean_where(outputs: Tensor, counted: Tensor) -> Tensor:
    """Return the mean over heads of outputs (heads, images, n_outputs) where `counted` (heads, images)."""
    weights = counted.float()[..., None]
    return (outputs * weights).sum(0) / weights.sum(0)
