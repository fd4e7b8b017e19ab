"""One run of one head: a plain loop over tensors that already lie on the device. Knows no search, file or screen."""

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from src import losses
from src.hidden_states import Mixture
from src.predictor import Predictor, fold_features, fold_mixtures, fold_scores, predict

Evaluate = Callable[[Callable[[Tensor], Tensor]], float]
"""Given a function from rows to outputs (n_rows, n_outputs) in the units of the scores, return how good they are."""


class DivergedError(Exception):
    """The training met outputs that are not finite."""


@dataclass(frozen=True)
class HeadParameters:
    """What the search varies, one value each; names and meanings as in `settings.SearchSpace`."""

    first_layer_size: int
    second_layer_size: int
    train_epochs: int
    warmup_ratio: float
    log_lr: float
    batch_size: int
    input_dropout: float
    dropout: float
    output_dropout: float
    log_weight_lr: float = -3.0


@dataclass(frozen=True)
class TrainingData:
    """Features and scores on the device, both standardised by the statistics of the training images alone."""

    features: Tensor
    """(n_images, n_columns): (given - feature_mean) / feature_scale, in the precision given."""
    scores: Tensor
    """(n_images,) float32: (given - score_mean) / score_scale."""
    weights: Tensor | None
    """(n_images,) float32, or None: each image's weight in the loss `wmse`."""
    train_rows: Tensor
    """(n_train,) int64: which images train."""
    feature_mean: Tensor
    feature_scale: Tensor
    score_mean: float
    score_scale: float
    mixtures: tuple[Mixture, ...] = ()
    """The hidden states that the head weighs by trained weights; empty unless in `weight` mode."""

    @property
    def n_inputs(self) -> int:
        return sum(mixture.width for mixture in self.mixtures) or self.features.shape[1]


@dataclass(frozen=True)
class TrainedHead:
    """A head after training, with the weights of its best epoch."""

    predictor: Predictor
    """Folded: takes features as they were given to `standardise`, gives scores in their units."""
    score: float
    """What `evaluate` said of it."""
    epoch: int
    """The epoch, from 1, after which it was best."""
    outputs: Tensor
    """Its outputs for every image, (n_images, n_outputs) on the CPU, in the units of the scores."""
    state_weights: tuple[tuple[float, ...], ...]
    """For each mixture the hidden-state weights found, then the bias."""


def standardise(
    features: Tensor,
    scores: Tensor,
    train_rows: Tensor,
    *,
    device: torch.device,
    weights: Tensor | None = None,
    mixtures: Sequence[Mixture] = (),
) -> TrainingData:
    """Return the training data of features (n_images, n_columns) and scores (n_images,), standardised, on the device.

    A column that is constant over the training images tells nothing: its scale is infinite, and it counts as 0 in
    every image. The hidden states of a mixture share one
    scale a feature, the root of their mean variance, so that their trained weights are those of the features given.
    """
    mean, variance = _moments(features, train_rows)
    for mixture in mixtures:
        pooled = mixture.states(variance[None]).mean(1).repeat(1, mixture.n_states)
        variance[mixture.start : mixture.stop] = pooled[0]
    scale = variance.sqrt()
    scale = torch.where(scale > 1e-6 * scale.max(), scale, torch.inf)
    train_scores = scores[train_rows].double()
    score_mean, score_scale = float(train_scores.mean()), float(train_scores.std(correction=0))
    score_scale = score_scale if score_scale > 0 else 1.0
    scaled = [((rows.float() - mean) / scale).to(features.dtype) for rows in features.split(8192)]
    return TrainingData(
        features=torch.cat(scaled).to(device),
        scores=((scores.double() - score_mean) / score_scale).float().to(device),
        weights=None if weights is None else weights.float().to(device),
        train_rows=train_rows.to(device),
        feature_mean=mean,
        feature_scale=scale,
        score_mean=score_mean,
        score_scale=score_scale,
        mixtures=tuple(mixtures),
    )


