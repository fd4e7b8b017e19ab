"""Which pictures of a folder belong together: near-duplicates by their features, and bursts by features and time."""

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from custom_aesthetic.base.arrays import Array
from custom_aesthetic.base.errors import UserError
from custom_aesthetic.base.processes import folder_prefix
from custom_aesthetic.features.precomputed import PrecomputedTable
from custom_aesthetic.features.table import StoredFeatures
from custom_aesthetic.features.views import average_views
from custom_aesthetic.pictures.capture_times import shot_together
from custom_aesthetic.scores.duplicates import Pairs, Rows, group_duplicates

BYTES_IN_MEMORY = 2**29
"""Features up to this size are held in memory; of more, rows are read as they are needed."""


def picture_groups(directory: Path, paths: Sequence[str], features: Rows) -> list[str]:
    """Return the name of each picture's group: the first path of the group, its own if it is like no other picture."""
    together = shot_together(directory, paths)
    first = group_duplicates(paths, features, shot_together=together)
    return [first.get(path, path) for path in paths]


@contextmanager
def rows_of(source: StoredFeatures | PrecomputedTable, paths: Sequence[str]) -> Iterator[Rows]:
    """Yield the features of these pictures, which are all rows of a table if that is the source; views are averaged.

    They are in memory, or if large in the cache, or for a table in a temporary file. UserError without room for that.
    """
    if isinstance(source, PrecomputedTable):
        assert len(paths) == len(source.paths)
        with _rows_of_table(source) as rows:
            yield rows
        return
    cached = _RowsOfCache(source, paths)
    is_small = len(paths) * source.row_bytes <= BYTES_IN_MEMORY
    yield cached[np.arange(len(paths))] if is_small else cached


class _RowsOfCache:
    def __init__(self, stored: StoredFeatures, paths: Sequence[str]) -> None:
        self._stored, self._numbers = stored, stored.numbers(paths)

    def __getitem__(self, rows: Pairs, /) -> Array:
        table = average_views(self._stored.read(self._numbers[rows]))
        if len(table.paths) < len(rows):
            path, reason = next(iter(table.failures.items()))
            raise UserError(f"{path} changed while it was scored ({reason}); run the same command again")
        return table.values.numpy()


@contextmanager
def _rows_of_table(table: PrecomputedTable) -> Iterator[Rows]:
    if len(table.paths) * table.n_features * table.dtype.itemsize <= BYTES_IN_MEMORY:
        yield table.load(table.paths).values.numpy()
        return
    with tempfile.TemporaryDirectory(prefix=folder_prefix()) as folder:
        file = Path(folder) / "features"
        try:
            with file.open("wb") as stream:
                for _, values in table.blocks():
                    stream.write(np.ascontiguousarray(values).data)
        except OSError as error:
            raise UserError(
                f"features of {len(table.paths):,} pictures could not be written to {folder} ({error.strerror}); free "
                "some space there, or leave out --per_group"
            ) from error
        yield _RowsOfFile(file, table)


class _RowsOfFile:
    def __init__(self, file: Path, table: PrecomputedTable) -> None:
        self._file, self._dtype, self._shape = file, table.dtype, (len(table.paths), table.n_features)

    def __getitem__(self, rows: Pairs, /) -> Array:
        # Mapped anew each time, so that the pages read do not count as memory of this process for long.
        return np.array(np.memmap(self._file, self._dtype, "r", shape=self._shape)[rows])
