"""The schedule of one training run: batches, dropout masks and learning rates, step by step."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

MASK_NUMBERS_AT_ONCE = 2**18
"""Dropout numbers drawn at once: enough that small steps share a draw, few enough to stay in the processor's cache."""

_LEVELS = 2**16
"""Dropout probabilities are rounded to multiples of 1 / _LEVELS, since a mask uses 16 random bits per number."""


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
        self._order = train_rows
        self._masks: list[tuple[Tensor | None, ...]] = []
        self._shares: dict[int, Tensor] = {}

    def next_batch(self) -> Batch:
        """Return the batch of the next step. Images are shuffled at the start of each epoch."""
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
        """The learning rate at the last returned batch, as a share of the peak, 0...1."""
        return learning_rate_factor(self.n_done - 1, self.n_steps, self.n_warmup_steps)

    @property
    def epoch_ended(self) -> bool:
        """Whether the last returned batch was the last of its epoch."""
        return self.n_done % self.n_steps_an_epoch == 0

    @property
    def epoch(self) -> int:
        """The number of completed epochs."""
        return self.n_done // self.n_steps_an_epoch

    def _draw_masks(self, step: int) -> list[tuple[Tensor | None, ...]]:
        """Return the masks of the next steps of this epoch, in reverse order."""
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
            layer_bits, bits = bits[: n_rows * layer_width], bits[n_rows * layer_width :]
            layers.append(list(_mask(layer_bits, probability).view(n_rows, layer_width).split(self.batch_size)))
        return list(zip(*layers, strict=True))[::-1]


def learning_rate_factor(step: int, n_steps: int, n_warmup_steps: int) -> float:
    """Return the learning rate at a step, counted from 0, as a share of the peak: linear warm-up, then cosine decay."""
    if step < n_warmup_steps:
        return (step + 1) / (n_warmup_steps + 1)
    return 0.5 * (1 + math.cos(math.pi * (step - n_warmup_steps) / (n_steps - n_warmup_steps)))


def _random_bits(n_numbers: int, generator: torch.Generator) -> Tensor:
    """Return uniform 16-bit integers (n_numbers,), drawn four at a time as 64-bit integers."""
    words = torch.empty(math.ceil(n_numbers / 4), dtype=torch.int64, device=generator.device)
    return words.random_(-(2**63), None, generator=generator).view(torch.int16)[:n_numbers]


def _mask(bits: Tensor, probability: float) -> Tensor:
    """Return a dropout mask for random bits: 0 with this probability, else 1 / (1 - probability)."""
    n_kept = max(1, round((1 - probability) * _LEVELS))
    mask = torch.empty(bits.shape, dtype=torch.float32, device=bits.device)
    torch.lt(bits, n_kept - _LEVELS // 2, out=mask)
    return mask.mul_(_LEVELS / n_kept)
