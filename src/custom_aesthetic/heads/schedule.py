"""The schedules of training runs: batches, dropout masks and learning rates, step by step.

Masks come from products: each row of each epoch has a random number, and so has each unit of a layer, and a unit is
dropped for a row where the product of both, modulo 2**32, is above a threshold (multiply-shift hashing, Dietzfelbinger
et al. 1997). So the masks of any number of heads, each with its own random numbers, are made by one multiplication.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

MASK_NUMBERS_AT_ONCE = 2**18
"""Mask numbers made at once: enough that small steps share the calls, few enough to stay in the processor's cache."""

_LEVELS = 2**16
"""Dropout probabilities are rounded to multiples of 1 / _LEVELS."""

_UNITS = 2**32 // _LEVELS
_ALL_KEPT = 2**31 - 1


@dataclass(frozen=True)
class Batch:
    """The data of one training step."""

    rows: Tensor
    """(n_rows,): row numbers of the images."""
    shares: Tensor
    """(n_rows,): weight of each image in the mean over the batch, 1 / n_rows."""
    masks: tuple[Tensor | None, ...]
    """Dropout factors of the inputs and of each hidden layer, (n_rows, width) each; None without dropout."""


class Schedule:
    """The steps of one training run. All randomness comes from one generator."""

    def __init__(
        self,
        train_rows: Tensor,
        *,
        n_epochs: int,
        batch_size: int,
        warmup_ratio: float,
        dropouts: tuple[tuple[int, float], ...],
        generator: torch.Generator,
    ) -> None:
        """`dropouts` holds the width and dropout probability of the inputs and of each hidden layer."""
        self.train_rows, self.batch_size, self.dropouts, self.generator = train_rows, batch_size, dropouts, generator
        self.n_epochs, self.n_steps_an_epoch = n_epochs, math.ceil(len(train_rows) / batch_size)
        self.n_steps = n_epochs * self.n_steps_an_epoch
        self.n_warmup_steps = round(warmup_ratio * self.n_steps)
        self.n_done = 0
        self.unit_keys = [_keys(width, generator) if probability else None for width, probability in dropouts]
        self.limits = [keep_limit(probability) for _, probability in dropouts]
        self._order = self._row_keys = train_rows
        self._masks: list[tuple[Tensor | None, ...]] = []
        self._shares: dict[int, Tensor] = {}

    def shuffle(self) -> tuple[Tensor, Tensor]:
        """Return the images of the next epoch in their order, and the random number of each for its masks."""
        n_rows, device = len(self.train_rows), self.train_rows.device
        order = self.train_rows[torch.randperm(n_rows, generator=self.generator, device=device)]
        return order, _keys(n_rows, self.generator)

    def next_batch(self) -> Batch:
        """Return the batch of the next step. Images are shuffled at the start of each epoch."""
        step = self.n_done % self.n_steps_an_epoch
        if step == 0:
            self._order, self._row_keys = self.shuffle()
        rows = self._order[step * self.batch_size : (step + 1) * self.batch_size]
        if not self._masks:
            self._masks = self._make_masks(step)
        self.n_done += 1
        return Batch(rows, self._shares_of(rows.shape[0]), self._masks.pop())

    def _shares_of(self, n_rows: int) -> Tensor:
        if n_rows not in self._shares:
            self._shares[n_rows] = torch.full((n_rows,), 1 / n_rows, device=self.train_rows.device)
        return self._shares[n_rows]

    @property
    def learning_rate_factor(self) -> float:
        """The learning rate at the last returned batch, as a share of the peak, 0...1."""
        return learning_rate_factor(self.n_done - 1, self.n_steps, self.n_warmup_steps)

    @property
    def epoch_ended(self) -> bool:
        """Whether the last returned batch was the last of its epoch."""
        return self.n_done % self.n_steps_an_epoch == 0

    def _make_masks(self, step: int) -> list[tuple[Tensor | None, ...]]:
        """Return the masks of the next steps of this epoch, in reverse order."""
        width = sum(width for width, probability in self.dropouts if probability)
        n_steps = max(1, MASK_NUMBERS_AT_ONCE // max(1, width * self.batch_size))
        n_steps = min(n_steps, self.n_steps_an_epoch - step)
        row_keys = self._row_keys[step * self.batch_size : (step + n_steps) * self.batch_size]
        layers: list[Sequence[Tensor | None]] = []
        for keys, limit in zip(self.unit_keys, self.limits, strict=True):
            if keys is None:
                layers.append([None] * n_steps)
            else:
                kept = (row_keys[:, None] * keys <= limit).float().mul_(keep_factor(limit))
                layers.append(kept.split(self.batch_size))
        return list(zip(*layers, strict=True))[::-1]


@dataclass(frozen=True)
class StackedBatch:
    """The data of one step of several heads; rows that a head has fewer of than another have the share 0."""

    rows: Tensor
    """(heads, rows)"""
    shares: Tensor
    """(heads, rows)"""
    masks: tuple[Tensor | None, ...]
    """(heads, rows, width) each, or None where no head has dropout."""
    rate_factors: Tensor
    """(heads, 1): each head's learning rate as a share of its peak."""


class ScheduleStack:
    """The schedules of up to `n_heads` heads, whose steps are taken together, with a fixed number of tensor calls."""

    def __init__(self, n_heads: int, n_train: int, widths: Sequence[int], device: torch.device) -> None:
        """`widths` are the largest widths of the inputs and of each hidden layer."""
        self._orders = torch.zeros(n_heads, n_train, dtype=torch.int64, device=device)
        self._row_keys = torch.ones(n_heads, n_train, dtype=torch.int32, device=device)
        self._unit_keys = [torch.ones(n_heads, width, dtype=torch.int32, device=device) for width in widths]
        self._limits = torch.full((n_heads, len(widths)), _ALL_KEPT, dtype=torch.int32, device=device)
        self._factors = torch.ones(n_heads, len(widths), device=device)
        # Of each head: rows of a batch, training rows, steps done, of an epoch, of the warm-up, in all.
        self._numbers = torch.ones(n_heads, 6, dtype=torch.int64, device=device)
        self._buffers = (*(self._orders, self._row_keys, *self._unit_keys, self._limits, self._factors, self._numbers),)
        self._schedules: list[Schedule] = []
        self._most_rows = 0
        self._drops: list[bool] = []

    def put(self, slot: int, schedule: Schedule) -> None:
        """Set up a slot, the next free one, for a schedule at its beginning."""
        assert slot == len(self._schedules)
        self._schedules.append(schedule)
        for layer, (keys, limit) in enumerate(zip(schedule.unit_keys, schedule.limits, strict=True)):
            self._limits[slot, layer] = limit if keys is not None else _ALL_KEPT
            self._factors[slot, layer] = keep_factor(limit) if keys is not None else 1.0
            if keys is not None:
                self._unit_keys[layer][slot, : len(keys)] = keys
        numbers = (schedule.batch_size, len(schedule.train_rows), 0, schedule.n_steps_an_epoch)
        self._numbers[slot] = torch.tensor([*numbers, schedule.n_warmup_steps, schedule.n_steps])
        self.shuffle(slot)
        self._count()

    def shuffle(self, slot: int) -> None:
        """Begin an epoch of the head in a slot."""
        order, keys = self._schedules[slot].shuffle()
        self._orders[slot, : len(order)] = order
        self._row_keys[slot, : len(keys)] = keys

    def remove(self, slot: int) -> None:
        """Free a slot; the last head moves there."""
        last = self._schedules.pop()
        if slot < len(self._schedules):
            self._schedules[slot] = last
            for buffer in self._buffers:
                buffer[slot] = buffer[len(self._schedules)]
        self._count()

    def _count(self) -> None:
        self._most_rows = max(
            (min(schedule.batch_size, len(schedule.train_rows)) for schedule in self._schedules), default=0
        )
        layers = range(len(self._unit_keys))
        self._drops = [any(schedule.unit_keys[layer] is not None for schedule in self._schedules) for layer in layers]

    def next_batch(self) -> StackedBatch:
        """Return the batches of the next step of all heads."""
        n_heads = len(self._schedules)
        size, n_train, n_done, an_epoch, n_warmup, n_steps = self._numbers[:n_heads, :, None].unbind(1)
        starts = n_done.remainder(an_epoch).mul_(size)
        n_rows = torch.minimum(size, n_train - starts)
        places = torch.arange(self._most_rows, device=starts.device) + starts
        shares = (places < starts + n_rows) / n_rows
        places = torch.minimum(places, n_train - 1)
        keys = self._row_keys[:n_heads].gather(1, places)[..., None]
        factors = learning_rate_factors(n_done, n_steps, n_warmup)
        n_done.add_(1)
        return StackedBatch(
            self._orders[:n_heads].gather(1, places), shares, tuple(self._masks(keys, n_heads)), factors
        )

    def _masks(self, keys: Tensor, n_heads: int) -> list[Tensor | None]:
        masks: list[Tensor | None] = []
        for layer, (units, drops) in enumerate(zip(self._unit_keys, self._drops, strict=True)):
            if not drops:
                masks.append(None)
                continue
            limits, factors = self._limits[:n_heads, layer, None, None], self._factors[:n_heads, layer, None, None]
            masks.append((keys * units[:n_heads, None] <= limits).float().mul_(factors))
        return masks


def learning_rate_factor(step: int, n_steps: int, n_warmup_steps: int) -> float:
    """Return the learning rate at a step, counted from 0, as a share of the peak: linear warm-up, then cosine decay."""
    if step < n_warmup_steps:
        return (step + 1) / (n_warmup_steps + 1)
    return 0.5 * (1 + math.cos(math.pi * (step - n_warmup_steps) / (n_steps - n_warmup_steps)))


def learning_rate_factors(steps: Tensor, n_steps: Tensor, n_warmup_steps: Tensor) -> Tensor:
    """Return `learning_rate_factor` of several heads, each of the shape of `steps`."""
    rising = (steps + 1) / (n_warmup_steps + 1)
    falling = 0.5 * (1 + torch.cos(math.pi * (steps - n_warmup_steps) / (n_steps - n_warmup_steps).clamp(min=1)))
    return torch.where(steps < n_warmup_steps, rising, falling)


def _keys(n_keys: int, generator: torch.Generator) -> Tensor:
    """Return random odd 32-bit integers, (n_keys,)."""
    keys = torch.empty(n_keys, dtype=torch.int32, device=generator.device)
    return keys.random_(-(2**31), None, generator=generator).bitwise_or_(1)


def keep_limit(dropout: float) -> int:
    """Return the 32-bit integer that a product is not above where a unit is kept."""
    n_kept = max(1, round((1 - dropout) * _LEVELS))
    return min(n_kept * _UNITS - 2**31, _ALL_KEPT)


def keep_factor(limit: int) -> float:
    """Return what the units that are kept are multiplied by, so that the mean stays."""
    return 2**32 / (limit + 2**31) if limit < _ALL_KEPT else 1.0
