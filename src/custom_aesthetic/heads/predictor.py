"""The predictor, a small network from features to scores, and functions that fold affine maps and ensembles into it."""

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from custom_aesthetic.features.hidden_states import WeightedSum

LINEAR_LAYERS = (1, 4, 7)
"""Indices of the three Linear layers in `main_process`."""

ROWS_AT_ONCE = 8192


class Predictor(nn.Module):
    """Dropout, Linear, ReLU, Dropout, Linear, ReLU, Dropout, Linear: (n_images, n_features) to (n_images, n_outputs).

    Output 0 is the score; output 1, if present, its standard deviation. The class is for prediction only: its dropouts
    do nothing but keep the indices of the layers, and training uses `head_stack.HeadStack`. Initial weights are
    uniform in +-1/sqrt(fan in), PyTorch's default for Linear, drawn from `generator`.
    """

    def __init__(
        self,
        n_features: int,
        layers: Sequence[int],
        n_outputs: int = 1,
        *,
        generator: torch.Generator | None = None,
        initialised: bool = True,
    ) -> None:
        super().__init__()
        sizes = (n_features, *layers, n_outputs)
        steps: list[nn.Module] = []
        with torch.random.fork_rng(devices=[]):  # skip_init would import sympy, which takes half a second
            for n_in, n_out in itertools.pairwise(sizes):
                steps += [nn.Dropout(0.0), nn.Linear(n_in, n_out), nn.ReLU()]
        self.main_process = nn.Sequential(*steps[:-1])
        for linear in self.linears() if initialised else ():
            initialise(linear.weight, linear.bias, generator)

    def forward(self, features: Tensor) -> Tensor:
        return self.main_process(features)

    def linears(self) -> list[nn.Linear]:
        """Return the three Linear layers, first to last."""
        layers = [self.main_process[index] for index in LINEAR_LAYERS]
        return [layer for layer in layers if isinstance(layer, nn.Linear)]

    @property
    def n_features(self) -> int:
        return self.linears()[0].in_features

    @property
    def layers(self) -> tuple[int, int]:
        """The sizes of the two hidden layers."""
        first, second, _ = self.linears()
        return first.out_features, second.out_features

    @property
    def n_outputs(self) -> int:
        return self.linears()[2].out_features


@torch.no_grad()
def initialise(weight: Tensor, bias: Tensor, generator: torch.Generator | None) -> None:
    """Fill a Linear layer's weight (n_out, n_in) and bias uniformly in +-1/sqrt(n_in), PyTorch's default."""
    bound = weight.shape[1] ** -0.5
    for part in (weight, bias):
        part.copy_(torch.empty(part.shape, device=part.device).uniform_(-bound, bound, generator=generator))


@torch.inference_mode()
def predict(predictor: nn.Module, features: Tensor) -> Tensor:
    """Return the outputs, (n_images, n_outputs) float32 on the CPU, for features (n_images, n_features)."""
    was_training = predictor.training
    predictor.eval()
    device = next(predictor.parameters()).device
    try:
        parts = [predictor(rows.to(device).float()).cpu() for rows in features.split(ROWS_AT_ONCE)]
    finally:
        predictor.train(was_training)
    return torch.cat(parts)


def from_layers(layers: Sequence[tuple[Tensor, Tensor]]) -> Predictor:
    """Return a predictor with these three (weight, bias) pairs, as float32 on the CPU, in evaluation mode."""
    weights = [weight for weight, _ in layers]
    sizes = [weight.shape[0] for weight in weights]
    predictor = Predictor(weights[0].shape[1], sizes[:2], sizes[2], initialised=False)
    for linear, (weight, bias) in zip(predictor.linears(), layers, strict=True):
        linear.weight.detach().copy_(weight)
        linear.bias.detach().copy_(bias)
    return predictor.eval()


def to_layers(predictor: Predictor) -> list[tuple[Tensor, Tensor]]:
    """Return the three (weight, bias) pairs as float64 copies on the CPU."""
    return [
        (linear.weight.detach().cpu().double(), linear.bias.detach().cpu().double()) for linear in predictor.linears()
    ]


def fold_features(predictor: Predictor, mean: Tensor, scale: Tensor) -> Predictor:
    """Return a predictor whose output for x is that of the given one for (x - mean) / scale; both are (n_features,)."""
    (weight, bias), *rest = to_layers(predictor)
    folded = weight / scale.cpu().double()
    return from_layers([(folded, bias - folded @ mean.cpu().double()), *rest])


def fold_axes(predictor: Predictor, axes: Tensor) -> Predictor:
    """Return a predictor whose output for x is that of the given one for x @ axes; `axes` is (n_features, n_axes)."""
    (weight, bias), *rest = to_layers(predictor)
    return from_layers([(weight @ axes.T.cpu().double(), bias), *rest])


def fold_scores(predictor: Predictor, mean: float, scale: float) -> Predictor:
    """Return a predictor with output scale x score + mean and, if it has a sigma output, scale x sigma."""
    *rest, (weight, bias) = to_layers(predictor)
    shift = torch.zeros_like(bias)
    shift[0] = mean
    return from_layers([*rest, (weight * scale, bias * scale + shift)])


def fold_mixtures(predictor: Predictor, mixtures: Sequence[WeightedSum]) -> Predictor:
    """Return a predictor whose output for joined hidden states is that of the given one for their weighted sums.

    Each mixture covers the next `width` inputs of the given predictor: input j is bias + the sum over states k of
    weights[k] x feature j of state k. The result takes the states of each mixture side by side. Without mixtures the
    predictor itself is returned.
    """
    if not mixtures:
        return predictor
    (weight, bias), *rest = to_layers(predictor)
    parts = weight.split([mixture.width for mixture in mixtures], dim=1)
    joined = [
        torch.cat([part * float(state_weight) for state_weight in mixture.weights], dim=1)
        for part, mixture in zip(parts, mixtures, strict=True)
    ]
    shift = sum(part.sum(1) * mixture.bias for part, mixture in zip(parts, mixtures, strict=True))
    return from_layers([(torch.cat(joined, dim=1), bias + shift), *rest])


def average(predictors: Sequence[Predictor], weights: Sequence[float] | None = None) -> Predictor:
    """Return one predictor whose outputs are the sum of weight x output of the given ones; their mean without weights.

    The first layers are stacked, the second ones form a block-diagonal matrix, and the last ones lie side by side,
    times the weights. N predictors with hidden sizes (a, b) become one with (N a, N b); its second layer has N squared
    times as many weights as before, and all but 1 / N of them are zero.
    """
    shares = [1 / len(predictors)] * len(predictors) if weights is None else weights
    first, second, last = zip(*(to_layers(predictor) for predictor in predictors), strict=True)
    return from_layers(
        [
            (torch.cat([weight for weight, _ in first]), torch.cat([bias for _, bias in first])),
            (torch.block_diag(*(weight for weight, _ in second)), torch.cat([bias for _, bias in second])),
            (
                torch.cat([share * weight for share, (weight, _) in zip(shares, last, strict=True)], dim=1),
                torch.stack([share * bias for share, (_, bias) in zip(shares, last, strict=True)]).sum(0),
            ),
        ]
    )
