"""Join the difference from a prior model to the heads: judged out of fold, and folded into the one plain file."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch

from custom_aesthetic.base.arrays import Array
from custom_aesthetic.heads.linear_members import PRIOR, Blend, LinearModel, Rows, add_linear
from custom_aesthetic.heads.predictor import Predictor, from_layers, to_layers
from custom_aesthetic.priors.difference import Difference, fit_difference, out_of_fold
from custom_aesthetic.priors.given import PriorScores


class JudgedDifference(NamedTuple):
    """The model of the difference, fitted to all images, and what models of the folds say of those left out."""

    model: Difference
    out_of_fold: Array
    """(n_images,); nan for images that no fold leaves out."""


def judged_difference(
    prior: PriorScores | None, inputs: Array, scores: Array, folds: Sequence[tuple[Rows, Rows]]
) -> JudgedDifference | None:
    """Return the model of the difference from the prior; None where there is no prior or nothing can be learnt.

    `inputs` are (n_images, n_features), `scores` (n_images,), `folds` (rows that train, rows left out).
    """
    if prior is None:
        return None
    known = np.concatenate([left_out for _, left_out in folds])
    model = fit_difference(inputs, scores, prior.scores, known)
    unseen = out_of_fold(inputs, scores, prior.scores, folds)
    return None if model is None or unseen is None else JudgedDifference(model, unseen)


def add_all(
    heads: Predictor,
    blend: Blend,
    models: Mapping[str, LinearModel],
    prior: PriorScores | None,
    difference: JudgedDifference | None,
) -> Predictor:
    """Return one predictor for the blend of heads, linear models and, if there is one, the difference from a prior."""
    joined = add_linear(heads, blend, models)
    if prior is None or difference is None:
        return joined
    return add_predictor(joined, prior.predictor, blend.weights[PRIOR] * difference.model.slope)


def add_predictor(predictor: Predictor, prior: Predictor, weight: float) -> Predictor:
    """Return one predictor whose score is that of the first plus weight x that of the second; both have one output."""
    (first, first_bias), (second, second_bias), (last, last_bias) = to_layers(predictor)
    (other, other_bias), (inner, inner_bias), (end, end_bias) = to_layers(prior)
    return from_layers(
        [
            (torch.cat([first, other]), torch.cat([first_bias, other_bias])),
            (torch.block_diag(second, inner), torch.cat([second_bias, inner_bias])),
            (torch.cat([last, weight * end], dim=1), last_bias + weight * end_bias),
        ]
    )
