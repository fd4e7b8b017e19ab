"""The linear model that joins the heads in the model file: fitted in closed form, weighted by out-of-fold predictions.

With few or noisy scores a linear model predicts new pictures better than any head; with smooth scores the heads do. The
weights decide it from predictions of images that were left out. A linear model is exact in the plain file: two units of
the first layer hold it and its negative, of which ReLU keeps one.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import nnls

from custom_aesthetic.base.arrays import Array
from custom_aesthetic.heads.predictor import Predictor, from_layers, to_layers
from custom_aesthetic.heads.training_data import scales_of
from custom_aesthetic.scores.evidence import Evidence
from custom_aesthetic.scores.prior import slope_of_answers

Rows = NDArray[np.int64]

HEADS = "heads"
"""The name of the mean of the heads among the members."""

MOST_ROWS = 3000
"""Training images beyond which a random part of them serves: time grows with the cube of their number."""

MOST_SEARCHED_ROWS = 1000
"""Training images beyond which a random part of them serves to choose the penalty of ridge regression."""

USUAL_PENALTY, PENALTY_RANGE = 3.0, 0.7
"""Which penalty is likely before any score is seen, and the standard deviation of its logarithm: the fewer the images,
the less leaving out each in turn tells of the penalty. Chosen on single raters and on mean ratings; see docs/log.md."""

MEAN_VARIANCE = 100.0
"""Added to every kernel value. It makes the mean of the scores a free parameter, fitted without left-out images."""

PENALTIES = np.logspace(-3, 3, 25)
"""Added to the diagonal of a kernel, which is about 1 besides MEAN_VARIANCE: shares of the scores' variance."""

WEIGHT_DEVIATION = 0.5
"""How far the members' weights lie from their prior weights before any score is seen, as a standard deviation. Chosen
with HALF_HEADS on the ratings of single people and on mean ratings; see docs/log.md."""

PRIOR = "prior"
"""The name of the model that learns the difference from a prior model, among the members."""

PRIOR_SHARE = 0.6
"""Prior weight of that model. Chosen on single raters with good, shuffled and opposite priors; see docs/log.md."""

HALF_HEADS = 10.0
"""Number of images x signal-to-noise ratio of their scores at which the prior weight of the heads is one half. Heads
have more freedom than linear models, so they need more information. The linear models share the rest equally."""

FEWEST_EXPLAINED, MOST_OF_ALL = 0.15, 0.8
"""Share of the scores' variance explained out of fold from which on heads of all images join those of the folds, and
their largest weight, which they have from a share of 0.55 on. Chosen on single people's and on mean ratings; see
docs/log.md."""

LEAST_EXPLAINED = 0.02
"""The least share of the scores' variance that is taken as explained, and the least as noise."""

LEAST_SHARE = 0.2
"""The least weight of heads and linear models, as a share of their prior weights: where few scores seem to speak
against all of them, a blend of nothing would order pictures by chance."""

ROWS_AT_ONCE = 4096

TINY = 1e-9
"""Share of the sum of squares that keeps the matrix of products definite where members are equal."""


class LinearModel(NamedTuple):
    """score = features @ weight + bias, in the units of the scores."""

    weight: Array
    """(n_features,)"""
    bias: float

    def predict(self, features: Array) -> Array:
        """Return the scores (n_images,) of features (n_images, n_features)."""
        starts = range(0, len(features), ROWS_AT_ONCE)
        parts = [features[start : start + ROWS_AT_ONCE].astype(np.float64) @ self.weight for start in starts]
        return np.concatenate([np.zeros(0), *parts]) + self.bias


class Blend(NamedTuple):
    """How members add up: score = the sum of weight x member, plus the bias."""

    weights: dict[str, float]
    """By the members' names; none is below 0."""
    bias: float

    def of(self, members: Mapping[str, Array]) -> Array:
        """Return the scores (n_images,) from those of the members, (n_images,) each."""
        return sum((weight * members[name] for name, weight in self.weights.items()), np.float64(self.bias))


