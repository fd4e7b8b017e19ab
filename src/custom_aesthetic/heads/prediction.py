"""Prediction with a model: which features it needs of a picture, and its scores for them.

Everything that uses a model (the closing statistics of a training, analysis, Spotlight, the folder scorer, the A/B
scorer, `Scorer`) uses these functions, so that all get the same scores.
"""

import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from custom_aesthetic.base.arrays import Array
from custom_aesthetic.base.errors import UserError
from custom_aesthetic.extractors import FeatureExtractor, build_extractors
from custom_aesthetic.extractors.build import asks_a_hub
from custom_aesthetic.features.hidden_states import arrange, spell_states
from custom_aesthetic.features.precomputed import PrecomputedTable, is_from_table
from custom_aesthetic.features.table import FeatureTable, StoredFeatures, open_features
from custom_aesthetic.features.table_files import extractor_name
from custom_aesthetic.features.views import average_views
from custom_aesthetic.heads.domain import distances, from_text
from custom_aesthetic.heads.model_file import Model
from custom_aesthetic.heads.predictor import ROWS_AT_ONCE, predict
from custom_aesthetic.settings.training import TABLE_PREFIX

log = logging.getLogger(__name__)


class Prediction(NamedTuple):
    """A model's predictions for images, in the units of the scores that it was trained on."""

    scores: Array
    """(n_images,); higher is better."""
    sigmas: Array | None
    """(n_images,), not negative: predicted standard deviations of the scores; None if the model has no sigma output."""
    domain_distances: Array | None
    """(n_images,), from 0; above 1, an image is unlike the training pictures. None if the file has no domain."""


@dataclass(frozen=True)
class PictureScores:
    """A model's predictions for the readable pictures; all fields have the order of `paths`."""

    paths: tuple[str, ...]
    scores: Array
    """(n_images,), in the units of the scores that the model was trained on."""
    sigmas: Array | None
    """(n_images,); see `Prediction`."""
    domain_distances: Array | None
    """(n_images,); see `Prediction`."""
    features: FeatureTable
    """The features behind the scores: hidden states side by side, averaged over the views."""


def open_extractors(
    model: Model, device: torch.device, *, extractor_model: str | None = None, offline: bool = False
) -> list[FeatureExtractor]:
    """Return the extractors that the model was trained with, in the model's order, without loading their weights yet.

    `extractor_model` is used if the model file does not name its extractor. A download is announced in the log, with
    the model file that needs it; with `offline` nothing is downloaded. Raises UserError if an extractor is not
    available, or lacks a hidden state that the model takes.
    """
    names = ",".join(model.extractors) or extractor_model
    if any(name.startswith(TABLE_PREFIX) for name in model.extractors):
        raise UserError(
            f"model file {model.file} takes the {model.n_features} features of a table ({names}), which no extractor "
            "computes; name a table of such features by --features, or use Scorer.score_features"
        )
    if not names:
        raise UserError(f"model file {model.file} does not name its feature extractor; set --feature_extractor_model")
    for name in model.extractors:
        if asks_a_hub(name) and not offline:
            log.info("model file %s needs the feature extractor %s: asking the hub for it", model.file, name)
    extractors = build_extractors(names, device, offline)
    for extractor, states in zip(extractors, states_of(model, extractors), strict=True):
        if max(states) >= extractor.n_hidden_states:
            raise UserError(
                f"model file {model.file} takes hidden state {max(states)} of {extractor.name}, which only has 0 (the "
                f"final output) to {extractor.n_hidden_states - 1}; it was made with another extractor of that name"
            )
    return extractors


def states_of(model: Model, extractors: Sequence[FeatureExtractor]) -> list[tuple[int, ...]]:
    """Return the hidden states that the model takes from each of its extractors; UserError if the numbers differ."""
    if model.hidden_states is None:
        return [extractor.default_hidden_states for extractor in extractors]
    lists = model.hidden_states
    if len(lists) not in (1, len(extractors)):
        raise UserError(f"model file {model.file} has hidden states for {len(lists)} extractors, not {len(extractors)}")
    return list(lists) * len(extractors) if len(lists) == 1 else list(lists)


def model_input(model: Model, features: FeatureTable) -> Tensor:
    """Return the input of the model's first layer, (n_images, n_features), for features from `load_features`.

    Views are averaged, then the hidden states of each extractor are joined or averaged; features of a table are taken
    as they are. Raises UserError if the number of features does not match the model.
    """
    if is_from_table(features):
        check_width(model, features.blocks[0].extractor, features.values.shape[1])
        return features.values
    features = average_views(features)
    names = list(dict.fromkeys(block.extractor for block in features.blocks))
    if model.modes is not None:
        modes = model.modes * len(names) if len(model.modes) == 1 else model.modes
    else:  # an older file does not name the mode: infer it from the number of features
        mode = "join" if features.values.shape[1] == model.n_features else "average"
        modes = (mode,) * len(names)
    values = arrange(features, modes)
    if values.shape[1] != model.n_features:
        found = [tuple(block.hidden_state for block in features.blocks if block.extractor == name) for name in names]
        raise UserError(
            f"model file {model.file} takes {model.n_features} features, but {' + '.join(names)} gives "
            f"{values.shape[1]} (hidden states {spell_states(found)}, {'__'.join(modes)}); it was made with another "
            "extractor or other hidden states"
        )
    return values


