"""The feature cache: one set of shards for each extractor, hidden state, view and precision, beside the pictures.

    PICTURES/.aesthetic_features/EXTRACTOR-HASH/hidden_state_0-centre-float32/*.safetensors

What was computed is written as a shard every second, or up to ten where writing takes long, so that is what a kill
loses; Ctrl-C loses nothing that the model has begun. Shards are merged as their
number grows, each row about three times in all. There are no locks: shards never change, a merged shard is on the disk
before those that it replaces are removed, and a reader that misses a file looks again. At worst two processes compute
the same features, and the next compaction drops one copy.
"""

import hashlib
import logging
import os
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from custom_aesthetic.base.processes import sweep
from custom_aesthetic.features.picture_keys import PictureKeys, Pictures, picture_keys
from custom_aesthetic.features.shards import (
    SHARD_SUFFIX,
    DamagedShard,
    read_features,
    read_index,
    read_some,
    remove_shard,
    set_aside,
    set_key_text,
    write_shard,
)

logger = logging.getLogger(__name__)

FULL_SHARD_BYTES = 64 * 2**20
"""A shard of this size is not merged any more. Shards are merged in memory, so this bounds what that needs."""

SHARDS_TO_MERGE = 32
"""Number of shards of one generation that are merged into one of the next."""

SMALL_SHARDS_TO_COMPACT = 16
DEAD_FRACTION_TO_COMPACT = 0.25


@dataclass(frozen=True)
class Located:
    """Where the features of the pictures are: arrays (n_pictures,), -1 for a picture that is not in the cache."""

    shards: tuple[Path, ...]
    shard_of: NDArray[np.int32]
    row_in_shard: NDArray[np.int32]
    width: int | None
    """Number of features per picture; None if no picture is in the cache."""


class FeatureSet:
    """The cached features of one extractor, hidden state, view and precision."""

    def __init__(self, folders: Sequence[Path], set_key: str) -> None:
        """`folders` are the folders of this set: the first is written to, all are read."""
        self._folders = tuple(folders)
        self._set_key = set_key
        self._generations: list[list[Path]] = []
        self._verified: set[Path] = set()

    def locate(self, pictures: Pictures) -> Located:
        """Return where the features of these pictures are. Damaged shards are logged and set aside."""
        for _ in range(8):
            located, n_vanished = self._locate_once(pictures)
            if not n_vanished or (located.shard_of >= 0).all():
                break
        return located

    def _locate_once(self, pictures: Pictures) -> tuple[Located, int]:
        shards = [shard for folder in self._folders for shard, _ in _shards_in(folder)]
        shard_of, row_in_shard = (np.full(len(pictures.keys), -1, np.int32) for _ in range(2))
        found: list[tuple[int, NDArray[np.int64], NDArray[np.int64]]] = []
        n_of_width: Counter[int] = Counter()
        width_of: dict[int, int] = {}
        n_vanished = 0
        for number, shard in enumerate(shards):
            index_and_width = self._try_index(shard)
            if index_and_width is None:
                n_vanished += 1
                continue
            rows = pictures.rows_of(index_and_width[0])
            places = np.flatnonzero(rows >= 0)
            found.append((number, rows[places], places))
            width_of[number] = index_and_width[1]
            n_of_width[index_and_width[1]] += len(rows)
        width = max(n_of_width, key=lambda one: n_of_width[one], default=None)
        for number, rows, places in found:
            if width_of[number] != width:
                set_aside(shards[number], f"it has {width_of[number]} features per picture and others have {width}")
                continue
            shard_of[rows] = number
            row_in_shard[rows] = places
        return Located(tuple(shards), shard_of, row_in_shard, width), n_vanished

    def _try_index(self, shard: Path) -> tuple[PictureKeys, int] | None:
        """Return the shard's index and width; None if it is gone, unreadable or damaged (then it is set aside)."""
        try:
            return read_index(shard, self._set_key)
        except FileNotFoundError:
            return None
        except PermissionError:
            logger.warning("the feature cache file %s cannot be read; its features are computed again", shard)
        except DamagedShard as error:
            set_aside(shard, error)
        return None

    def read_rows(self, located: Located, rows: NDArray[np.int64], values: NDArray[np.generic]) -> bool:
        """Fill `values`, (n_rows, width), with the features of these rows, all of which are located.

        Returns False if a shard is damaged or gone. A shard is verified as a whole when it is read first. The memory
        needed besides `values` is a few megabytes.
        """
        if not len(rows):
            return True
        order = np.argsort(located.shard_of[rows], kind="stable")
        numbers, starts = np.unique(located.shard_of[rows][order], return_index=True)
        complete = True
        for number, places in zip(numbers, np.split(order, starts[1:]), strict=True):
            shard = located.shards[number]
            try:
                wanted = located.row_in_shard[rows[places]]
                found = read_some(shard, self._set_key, wanted, values, places, verify=shard not in self._verified)
            except (FileNotFoundError, PermissionError):
                complete = False
            except DamagedShard as error:
                set_aside(shard, error)
                complete = False
            else:
                complete &= found
                self._verified.add(shard)
        return complete

    def add(self, keys: PictureKeys, features: NDArray[np.generic]) -> None:
        """Write the (n_pictures, width) features of these pictures; a kill after this returns does not lose them.

        Raises UserError if they cannot be written; earlier features stay usable.
        """
        self._remember(write_shard(self._folders[0], self._set_key, keys, features), generation=0)

    def _remember(self, shard: Path, generation: int) -> None:
        """Record a new shard of this process, and merge its generation once that is large enough."""
        while len(self._generations) <= generation:
            self._generations.append([])
        shards = self._generations[generation]
        shards.append(shard)
        n_bytes = sum(_size_of(other) for other in shards) if generation else 0
        if len(shards) < SHARDS_TO_MERGE and n_bytes < FULL_SHARD_BYTES:
            return
        self._generations[generation] = []
        merged = self._merge([(other, None) for other in shards])
        if merged is not None and _size_of(merged) < FULL_SHARD_BYTES // 2:
            self._remember(merged, generation + 1)

    def compact(self, pictures: Pictures) -> None:
        """Merge small shards; drop duplicates and the features of pictures that are gone or have changed.

        Does nothing while few shards are small and few rows are dead. A kill in the middle loses nothing.
        """
        folder = self._folders[0]
        sweep(folder)
        seen = np.zeros(len(pictures.keys), bool)
        small: list[tuple[Path, NDArray[np.bool_] | None]] = []
        dead: list[tuple[Path, NDArray[np.bool_] | None]] = []
        for shard, n_bytes in sorted(_shards_in(folder), key=lambda found: (-found[1], found[0])):
            index_and_width = self._try_index(shard)
            if index_and_width is None:
                continue
            alive = _alive(index_and_width[0], pictures, seen)
            if 1 - alive.mean() > DEAD_FRACTION_TO_COMPACT:
                dead.append((shard, alive))
            elif n_bytes < FULL_SHARD_BYTES // 2:
                small.append((shard, alive))
        if len(small) < SMALL_SHARDS_TO_COMPACT and not dead:
            return
        self._generations = []
        for group in _groups_of_full_size(dead + small):
            self._merge(group)

    def _merge(self, shards: Sequence[tuple[Path, NDArray[np.bool_] | None]]) -> Path | None:
        """Write the rows to keep (None: all) of these shards as one shard, then remove these shards.

        Returns the new shard, None if no row is left. Missing shards are skipped: another process has merged them.
        """
        kept: list[Path] = []
        indices: list[PictureKeys] = []
        blocks: list[NDArray[np.generic]] = []
        for shard, keep in shards:
            index_and_width = self._try_index(shard)
            if index_and_width is None:
                continue
            try:
                block = read_features(shard, self._set_key)
            except (FileNotFoundError, PermissionError):
                continue
            except DamagedShard as error:
                set_aside(shard, error)
                continue
            if blocks and block.shape[1] != blocks[0].shape[1]:
                set_aside(shard, f"{block.shape[1]} features per picture, {blocks[0].shape[1]} in others")
                continue
            rows = np.arange(len(block)) if keep is None else np.flatnonzero(keep)
            indices.append(index_and_width[0].take(rows))
            blocks.append(block[rows])
            kept.append(shard)
        merged = None
        if sum(map(len, blocks)):
            keys = PictureKeys(
                [path for index in indices for path in index.paths],
                np.concatenate([index.sizes for index in indices]),
                np.concatenate([index.mtimes_ns for index in indices]),
            )
            merged = write_shard(self._folders[0], self._set_key, keys, np.concatenate(blocks), durable=True)
        for shard in kept:
            remove_shard(shard)
        return merged


