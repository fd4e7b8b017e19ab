"""Identify a picture file in the feature cache by relative path, size and modification time."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class PictureKeys:
    """The identity of picture files when their features were computed; the arrays are (n_pictures,) int64."""

    paths: Sequence[str]
    sizes: NDArray[np.int64]
    mtimes_ns: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.paths)

    def take(self, rows: Sequence[int] | NDArray[np.int64]) -> "PictureKeys":
        """Return the keys of these rows, in this order."""
        return PictureKeys([self.paths[row] for row in rows], self.sizes[rows], self.mtimes_ns[rows])


class Pictures:
    """The pictures to load features of, as they are on the disk now; row i is path i."""

    def __init__(self, directory: Path, paths: Sequence[str]) -> None:
        self.directory = directory
        self.keys = picture_keys(directory, paths)
        self.row_of = {path: row for row, path in enumerate(paths)}
        if len(self.row_of) != len(paths):
            raise ValueError("the same picture is asked for twice")

    def rows_of(self, index: PictureKeys) -> NDArray[np.int64]:
        """Return the row of each indexed picture, -1 if it is not among these pictures or has changed since."""
        row_of = self.row_of
        rows = np.fromiter((row_of.get(path, -1) for path in index.paths), np.int64, len(index))
        same = (self.keys.sizes[rows] == index.sizes) & (self.keys.mtimes_ns[rows] == index.mtimes_ns)
        return np.where(same, rows, -1)


def picture_keys(directory: Path, paths: Sequence[str]) -> PictureKeys:
    """Return the size and modification time of each picture now; both are -1 if there is no such file."""
    sizes, mtimes_ns = (np.full(len(paths), -1, np.int64) for _ in range(2))
    prefix = os.path.join(directory, "")  # noqa: PTH118 - a million Path objects would take seconds
    for row, path in enumerate(paths):
        try:
            status = os.stat(prefix + path)  # noqa: PTH116
        except (OSError, ValueError):
            continue
        sizes[row], mtimes_ns[row] = status.st_size, status.st_mtime_ns
    return PictureKeys(paths, sizes, mtimes_ns)
