"""Join linear models and the difference from a prior to the heads: weighted out of fold, folded into one plain file."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch

from custom_aesthetic.base.arrays import Array
from custom_aesthetic.heads import linear_members
from custom_aesthetic.heads.linear_members import (
    HEADS,
    PRIOR,
    Blend,
    LinearModel,
    Rows,
    add_linear,
    blended_out_of_fold,
    fit_blend,
    fit_linear_models,
)
from custom_aesthetic.heads.predictor import Predictor, from_layers, to_layers
from custom_aesthetic.heads.trained_head import TrainedHead
from custom_aesthetic.priors.difference import Difference, fit_difference, out_of_fold
from custom_aesthetic.priors.given import PriorScores
from custom_aesthetic.scores.evidence import Evidence
from custom_aesthetic.scores.folds import fold_levels


class JudgedDifference(NamedTuple):
    """The model of the difference, fitted to all images, and what models of the folds say of those left out."""

    model: Difference
    out_of_fold: Array
    """(n_images,); nan for images that no fold leaves out."""


def join_members(
    heads: TrainedHead,
    inputs: Array,
    scores: Array,
    folds: Sequence[tuple[Rows, Rows]],
    prior: PriorScores | None,
    answers: Evidence | None = None,
) -> tuple[TrainedHead, dict[str, float]] | None:
    """Return the blend of heads, linear models and the difference from the prior, with its weights by name.

    `inputs` are (n_images, n_features), `scores` (n_images,), `folds` (rows that train, rows left out); the outputs of
    `heads` are out of fold, (n_images, 1). `answers` are those that the scores come from. None where nothing can join.
    """
    known = np.concatenate([left_out for _, left_out in folds])
    models = fit_linear_models(inputs, scores, known, answers)
    unseen = linear_members.out_of_fold(inputs, scores, folds, answers)
    members = {HEADS: heads.outputs[:, 0].double().numpy(), **unseen}
    linear = {name: model.predict(inputs) for name, model in models.items()}
    difference = judged_difference(prior, inputs, scores, folds)
    if difference is not None and prior is not None:
        models[PRIOR], members[PRIOR] = difference.model.rest, difference.out_of_fold
        linear[PRIOR] = difference.model.predict(inputs, prior.scores)
    if not models or members.keys() != {HEADS, *models}:
        return None
    levels = fold_levels(scores, folds)
    members = {name: values - levels for name, values in members.items()}
    blend = fit_blend({name: values[known] for name, values in members.items()}, scores[known])
    judged = blended_out_of_fold(members, scores, folds)
    if blend is None or judged is None:
        return None
    learnt = heads.outputs if heads.seen_outputs is None else heads.seen_outputs
    seen = blend.of({HEADS: learnt[:, 0].double().numpy(), **linear})
    judged = np.where(np.isnan(judged), blend.of({HEADS: members[HEADS], **linear}), judged)
    joined = replace(
        heads,
        outputs=torch.from_numpy(judged).float()[:, None],
        make_predictor=lambda: add_all(heads.predictor, blend, models, prior, difference),
        seen_outputs=torch.from_numpy(seen).float()[:, None],
    )
    return joined, blend.weights


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