def _moments(features: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and variance (n_columns,) float32 of these rows, in two passes that hold few rows at once."""
    parts = rows.split(8192)
    mean = sum(features[part].double().sum(0) for part in parts) / len(rows)
    variance = sum((features[part].double() - mean).square().sum(0) for part in parts) / len(rows)
    return torch.as_tensor(mean).float(), torch.as_tensor(variance).float()


class _Head(nn.Module):
    """The predictor, behind the trained weights of the hidden states where there are mixtures."""

    def __init__(self, data: TrainingData, parameters: HeadParameters, loss_model: str, generator: torch.Generator):
        super().__init__()
        self.mixtures = data.mixtures
        self.state_weights = nn.ParameterList(
            [torch.full((mixture.n_states,), 1 / mixture.n_states) for mixture in data.mixtures]
        )
        self.state_biases = nn.ParameterList([torch.zeros(()) for _ in data.mixtures])
        self.predictor = Predictor(
            data.n_inputs,
            (parameters.first_layer_size, parameters.second_layer_size),
            losses.n_outputs(loss_model),
            dropouts=(parameters.input_dropout, parameters.dropout, parameters.output_dropout),
            generator=generator,
        )
        if loss_model == "nll":
            nn.init.ones_(self.predictor.linears()[2].bias[1:])

    def forward(self, features: Tensor) -> Tensor:
        if not self.mixtures:
            return self.predictor(features)
        sums = [
            torch.einsum("nkw,k->nw", mixture.states(features), weights) + bias
            for mixture, weights, bias in zip(self.mixtures, self.state_weights, self.state_biases, strict=True)
        ]
        return self.predictor(torch.cat(sums, dim=1))


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
    """Return the head trained with these parameters, at the epoch where `evaluate` found it best.

    AdamW with a learning rate that warms up linearly and then falls to zero as a cosine. Everything random comes from
    `seed`. `on_epoch(epoch, score)` is called after every epoch, from 1, and may end the training by an exception.
    Raises DivergedError when the outputs, or the score, are no longer finite.
    """
    device = data.features.device
    generator = torch.Generator(device).manual_seed(seed)
    with torch.device(device):
        head = _Head(data, parameters, loss_model, generator)
    step = _Stepper(data, parameters, head, loss_model)
    best_score, best_epoch, best_state = math.nan, 0, head.state_dict()
    for epoch in range(1, parameters.train_epochs + 1):
        head.train()
        order = data.train_rows[torch.randperm(len(data.train_rows), generator=generator, device=device)]
        for rows in order.split(step.batch_size):
            step(rows)
        score = _score(head, data, loss_model, evaluate)
        if not best_epoch or (score > best_score if higher_is_better else score < best_score):
            best_score, best_epoch, best_state = score, epoch, copy.deepcopy(head.state_dict())
        if on_epoch is not None:
            on_epoch(epoch, score)
    head.load_state_dict(best_state)
    if loss_model == "nll":
        _make_sigma_positive(head, data)
    return TrainedHead(
        _fold(head, data, loss_model), best_score, best_epoch, _outputs(head, data, loss_model), _found_weights(head)
    )


class _Stepper:
    """One step of AdamW on the rows of a batch, at the learning rate of that step."""

    def __init__(self, data: TrainingData, parameters: HeadParameters, head: _Head, loss_model: str) -> None:
        self.data, self.head, self.loss = data, head, losses.BY_NAME[loss_model]
        odd = losses.even_batches(loss_model) and parameters.batch_size % 2
        self.batch_size = parameters.batch_size + (1 if odd else 0)
        self.n_steps = parameters.train_epochs * math.ceil(len(data.train_rows) / self.batch_size)
        self.n_warmup_steps = round(parameters.warmup_ratio * self.n_steps)
        self.n_done = 0
        mixing = [*head.state_weights, *head.state_biases]
        groups = [{"params": list(head.predictor.parameters()), "peak": 10**parameters.log_lr}]
        if mixing:
            groups.append({"params": mixing, "peak": 10**parameters.log_weight_lr, "weight_decay": 0.0})
        self.optimiser = torch.optim.AdamW(groups, lr=1e-3, fused=True)

    def __call__(self, rows: Tensor) -> None:
        factor = learning_rate_factor(self.n_done, self.n_steps, self.n_warmup_steps)
        for group in self.optimiser.param_groups:
            group["lr"] = group["peak"] * factor
        outputs = self.head(self.data.features[rows].float())
        weights = None if self.data.weights is None else self.data.weights[rows]
        self.optimiser.zero_grad()
        self.loss(outputs, self.data.scores[rows], weights).backward()
        self.optimiser.step()
        self.n_done += 1


def learning_rate_factor(step: int, n_steps: int, n_warmup_steps: int) -> float:
    """Return the share of the peak learning rate at a step, from 0: up linearly, then down to zero as a cosine."""
    if step < n_warmup_steps:
        return (step + 1) / (n_warmup_steps + 1)
    return 0.5 * (1 + math.cos(math.pi * (step - n_warmup_steps) / (n_steps - n_warmup_steps)))


def _score(head: _Head, data: TrainingData, loss_model: str, evaluate: Evaluate) -> float:
    """Return what `evaluate` says of the head's outputs in the units of the scores."""
    mean, scale = _output_scale(head, data, loss_model)

    def outputs_of(rows: Tensor) -> Tensor:
        outputs = _in_score_units(predict(head, data.features[rows]), mean, scale)
        if not torch.isfinite(outputs).all():
            raise DivergedError("the outputs are not finite")
        return outputs

    return evaluate(outputs_of)


def _outputs(head: _Head, data: TrainingData, loss_model: str) -> Tensor:
    return _in_score_units(predict(head, data.features), *_output_scale(head, data, loss_model))


def _in_score_units(outputs: Tensor, mean: float, scale: float) -> Tensor:
    scaled = outputs * scale
    scaled[:, 0] += mean
    return scaled


def _output_scale(head: _Head, data: TrainingData, loss_model: str) -> tuple[float, float]:
    """Return (mean, scale) that bring the head's outputs to the units of the scores.

    The loss `ab` leaves them open: there it is the line, rising, that fits the training scores best.
    """
    if loss_model != "ab":
        return data.score_mean, data.score_scale
    outputs = predict(head, data.features[data.train_rows])[:, 0].double()
    scores = data.scores[data.train_rows].cpu().double() * data.score_scale + data.score_mean
    spread = outputs - outputs.mean()
    variance = float(spread.square().mean())
    if not variance > 0:
        return float(scores.mean()), 1.0
    slope = float((spread * (scores - scores.mean())).mean()) / variance
    slope = slope if slope > 0 else data.score_scale / math.sqrt(variance)
    return float(scores.mean() - slope * outputs.mean()), slope


def _fold(head: _Head, data: TrainingData, loss_model: str) -> Predictor:
    predictor = fold_scores(head.predictor, *_output_scale(head, data, loss_model))
    if data.mixtures:
        mixtures = zip(head.state_weights, head.state_biases, data.mixtures, strict=True)
        predictor = fold_mixtures(
            predictor, [(weights.detach(), bias.item(), mixture.width) for weights, bias, mixture in mixtures]
        )
    return fold_features(predictor, data.feature_mean, data.feature_scale)


@torch.no_grad()
def _make_sigma_positive(head: _Head, data: TrainingData) -> None:
    """Turn the sign of sigma where the training found its negative: the loss knows only its square."""
    sigmas = predict(head, data.features[data.train_rows])[:, 1]
    if sigmas.median() < 0:
        last = head.predictor.linears()[2]
        last.weight[1].neg_()
        last.bias[1].neg_()


def _found_weights(head: _Head) -> tuple[tuple[float, ...], ...]:
    pairs = zip(head.state_weights, head.state_biases, strict=True)
    return tuple((*weights.tolist(), bias.item()) for weights, bias in pairs)
