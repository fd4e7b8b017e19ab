"""Read features from parquet files, some rows at a time, and write them in row groups."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from custom_aesthetic.base.errors import UserError
from custom_aesthetic.base.files import written_aside
from custom_aesthetic.base.text import printable
from custom_aesthetic.features.npy_parts import BLOCK_BYTES, features_in
from custom_aesthetic.features.table_files import BadRows

PATH, FEATURES = "relative_path", ("features", "embedding")
IMAGE_PATH = "image_path"
"""What clip-retrieval calls the paths."""

BUFFER_BYTES = 2**20
"""Read at once from a column; without it a whole row group's features would be held beside the array they go to."""

PATHS_AT_ONCE = 2**16


class ParquetPart:
    """The rows of a parquet file with the columns `relative_path` and `features` (or `embedding`), a list each."""

    def __init__(self, file: Path) -> None:
        """UserError for a file that is not parquet, lacks a column, or has a column of another type."""
        self._file = file
        with _opened(file) as opened:
            schema = opened.schema_arrow
            self._names = set(schema.names)
            self._column = _named(file, schema, FEATURES)
            check_texts(file, schema, PATH)
            kind = schema.field(self._column).type
            is_list = pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
            if not is_list or not pa.types.is_floating(kind.value_type):
                raise UserError(f"table {file}: {self._column} is {printable(str(kind))}; a list of floats is expected")
            self.dtype = np.dtype(kind.value_type.to_pandas_dtype())
            self.n_rows = opened.metadata.num_rows
        self.n_features = self._first_length() if self.n_rows else 0

    def paths(self) -> list[str]:
        return read_texts(self._file, PATH)

    def column(self, name: str) -> list[Any] | None:
        """Return a further column, one value a row, None where a row has none; None where there is no such column."""
        if name not in self._names:
            return None
        with _opened(self._file) as opened:
            return opened.read(columns=[name]).column(0).to_pylist()

    def blocks(self) -> Iterator[NDArray[Any]]:
        """Yield the features in order, (n_rows, n_features), some rows at a time; BadRows for lists that differ."""
        n_rows, start = max(1, BLOCK_BYTES // (self.n_features * self.dtype.itemsize)), 0
        with _opened(self._file) as opened:
            for batch in opened.iter_batches(n_rows, columns=[self._column], use_threads=False):
                lists = batch.column(0)
                lengths = pc.fill_null(pc.list_value_length(lists), -1).to_numpy(zero_copy_only=False)
                wrong = np.flatnonzero(lengths != self.n_features)
                if len(wrong):
                    raise BadRows((start + wrong).tolist(), f"have no {self.n_features} features, as the first row has")
                numbers = lists.flatten()
                if numbers.null_count:
                    places = np.flatnonzero(numbers.is_null().to_numpy(zero_copy_only=False)) // self.n_features
                    raise BadRows((start + np.unique(places)).tolist(), "have features without a value")
                yield numbers.to_numpy().reshape(-1, self.n_features)
                start += len(lists)

    def _first_length(self) -> int:
        with _opened(self._file) as opened:
            first = next(opened.iter_batches(1, columns=[self._column], use_threads=False)).column(0)[0]
        length = len(first) if first.is_valid else 0
        if not length:
            raise UserError(f"table {self._file}: its first row has no features; remove the rows that have none")
        return length


class ClipRetrievalPart:
    """The rows of one `img_emb_N.npy` of clip-retrieval, with the paths in `metadata_N.parquet`."""

    def __init__(self, features: Path, metadata: Path) -> None:
        """UserError for files that cannot be read or do not belong together."""
        self._metadata = metadata
        self._features = features_in(features)
        self.n_rows, self.n_features = self._features.shape
        self.dtype = self._features.dtype
        with _opened(metadata) as opened:
            check_texts(metadata, opened.schema_arrow, IMAGE_PATH)
            n_paths = opened.metadata.num_rows
        if n_paths != self.n_rows:
            raise UserError(
                f"{features} has {self.n_rows} rows and {metadata} {n_paths}; run clip-retrieval's inference again"
            )

    def paths(self) -> list[str]:
        return read_texts(self._metadata, IMAGE_PATH)

    def column(self, name: str) -> None:
        """Return None: what else clip-retrieval knows of a picture is not the user's."""

    def blocks(self) -> Iterator[NDArray[Any]]:
        """Yield the features in order, (n_rows, n_features), some rows at a time."""
        return self._features.blocks()


def check_texts(file: Path, schema: "pa.Schema", name: str) -> None:
    """Raise UserError unless the file has a column of texts with this name."""
    kind = schema.field(_named(file, schema, (name,))).type
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    if not pa.types.is_string(kind) and not pa.types.is_large_string(kind):
        raise UserError(f"table {file}: {name} is {printable(str(kind))}; texts are expected")


def read_texts(file: Path, name: str) -> list[str]:
    """Return the texts of a column; UserError where a row has none."""
    found: list[str] = []
    with _opened(file) as opened:
        for batch in opened.iter_batches(PATHS_AT_ONCE, columns=[name], use_threads=False):
            if batch.column(0).null_count:
                rows = np.flatnonzero(batch.column(0).is_null().to_numpy(zero_copy_only=False)) + len(found)
                raise UserError(
                    f"table {file}: {name} is empty in {len(rows)} rows, the first is row {rows[0] + 1}; remove them"
                )
            found += batch.column(0).to_pylist()
    return found


def write_features(file: Path, blocks: Iterable[tuple[Sequence[str], NDArray[Any]]]) -> None:
    """Write paths and features as parquet, a row group for each block, aside and then renamed.

    A block is paths and features (n_rows, n_features), at least one, all of one width and type. Names that are not
    UTF-8 get `\\udcXX` for each odd byte.
    """
    blocks = iter(blocks)
    first = next(blocks)
    features = pa.list_(pa.field("element", pa.from_numpy_dtype(first[1].dtype), nullable=False))
    schema = pa.schema([pa.field(PATH, pa.string(), nullable=False), pa.field("features", features, nullable=False)])
    with written_aside(file) as stream, pq.ParquetWriter(stream, schema, use_dictionary=False) as writer:
        for paths, values in chain([first], blocks):
            texts = pa.array([path.encode("utf-8", "backslashreplace").decode() for path in paths], pa.string())
            offsets = np.arange(len(paths) + 1, dtype=np.int32) * np.int32(first[1].shape[1])
            lists = pa.ListArray.from_arrays(pa.array(offsets), pa.array(values.reshape(-1)), type=features)
            writer.write_table(pa.Table.from_arrays([texts, lists], schema=schema))


def _named(file: Path, schema: "pa.Schema", names: Sequence[str]) -> str:
    for name in names:
        if schema.names.count(name) == 1:
            return name
    known = ", ".join(map(printable, schema.names[:20]))
    raise UserError(f"table {file} has no column {' or '.join(names)}; its columns are {known}: rename or add it")


@contextmanager
def _opened(file: Path) -> "Iterator[pq.ParquetFile]":
    """Yield the file; what a damaged one raises becomes one line.

    `pre_buffer`, pyarrow's default, would hold the whole file in memory beside the array that it goes to.
    """
    try:
        with pq.ParquetFile(file, buffer_size=BUFFER_BYTES, pre_buffer=False) as opened:
            yield opened
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"table {file} cannot be read: {printable(reason)}; write it again") from None