def open_feature_set(
    folders: Sequence[Path], *, name: str, fingerprint: str, hidden_state: int, view: str, precision: str
) -> FeatureSet:
    """Return the set with this key in the cache folders; `name` only makes the folder name readable."""
    readable = re.sub(r"[^A-Za-z0-9.]+", "_", name)[-40:]
    extractor = f"{readable}-{hashlib.sha256(fingerprint.encode()).hexdigest()[:16]}"
    part = f"hidden_state_{hidden_state}-{view}-{precision}"
    key = set_key_text(extractor=fingerprint, hidden_state=hidden_state, view=view, precision=precision)
    return FeatureSet([folder / extractor / part for folder in folders], key)


def _shards_in(folder: Path) -> list[tuple[Path, int]]:
    """Return the shards of a folder with their sizes in bytes, sorted by name; empty if there is no such folder."""
    try:
        with os.scandir(folder) as entries:
            names = [
                entry.name
                for entry in entries
                if entry.name.endswith(SHARD_SUFFIX) and entry.is_file(follow_symlinks=False)
            ]
    except OSError:
        return []
    return [(folder / name, _size_of(folder / name)) for name in sorted(names)]


def _size_of(file: Path) -> int:
    try:
        return file.stat().st_size
    except OSError:
        return 0


def _alive(index: PictureKeys, pictures: Pictures, seen: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return which rows to keep: those whose picture is unchanged and not in `seen`, (n_pictures,).

    The rows kept are marked in `seen`. Pictures outside `pictures` are checked on the disk.
    """
    rows = pictures.rows_of(index)
    fresh = np.flatnonzero((rows >= 0) & ~seen[rows])
    fresh = fresh[np.unique(rows[fresh], return_index=True)[1]]
    seen[rows[fresh]] = True
    alive = np.zeros(len(rows), bool)
    alive[fresh] = True
    others = np.flatnonzero(rows < 0)
    now = picture_keys(pictures.directory, [index.paths[int(row)] for row in others])
    alive[others] = (now.sizes == index.sizes[others]) & (now.mtimes_ns == index.mtimes_ns[others])
    return alive


def _groups_of_full_size(
    shards: Sequence[tuple[Path, NDArray[np.bool_] | None]],
) -> list[list[tuple[Path, NDArray[np.bool_] | None]]]:
    groups: list[list[tuple[Path, NDArray[np.bool_] | None]]] = [[]]
    n_bytes = 0
    for shard, keep in shards:
        if n_bytes > FULL_SHARD_BYTES:
            groups.append([])
            n_bytes = 0
        groups[-1].append((shard, keep))
        n_bytes += _size_of(shard)
    return groups
