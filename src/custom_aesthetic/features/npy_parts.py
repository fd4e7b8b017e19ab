"""Read features from `.npz` files and from the `.npy` files of clip-retrieval, some rows at a time.

numpy's own loader would hold the whole array, and convert a copy of it. Sizes and types are checked before anything of
that size is made, and pickled objects are never loaded.
"""

import io
import math
import tokenize
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from custom_aesthetic.base.errors import UserError
from custom_aesthetic.base.text import printable
from custom_aesthetic.features.table_files import BadRows

MOST_HEADER_BYTES = 10_000
"""numpy's own limit; the header of a plain array takes about a hundred."""

LONGEST_PATH = 4096
BLOCK_BYTES = 2**22
"""Features held at once while they are read: reading parquet takes about ten times that."""

PATHS, FEATURES = ("paths", "relative_path"), ("features", "embedding")
"""The names of the arrays in a file; the first that exists is read."""

_READERS = {(1, 0): (2, npy.read_array_header_1_0), (2, 0): (4, npy.read_array_header_2_0)}
"""Version -> the number of bytes of the header's length, and numpy's reader from there on."""


@dataclass(frozen=True)
class NpyArray:
    """One array in a file: where it is and what it says of itself."""

    file: Path
    member: str | None
    """The name of the array in an npz file; None for an npy file."""
    shape: tuple[int, ...]
    dtype: np.dtype
    is_fortran: bool

    def __len__(self) -> int:
        return self.shape[0]

    def blocks(self) -> Iterator[NDArray[Any]]:
        """Yield all rows in order, some at a time."""
        row_bytes = max(1, math.prod(self.shape[1:]) * self.dtype.itemsize)
        with _opened(self.file, self.member) as (stream, _):
            read_header(stream)
            if self.is_fortran:
                whole = np.frombuffer(_read(stream, len(self) * row_bytes), self.dtype).reshape(self.shape[::-1]).T
                yield from np.array_split(whole, math.ceil(len(self) * row_bytes / BLOCK_BYTES))
                return
            for start in range(0, len(self), n_rows := max(1, BLOCK_BYTES // row_bytes)):
                n = min(n_rows, len(self) - start)
                yield np.frombuffer(_read(stream, n * row_bytes), self.dtype).reshape(n, *self.shape[1:])

    def values(self) -> list[Any]:
        """Return the values of an array of one axis as Python objects."""
        return [value for block in self.blocks() for value in block.tolist()]


class NpzPart:
    """The rows of an npz file with the arrays `paths` and `features`; `score`, `split` and `weight` may be there."""

    def __init__(self, file: Path) -> None:
        """UserError for a file that is no npz file, lacks an array, or holds other than plain texts and numbers."""
        with _reading(file), zipfile.ZipFile(file) as archive:
            self._names = [name.removesuffix(".npy") for name in archive.namelist() if name.endswith(".npy")]
        self._file = file
        self._paths = self._text(self._named(PATHS))
        self._features = features_in(file, self._named(FEATURES))
        self._check_length(self._paths)
        self.n_rows, self.n_features = self._features.shape
        self.dtype = self._features.dtype

    def paths(self) -> list[str]:
        return [_decoded(path) for path in self._paths.values()]

    def column(self, name: str) -> list[Any] | None:
        """Return a further array, one value a row; None where the file has none of that name."""
        if name not in self._names:
            return None
        array = self._text(name) if name == "split" else find_array(self._file, name)
        self._check_length(array)
        return [_decoded(value) for value in array.values()]

    def blocks(self) -> Iterator[NDArray[Any]]:
        """Yield the features in order, (n_rows, n_features), some rows at a time."""
        return self._features.blocks()

    def _named(self, names: Sequence[str]) -> str:
        for name in names:
            if name in self._names:
                return name
        known = ", ".join(map(printable, self._names[:20])) or "nothing that numpy has saved"
        raise UserError(f"table {self._file} has no array {names[0]}; it holds {known}: save paths and features")

    def _text(self, name: str) -> NpyArray:
        array = find_array(self._file, name)
        if len(array.shape) != 1 or array.dtype.kind not in "US" or array.dtype.itemsize > 4 * LONGEST_PATH:
            raise UserError(
                f"table {self._file}: {name} holds {array.dtype} of shape {array.shape}; one text a row is expected"
            )
        return array

    def _check_length(self, array: NpyArray) -> None:
        if array.shape != (len(self._features),):
            raise UserError(
                f"table {self._file}: features have {len(self._features)} rows, and {array.member} has the shape "
                f"{array.shape}; save one a row"
            )


def features_in(file: Path, member: str | None = None) -> NpyArray:
    """Return the array of features in a file; UserError unless it is real numbers of shape (n_rows, n_features)."""
    array = find_array(file, member)
    if len(array.shape) != 2 or 0 in array.shape or array.dtype.kind != "f":
        raise UserError(
            f"table {file}: its features are {array.dtype} of shape {array.shape}; floats of shape (images, features) "
            "are expected"
        )
    return array


def find_array(file: Path, member: str | None = None) -> NpyArray:
    """Return an array's place, shape and type; UserError for pickled objects, and for sizes that the file has not."""
    with _opened(file, member) as (stream, n_bytes):
        shape, is_fortran, dtype = read_header(stream)
        found = n_bytes - stream.tell()
    name = f"table {file}" + (f": {printable(member)}" if member else "")
    if dtype.hasobject or dtype.kind == "V":
        raise UserError(
            f"{name} holds Python objects, and those are never loaded, as they can run anything; save plain texts and "
            "numbers"
        )
    wanted = math.prod(shape) * dtype.itemsize
    if len(shape) < 1 or min(shape) < 0 or found != wanted:
        raise UserError(
            f"{name} is damaged: {found:,} bytes for {dtype} of shape {shape}, which takes {wanted:,}; write it again"
        )
    return NpyArray(file, member, shape, dtype, is_fortran)


def read_header(stream: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Return shape, whether the order is Fortran's, and type; ValueError for a bad or too long header."""
    version = npy.read_magic(io.BytesIO(stream.read(npy.MAGIC_LEN)))
    if version not in _READERS:
        raise ValueError(f"an array of numpy's format {version} is not known")
    n_digits, read = _READERS[version]
    digits = stream.read(n_digits)
    length = int.from_bytes(digits, "little")
    if length > MOST_HEADER_BYTES:
        raise ValueError(f"the header of an array has {length:,} bytes, and no plain array has that")
    return read(io.BytesIO(digits + stream.read(length)))


@contextmanager
def _opened(file: Path, member: str | None) -> Iterator[tuple[IO[bytes], int]]:
    """Yield the stream of an array and its number of bytes."""
    with _reading(file):
        if member is None:
            with file.open("rb") as stream:
                yield stream, file.stat().st_size
            return
        with zipfile.ZipFile(file) as archive, archive.open(f"{member}.npy") as entry:
            yield entry, archive.getinfo(f"{member}.npy").file_size


@contextmanager
def _reading(file: Path) -> Iterator[None]:
    """Turn what a damaged file raises into one line."""
    try:
        yield
    except (UserError, BadRows):
        raise
    except (OSError, ValueError, EOFError, TypeError, KeyError, SyntaxError, RecursionError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    except (zipfile.BadZipFile, zlib.error, tokenize.TokenError, RuntimeError, MemoryError) as error:
        reason = str(error) or type(error).__name__
    else:
        return
    raise UserError(f"table {file} cannot be read: {printable(reason)}; write it again") from None


def _read(stream: IO[bytes], n_bytes: int) -> bytes:
    content = stream.read(n_bytes)
    if len(content) < n_bytes:
        raise EOFError("it is cut off")
    return content


def _decoded(value: Any) -> Any:
    return value.decode("utf-8", "surrogateescape") if isinstance(value, bytes) else value
