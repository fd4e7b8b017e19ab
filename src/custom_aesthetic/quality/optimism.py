"""The optimism of a search: the best of many trials is best partly by luck on the images that it was chosen by."""

import base64
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from custom_aesthetic.base.arrays import Array
from custom_aesthetic.quality import metrics
from custom_aesthetic.quality.confidence import Counts, draw_counts, resampled_ab, resampled_pearson, resampled_spearman
from custom_aesthetic.quality.metrics import HIGHER_IS_BETTER, NLL_MINIMUM_VARIANCE

FEWEST_IMAGES = 10
MOST_NUMBERS = 20_000
"""Outputs of a trial for the images that choose; more are not kept, as a choice by so many flatters little."""

N_RESAMPLES = 100

MANY_IMAGES = 2000
N_RESAMPLES_OF_MANY, N_CANDIDATES_OF_MANY = 40, 30
"""With more images than that, so many resamples and the best trials do: no other comes first in a resample."""

MOST_HALF = float(np.finfo(np.float16).max)
"""The largest number in half precision."""


@dataclass(frozen=True)
class Optimism:
    """The metric of the best trial on the images that it was chosen by, and its expected value on other images."""

    metric: str
    chosen: float
    """The metric on the images that the trial was chosen by."""
    corrected: float
    """The expected metric on other images."""
    n_trials: int
    ab_flattery: float = 0.0
    """How much the choice raises the share of pairs in the right order, 0...1, on the images it was made by."""

    def __str__(self) -> str:
        return (
            f"optimism of the search: the best of {self.n_trials} trials reached {self.metric} {self.chosen:.4f} on "
            f"the images that it was chosen by; expect about {self.corrected:.4f} on other images"
        )


@dataclass(frozen=True)
class Choice:
    """The metric and the scores that trials are chosen by. Arrays are (n_images,), in the units of the scores."""

    metric: str
    scores: Array
    divider: float
    weights: Array | None = None


class Blended(NamedTuple):
    """What the mean of the chosen trials becomes in the model: weight x mean + rest."""

    weight: float
    rest: Array
    """(n_images,)"""


def optimism(
    choice: Choice, outputs: Sequence[Array], *, n_kept: int = 1, blended: Blended | None = None, seed: int = 0
) -> Optimism | None:
    """Return the optimism of choosing the best of trials with these outputs, (n_images, n_outputs) each.

    The choice is repeated on resamples of the images, and each time the chosen trial is judged by the images that were
    not drawn (Tsamardinos, Greasidou and Borboudakis, Bootstrapping the out-of-sample predictions for efficient and
    accurate cross-validation, Machine Learning 2018). `chosen` and `corrected` are for the single best trial, and
    `ab_flattery` is for the mean of the best `n_kept`, or for what `blended` makes of it.

    Returns None for fewer than two trials, too few images, or a metric that cannot be computed.
    """
    n_images, n_trials = len(choice.scores), len(outputs)
    figure = _figure(choice)
    if n_trials < 2 or n_images < FEWEST_IMAGES:
        return None
    if choice.metric == "nll" and outputs[0].shape[1] < 2:
        return None
    sign = 1 if HIGHER_IS_BETTER[choice.metric] else -1
    whole, n_resamples = np.ones((1, n_images), np.float32), N_RESAMPLES
    if n_images > MANY_IMAGES:
        figures = np.array([sign * figure(values.astype(np.float64), whole)[0] for values in outputs])
        outputs, n_resamples = [outputs[row] for row in _best(figures, N_CANDIDATES_OF_MANY)], N_RESAMPLES_OF_MANY
    counts = draw_counts(n_images, n_resamples, seed)
    every = np.concatenate([whole, counts, counts == 0])
    found = sign * np.stack([figure(values.astype(np.float64), every) for values in outputs])
    alone, drawn, left_out = found[:, 0], found[:, 1 : 1 + n_resamples], found[:, 1 + n_resamples :]
    if not np.isfinite(alone).any():
        return None
    winners = np.argmax(np.nan_to_num(drawn, nan=-np.inf), axis=0)
    worth = left_out[winners, np.arange(n_resamples)]
    if not np.isfinite(worth).any():
        return None
    return Optimism(
        choice.metric,
        sign * float(np.nanmax(alone)),
        sign * float(np.nanmean(worth)),
        n_trials,
        _ab_flattery(choice.scores, _scored(outputs, blended), alone, drawn, counts, n_kept),
    )


