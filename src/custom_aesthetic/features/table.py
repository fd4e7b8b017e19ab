"""Features of pictures as one table with a row for each path, or some rows at a time from the cache.

Features that the cache lacks are computed first, and kept there.
"""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from custom_aesthetic.base.errors import UserError
from custom_aesthetic.extractors.protocol import FeatureExtractor
from custom_aesthetic.features.cache import Located
from custom_aesthetic.features.cache_folders import cache_folders
from custom_aesthetic.features.completion import FeatureJob, SetName, complete, open_job
from custom_aesthetic.features.picture_keys import Pictures

logger = logging.getLogger(__name__)

BLOCK_BYTES = 2**25
"""Features that `StoredFeatures.tables` yields at once."""

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


class StoredFeatures:
    """Features of pictures that are all in the cache, read some rows at a time. Made by `open_features`."""

    def __init__(self, jobs: Sequence[FeatureJob], pictures: Pictures, precision: str, *, show_progress: bool) -> None:
        self._jobs, self._pictures, self._precision = jobs, pictures, precision
        self._show_progress = show_progress
        self._failures: dict[int, str] = {}
        self._located: list[dict[SetName, Located]] = []
        self._complete()

    @property
    def failures(self) -> dict[str, str]:
        """Path -> reason, for the pictures that are left out."""
        return {self._pictures.keys.paths[row]: self._failures[row] for row in sorted(self._failures)}

    @property
    def rows(self) -> NDArray[np.int64]:
        """The numbers of the pictures with features, in the order in which they were asked for, from 0."""
        kept = np.ones(len(self._pictures.keys), bool)
        kept[list(self._failures)] = False
        return np.flatnonzero(kept)

    @property
    def blocks(self) -> tuple[FeatureBlock, ...]:
        """The columns."""
        found, start = [], 0
        for job, places in zip(self._jobs, self._located, strict=True):
            for view, hidden_state in job.columns:
                stop = start + (places[view, hidden_state].width or 0)
                found.append(FeatureBlock(job.extractor.name, hidden_state, view, start, stop))
                start = stop
        return tuple(found)

    def numbers(self, paths: Sequence[str]) -> NDArray[np.int64]:
        """Return the numbers of these pictures, as `read` takes them."""
        return np.fromiter((self._pictures.row_of[path] for path in paths), np.int64, len(paths))

    @property
    def row_bytes(self) -> int:
        """Bytes of the features of one picture."""
        return max(1, self.blocks[-1].stop * np.dtype(self._precision).itemsize)

    def tables(self, most_rows: int = 8192) -> Iterator[FeatureTable]:
        """Yield the features of all pictures in order, some at a time.

        Features that have been removed from the cache since are computed again; if that fails, the picture is left out.
        """
        rows, at_once = self.rows, min(most_rows, max(1, BLOCK_BYTES // self.row_bytes))
        for start in range(0, len(rows), at_once):
            table = self.read(rows[start : start + at_once])
            if table.paths:
                yield table

    def read(self, rows: NDArray[np.int64]) -> FeatureTable:
        """Return the features of the pictures of these numbers, without any that fail when they are computed again."""
        for _ in range(_TRIES):
            kept = rows[[row not in self._failures for row in rows.tolist()]] if self._failures else rows
            blocks = self.blocks
            values = torch.empty(len(kept), blocks[-1].stop, dtype=getattr(torch, self._precision))
            if self._fill(blocks, kept, values.numpy()):
                paths = self._pictures.keys.paths
                return FeatureTable(tuple(paths[row] for row in kept.tolist()), values, blocks, self.failures)
            self._complete()
        raise RuntimeError(f"features of {self._pictures.directory} vanish from the cache as fast as they are computed")

    def _fill(self, blocks: Sequence[FeatureBlock], rows: NDArray[np.int64], values: NDArray[np.generic]) -> bool:
        """Return whether all of these rows could be read."""
        sets = [
            (feature_set, places[name])
            for job, places in zip(self._jobs, self._located, strict=True)
            for name, feature_set in job.sets.items()
        ]
        return all(
            feature_set.read_rows(where, rows, values[:, block.start : block.stop])
            for block, (feature_set, where) in zip(blocks, sets, strict=True)
        )

    def _complete(self) -> None:
        """Compute what the cache lacks until nothing but failures is missing; UserError if no picture can be used."""
        for _ in range(_TRIES):
            self._located = [
                complete(job, self._pictures, self._precision, self._failures, self._show_progress)
                for job in self._jobs
            ]
            missing = np.zeros(len(self._pictures.keys), bool)
            for places in self._located:
                for where in places.values():
                    missing |= where.shard_of < 0
            missing[list(self._failures)] = False
            if not missing.any():
                break
        else:
            raise RuntimeError(f"features of {self._pictures.directory} vanish as fast as they are computed")
        if len(self._failures) == len(self._pictures.keys):
            first, reason = next(iter(self.failures.items()))
            raise UserError(
                f"none of the {len(self._failures)} pictures in {self._pictures.directory} can be used; the first, "
                f"{first}: {reason}"
            )


def open_features(
    directory: Path,
    paths: Sequence[str],
    extractors: Sequence[FeatureExtractor],
    *,
    hidden_states: Sequence[Sequence[int]] | None = None,
    views: Sequence[str] = ("centre",),
    fp16: bool = False,
    show_progress: bool = True,
) -> StoredFeatures:
    """Return the features of the pictures `directory`/`paths`, in the cache; only those that it lacks are computed.

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
        open_job(folders, extractor, states, views, precision)
        for extractor, states in zip(extractors, wanted, strict=True)
    ]
    stored = StoredFeatures(jobs, Pictures(directory, paths), precision, show_progress=show_progress)
    _report(stored.failures, len(paths))
    return stored


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
    """Return the features of the pictures in memory; see `open_features`."""
    stored = open_features(
        directory,
        paths,
        extractors,
        hidden_states=hidden_states,
        views=views,
        fp16=fp16,
        show_progress=show_progress,
    )
    return stored.read(stored.rows)


def _report(failures: dict[str, str], n_pictures: int) -> None:
    if not failures:
        return
    named = "; ".join(f"{path}: {reason}" for path, reason in list(failures.items())[:_N_FAILURES_NAMED])
    more = f"; and {len(failures) - _N_FAILURES_NAMED} more" if len(failures) > _N_FAILURES_NAMED else ""
    logger.warning("%d of %d pictures cannot be used and are left out: %s%s", len(failures), n_pictures, named, more)
