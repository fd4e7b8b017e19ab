"""What one training does when: its batches, dropout masks and learning rates, all random ones from one generator."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

MASK_NUMBERS_AT_ONCE = 2**18
"""Random numbers drawn at once: many small steps share one draw, and few large ones stay in the processor's cache."""

_LEVELS = 2**16
"""Dropout probabilities are rounded to one part in this many: a mask takes 16 random bits a number."""


@dataclass(frozen=True)
class Batch:
    """One step. `masks` are what dropout multiplies inputs and hidden layers by, (n_rows, width) each, or None."""

    rows: Tensor
    """(n_rows,): its images."""
    shares: Tensor
    """(n_rows,): each image's share in the mean over the batch."""
    masks: tuple[Tensor | None, ...]


class Schedule:
    """The steps of one training, epoch after epoch."""

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
        """`dropouts`: width and probability of each layer that has dropout before it."""
        self.train_rows, self.batch_size, self.dropouts, self.generator = train_rows, batch_size, dropouts, generator
        self.n_epochs, self.n_steps_an_epoch = n_epochs, math.ceil(len(train_rows) / batch_size)
        self.n_steps = n_epochs * self.n_steps_an_epoch
        self.n_warmup_steps = round(warmup_ratio * self.n_steps)
        self.n_done = 0
        self._order = train_rows
        self._masks: list[tuple[Tensor | None, ...]] = []
        self._shares: dict[int, Tensor] = {}

    def next_batch(self) -> Batch:
        """Return the batch of the next step; a new epoch shuffles the images first."""
        step = self.n_done % self.n_steps_an_epoch
        if step == 0:
            device = self.train_rows.device
            self._order = self.train_rows[torch.randperm(len(self.train_rows), generator=self.generator, device=device)]
        rows = self._order[step * self.batch_size : (step + 1) * self.batch_size]
        if not self._masks:
            self._masks = self._draw_masks(step)
        self.n_done += 1
        return Batch(rows, self._shares_of(len(rows)), self._masks.pop())

    def _shares_of(self, n_rows: int) -> Tensor:
        if n_rows not in self._shares:
            self._shares[n_rows] = torch.full((n_rows,), 1 / n_rows, device=self.train_rows.device)
        return self._shares[n_rows]

    @property
    def learning_rate_factor(self) -> float:
        """The share of the peak learning rate at the step whose batch was returned last."""
        return learning_rate_factor(self.n_done - 1, self.n_steps, self.n_warmup_steps)

    @property
    def epoch_ended(self) -> bool:
        return self.n_done % self.n_steps_an_epoch == 0

    @property
    def epoch(self) -> int:
        """The epochs done, from 1 after the first."""
        return self.n_done // self.n_steps_an_epoch

    def _draw_masks(self, step: int) -> list[tuple[Tensor | None, ...]]:
        """Return the masks of the next steps of this epoch, last first."""
        width = sum(width for width, probability in self.dropouts if probability)
        n_steps = max(1, MASK_NUMBERS_AT_ONCE // max(1, width * self.batch_size))
        n_steps = min(n_steps, self.n_steps_an_epoch - step)
        start = step * self.batch_size
        n_rows = min(n_steps * self.batch_size, len(self.train_rows) - start)
        bits = _random_bits(n_rows * width, self.generator)
        layers: list[list[Tensor | None]] = []
        for layer_width, probability in self.dropouts:
            if not probability:
                layers.append([None] * n_steps)
                continue
            own, bits = bits[: n_rows * layer_width], bits[n_rows * layer_width :]
            layers.append(list(_mask(own, probability).view(n_rows, layer_width).split(self.batch_size)))
        return list(zip(*layers, strict=True))[::-1]


def learning_rate_factor(step: int, n_steps: int, n_warmup_steps: int) -> float:
    """Return the share of the peak learning rate at a step, from 0: up linearly, then down to zero as a cosine."""
    if step < n_warmup_steps:
        return (step + 1) / (n_warmup_steps + 1)
    return 0.5 * (1 + math.cos(math.pi * (step - n_warmup_steps) / (n_steps - n_warmup_steps)))


def _random_bits(n_numbers: int, generator: torch.Generator) -> Tensor:
    """Return uniform 16-bit integers (n_numbers,), four drawn at a time."""
    words = torch.empty(math.ceil(n_numbers / 4), dtype=torch.int64, device=generator.device)
    return words.random_(-(2**63), None, generator=generator).view(torch.int16)[:n_numbers]


def _mask(bits: Tensor, probability: float) -> Tensor:
    """Return 0 with this probability, else what keeps the mean at 1."""
    n_kept = max(1, round((1 - probability) * _LEVELS))
    mask = torch.empty(bits.shape, dtype=torch.float32, device=bits.device)
    torch.lt(bits, n_kept - _LEVELS // 2, out=mask)
    return mask.mul_(_LEVELS / n_kept)
