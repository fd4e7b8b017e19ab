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
from custom_aesthetic.heads.head_stack import HeadSizes, HeadStack, unpad
from custom_aesthetic.heads.schedule import Schedule, ScheduleStack
from custom_aesthetic.heads.trained_head import RawHead, TrainedHead, finish, in_score_units
from custom_aesthetic.heads.training_data import TrainingData
from custom_aesthetic.settings.declaration import Range
from custom_aesthetic.settings.head_parameters import PerHeadParameter

DECAY = 0.01
"""AdamW's weight decay of the layers; hidden-state weights have none."""

Evaluate = Callable[[Callable[[Tensor], Tensor]], float]
"""Returns how good a head is, given a function from rows to outputs (n_rows, n_outputs) in the units of the scores."""


class DivergedError(Exception):
    """The outputs of a head in training are not finite."""


def finite(outputs: Tensor) -> Tensor:
    """Return the outputs; DivergedError if they are not all finite."""
    if not torch.isfinite(outputs).all():
        raise DivergedError("the outputs are not finite")
    return outputs


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
    data: int = 0
    """Which of several data sets the head learns from."""


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
    data: TrainingData | Sequence[TrainingData],
    jobs: Iterable[Job | None],
    goal: Goal,
    *,
    n_at_once: int = 1,
    layers: tuple[int, int] | None = None,
) -> Iterator[tuple[Job, TrainedHead | Exception]]:
    """Yield each finished job with its trained head, or with the exception that ended it.

    `data` are one or several data sets of the same images, of which each job names its own. `n_at_once` heads train
    side by side. When a slot is free, the next job is taken from `jobs`, which may yield None if there is none at
    present. `layers` are the largest sizes of the two hidden layers, which several heads at a time need. An exception
    from `on_epoch` or `evaluate`, and DivergedError, end only that job; any other exception is raised.
    """
    sets = [data] if isinstance(data, TrainingData) else list(data)
    if n_at_once > 1:
        assert layers is not None
        return _Population(sets, goal, n_at_once, layers).train(iter(jobs))
    return _one_by_one(sets, jobs, goal)


def _one_by_one(
    sets: Sequence[TrainingData], jobs: Iterable[Job | None], goal: Goal
) -> Iterator[tuple[Job, TrainedHead | Exception]]:
    for job in jobs:
        if job is None:
            return
        data = sets[job.data]
        layers = job.parameters.first_layer_size, job.parameters.second_layer_size
        stack = HeadStack(1, _largest_sizes([data], goal, layers), data.mixtures, data.features.device)
        training = _Training(job, goal, data, stack, 0)
        adamw = _Adamw(training)
        outcome: TrainedHead | Exception | None = None
        while outcome is None:
            _step(training, adamw, losses.GRADIENTS[goal.loss_model])
            if training.schedule.epoch_ended:
                outcome = training.end_epoch()
        yield job, outcome


def _largest_sizes(sets: Sequence[TrainingData], goal: Goal, layers: tuple[int, int]) -> HeadSizes:
    n_mixing = sum(mixture.n_states + 1 for mixture in sets[0].mixtures)
    return HeadSizes(max(data.n_inputs for data in sets), *layers, losses.n_outputs(goal.loss_model), n_mixing)


def _step(training: "_Training", adamw: "_Adamw", gradient: losses.Gradient) -> None:
    """Apply one step of AdamW to a head alone."""
    data, batch = training.data, training.schedule.next_batch()
    features = data.features.index_select(0, batch.rows)[None].float()
    scores = data.scores.take(batch.rows)[None]
    weights = None if data.weights is None else data.weights.take(batch.rows)[None]
    masks = [None if mask is None else mask[None] for mask in batch.masks]
    training.stack.compute_gradients(
        features, masks, lambda outputs: gradient(outputs, scores, batch.shares[None], weights)
    )
    adamw.update(training.schedule.learning_rate_factor)


