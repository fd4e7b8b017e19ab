"""Scores of pictures by a model file: the model's own extractors, hidden states and mode."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from custom_aesthetic.base.arrays import Array
from custom_aesthetic.base.errors import UserError
from custom_aesthetic.extractors import build_extractors
from custom_aesthetic.features.hidden_states import arrange
from custom_aesthetic.features.table import FeatureTable, load_features
from custom_aesthetic.features.views import average_views
from custom_aesthetic.heads.model_file import Model
from custom_aesthetic.heads.predictor import predict
from custom_aesthetic.scores.score_files import name_some

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class PictureScores:
    """What a model says of pictures, in the units of the scores that it was trained on."""

    paths: tuple[str, ...]
    scores: Array
    """(n_images,)"""
    sigmas: Array | None
    """(n_images,), positive; None where the model gives none."""
    features: FeatureTable
    """The features that the scores come from, in the same order."""


def score_pictures(
    model: Model,
    directory: Path,
    paths: Sequence[str],
    *,
    device: torch.device,
    extractor_model: str | None = None,
    fp16: bool = False,
) -> PictureScores:
    """Return the model's scores of these pictures; those that cannot be read are left out, and named.

    `extractor_model` serves a model file that does not name its feature extractor. UserError where the extractor
    cannot be had, or where its features do not fit the model.
    """
    names = ",".join(model.extractors) or extractor_model
    if not names:
        raise UserError("the model file does not name its feature extractor; give it by --feature_extractor_model")
    extractors = build_extractors(names, device)
    found = load_features(directory, paths, extractors, hidden_states=model.hidden_states, views=model.views, fp16=fp16)
    features = average_views(found)
    if not features.paths:
        raise UserError(f"none of the {len(paths)} pictures in {directory} could be read: {name_some(list(paths))}")
    mode = model.mode or ("join" if features.values.shape[1] == model.n_features else "average")
    values = arrange(features, mode)
    if values.shape[1] != model.n_features:
        raise UserError(
            f"the model takes {model.n_features} features, but {names} gives {values.shape[1]} "
            f"(hidden states {model.hidden_states}, {mode}); it was made with another extractor or other hidden states"
        )
    outputs = predict(model.predictor, values).double().numpy()
    sigmas = np.abs(outputs[:, 1]) if outputs.shape[1] > 1 else None
    return PictureScores(features.paths, outputs[:, 0], sigmas, features)