def fit_linear_models(
    features: Array, scores: Array, rows: Rows, answers: Evidence | None = None
) -> dict[str, LinearModel]:
    """Return linear models of the images `rows`, by name; an empty dictionary where nothing can be learnt.

    `features` are (n_images, n_features), `scores` (n_images,). Ridge regression is fitted to features on the scales
    that heads learn from, `training_data.scales_of`; see `_likely_penalty`. Where the scores come from `answers`, those
    among `rows` give the direction of its slope, and the scores its length; see `slope_of_answers`.
    """
    rows = np.random.default_rng(0).permutation(rows)[:MOST_ROWS]
    given, wanted = features[rows].astype(np.float64), scores[rows]
    mean, scale, middle = given.mean(0), scales_of(given.var(0)), float(wanted.mean())
    if len(rows) < 3 or not np.isfinite(scale).any() or np.ptp(wanted) == 0:
        return {}
    scaled = (given - mean) / scale
    slope = _ridge(scaled, wanted - middle)
    if answers is not None:
        slope = _turned(slope, slope_of_answers(scaled, rows, answers, n_images=len(features)), scaled)
    slope = slope / scale
    return {"ridge": LinearModel(slope, middle - float(mean @ slope))}


def out_of_fold(
    features: Array, scores: Array, folds: Sequence[tuple[Rows, Rows]], answers: Evidence | None = None
) -> dict[str, Array]:
    """Return what each linear model says of the images that each fold leaves out, (n_images,); nan for other images.

    `folds` are (rows that train, rows left out). Only models that every fold can fit. A fold's models know no answer
    about an image that it leaves out.
    """
    fitted = [fit_linear_models(features, scores, learnt, answers) for learnt, _ in folds]
    names = [name for name in fitted[0] if all(name in models for models in fitted)] if fitted else []
    found = {name: np.full(len(scores), np.nan) for name in names}
    for models, (_, left_out) in zip(fitted, folds, strict=True):
        for name in names:
            found[name][left_out] = models[name].predict(features[left_out])
    return found


def fit_blend(members: Mapping[str, Array], scores: Array) -> Blend | None:
    """Return the weights of members, the heads among them, that fit the scores best; all arrays are (n_images,).

    Non-negative least squares of out-of-fold predictions, as in stacking (Breiman, 1996), as the most likely weights
    given normal errors and a normal prior (WEIGHT_DEVIATION around the prior weights, HALF_HEADS), and at least
    LEAST_SHARE of those. So the noisier the scores are, the more images it takes to move the weights. None where no
    weights can be computed, for instance from equal predictions.
    """
    names = list(members)
    values = np.stack([members[name] for name in names], axis=1)
    means, middle = values.mean(0), float(scores.mean())
    if not np.isfinite(values).all() or not values.std(0).max() > 0:
        return None
    prior = _prior_weights(names, len(scores) * _signal_to_noise(members, scores))
    least = np.array([0.0 if name == PRIOR else LEAST_SHARE for name in names]) * prior
    centred, wanted = values - means, scores - middle
    strength = float(np.square(wanted - centred @ prior).mean()) / WEIGHT_DEVIATION**2
    products = centred.T @ centred + strength * np.eye(len(names))
    targets = centred.T @ wanted + strength * prior
    slight = TINY * float(np.trace(products)) * np.eye(len(names))
    root = np.linalg.cholesky(products + slight)
    above, _ = nnls(root.T, np.linalg.solve(root, targets - products @ least))
    weights = least + above
    return Blend(dict(zip(names, weights.tolist(), strict=True)), middle - float(means @ weights))


def blended_out_of_fold(
    members: Mapping[str, Array], scores: Array, folds: Sequence[tuple[Rows, Rows]]
) -> Array | None:
    """Return the blend's scores (n_images,), those of a fold's images with weights that the other folds' images chose.

    `members` are out of fold, without the levels of the folds. The blends of all folds share one constant. Images that
    no fold leaves out get nan. None where a fold's weights cannot be computed.
    """
    left_out = [rows for _, rows in folds]
    known = np.concatenate(left_out)
    found = np.full(len(scores), np.nan)
    for index, rows in enumerate(left_out):
        others = np.concatenate([other for place, other in enumerate(left_out) if place != index])
        blend = fit_blend({name: values[others] for name, values in members.items()}, scores[others])
        if blend is None:
            return None
        centred = {name: values[rows] - values[known].mean() for name, values in members.items()}
        found[rows] = blend._replace(bias=float(scores[known].mean())).of(centred)
    return found


def add_linear(heads: Predictor, blend: Blend, models: Mapping[str, LinearModel]) -> Predictor:
    """Return one predictor for the blend of a predictor, whose output is one score, and linear models.

    The linear models add up to one, which takes two units of each hidden layer.
    """
    slope = torch.from_numpy(sum(blend.weights[name] * model.weight for name, model in models.items()))
    shift = blend.bias + sum(blend.weights[name] * model.bias for name, model in models.items())
    both = torch.stack([slope, -slope])
    weight = blend.weights[HEADS]
    (first, first_bias), (second, second_bias), (last, last_bias) = to_layers(heads)
    nothing = torch.zeros(2, dtype=torch.float64)
    return from_layers(
        [
            (torch.cat([first, both]), torch.cat([first_bias, nothing])),
            (torch.block_diag(second, torch.eye(2, dtype=torch.float64)), torch.cat([second_bias, nothing])),
            (torch.cat([weight * last, torch.tensor([[1.0, -1.0]])], dim=1), weight * last_bias + shift),
        ]
    )


