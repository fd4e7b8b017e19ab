"""Training by cross-validation: one head for each fold, scored on the images that it did not learn from."""

import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from custom_aesthetic.heads.predictor import Predictor, average
from custom_aesthetic.heads.trained_head import TrainedHead, weighted_mean
from custom_aesthetic.heads.training import Goal, HeadParameters, Job, finite, train, train_jobs
from custom_aesthetic.heads.training_data import TrainingData

Rows = NDArray[np.int64]


@dataclass(frozen=True)
class Fold:
    """The images left out of one fold, and the training data of all other images."""

    data: TrainingData
    """Standardised by the statistics of the other images alone."""
    left_out: Rows

    @property
    def rows(self) -> tuple[Rows, Rows]:
        """The rows that train, and those left out."""
        return self.data.train_rows.cpu().numpy(), self.left_out


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
    job = Job(parameters, seed, on_epoch, on_fold)
    ((_, outcome),) = train_fold_jobs(folds, [job], goal)
    if isinstance(outcome, Exception):
        raise outcome
    return outcome


def train_fold_jobs(
    folds: Sequence[Fold],
    jobs: Iterable[Job | None],
    goal: Goal,
    *,
    n_at_once: int = 1,
    layers: tuple[int, int] | None = None,
) -> Iterator[tuple[Job, TrainedHead | Exception]]:
    """Yield each finished job with the mean of its folds' heads, or with the exception that ended it.

    The heads of a job are trained fold after fold, those of `n_at_once` jobs side by side; see `train_jobs`. An
    exception from `on_fold` ends only that job.
    """
    waiting = iter(jobs)
    queued: deque[Job] = deque()
    begun: dict[int, tuple[Job, list[TrainedHead]]] = {}

    def next_heads() -> Iterator[Job | None]:
        numbers = itertools.count()
        while True:
            if queued:
                yield queued.popleft()
                continue
            job = next(waiting, None)
            if job is not None:
                number = next(numbers)
                begun[number] = job, []
                job = replace(job, number=number, data=0)
            yield job

    unscored = replace(goal, evaluate=lambda _: float("nan"))
    for part, outcome in train_jobs(
        [fold.data for fold in folds], next_heads(), unscored, n_at_once=n_at_once, layers=layers
    ):
        job, heads = begun[part.number]
        ended = outcome if isinstance(outcome, Exception) else _take(folds, job, heads, outcome, goal)
        if ended is not None:
            del begun[part.number]
            yield job, ended
        else:
            queued.append(replace(part, seed=job.seed + len(heads), data=len(heads)))


def train_on_all(data: TrainingData, parameters: HeadParameters, goal: Goal, *, seed: int) -> TrainedHead:
    """Return a head trained on all training images of the data, as of its last epoch, like the folds' heads.

    Raises DivergedError if the outputs are not finite.
    """
    head = train(
        data,
        parameters,
        loss_model=goal.loss_model,
        seed=seed,
        evaluate=lambda _: float("nan"),
        higher_is_better=goal.higher_is_better,
    )
    finite(head.outputs)
    return head


def with_head_of_all(folded: TrainedHead, on_all: TrainedHead, folds: Sequence[Fold], share: float) -> TrainedHead:
    """Return (1 - share) x the mean of the folds' heads + share x a head from `train_on_all`.

    Images that a fold leaves out keep their outputs out of fold.
    """
    joined = weighted_mean([folded, on_all], [1 - share, share])
    left_out = np.concatenate([fold.left_out for fold in folds])
    outputs = joined.outputs.clone()
    outputs[left_out] = folded.outputs[left_out]
    return replace(joined, outputs=outputs)


def _take(
    folds: Sequence[Fold], job: Job, heads: list[TrainedHead], head: TrainedHead, goal: Goal
) -> TrainedHead | Exception | None:
    """Add the head of the next fold of a job; return the job's outcome if it has ended."""
    heads.append(head)
    try:
        if job.on_fold is not None:
            job.on_fold(len(heads), *_out_of_fold(folds[: len(heads)], heads))
        return _mean(folds, heads, job.parameters, goal) if len(heads) == len(folds) else None
    except Exception as error:
        return error  # ends only this job; the caller gets the exception with it


def _mean(folds: Sequence[Fold], heads: list[TrainedHead], parameters: HeadParameters, goal: Goal) -> TrainedHead:
    """Return the mean of the folds' heads; DivergedError if the outputs are not finite."""
    every = finite(torch.stack([head.outputs for head in heads]))
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
