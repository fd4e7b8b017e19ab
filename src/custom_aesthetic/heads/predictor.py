"""The predictor, a small network from features to scores, and the folding of affine maps and ensembles into it."""

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from custom_aesthetic.features.hidden_states import WeightedSum

LINEAR_LAYERS = (1, 4, 7)
"""Where the three Linear layers stand in `main_process`."""

ROWS_AT_ONCE = 8192


class Predictor(nn.Module):
    """Dropout, Linear, ReLU, Dropout, Linear, ReLU, Dropout, Linear: (n_images, n_features) to (n_images, n_outputs).

    Output 0 is the score; output 1, if there is one, its standard deviation. It only predicts, so its dropouts are
    empty places that keep the layers' numbers; training works on `head_stack.HeadStack`. Weights start uniform in
    +-1/sqrt(fan in), PyTorch's own default for Linear, drawn from `generator`.
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
        with torch.random.fork_rng(devices=[]):  # not skip_init: it makes PyTorch import sympy, for half a second
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
        first, second, _ = self.linears()
        return first.out_features, second.out_features

    @property
    def n_outputs(self) -> int:
        return self.linears()[2].out_features


@torch.no_grad()
def initialise(weight: Tensor, bias: Tensor, generator: torch.Generator | None) -> None:
    """Fill a Linear layer's weight (n_out, n_in) and bias uniformly in +-1/sqrt(n_in), PyTorch's own default."""
    bound = weight.shape[1] ** -0.5
    for part in (weight, bias):
        part.copy_(torch.empty(part.shape, device=part.device).uniform_(-bound, bound, generator=generator))


@torch.inference_mode()
def predict(predictor: nn.Module, features: Tensor) -> Tensor:
    """Return the outputs, (n_images, n_outputs) float32 on the CPU, of features (n_images, n_features)."""
    was_training = predictor.training
    predictor.eval()
    device = next(predictor.parameters()).device
    try:
        parts = [predictor(rows.to(device).float()).cpu() for rows in features.split(ROWS_AT_ONCE)]
    finally:
        predictor.train(was_training)
    return torch.cat(parts)


def from_layers(layers: Sequence[tuple[Tensor, Tensor]]) -> Predictor:
    """Return a predictor of these three (weight, bias) pairs, as float32 on the CPU, in evaluation mode."""
    weights = [weight for weight, _ in layers]
    sizes = [weight.shape[0] for weight in weights]
    predictor = Predictor(weights[0].shape[1], sizes[:2], sizes[2], initialised=False)
    for linear, (weight, bias) in zip(predictor.linears(), layers, strict=True):
        linear.weight.detach().copy_(weight)
        linear.bias.detach().copy_(bias)
    return predictor.eval()


def to_layers(predictor: Predictor) -> list[tuple[Tensor, Tensor]]:
    """Return the three (weight, bias) pairs as float64 copies on the CPU, exact to fold in."""
    return [
        (linear.weight.detach().cpu().double(), linear.bias.detach().cpu().double()) for linear in predictor.linears()
    ]


def fold_features(predictor: Predictor, mean: Tensor, scale: Tensor) -> Predictor:
    """Return the predictor of x that equals the given one of (x - mean) / scale; both are (n_features,)."""
    (weight, bias), *rest = to_layers(predictor)
    folded = weight / scale.cpu().double()
    return from_layers([(folded, bias - folded @ mean.cpu().double()), *rest])


def fold_axes(predictor: Predictor, axes: Tensor) -> Predictor:
    """Return the predictor of x that equals the given one of x @ axes; `axes` is (n_features, n_axes)."""
    (weight, bias), *rest = to_layers(predictor)
    return from_layers([(weight @ axes.T.cpu().double(), bias), *rest])


def fold_scores(predictor: Predictor, mean: float, scale: float) -> Predictor:
    """Return the predictor whose score is scale x score + mean, and whose sigma, if it has one, is scale x sigma."""
    *rest, (weight, bias) = to_layers(predictor)
    shift = torch.zeros_like(bias)
    shift[0] = mean
    return from_layers([*rest, (weight * scale, bias * scale + shift)])


def fold_mixtures(predictor: Predictor, mixtures: Sequence[WeightedSum]) -> Predictor:
    """Return the predictor of joined hidden states that equals the given one of their weighted sums.

    Each mixture stands for `width` of the predictor's inputs, in order: input j is the sum over states k of
    weights[k] x state k's feature j, plus bias. The result takes, for each mixture, its states one after the other.
    Without mixtures it is the predictor itself.
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


def average(predictors: Sequence[Predictor]) -> Predictor:
    """Return one predictor whose outputs are the means of the given ones'.

    First layers stacked, second ones block-diagonal, last ones side by side and divided by their number: N heads of
    hidden sizes (a, b) become one of (N a, N b), with N squared times the numbers in the second layer, all but one
    N-th of them zero.
    """
    first, second, last = zip(*(to_layers(predictor) for predictor in predictors), strict=True)
    return from_layers(
        [
            (torch.cat([weight for weight, _ in first]), torch.cat([bias for _, bias in first])),
            (torch.block_diag(*(weight for weight, _ in second)), torch.cat([bias for _, bias in second])),
            (
                torch.cat([weight for weight, _ in last], dim=1) / len(predictors),
                torch.stack([bias for _, bias in last]).mean(0),
            ),
        ]
    )
