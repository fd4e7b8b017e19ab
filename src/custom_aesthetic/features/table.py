"""Load the features of pictures, computing those that the cache lacks, as one table with a row for each path."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from custom_aesthetic.base.errors import UserError
from custom_aesthetic.base.progress import Progress, progress_of
from custom_aesthetic.extractors.protocol import FeatureExtractor
from custom_aesthetic.features.cache import FeatureSet, Located, open_feature_set
from custom_aesthetic.features.cache_folders import cache_folders
from custom_aesthetic.features.extraction import Extraction, Features
from custom_aesthetic.features.picture_keys import Pictures

logger = logging.getLogger(__name__)

SetName = tuple[str, int]
"""(view, hidden state)."""

_N_FAILURES_NAMED = 5
_TRIES = 5


@dataclass(frozen=True)
class FeatureBlock:
    """The extractor, hidden state and view of the columns start ... stop - 1."""

    extractor: str
    hidden_state: int
    view: str
    start: int
    stop: int


@dataclass(frozen=True)
class FeatureTable:
    """The features of pictures, one row for each."""

    paths: tuple[str, ...]
    """Relative posix paths of the pictures, in the order given, without those that failed."""

    values: Tensor
    """(n_images, n_features) on the CPU, float32 or float16."""

    blocks: tuple[FeatureBlock, ...]
    """The columns: for each extractor, for each view, for each hidden state, in the order given."""

    failures: dict[str, str]
    """Path -> reason, for the pictures that are left out. The next run tries them again."""


@dataclass(frozen=True)
class _Job:
    """What to compute with one extractor, and the cached sets for it."""

    extractor: FeatureExtractor
    sets: dict[SetName, FeatureSet]
    columns: tuple[SetName, ...]


def load_features(
    directory: Path,
    paths: Sequence[str],
    extractors: Sequence[FeatureExtractor],
    *,
    hidden_states: Sequence[Sequence[int]] | None = None,
    views: Sequence[str] = ("centre",),
    fp16: bool = False,
    show_progress: bool = True,
) -> FeatureTable:
    """Return the features of the pictures `directory`/`paths`; only those that the cache lacks are computed.

    `hidden_states` has a list for each extractor; None stands for the default of each extractor. `fp16` keeps the
    features in half precision, in the cache too. Pictures that cannot be read are logged, listed in `failures` and left
    out. Raises UserError if a hidden state does not exist, if no picture can be read, or if the cache cannot be
    written; finished batches are kept.
    """
    if not paths:
        raise UserError(f"there are no pictures to compute features of in {directory}; check --directory")
    precision = "float16" if fp16 else "float32"
    folders = cache_folders(directory)
    wanted = [extractor.default_hidden_states for extractor in extractors] if hidden_states is None else hidden_states
    jobs = [
        _job(folders, extractor, states, views, precision) for extractor, states in zip(extractors, wanted, strict=True)
    ]
    pictures = Pictures(directory, paths)
    failures: dict[int, str] = {}
    for _ in range(_TRIES):
        located = [_complete(job, pictures, precision, failures, show_progress) for job in jobs]
        table = _read(jobs, located, pictures, precision, failures)
        if table is not None:
            _report(table.failures, len(paths))
            return table
    raise RuntimeError(f"features vanish from the cache in {folders[0]} as fast as they are computed")


def _job(
    folders: Sequence[Path],
    extractor: FeatureExtractor,
    wanted: Sequence[int],
    views: Sequence[str],
    precision: str,
) -> _Job:
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
    return _Job(extractor, sets, columns)


def _complete(
    job: _Job, pictures: Pictures, precision: str, failures: dict[int, str], show_progress: bool
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
    job: _Job,
    names: Sequence[SetName],
    rows: NDArray[np.int64],
    pictures: Pictures,
    precision: str,
    failures: dict[int, str],
    progress: Progress,
) -> None:
    """Compute the features of these sets and rows; each batch is cached as soon as it is computed."""

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


def _read(
    jobs: Sequence[_Job],
    located: Sequence[dict[SetName, Located]],
    pictures: Pictures,
    precision: str,
    failures: dict[int, str],
) -> FeatureTable | None:
    """Return the table; None if a located shard is damaged or gone, or a picture was not computed."""
    blocks, readers = [], []
    there = np.ones(len(pictures.keys), bool)
    start = 0
    for job, places in zip(jobs, located, strict=True):
        for view, hidden_state in job.columns:
            where = places[view, hidden_state]
            there &= where.shard_of >= 0
            stop = start + (where.width or 0)
            blocks.append(FeatureBlock(job.extractor.name, hidden_state, view, start, stop))
            readers.append((job.sets[view, hidden_state], where))
            start = stop
    there[list(failures)] = False
    if int(there.sum()) + len(failures) < len(there):
        return None
    named = {pictures.keys.paths[row]: failures[row] for row in sorted(failures)}
    if not there.any():
        first, reason = next(iter(named.items()))
        raise UserError(
            f"none of the {len(there)} pictures in {pictures.directory} can be used; the first, {first}: {reason}"
        )
    values = torch.empty(len(there), start, dtype=getattr(torch, precision))
    for block, (feature_set, where) in zip(blocks, readers, strict=True):
        if not feature_set.read_into(where, values.numpy()[:, block.start : block.stop]):
            return None
    paths = tuple(path for path, kept in zip(pictures.keys.paths, there, strict=True) if kept)
    return FeatureTable(paths, _kept_rows(values, there), tuple(blocks), named)


def _kept_rows(values: Tensor, keep: NDArray[np.bool_]) -> Tensor:
    """Return the rows of `values` to keep, moved up in place: a copy would need the same memory again."""
    rows = np.flatnonzero(keep)
    for start in range(0, len(rows), 4096):
        chunk = rows[start : start + 4096]
        if chunk[-1] != start + len(chunk) - 1:
            values[start : start + len(chunk)] = values[torch.from_numpy(chunk)]
    return values[: len(rows)]


def _report(failures: dict[str, str], n_pictures: int) -> None:
    if not failures:
        return
    named = "; ".join(f"{path}: {reason}" for path, reason in list(failures.items())[:_N_FAILURES_NAMED])
    more = f"; and {len(failures) - _N_FAILURES_NAMED} more" if len(failures) > _N_FAILURES_NAMED else ""
    logger.warning("%d of %d pictures cannot be used and are left out: %s%s", len(failures), n_pictures, named, more)
