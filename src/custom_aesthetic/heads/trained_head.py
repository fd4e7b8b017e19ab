"""From the numbers of a head to its outputs in the units of the scores, and to a predictor with all maps folded in."""

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
    fold_axes,
    fold_features,
    fold_mixtures,
    fold_scores,
    from_layers,
)
from custom_aesthetic.heads.training_data import TrainingData


@dataclass(frozen=True)
class RawHead:
    """A head in training: its numbers, which map standardised features to outputs as the loss sees them."""

    parts: HeadParts
    data: TrainingData
    loss_model: str

    @torch.inference_mode()
    def raw_outputs(self, rows: Tensor | None = None) -> Tensor:
        """Return the outputs (n_rows, n_outputs), on the device, of these images or of all, as the loss sees them."""
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
        """Return (mean, scale) that bring the outputs to the units of the scores.

        The loss `ab` leaves them open: there it is the line, rising, that fits the training scores best.
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
    """What `evaluate` said of it."""
    epoch: int
    """The epoch, from 1, after which it was best."""
    outputs: Tensor
    """Its outputs for every image, (n_images, n_outputs) on the CPU, in the units of the scores."""
    state_weights: tuple[tuple[float, ...], ...]
    """For each mixture the hidden-state weights found, then the bias."""
    make_predictor: Callable[[], Predictor]
    """Folds the head; most heads of a search are never asked for."""
    seen_outputs: Tensor | None = None
    """Where `outputs` are out of fold: those of the heads that learnt from the image. See fold_training."""

    @cached_property
    def predictor(self) -> Predictor:
        """Folded: takes features as they were given to `standardise`, gives scores in their units."""
        return self.make_predictor()


def in_score_units(outputs: Tensor, mean: float, scale: float) -> Tensor:
    """Return outputs (n_rows, n_outputs) on the CPU, scaled, and output 0 shifted by the mean."""
    scaled = outputs.cpu() * scale
    scaled[:, 0] += mean
    return scaled


def finish(head: RawHead, *, score: float, epoch: int) -> TrainedHead:
    """Return the head so that it stands alone."""
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
    """Turn the sign of sigma where the training found its negative: the loss knows only its square."""
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
        found = zip(state_weights, data.mixtures, strict=True)
        predictor = fold_mixtures(
            predictor, [WeightedSum(torch.tensor(own[:-1]), own[-1], mixture.width) for own, mixture in found]
        )
    if data.axes is not None:
        predictor = fold_axes(predictor, data.axes)
    return fold_features(predictor, data.feature_mean, data.feature_scale)
