"""K folds of images: each is left out once, and then judged by a head that never saw it."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from custom_aesthetic.scores.grouping import gather, rank

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
    row_of = {paths[row]: int(row) for row in rows}
    assert len(row_of) == len(rows), "paths are different from each other"
    clusters = [[row_of[path] for path in members] for members in gather(row_of, groups).values()]
    ordered = sorted(clusters, key=lambda members: (-len(members), rank(paths[members[0]], seed)))
    folds: list[list[int]] = [[] for _ in range(min(n_folds, len(ordered)))]
    for members in ordered:
        min(folds, key=len).extend(members)
    left_out = [np.array(sorted(fold), dtype=np.int64) for fold in folds]
    return [(np.setdiff1d(rows, fold), fold) for fold in left_out]