def share_explained(predictions: Array, scores: Array) -> float:
    """Return the share of the scores' variance that predictions out of fold explain; both are (n_images,).

    It is the squared correlation less what chance adds to it, and none for a negative one; at least LEAST_EXPLAINED and
    at most 1 - LEAST_EXPLAINED.
    """
    spread = predictions.std() * scores.std()
    products = (predictions - predictions.mean()) @ (scores - scores.mean()) / len(scores)
    fit = max(float(products / spread), 0.0) if spread > 0 else 0.0
    explained = (fit**2 * len(scores) - 1) / max(len(scores) - 1, 1)
    return min(max(explained, LEAST_EXPLAINED), 1 - LEAST_EXPLAINED)


def share_of_all(explained: float) -> float:
    """Return the weight of heads of all images beside the folds' heads, from the share of variance explained, 0...1."""
    return min(max(2 * (explained - FEWEST_EXPLAINED), 0.0), MOST_OF_ALL)


def left_out_errors(likeness: Array, scores: Array, penalties: Array) -> Array:
    """Return the mean squared leave-one-out error of kernel ridge regression, (n_penalties,).

    `likeness` is the kernel matrix (n_images, n_images). The errors are exact, from one decomposition: the error of
    image i is (G scores)[i] / G[i, i], where G is the inverse of likeness + penalty x identity (Rasmussen and Williams,
    Gaussian Processes, 2006, equation 5.12).
    """
    values, vectors = np.linalg.eigh(likeness)
    inverses = 1 / (np.maximum(values, 0)[:, None] + penalties)
    solved = vectors @ (inverses * (vectors.T @ scores)[:, None])
    return np.square(solved / (np.square(vectors) @ inverses)).mean(0)


def _prior_weights(names: Sequence[str], information: float) -> Array:
    """Return the weights (n_members,) that are expected of this many images x signal-to-noise ratio; their sum is 1."""
    heads = information / (information + HALF_HEADS)
    n_linear = len(names) - (HEADS in names) - (PRIOR in names)
    each = (1 - heads) / max(n_linear, 1)
    found = np.array([PRIOR_SHARE if name == PRIOR else heads if name == HEADS else each for name in names])
    others = np.array([name != PRIOR for name in names])
    if PRIOR in names:
        found[others] *= (1 - PRIOR_SHARE) / max(found[others].sum(), TINY)
    return found


def _signal_to_noise(members: Mapping[str, Array], scores: Array) -> float:
    """Return the variance that the mean of heads and linear models explains over that which it does not."""
    explained = share_explained(np.mean([values for name, values in members.items() if name != PRIOR], axis=0), scores)
    return explained / (1 - explained)


def _ridge(features: Array, scores: Array) -> Array:
    """Return the slope (n_features,) of ridge regression on centred features and scores."""
    likeness = features @ features.T
    size = float(np.trace(likeness)) / len(likeness)
    likeness /= size
    searched = slice(MOST_SEARCHED_ROWS)
    penalty = _likely_penalty(likeness[searched, searched], scores[searched])
    likeness[np.diag_indices_from(likeness)] += penalty
    return features.T @ np.linalg.solve(likeness, scores) / size


def _turned(slope: Array, wanted: Array | None, features: Array) -> Array:
    """Return the wanted slope with the spread of scores that the slope gives these features; the slope without one."""
    spread = 0.0 if wanted is None else float((features @ wanted).std())
    return slope if wanted is None or spread == 0 else wanted * float((features @ slope).std()) / spread


def _likely_penalty(likeness: Array, scores: Array) -> float:
    """Return the geometric mean of the penalties, weighted by how likely each is.

    That is the likelihood of the leave-one-out errors, as of normally distributed ones, times the likelihood before
    any score is seen.
    """
    errors = left_out_errors(MEAN_VARIANCE + likeness, scores, PENALTIES)
    likelihood = -len(scores) / 2 * np.log(np.maximum(errors, np.finfo(float).tiny))
    likelihood -= np.square(np.log(PENALTIES / USUAL_PENALTY) / PENALTY_RANGE) / 2
    weights = np.exp(likelihood - likelihood.max())
    return float(np.exp(weights @ np.log(PENALTIES) / weights.sum()))
