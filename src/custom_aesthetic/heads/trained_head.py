"""A trained head: its outputs in the units of the scores, and its conversion to a predictor that takes raw features."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial

import torch
from torch import Tensor

from custom_aesthetic.features.hidden_states import WeightedSum
from custom_aesthetic.heads.head_stack import HeadParts, mix
from custom_aesthetic.heads.predictor import (
    ROWS_AT_ONCE,
    Predictor,
    average,
    fold_axes,
    fold_features,
    fold_mixtures,
    fold_scores,
    from_layers,
)
from custom_aesthetic.heads.training_data import TrainingData


@dataclass(frozen=True)
class RawHead:
    """A head in training: its parameters map standardised features to outputs on the scale that the loss uses."""

    parts: HeadParts
    data: TrainingData
    loss_model: str

    @torch.inference_mode()
    def raw_outputs(self, rows: Tensor | None = None) -> Tensor:
        """Return the outputs (n_rows, n_outputs) for these images, or for all, on the device and the loss's scale."""
        features = self.data.features
        if rows is None:
            rows = torch.arange(len(features), device=features.device)
        batches = rows.to(features.device).split(ROWS_AT_ONCE)
        return torch.cat([self._forward(features.index_select(0, batch).float()) for batch in batches])

    def _forward(self, features: Tensor) -> Tensor:
        values = mix(features, self.data.mixtures, self.parts.mixing)
        for layer in (self.parts.first, self.parts.second):
            values = torch.addmm(layer.bias, values, layer.weight.T).relu_()
        return torch.addmm(self.parts.last.bias, values, self.parts.last.weight.T)

    def output_scale(self) -> tuple[float, float]:
        """Return (mean, scale) that convert the outputs to the units of the scores: scale x output + mean.

        The loss `ab` does not determine them; there they are the rising line that fits the training scores best.
        """
        data = self.data
        if self.loss_model != "ab":
            return data.score_mean, data.score_scale
        outputs = self.raw_outputs(data.train_rows)[:, 0].cpu().double()
        scores = data.scores[data.train_rows].cpu().double() * data.score_scale + data.score_mean
        spread = outputs - outputs.mean()
        variance = float(spread.square().mean())
        if not variance > 0:
            return float(scores.mean()), 1.0
        slope = float((spread * (scores - scores.mean())).mean()) / variance
        slope = slope if slope > 0 else data.score_scale / math.sqrt(variance)
        return float(scores.mean() - slope * outputs.mean()), slope


@dataclass(frozen=True)
class TrainedHead:
    """A head after training, with the weights of its best epoch."""

    score: float
    """The value that `evaluate` returned for it."""
    epoch: int
    """The best epoch, counted from 1."""
    outputs: Tensor
    """The outputs for every image, (n_images, n_outputs) on the CPU, in the units of the scores."""
    state_weights: tuple[tuple[float, ...], ...]
    """For each mixture, the trained hidden-state weights followed by the bias."""
    make_predictor: Callable[[], Predictor]
    """Returns the folded head; called on demand, since a search needs the predictors of few of its heads."""
    seen_outputs: Tensor | None = None
    """Outputs of the heads that learnt from each image, where `outputs` are out of fold; see `fold_training`."""

    @cached_property
    def predictor(self) -> Predictor:
        """The folded head: it takes features as given to `standardise` and returns scores in their original units."""
        return self.make_predictor()


def weighted_mean(heads: Sequence[TrainedHead], weights: Sequence[float] | None = None) -> TrainedHead:
    """Return the sum of weight x head, by default the mean; all else is that of the first head.

    A head without `seen_outputs` counts there with its outputs, unless none has any.
    """
    shares = [1 / len(heads)] * len(heads) if weights is None else weights

    def total(parts: Sequence[Tensor]) -> Tensor:
        return torch.stack([share * part for share, part in zip(shares, parts, strict=True)]).sum(0)

    seen = [head.outputs if head.seen_outputs is None else head.seen_outputs for head in heads]
    return replace(
        heads[0],
        outputs=total([head.outputs for head in heads]),
        make_predictor=lambda: average([head.predictor for head in heads], shares),
        seen_outputs=total(seen) if any(head.seen_outputs is not None for head in heads) else None,
    )


def in_score_units(outputs: Tensor, mean: float, scale: float) -> Tensor:
    """Return outputs (n_rows, n_outputs) on the CPU, all multiplied by `scale`, with `mean` added to output 0."""
    scaled = outputs.cpu() * scale
    scaled[:, 0] += mean
    return scaled


def finish(head: RawHead, *, score: float, epoch: int) -> TrainedHead:
    """Return the trained head, which no longer refers to the training data or the stack."""
    if head.loss_model == "nll":
        _make_sigma_positive(head)
    mean, scale = head.output_scale()
    outputs = in_score_units(head.raw_outputs(), mean, scale)
    nothing = torch.empty(0)
    data = replace(head.data, features=nothing, scores=nothing, weights=None, train_rows=nothing)
    alone = RawHead(head.parts.map(lambda part: part.detach().cpu().clone()), data, head.loss_model)
    state_weights = _state_weights(head)
    return TrainedHead(score, epoch, outputs, state_weights, partial(_fold, alone, mean, scale, state_weights))


def _make_sigma_positive(head: RawHead) -> None:
    """Flip the sign of the sigma output if it is mostly negative: the loss depends only on its square."""
    if head.raw_outputs(head.data.train_rows)[:, 1].median() < 0:
        head.parts.last.weight[1].neg_()
        head.parts.last.bias[1].neg_()


def _state_weights(head: RawHead) -> tuple[tuple[float, ...], ...]:
    parts = head.parts.mixing.split([mixture.n_states + 1 for mixture in head.data.mixtures])
    return tuple(tuple(part.tolist()) for part in parts)


def _fold(head: RawHead, mean: float, scale: float, state_weights: Sequence[Sequence[float]]) -> Predictor:
    data = head.data
    predictor = fold_scores(from_layers(head.parts.layers), mean, scale)
    if data.mixtures:
        pairs = zip(data.mixtures, state_weights, strict=True)
        sums = [WeightedSum(torch.tensor(weights[:-1]), weights[-1], mixture.width) for mixture, weights in pairs]
        predictor = fold_mixtures(predictor, sums)
    if data.axes is not None:
        predictor = fold_axes(predictor, data.axes)
    return fold_features(predictor, data.feature_mean, data.feature_scale)
