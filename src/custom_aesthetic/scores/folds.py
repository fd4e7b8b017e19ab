"""Folds for cross-validation, and what they share with splits: a seeded order of images, and groups' members."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from custom_aesthetic.base.arrays import Array
from custom_aesthetic.base.text import hashable

Rows = NDArray[np.int64]


def make_folds(
    paths: Sequence[str], rows: Rows, n_folds: int, *, seed: int, groups: Mapping[str, str] | None = None
) -> list[tuple[Rows, Rows]]:
    """Return (rows that train, rows left out) for each fold; each of `rows` is left out exactly once.

    `paths` (n_images,) name the images, and `rows` are the ones to distribute, such as train and eval together. Images
    are ordered by a hash of seed and path, so the order of `paths` does not matter. `groups` (path -> name of its
    group; other paths are groups of one) are not divided: each group goes to the smallest fold, large groups first. The
    number of folds is at most the number of groups.
    """
    row_of = {paths[row]: int(row) for row in rows}
    assert len(row_of) == len(rows), "paths are different from each other"
    clusters = [[row_of[path] for path in members] for members in gather(row_of, groups).values()]
    ordered = sorted(clusters, key=lambda members: (-len(members), rank(paths[members[0]], seed)))
    folds: list[list[int]] = [[] for _ in range(min(n_folds, len(ordered)))]
    for members in ordered:
        min(folds, key=len).extend(members)
    left_out = [np.array(sorted(fold), dtype=np.int64) for fold in folds]
    return [(np.setdiff1d(rows, fold), fold) for fold in left_out]


def rank(path: str, seed: int) -> bytes:
    """Return the sort key of an image in the seeded order: a hash of seed and path."""
    return hashlib.sha256(hashable(f"{seed}:{path}")).digest()


def gather(paths: Iterable[str], groups: Mapping[str, str] | None) -> dict[str, list[str]]:
    """Return first path -> sorted members of each group; the result does not depend on the names of the groups.

    `groups` is path -> name of its group; other paths are groups of one.
    """
    if not groups:
        return {path: [path] for path in sorted(paths)}
    by_group: dict[tuple[bool, str], list[str]] = {}
    for path in sorted(paths):
        by_group.setdefault((path in groups, groups.get(path, path)), []).append(path)
    return {members[0]: members for members in by_group.values()}


def fold_levels(scores: Array, folds: Sequence[tuple[Rows, Rows]]) -> Array:
    """Return how far the scores that a fold learns from lie above all scores on average, for each image it leaves out.

    `folds` are (rows that train, rows left out); the result is (n_images,), 0 for images that no fold leaves out. The
    constant of a model is about the mean score it learns from, so a fold that leaves out high scores predicts them
    low. Subtracted from out-of-fold predictions, the levels make images of different folds comparable.
    """
    found = np.zeros(len(scores))
    known = np.concatenate([left_out for _, left_out in folds])
    for learnt, left_out in folds:
        found[left_out] = scores[learnt].mean() - scores[known].mean()
    return found
