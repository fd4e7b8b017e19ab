"""Several heads stored as stacked matrices, with their gradients computed as batched matrix products.

Smaller heads are padded with zeros. The padding stays zero because its gradients are exactly zero. A single head is a
stack of one, without padding.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from custom_aesthetic.features.hidden_states import Mixture
from custom_aesthetic.heads.predictor import initialise

Masks = Sequence[Tensor | None]
"""Dropout factors of the inputs and of both hidden layers, (heads, rows, width) each; None without dropout."""


@dataclass(frozen=True)
class HeadSizes:
    """Layer widths of a head, and the number of its hidden-state weights and biases (0 without mixtures)."""

    n_inputs: int
    first: int
    second: int
    n_outputs: int
    n_mixing: int = 0

    def shapes(self) -> list[tuple[int, ...]]:
        """Return the shapes of the weight and bias of each of the three layers, then of the hidden-state weights."""
        widths = (self.n_inputs, self.first, self.second, self.n_outputs)
        layers = [shape for index in range(3) for shape in ((widths[index + 1], widths[index]), (widths[index + 1],))]
        return [*layers, (self.n_mixing,)]

    def n_numbers(self) -> int:
        """Return how many numbers a head of these sizes has."""
        return sum(torch.Size(shape).numel() for shape in self.shapes())


class Layer(NamedTuple):
    """Weight ([heads,] n_out, n_in) and bias ([heads,] n_out)."""

    weight: Tensor
    bias: Tensor


class HeadParts(NamedTuple):
    """The parameters of one head, or of several as stacked matrices, layer by layer."""

    first: Layer
    second: Layer
    last: Layer
    mixing: Tensor
    """([heads,] n_mixing): for each mixture, its hidden-state weights followed by its bias."""

    @property
    def layers(self) -> tuple[Layer, Layer, Layer]:
        return self.first, self.second, self.last

    def map(self, change: Callable[[Tensor], Tensor]) -> "HeadParts":
        """Return the parts with `change` applied to each tensor."""
        first, second, last = (Layer(change(layer.weight), change(layer.bias)) for layer in self.layers)
        return HeadParts(first, second, last, change(self.mixing))


class _Views:
    """Views of the parts of a flat buffer (heads, n_numbers), each (heads, *shape), in the form that `bmm` needs."""

    def __init__(self, flat: Tensor, sizes: HeadSizes) -> None:
        parts = _split(flat, sizes)
        self.weights = [layer.weight for layer in parts.layers]
        self.weights_across = [weight.mT for weight in self.weights]
        self.biases = [layer.bias for layer in parts.layers]
        self.bias_rows = [bias[:, None] for bias in self.biases]
        self.mixing = parts.mixing


def _split(flat: Tensor, sizes: HeadSizes) -> HeadParts:
    lengths = [torch.Size(shape).numel() for shape in sizes.shapes()]
    pieces = zip(flat.split(lengths, dim=1), sizes.shapes(), strict=True)
    shaped = iter([piece.unflatten(1, shape) if len(shape) > 1 else piece for piece, shape in pieces])
    first, second, last = (Layer(next(shaped), next(shaped)) for _ in range(3))
    return HeadParts(first, second, last, next(shaped))


class HeadStack:
    """Up to `n_heads` heads of at most the given sizes, in flat buffers (n_heads, n_numbers) with one row per head."""

    def __init__(self, n_heads: int, sizes: HeadSizes, mixtures: Sequence[Mixture], device: torch.device) -> None:
        self.sizes, self.mixtures = sizes, tuple(mixtures)
        self.numbers = torch.zeros(n_heads, sizes.n_numbers(), device=device)
        self.gradients = torch.zeros_like(self.numbers)
        self.moments = (torch.zeros_like(self.numbers), torch.zeros_like(self.numbers))
        self._use(n_heads)

    def _use(self, n_heads: int) -> None:
        self._n_used = n_heads
        self._views = _Views(self.numbers[:n_heads], self.sizes)
        self._gradient_views = _Views(self.gradients[:n_heads], self.sizes)

    def start(self, slot: int, sizes: HeadSizes, generator: torch.Generator, *, first_sigma: bool) -> None:
        """Initialise a new head of these sizes in a slot.

        Weights and biases are uniform in +-1/sqrt(fan in), PyTorch's default for Linear. Hidden-state weights start as
        a plain mean. With `first_sigma`, the bias of output 1 starts at 1.
        """
        for buffer in (self.numbers, *self.moments):
            buffer[slot].zero_()
        parts = self.head(slot, sizes)
        for layer in parts.layers:
            initialise(layer.weight, layer.bias, generator)
        if first_sigma:
            parts.last.bias[1:] = 1.0
        for index, mixture in enumerate(self.mixtures):
            self._state_weights(parts.mixing, index)[:-1] = 1 / mixture.n_states

    def head(self, slot: int, sizes: HeadSizes) -> HeadParts:
        """Return the parts of the head in a slot, as views without the padding."""
        return unpad(self.numbers[slot], self.sizes, sizes)

    def move(self, source: int, target: int) -> None:
        """Copy a head, with its AdamW moments, from one slot to another."""
        for buffer in (self.numbers, *self.moments):
            buffer[target] = buffer[source]

    def compute_gradients(self, features: Tensor, masks: Masks, output_gradients: Callable[[Tensor], Tensor]) -> None:
        """Compute the gradients of the first `len(features)` heads, for features (heads, rows, n_columns).

        `output_gradients` takes the outputs (heads, rows, n_outputs) and returns the gradient of the loss with respect
        to them. Without mixtures, dropout of the inputs overwrites `features`.
        """
        n_heads = features.shape[0]  # len() of a tensor takes microseconds
        if n_heads != self._n_used:
            self._use(n_heads)
        views, gradients = self._views, self._gradient_views
        inputs = _dropped(self._mixed(features), masks[0])
        first = _dropped(_linear(inputs, views, 0).relu_(), masks[1])
        second = _dropped(_linear(first, views, 1).relu_(), masks[2])
        outer = output_gradients(_linear(second, views, 2))
        _fill(gradients, 2, outer, second)
        outer = _through(torch.bmm(outer, views.weights[2]), second, masks[2])
        _fill(gradients, 1, outer, first)
        outer = _through(torch.bmm(outer, views.weights[1]), first, masks[1])
        _fill(gradients, 0, outer, inputs)
        if self.mixtures:
            self._fill_mixing(_dropped(torch.bmm(outer, views.weights[0]), masks[0]), features)

    def _mixed(self, features: Tensor) -> Tensor:
        """Return the inputs (heads, rows, n_inputs) for features (heads, rows, n_columns), as `mix` does."""
        if not self.mixtures:
            return features
        sums = []
        for index, mixture in enumerate(self.mixtures):
            weights = self._state_weights(self._views.mixing, index)
            states = features[..., mixture.start : mixture.stop].unflatten(-1, (mixture.n_states, mixture.width))
            sums.append(torch.einsum("nbkw,nk->nbw", states, weights[:, :-1]) + weights[:, -1, None, None])
        return torch.cat(sums, dim=-1)

    def _fill_mixing(self, outer: Tensor, features: Tensor) -> None:
        parts = outer.split([mixture.width for mixture in self.mixtures], dim=-1)
        for index, (mixture, part) in enumerate(zip(self.mixtures, parts, strict=True)):
            gradients = self._state_weights(self._gradient_views.mixing, index)
            states = features[..., mixture.start : mixture.stop].unflatten(-1, (mixture.n_states, mixture.width))
            gradients[:, :-1] = torch.einsum("nbkw,nbw->nk", states, part)
            gradients[:, -1] = part.sum((1, 2))

    def _state_weights(self, mixing: Tensor, index: int) -> Tensor:
        start = sum(mixture.n_states + 1 for mixture in self.mixtures[:index])
        return mixing[..., start : start + self.mixtures[index].n_states + 1]


def unpad(flat: Tensor, padded: HeadSizes, sizes: HeadSizes) -> HeadParts:
    """Return the parts of one head, as views without the padding; `flat` (n_numbers,) has the sizes `padded`."""
    shapes = iter(sizes.shapes())
    return _split(flat[None], padded).map(lambda part: part[0][tuple(slice(length) for length in next(shapes))])


def mix(features: Tensor, mixtures: Sequence[Mixture], mixing: Tensor) -> Tensor:
    """Return the inputs (n_images, n_inputs) of one head for features (n_images, n_columns)."""
    if not mixtures:
        return features
    sums, start = [], 0
    for mixture in mixtures:
        weights = mixing[start : start + mixture.n_states + 1]
        sums.append(torch.einsum("nkw,k->nw", mixture.states(features), weights[:-1]) + weights[-1])
        start += mixture.n_states + 1
    return torch.cat(sums, dim=1)


def _linear(values: Tensor, views: _Views, layer: int) -> Tensor:
    return torch.baddbmm(views.bias_rows[layer], values, views.weights_across[layer])


def _fill(gradients: _Views, layer: int, outer: Tensor, values: Tensor) -> None:
    torch.bmm(outer.mT, values, out=gradients.weights[layer])
    torch.sum(outer, 1, out=gradients.biases[layer])


def _dropped(values: Tensor, mask: Tensor | None) -> Tensor:
    return values if mask is None else values.mul_(mask)


def _through(outer: Tensor, values: Tensor, mask: Tensor | None) -> Tensor:
    """Return the gradient with respect to the input of ReLU and dropout; overwrites `outer` and `values`.

    The derivative of the ReLU is the sign of its output `values`, which are never negative.
    """
    return _dropped(outer.mul_(values.sign_()), mask)