def check_width(model: Model, name: str, n_features: int) -> None:
    """Raise UserError where a table of that name has another number of features than the model takes."""
    if n_features != model.n_features:
        known = " + ".join(model.extractors) or "an extractor that it does not name"
        raise UserError(
            f"model file {model.file} takes {model.n_features} features, of {known}, but the table ({name}) has "
            f"{n_features}; name a table of the features that it was trained on"
        )


def predict_features(model: Model, values: Tensor) -> Prediction:
    """Return the model's predictions for inputs (n_images, n_features), as `model_input` returns them."""
    outputs = predict(model.predictor, values).double().numpy()
    sigmas = np.abs(outputs[:, 1]) if outputs.shape[1] > 1 else None
    domain = from_text(model.metadata.get("domain", ""), model.n_features)
    if domain is None:
        return Prediction(outputs[:, 0], sigmas, None)
    far = [distances(rows.float().numpy(), domain) for rows in values.split(ROWS_AT_ONCE)]
    return Prediction(outputs[:, 0], sigmas, np.concatenate(far).astype(np.float64))


def predict_table(model: Model, table: PrecomputedTable) -> Prediction:
    """Return the model's predictions for every row of a table, whose features are loaded in blocks."""
    check_width(model, table.name, table.n_features)
    blocks = table.blocks(fp16=model.fp16)
    parts = (torch.from_numpy(np.require(values, requirements="W")) for _, values in blocks)  # as torch wants it
    return _predict_parts(model, parts, len(table.paths))


def predict_stored(model: Model, stored: StoredFeatures) -> tuple[tuple[str, ...], Prediction]:
    """Return the model's predictions for features in the cache, read in blocks, and the paths of their pictures."""
    paths: list[str] = []

    def parts() -> Iterator[Tensor]:
        for table in stored.tables(ROWS_AT_ONCE):
            paths.extend(table.paths)
            yield model_input(model, table)

    predictions = _predict_parts(model, parts(), len(stored.rows))
    return tuple(paths), predictions


def _predict_parts(model: Model, parts: Iterable[Tensor], most_rows: int) -> Prediction:
    """Return the predictions for model inputs, (n_rows, n_features) each, of at most `most_rows` rows in all."""
    columns: tuple[Array | None, ...] = ()
    start = 0
    for values in parts:
        found = predict_features(model, values)
        # Arrays made now leave no holes in the memory: small ones made between the blocks would.
        columns = columns or tuple(None if part is None else np.empty(most_rows) for part in found)
        for column, part in zip(columns, found, strict=True):
            if column is not None:
                column[start : start + len(values)] = part
        start += len(values)
    return Prediction(*(None if column is None else column[:start] for column in columns))  # type: ignore[arg-type]


def check_name(model: Model, name: str | None) -> None:
    """Raise UserError where `--features_name` is given, and the model was trained on a table of another name."""
    if name is None:
        return
    wanted = extractor_name(Path(), name)
    if model.extractors != (wanted,):
        raise UserError(
            f"--features_name={name} says that the features are {wanted}, but model file {model.file} was trained on "
            f"{' + '.join(model.extractors) or 'others'}; name the right table, or leave --features_name away"
        )


def score_pictures(
    model: Model,
    directory: Path,
    paths: Sequence[str],
    *,
    device: torch.device,
    extractor_model: str | None = None,
    fp16: bool = False,
    offline: bool = False,
    table: PrecomputedTable | None = None,
) -> PictureScores:
    """Return the model's scores for these pictures. Unreadable pictures are left out and named in the log.

    Features come from the table if there is one; it must have all these pictures, which need not exist themselves.
    Otherwise they come from the cache of `directory` if it has them. `fp16` rounds them to half precision, as is always
    done for a model that was trained on such features. The other options are those of `open_extractors`. Raises
    UserError if no picture can be read.
    """
    if table is not None:
        check_width(model, table.name, table.n_features)
        given = table.load(paths, fp16=fp16 or model.fp16)
        return PictureScores(given.paths, *predict_features(model, model_input(model, given)), given)
    extractors = open_extractors(model, device, extractor_model=extractor_model, offline=offline)
    stored = store_features(model, directory, paths, extractors, fp16=fp16)
    features = average_views(stored.read(stored.rows))
    return PictureScores(features.paths, *predict_features(model, model_input(model, features)), features)


def store_features(
    model: Model, directory: Path, paths: Sequence[str], extractors: Sequence[FeatureExtractor], *, fp16: bool = False
) -> StoredFeatures:
    """Return the features that the model needs of these pictures, in the cache; see `score_pictures`."""
    return open_features(
        directory,
        paths,
        extractors,
        hidden_states=states_of(model, extractors),
        views=model.views,
        fp16=fp16 or model.fp16,
    )
