"""How much a search flatters itself: the best of many trials is best partly by luck on the images that chose it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from custom_aesthetic.base.arrays import Array
from custom_aesthetic.quality.confidence import Counts, draw_counts, resampled_ab, resampled_pearson, resampled_spearman
from custom_aesthetic.quality.metrics import HIGHER_IS_BETTER, NLL_MINIMUM_VARIANCE

FEWEST_IMAGES = 10
MOST_IMAGES = 2000
"""Images by which trials are chosen, beyond which the choice flatters too little to be worth the time."""

N_RESAMPLES = 100


@dataclass(frozen=True)
class Optimism:
    """What the best trial reached on the images that chose it, and what such a choice is worth on others."""

    metric: str
    chosen: float
    corrected: float
    n_trials: int

    def __str__(self) -> str:
        return (
            f"optimism of the search: the best of {self.n_trials} trials reached {self.metric} {self.chosen:.4f} on "
            f"the images that chose it; such a choice is worth about {self.corrected:.4f} on images that choose nothing"
        )


@dataclass(frozen=True)
class Choice:
    """What chose among trials. The arrays are (n_images,), in the units of the scores."""

    metric: str
    scores: Array
    divider: float
    weights: Array | None = None


def optimism(choice: Choice, outputs: Sequence[Array], *, seed: int = 0) -> Optimism | None:
    """Return the optimism of having chosen the best of trials with these outputs, (n_images, n_outputs) each.

    The choice is repeated on resamples of the images, and each time the trial chosen is judged by the images that were
    not drawn (Tsamardinos, Greasidou and Borboudakis, Bootstrapping the out-of-sample predictions for efficient and
    accurate cross-validation, Machine Learning 2018). None where nothing was chosen, or the metric or the images do
    not allow it.
    """
    n_images = len(choice.scores)
    figure = _figure(choice)
    if len(outputs) < 2 or not FEWEST_IMAGES <= n_images <= MOST_IMAGES:
        return None
    if choice.metric == "nll" and outputs[0].shape[1] < 2:
        return None
    sign = 1 if HIGHER_IS_BETTER[choice.metric] else -1
    counts = draw_counts(n_images, N_RESAMPLES, seed)
    every = np.concatenate([np.ones((1, n_images), np.float32), counts, counts == 0])
    found = sign * np.stack([figure(own.astype(np.float64), every) for own in outputs])
    alone, drawn, left_out = found[:, 0], found[:, 1 : 1 + N_RESAMPLES], found[:, 1 + N_RESAMPLES :]
    if not np.isfinite(alone).any():
        return None
    winners = np.argmax(np.nan_to_num(drawn, nan=-np.inf), axis=0)
    worth = left_out[winners, np.arange(N_RESAMPLES)]
    if not np.isfinite(worth).any():
        return None
    return Optimism(choice.metric, sign * float(np.nanmax(alone)), sign * float(np.nanmean(worth)), len(outputs))


def _figure(choice: Choice) -> Callable[[Array, Counts], Array]:
    """Return the function from a trial's outputs and counts of images to the metric, (n_resamples,)."""
    match choice.metric:
        case "spearman":
            return lambda outputs, counts: resampled_spearman(choice.scores, outputs[:, 0], counts)
        case "ab":
            return lambda outputs, counts: resampled_ab(choice.scores, outputs[:, 0], counts)
        case "pearson":
            return lambda outputs, counts: resampled_pearson(choice.scores, outputs[:, 0], counts)
    return lambda outputs, counts: counts @ _by_image(choice, outputs) / np.maximum(counts.sum(1), 1)


def _by_image(choice: Choice, outputs: Array) -> Array:
    """Return what the metric is the mean of, (n_images,)."""
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