class _Adamw:
    """AdamW for a head alone: one group for the layers, one for the hidden-state weights with their own rate."""

    def __init__(self, training: "_Training") -> None:
        stack, parameters = training.stack, training.job.parameters
        n_plain = stack.sizes.n_numbers() - stack.sizes.n_mixing
        groups = [(10**parameters.log_lr, DECAY, slice(n_plain))]
        if stack.sizes.n_mixing:
            groups.append((10**parameters.log_weight_lr, 0.0, slice(n_plain, None)))
        self._groups = [(peak, decay, self._state(stack, part)) for peak, decay, part in groups]

    @staticmethod
    def _state(stack: HeadStack, part: slice) -> AdamWState:
        buffers = (stack.numbers, stack.gradients, *stack.moments)
        numbers, gradients, means, squares = ([buffer[0, part]] for buffer in buffers)
        return AdamWState(numbers, gradients, means, squares, [torch.zeros((), device=stack.numbers.device)])

    def update(self, factor: float) -> None:
        """Apply one step with the gradients of the stack, at this share of the peak rates."""
        for peak, decay, state in self._groups:
            adamw_step(state, lr=peak * factor, weight_decay=decay)


class _Population:
    """Heads that train side by side. A step of all of them is a fixed number of tensor calls."""

    def __init__(self, sets: Sequence[TrainingData], goal: Goal, n_at_once: int, layers: tuple[int, int]) -> None:
        self.sets, self.goal, self.n_at_once = sets, goal, n_at_once
        sizes = _largest_sizes(sets, goal, layers)
        device = sets[0].features.device
        self.stack = HeadStack(n_at_once, sizes, sets[0].mixtures, device)
        widths = (sizes.n_inputs, sizes.first, sizes.second)
        self.schedules = ScheduleStack(n_at_once, max(len(data.train_rows) for data in sets), widths, device)
        self.features = _side_by_side([data.features for data in sets])
        self.scores = torch.cat([data.scores for data in sets])
        self.weights = None if sets[0].weights is None else torch.cat([_weights(data) for data in sets])
        self.running: list[_Training] = []
        self._n_plain = sizes.n_numbers() - sizes.n_mixing
        self._steps = torch.zeros(n_at_once, device=device)
        self._peaks = torch.zeros(n_at_once, 2, device=device)
        self._changes = torch.zeros_like(self.stack.numbers)
        self._state: AdamWState | None = None

    def train(self, jobs: Iterator[Job | None]) -> Iterator[tuple[Job, TrainedHead | Exception]]:
        """Yield each finished job with its outcome; see `train_jobs`."""
        n_done = 0
        while True:
            while len(self.running) < self.n_at_once and (job := next(jobs, None)) is not None:
                self._add(job, n_done)
            if not self.running:
                return
            next_end = min(training.epoch_ends for training in self.running)
            for _ in range(next_end - n_done):
                self.step()
            n_done = next_end
            for training in [training for training in self.running if training.epoch_ends == n_done]:
                outcome = training.end_epoch()
                if outcome is None:
                    training.epoch_ends += training.schedule.n_steps_an_epoch
                    self.schedules.shuffle(training.slot)
                else:
                    self._remove(training)
                    yield training.job, outcome

    def _add(self, job: Job, n_done: int) -> None:
        slot = len(self.running)
        first_row = sum(len(data.scores) for data in self.sets[: job.data])
        training = _Training(job, self.goal, self.sets[job.data], self.stack, slot, first_row=first_row)
        training.epoch_ends = n_done + training.schedule.n_steps_an_epoch
        self.running.append(training)
        self.schedules.put(slot, training.schedule)
        self._steps[slot] = 0
        self._peaks[slot] = torch.tensor([10**job.parameters.log_lr, 10**job.parameters.log_weight_lr])
        self._state = None

    def _remove(self, training: "_Training") -> None:
        """Remove a training; the last one moves to its slot, so that the slots in use are always the first ones."""
        last = self.running.pop()
        self.schedules.remove(training.slot)
        if last is not training:
            for buffer in (self._steps, self._peaks):
                buffer[training.slot] = buffer[last.slot]
            self.stack.move(last.slot, training.slot)
            last.slot = training.slot
            self.running[training.slot] = last
        self._state = None

    def step(self) -> None:
        """Apply one step of AdamW to every head, each on its own batch and at its own learning rate."""
        batch = self.schedules.next_batch()
        features = self.features.index_select(0, batch.rows.view(-1)).view(*batch.rows.shape, -1).float()
        scores = self.scores.take(batch.rows)
        weights = None if self.weights is None else self.weights.take(batch.rows)
        gradient = losses.GRADIENTS[self.goal.loss_model]
        self.stack.compute_gradients(
            features, batch.masks, lambda outputs: gradient(outputs, scores, batch.shares, weights)
        )
        self._update(batch.rate_factors)

    def _update(self, rate_factors: Tensor) -> None:
        """Apply AdamW: its steps at the rate 1 for all heads at once, then each times its head's rate."""
        n_heads = len(rate_factors)
        if self._state is None:
            self._state = self._make_state(n_heads)
        changes, numbers = self._changes[:n_heads].zero_(), self.stack.numbers[:n_heads]
        adamw_step(self._state, lr=1.0, weight_decay=0.0)
        rates = rate_factors * self._peaks[:n_heads]
        plain = slice(self._n_plain)
        numbers[:, plain].mul_(1 - DECAY * rates[:, :1]).addcmul_(changes[:, plain], rates[:, :1])
        if self.stack.sizes.n_mixing:
            mixing = slice(self._n_plain, None)
            numbers[:, mixing].addcmul_(changes[:, mixing], rates[:, 1:])

    def _make_state(self, n_heads: int) -> AdamWState:
        buffers = (self._changes, self.stack.gradients, *self.stack.moments)
        changes, gradients, means, squares = (list(buffer[:n_heads].unbind()) for buffer in buffers)
        counts = self._steps[:n_heads]
        return AdamWState(changes, gradients, means, squares, list(counts.unbind()), counts)