def _scored(outputs: Sequence[Array], blended: Blended | None) -> Array:
    """Return the scores of each trial, (n_trials, n_images), as they are in the model."""
    every = np.stack([values[:, 0] for values in outputs]).astype(np.float64)
    return every if blended is None else blended.weight * every + blended.rest


def _ab_flattery(scores: Array, every: Array, alone: Array, drawn: Array, counts: Counts, n_kept: int) -> float:
    """Return how much higher the AB of the mean of the best trials is than that of trials chosen by other images.

    On the images left out of a resample, the final choice, which used these images, is compared with the choice on the
    resample, which did not. Both are judged on the same images, so that differences between images cancel out. `every`
    (n_trials, n_images) are the trials' scores; `alone` (n_trials,) and `drawn` (n_trials, n_resamples) are their
    metrics; higher is better.
    """
    final = every[_best(alone, n_kept)].mean(0)
    gaps = []
    for resample, figures in zip(counts, drawn.T, strict=True):
        out = resample == 0
        chosen = every[_best(figures, n_kept)][:, out].mean(0)
        gaps.append(metrics.ab(scores[out], final[out]) - metrics.ab(scores[out], chosen))
    defined = [gap for gap in gaps if np.isfinite(gap)]
    return max(0.0, float(np.mean(defined))) if defined else 0.0


def _best(figures: Array, n_kept: int) -> NDArray[np.int64]:
    return np.argsort(-np.nan_to_num(figures, nan=-np.inf), kind="stable")[:n_kept]


def _figure(choice: Choice) -> Callable[[Array, Counts], Array]:
    """Return a function from a trial's outputs and counts of images to the metric in each resample, (n_resamples,)."""
    match choice.metric:
        case "spearman":
            return lambda outputs, counts: resampled_spearman(choice.scores, outputs[:, 0], counts)
        case "ab":
            return lambda outputs, counts: resampled_ab(choice.scores, outputs[:, 0], counts)
        case "pearson":
            return lambda outputs, counts: resampled_pearson(choice.scores, outputs[:, 0], counts)
    return lambda outputs, counts: counts @ _by_image(choice, outputs) / np.maximum(counts.sum(1), 1)


def _by_image(choice: Choice, outputs: Array) -> Array:
    """Return the values, (n_images,), whose mean is the metric."""
    errors = np.square(choice.scores - outputs[:, 0])
    match choice.metric:
        case "mse":
            return errors
        case "wmse":
            assert choice.weights is not None
            return choice.weights * errors
        case "nll":
            variances = np.maximum(np.square(outputs[:, 1]), NLL_MINIMUM_VARIANCE)
            return 0.5 * (np.log(variances) + errors / variances)
        case "accuracy":
            agree = (choice.scores >= choice.divider) == (outputs[:, 0] >= choice.divider)
            return agree.astype(np.float64)
    raise ValueError(f"no such metric: {choice.metric}")


def pack_outputs(outputs: Array, scores: Array) -> str:
    """Return a trial's outputs (n_images, n_outputs) as text, in half precision and standardised like the scores.

    The text is saved in the study, so that a later run on any machine can compute the optimism. It has 54,000
    characters for MOST_NUMBERS. `scores` (n_images,) are those of the same images.
    """
    mean, deviation = _units(scores)
    scaled = outputs / deviation
    scaled[:, 0] -= mean / deviation
    return base64.b64encode(np.clip(scaled, -MOST_HALF, MOST_HALF).astype("<f2").tobytes()).decode()


def unpack_outputs(text: str, scores: Array) -> Array | None:
    """Return the outputs (n_images, n_outputs) from a text of `pack_outputs`; None if it is for other images."""
    found = np.frombuffer(base64.b64decode(text), dtype="<f2").astype(np.float64)
    if len(scores) == 0 or len(found) not in (len(scores), 2 * len(scores)):
        return None
    mean, deviation = _units(scores)
    outputs = found.reshape(len(scores), -1) * deviation
    outputs[:, 0] += mean
    return outputs


def _units(scores: Array) -> tuple[float, float]:
    """Return the mean and deviation of the scores, which standardise outputs to a range that suits half precision."""
    deviation = float(np.std(scores))
    return float(np.mean(scores)), deviation if deviation > 0 else 1.0
