"""K folds of images: each is left out once, and then judged by a head that never saw it."""

import hashlib
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.int64]


def make_folds(
    paths: Sequence[str], rows: Rows, n_folds: int, *, seed: int, groups: Mapping[str, str] | None = None
) -> list[tuple[Rows, Rows]]:
    """Return for each fold the rows that train and the rows left out; each of `rows` is left out exactly once.

    `paths` (n_images,) name the images and `rows` are those to share out, such as train and eval together. They are
    ordered by a hash of seed and path, which no order of listing can change. `groups` (path -> what its group is
    called; other paths stand alone) are kept in one fold: each goes to the fold that holds fewest, large ones first.
    There are fewer folds where there are fewer groups.
    """
    clusters: dict[tuple[bool, str], list[int]] = {}
    for row in sorted(rows, key=lambda row: paths[row]):
        path = paths[row]
        grouped = groups is not None and path in groups
        clusters.setdefault((grouped, groups[path] if grouped and groups is not None else path), []).append(int(row))
    ordered = sorted(clusters.values(), key=lambda members: (-len(members), _rank(paths[members[0]], seed)))
    folds: list[list[int]] = [[] for _ in range(min(n_folds, len(ordered)))]
    for members in ordered:
        min(folds, key=len).extend(members)
    left_out = [np.array(sorted(fold), dtype=np.int64) for fold in folds]
    return [(np.setdiff1d(rows, fold), fold) for fold in left_out]


def _rank(path: str, seed: int) -> bytes:
    return hashlib.sha256(f"{seed}:{path}".encode()).digest()
