"""Compute the features of pictures that the cache lacks, and say where in the cache all of them are."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from custom_aesthetic.base.errors import UserError
from custom_aesthetic.base.progress import Progress, progress_of
from custom_aesthetic.extractors.protocol import FeatureExtractor
from custom_aesthetic.features.cache import FeatureSet, Located, open_feature_set
from custom_aesthetic.features.extraction import Extraction, Features
from custom_aesthetic.features.picture_keys import Pictures

logger = logging.getLogger(__name__)

SetName = tuple[str, int]
"""(view, hidden state)."""


@dataclass(frozen=True)
class FeatureJob:
    """What to compute with one extractor, and the cached sets for it."""

    extractor: FeatureExtractor
    sets: dict[SetName, FeatureSet]
    columns: tuple[SetName, ...]


def open_job(
    folders: Sequence[Path],
    extractor: FeatureExtractor,
    wanted: Sequence[int],
    views: Sequence[str],
    precision: str,
) -> FeatureJob:
    """Return the job of an extractor; UserError for a hidden state that it does not have."""
    outside = [k for k in wanted if not 0 <= k < extractor.n_hidden_states]
    if outside:
        raise UserError(
            f"--hidden_states_used={','.join(map(str, wanted))}: {extractor.name} has no hidden state {outside[0]}; "
            f"choose from 0 (the final output) to {extractor.n_hidden_states - 1}"
        )
    columns = tuple((view, k) for view in views for k in wanted)
    sets = {
        (view, k): open_feature_set(
            folders,
            name=extractor.name,
            fingerprint=extractor.fingerprint,
            hidden_state=k,
            view=view,
            precision=precision,
        )
        for view, k in columns
    }
    return FeatureJob(extractor, sets, columns)


def complete(
    job: FeatureJob, pictures: Pictures, precision: str, failures: dict[int, str], show_progress: bool
) -> dict[SetName, Located]:
    """Compute the features that the cache lacks, except for pictures that have failed; return where all of them are."""
    located = {name: feature_set.locate(pictures) for name, feature_set in job.sets.items()}
    missing = np.stack([where.shard_of < 0 for where in located.values()], axis=1)
    missing[list(failures)] = False
    rows = np.flatnonzero(missing.any(axis=1))
    if not len(rows):
        return located
    kinds, kind_of = np.unique(missing[rows], axis=0, return_inverse=True)
    kind_of = kind_of.reshape(-1)
    description = f"features of {job.extractor.name}"
    with progress_of(len(rows), description, "pictures", is_shown=show_progress) as progress:
        for i, kind in enumerate(kinds):
            names = [name for name, wanted in zip(job.sets, kind, strict=True) if wanted]
            _compute(job, names, rows[kind_of == i], pictures, precision, failures, progress)
    for number, (name, feature_set) in enumerate(job.sets.items()):
        if missing[:, number].any():
            _compact(feature_set, pictures)
            located[name] = feature_set.locate(pictures)
    return located


def _compute(
    job: FeatureJob,
    names: Sequence[SetName],
    rows: NDArray[np.int64],
    pictures: Pictures,
    precision: str,
    failures: dict[int, str],
    progress: Progress,
) -> None:
    """Compute the features of these sets and rows; finished batches are cached every second, or up to ten."""

    def keep(batch_rows: list[int], features: Features) -> None:
        with np.errstate(over="ignore"):
            stored = {name: np.asarray(features[name], precision) for name in names}
        finite = np.logical_and.reduce([np.isfinite(values).all(axis=1) for values in stored.values()])
        good = np.flatnonzero(finite)
        if len(good):
            keys = pictures.keys.take([batch_rows[i] for i in good])
            for name, values in stored.items():
                job.sets[name].add(keys, values[good])
        for i in np.flatnonzero(~finite):
            computed = all(np.isfinite(values[i]).all() for values in features.values())
            failures[batch_rows[i]] = (
                "its features are too large for half precision; leave out --fp16_features"
                if computed
                else f"{job.extractor.name} gives no finite features for it"
            )
        progress.update(len(batch_rows))

    def fail(row: int, reason: str) -> None:
        failures[row] = reason
        progress.update()

    wanted: dict[str, list[int]] = {}
    for view, hidden_state in names:
        wanted.setdefault(view, []).append(hidden_state)
    extraction = Extraction(pictures.directory, job.extractor, wanted, on_batch=keep, on_failure=fail)
    extraction.run([(int(row), pictures.keys.paths[row]) for row in rows])
    logger.debug("%s: %d pictures at batch size %d", job.extractor.name, len(rows), extraction.batch_size)


def _compact(feature_set: FeatureSet, pictures: Pictures) -> None:
    try:
        feature_set.compact(pictures)
    except UserError as error:
        logger.warning("the feature cache was not tidied up: %s", error)