def _side_by_side(parts: Sequence[Tensor]) -> Tensor:
    """Return features (n_images, n_columns) of several data sets below each other, narrower ones padded with zeros."""
    if len(parts) == 1:
        return parts[0]
    n_rows, width = sum(map(len, parts)), max(part.shape[1] for part in parts)
    features = torch.zeros(n_rows, width, dtype=parts[0].dtype, device=parts[0].device)
    for target, part in zip(features.split([len(part) for part in parts]), parts, strict=True):
        target[:, : part.shape[1]] = part
    return features


def _weights(data: TrainingData) -> Tensor:
    assert data.weights is not None
    return data.weights


class _Training:
    """One head in training, in its slot of the stack."""

    def __init__(
        self, job: Job, goal: Goal, data: TrainingData, stack: HeadStack, slot: int, *, first_row: int = 0
    ) -> None:
        """`first_row` is added to the row numbers of the images in each batch."""
        self.job, self.goal, self.data, self.stack, self.slot = job, goal, data, stack, slot
        parameters = job.parameters
        device = data.features.device
        generator = torch.Generator(device).manual_seed(job.seed)
        layers = parameters.first_layer_size, parameters.second_layer_size
        self.sizes = replace(stack.sizes, n_inputs=data.n_inputs, first=layers[0], second=layers[1])
        stack.start(slot, self.sizes, generator, first_sigma=goal.loss_model == "nll")
        rounds_up = losses.even_batches(goal.loss_model) and parameters.batch_size % 2
        self.schedule = Schedule(
            data.train_rows + first_row,
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
        self.n_epochs_done = 0
        self.epoch_ends = 0
        """The step of the population at which the epoch ends."""

    def end_epoch(self) -> TrainedHead | Exception | None:
        """Score the head and keep it if it is the best so far; return the outcome if the training has ended."""
        self.n_epochs_done += 1
        epoch = self.n_epochs_done
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
            return finite(in_score_units(head.raw_outputs(rows), mean, scale))

        return self.goal.evaluate(outputs_of)

    def _finish(self) -> TrainedHead:
        assert self._best is not None
        score, epoch, numbers = self._best
        return finish(self._head(numbers), score=score, epoch=epoch)
