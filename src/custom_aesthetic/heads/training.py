"""Training of heads: a plain loop over tensors on the device, independent of the search, files and output.

Several heads can train side by side as stacked matrices, each with its own schedule and seed. The result is the same
as training them one by one.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from custom_aesthetic.base.torch_private import AdamWState, adamw_step
from custom_aesthetic.heads import losses
from custom_aesthetic.heads.head_stack import HeadSizes, HeadStack, Masks, unpad
from custom_aesthetic.heads.schedule import Batch, Schedule
from custom_aesthetic.heads.trained_head import RawHead, TrainedHead, finish, in_score_units
from custom_aesthetic.heads.training_data import TrainingData
from custom_aesthetic.settings.training import PerHeadParameter, Range

Evaluate = Callable[[Callable[[Tensor], Tensor]], float]
"""Returns how good a head is, given a function from rows to outputs (n_rows, n_outputs) in the units of the scores."""


class DivergedError(Exception):
    """The outputs of a head in training are not finite."""


@dataclass(frozen=True)
class HeadParameters(PerHeadParameter[int, float]):
    """The training parameters of one head; TypeError if one is missing."""

    def __post_init__(self) -> None:
        missing = [name for name, value in vars(self).items() if isinstance(value, Range)]
        if missing:
            raise TypeError(f"a head needs {', '.join(missing)}")


@dataclass(frozen=True)
class Job:
    """One head to train."""

    parameters: HeadParameters
    seed: int
    on_epoch: Callable[[int, float], None] | None = None
    """Called after every epoch with its number (from 1) and score; may raise an exception to end the training."""
    on_fold: Callable[[int, Any, Tensor], None] | None = None
    """Called after every fold in cross-validation; see `train_folds`."""
    number: int = 0
    """Identifies the job to the caller."""


@dataclass(frozen=True)
class Goal:
    """The loss and the metric shared by all heads of a search."""

    loss_model: str
    evaluate: Evaluate
    higher_is_better: bool


def train(
    data: TrainingData,
    parameters: HeadParameters,
    *,
    loss_model: str,
    seed: int,
    evaluate: Evaluate,
    higher_is_better: bool,
    on_epoch: Callable[[int, float], None] | None = None,
) -> TrainedHead:
    """Return the head trained with these parameters, as of the epoch with the best score by `evaluate`.

    Uses AdamW with linear warm-up and cosine decay of the learning rate. All randomness comes from `seed`.
    `on_epoch(epoch, score)` is called after every epoch, counted from 1, and may raise an exception to end the
    training. Raises DivergedError if the outputs are not finite.
    """
    goal = Goal(loss_model, evaluate, higher_is_better)
    job = Job(parameters, seed, on_epoch)
    ((_, outcome),) = train_jobs(data, [job], goal)
    if isinstance(outcome, Exception):
        raise outcome
    return outcome


def train_jobs(
    data: TrainingData,
    jobs: Iterable[Job | None],
    goal: Goal,
    *,
    n_at_once: int = 1,
    layers: tuple[int, int] | None = None,
) -> Iterator[tuple[Job, TrainedHead | Exception]]:
    """Yield each finished job with its trained head, or with the exception that ended it.

    `n_at_once` heads train side by side. When a slot is free, the next job is taken from `jobs`, which may yield None
    if there is none at present. `layers` are the largest sizes of the two hidden layers; None, allowed only for one
    head at a time, uses the size of each head. An exception from `on_epoch` or `evaluate`, and DivergedError, end only
    that job; any other exception is raised.
    """
    waiting = iter(jobs)
    running: list[_Training] = []
    stack: HeadStack | None = None
    while True:
        while len(running) < n_at_once and (job := next(waiting, None)) is not None:
            if stack is None or layers is None:
                stack = _make_stack(data, goal, n_at_once, layers or _layers(job))
            running.append(_Training(job, goal, data, stack, len(running)))
        if not running:
            return
        assert stack is not None
        _step(stack, running, data, losses.GRADIENTS[goal.loss_model])
        for training in [training for training in running if training.schedule.epoch_ended]:
            outcome = training.end_epoch()
            if outcome is not None:
                _remove(running, training)
                yield training.job, outcome


def _layers(job: Job) -> tuple[int, int]:
    return job.parameters.first_layer_size, job.parameters.second_layer_size


def _make_stack(data: TrainingData, goal: Goal, n_at_once: int, layers: tuple[int, int]) -> HeadStack:
    n_mixing = sum(mixture.n_states + 1 for mixture in data.mixtures)
    sizes = HeadSizes(data.n_inputs, *layers, losses.n_outputs(goal.loss_model), n_mixing)
    return HeadStack(n_at_once, sizes, data.mixtures, data.features.device)


def _remove(running: list["_Training"], training: "_Training") -> None:
    """Remove a training; the last one moves to its slot, so that the slots in use are always the first ones."""
    last = running.pop()
    if last is not training:
        last.move_to(training.slot)
        running[training.slot] = last


def _step(stack: HeadStack, running: list["_Training"], data: TrainingData, gradient: losses.Gradient) -> None:
    """Apply one step of AdamW to every head, each on its own batch and at its own learning rate."""
    batches = [training.schedule.next_batch() for training in running]
    rows = pad([batch.rows for batch in batches])
    shares = pad([batch.shares for batch in batches])
    features = data.features.index_select(0, rows.view(-1)).view(*rows.shape, -1).float()
    scores = data.scores.take(rows)
    weights = None if data.weights is None else data.weights.take(rows)
    stack.compute_gradients(
        features, _masks(batches, stack.sizes), lambda outputs: gradient(outputs, scores, shares, weights)
    )
    for training in running:
        training.update()


def _masks(batches: Sequence[Batch], sizes: HeadSizes) -> Masks:
    """Return the masks of each layer for all heads, (heads, rows, width); None where no head has dropout."""
    widths = (sizes.n_inputs, sizes.first, sizes.second)
    if len(batches) == 1 and all(
        mask is None or mask.shape[1] == width for mask, width in zip(batches[0].masks, widths, strict=True)
    ):
        return [None if mask is None else mask[None] for mask in batches[0].masks]
    masks: list[Tensor | None] = []
    for layer, width in enumerate(widths):
        found = [batch.masks[layer] for batch in batches]
        if all(mask is None for mask in found):
            masks.append(None)
        else:
            masks.append(pad([_or_ones(mask, batch, width) for mask, batch in zip(found, batches, strict=True)], width))
    return masks


def _or_ones(mask: Tensor | None, batch: Batch, width: int) -> Tensor:
    return torch.ones(len(batch.rows), width, device=batch.rows.device) if mask is None else mask


def pad(parts: Sequence[Tensor], width: int | None = None) -> Tensor:
    """Return parts (rows,), or (rows, at most `width`), as one tensor (parts, rows[, width]) padded with zeros."""
    if len(parts) == 1 and (width is None or parts[0].shape[1] == width):
        return parts[0][None]
    n_rows = max(len(part) for part in parts)
    shape = (len(parts), n_rows) if width is None else (len(parts), n_rows, width)
    padded = torch.zeros(shape, dtype=parts[0].dtype, device=parts[0].device)
    for target, part in zip(padded, parts, strict=True):
        target[tuple(slice(length) for length in part.shape)] = part
    return padded


class _Training:
    """One head in training, in its slot of the stack."""

    def __init__(self, job: Job, goal: Goal, data: TrainingData, stack: HeadStack, slot: int) -> None:
        self.job, self.goal, self.data, self.stack = job, goal, data, stack
        parameters = job.parameters
        device = data.features.device
        generator = torch.Generator(device).manual_seed(job.seed)
        self.sizes = replace(stack.sizes, first=parameters.first_layer_size, second=parameters.second_layer_size)
        self.slot = slot
        stack.start(slot, self.sizes, generator, first_sigma=goal.loss_model == "nll")
        rounds_up = losses.even_batches(goal.loss_model) and parameters.batch_size % 2
        self.schedule = Schedule(
            data.train_rows,
            n_epochs=parameters.train_epochs,
            batch_size=parameters.batch_size + (1 if rounds_up else 0),
            warmup_ratio=parameters.warmup_ratio,
            dropouts=(
                (self.sizes.n_inputs, parameters.input_dropout),
                (self.sizes.first, parameters.dropout),
                (self.sizes.second, parameters.output_dropout),
            ),
            generator=generator,
        )
        self._best: tuple[float, int, Tensor] | None = None
        self._n_updates = [torch.zeros((), device=device) for _ in range(2)]
        self._take_slot(slot)

    def _take_slot(self, slot: int) -> None:
        """Set up AdamW for a slot: one group for the layers, one for the hidden-state weights with their own rate."""
        self.slot = slot
        n_plain = self.stack.sizes.n_numbers() - self.sizes.n_mixing
        rate, weight_rate = 10**self.job.parameters.log_lr, 10**self.job.parameters.log_weight_lr
        parts = [(rate, 0.01, slice(n_plain)), (weight_rate, 0.0, slice(n_plain, None))]
        self._groups = [
            (peak, decay, self._adamw_state(part, n_steps))
            for (peak, decay, part), n_steps in zip(parts, self._n_updates, strict=True)
            if self.sizes.n_mixing or decay
        ]

    def _adamw_state(self, part: slice, n_steps: Tensor) -> AdamWState:
        means, squares = self.stack.moments
        buffers = (self.stack.numbers, self.stack.gradients, means, squares)
        numbers, gradients, means, squares = (buffer[self.slot, part] for buffer in buffers)
        return AdamWState([numbers], [gradients], [means], [squares], [n_steps])

    def move_to(self, slot: int) -> None:
        self.stack.move(self.slot, slot)
        self._take_slot(slot)

    def update(self) -> None:
        """Apply one step of AdamW with the gradients of the slot."""
        factor = self.schedule.learning_rate_factor
        for peak, decay, state in self._groups:
            adamw_step(state, lr=peak * factor, weight_decay=decay)

    def end_epoch(self) -> TrainedHead | Exception | None:
        """Score the head and keep it if it is the best so far; return the outcome if the training has ended."""
        epoch = self.schedule.epoch
        try:
            score = self._score()
            if self._is_better(score):
                numbers = torch.empty_like(self.stack.numbers[self.slot]) if self._best is None else self._best[2]
                self._best = (score, epoch, numbers.copy_(self.stack.numbers[self.slot]))
            if self.job.on_epoch is not None:
                self.job.on_epoch(epoch, score)
        except Exception as error:
            return error  # ends only this training; the caller gets the exception with the job
        return self._finish() if epoch == self.schedule.n_epochs else None

    def _is_better(self, score: float) -> bool:
        if self._best is None or math.isnan(self._best[0]):
            return True
        return score > self._best[0] if self.goal.higher_is_better else score < self._best[0]

    def _head(self, numbers: Tensor) -> RawHead:
        return RawHead(unpad(numbers, self.stack.sizes, self.sizes), self.data, self.goal.loss_model)

    def _score(self) -> float:
        """Return the score of the head by `evaluate`; DivergedError if its outputs are not finite."""
        head = self._head(self.stack.numbers[self.slot])
        mean, scale = head.output_scale()

        def outputs_of(rows: Tensor) -> Tensor:
            outputs = in_score_units(head.raw_outputs(rows), mean, scale)
            if not torch.isfinite(outputs).all():
                raise DivergedError("the outputs are not finite")
            return outputs

        return self.goal.evaluate(outputs_of)

    def _finish(self) -> TrainedHead:
        assert self._best is not None
        score, epoch, numbers = self._best
        return finish(self._head(numbers), score=score, epoch=epoch)
