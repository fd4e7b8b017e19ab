"""Read and write one shard of the feature cache: a safetensors file with features and the identity of their pictures.

Tensors of a shard of n pictures:
    features   (n, width) float32 or float16
    paths      uint8: the relative posix paths in UTF-8, separated by zero bytes
    sizes      (n,) int64, bytes of the picture file
    mtimes_ns  (n,) int64, its modification time in nanoseconds
The metadata contain the key of the shard's set, and checksums of the index, of the features, and of the features' type
and shape (shards of earlier versions lack the last one). Shards never change: they are written to a temporary file and
renamed, and merging writes a new shard before the old ones are removed.
"""

import contextlib
import errno
import json
import logging
import os
import re
import uuid
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from custom_aesthetic.base.errors import UserError
from custom_aesthetic.base.processes import aside_name
from custom_aesthetic.features.picture_keys import PictureKeys

logger = logging.getLogger(__name__)

SHARD_SUFFIX = ".safetensors"
DAMAGED_SUFFIX = ".damaged"
PIECE_BYTES = 2**22
"""Features that are read at once where a shard is not needed as a whole."""

GAP_BYTES = 2**12
"""Unwanted features between two wanted ones up to which both are read at once."""

_FORMAT = "aesthetic features 1"
_FULL_DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class DamagedShard(Exception):
    """Raised if a file is not an intact shard of the expected set."""


def write_shard(
    folder: Path, set_key: str, pictures: PictureKeys, features: NDArray[np.generic], *, durable: bool = False
) -> Path:
    """Write (n_pictures, width) features as one new shard and return its path.

    A kill leaves either the whole shard or none. `durable` also waits until it is on the disk, so that the shards that
    it replaces may be removed. Raises UserError if the disk is full or the folder cannot be written.
    """
    packed_paths = np.frombuffer("\0".join(pictures.paths).encode("utf-8", "surrogatepass"), np.uint8)
    index: dict[str, NDArray[np.generic]] = {
        "paths": packed_paths,
        "sizes": pictures.sizes,
        "mtimes_ns": pictures.mtimes_ns,
    }
    metadata = {
        "format": _FORMAT,
        "set": set_key,
        "index_crc32": str(_checksum(*index.values())),
        "features_crc32": str(_checksum(features)),
        "layout_crc32": _layout_checksum(str(features.dtype), features.shape),
    }
    content = save({"features": np.ascontiguousarray(features), **index}, metadata)
    shard = folder / f"{uuid.uuid4().hex}{SHARD_SUFFIX}"
    aside = folder / aside_name(shard.stem)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _write_file(aside, content, durable=durable)
        aside.replace(shard)
    except OSError as error:
        remove_shard(aside)
        if error.errno in _FULL_DISK_ERRORS:
            raise UserError(
                f"the disk is full: features could not be written to {folder}; "
                "free some space and run the same command again; what was computed so far is kept"
            ) from error
        raise UserError(
            f"features could not be written to {folder} ({error.strerror}); what was computed so far is kept"
        ) from error
    return shard


def _write_file(path: Path, content: bytes, *, durable: bool) -> None:
    with path.open("wb") as file:
        file.write(content)
        if durable:
            file.flush()
            os.fsync(file.fileno())


def read_index(shard: Path, set_key: str) -> tuple[PictureKeys, int]:
    """Return the pictures of a shard and the width of its features.

    Raises DamagedShard, PermissionError, or FileNotFoundError if it is gone (merged by another process).
    """
    with _opened(shard) as file:
        metadata = _metadata(file, set_key)
        packed, sizes, mtimes_ns = (file.get_tensor(name) for name in ("paths", "sizes", "mtimes_ns"))
        n_rows, width = _check_layout(file, metadata, set_key)
        if metadata.get("index_crc32") != str(_checksum(packed, sizes, mtimes_ns)):
            raise DamagedShard("its index does not match its checksum")
        if (packed.dtype, sizes.dtype, mtimes_ns.dtype) != (np.uint8, np.int64, np.int64):
            raise DamagedShard("its index has other types")
        if not all(array.ndim == 1 for array in (packed, sizes, mtimes_ns)):
            raise DamagedShard("its index has other shapes")
        paths = packed.tobytes().decode("utf-8", "surrogatepass").split("\0")
    if not len(paths) == len(sizes) == len(mtimes_ns) == n_rows:
        raise DamagedShard("its tensors differ in length")
    if b".." in packed.tobytes() and any(".." in re.split(r"[/\\]", path) for path in paths):
        raise DamagedShard("it names pictures outside the directory")
    return PictureKeys(paths, sizes, mtimes_ns), width


def read_features(shard: Path, set_key: str) -> NDArray[np.generic]:
    """Return the (n_pictures, width) features of a shard; raises the same errors as `read_index`."""
    with _opened(shard) as file:
        metadata = _metadata(file, set_key)
        _check_layout(file, metadata, set_key)
        features: NDArray[np.generic] = file.get_tensor("features")
        if metadata.get("features_crc32") != str(_checksum(features)):
            raise DamagedShard("its features do not match their checksum")
    return features


def read_some(
    shard: Path,
    set_key: str,
    wanted: NDArray[np.int32],
    values: NDArray[np.generic],
    places: NDArray[np.int64],
    *,
    verify: bool,
) -> bool:
    """Copy the rows `wanted` of a shard, (n,), to the rows `places` of `values`, some at a time.

    Returns False, with nothing copied, for a shard without these rows or of another width. `verify` reads the whole
    shard and compares its checksum; otherwise only the wanted rows are read. Raises the same errors as `read_index`.
    """
    order = np.argsort(wanted, kind="stable")
    wanted, places = wanted[order], places[order]
    with _opened(shard) as file:
        metadata = _metadata(file, set_key)
        n_rows, width = _check_layout(file, metadata, set_key)
        if width != values.shape[1] or wanted[-1] >= n_rows:
            return False
        features = file.get_slice("features")
        row_bytes = width * values.itemsize
        pieces = _all_rows(n_rows, row_bytes) if verify else _runs(wanted, row_bytes)
        checksum = 0
        for start, stop in pieces:
            rows = features[start:stop]
            if verify:
                checksum = zlib.crc32(np.ascontiguousarray(rows).view(np.uint8).data, checksum)
            first, last = np.searchsorted(wanted, (start, stop))
            values[places[first:last]] = rows[wanted[first:last] - start]
        if verify and metadata.get("features_crc32") != str(checksum):
            raise DamagedShard("its features do not match their checksum")
    return True


def _all_rows(n_rows: int, row_bytes: int) -> list[tuple[int, int]]:
    """Return the first row and the row after the last of pieces of PIECE_BYTES that are the whole shard."""
    at_once = max(1, PIECE_BYTES // row_bytes)
    return [(start, min(start + at_once, n_rows)) for start in range(0, n_rows, at_once)]


def _runs(wanted: NDArray[np.int32], row_bytes: int) -> list[tuple[int, int]]:
    """Return the first row and the row after the last of runs of wanted rows, (n,) ascending, that lie together."""
    most_apart = max(1, GAP_BYTES // row_bytes)
    breaks = np.flatnonzero(np.diff(wanted) > most_apart)
    starts, stops = np.append(0, breaks + 1), np.append(breaks, len(wanted) - 1)
    return [(int(wanted[start]), int(wanted[stop]) + 1) for start, stop in zip(starts, stops, strict=True)]


_DTYPES = {"F32": "float32", "F16": "float16"}


def _check_layout(file: Any, metadata: dict[str, str], set_key: str) -> tuple[int, int]:
    """Return the shape of the features; DamagedShard if their type or shape has changed since it was written.

    The type must also be the set's precision. The type, the number of pictures and the number of bytes determine the
    shape, so shards of earlier versions, which lack this checksum, cannot be misread either.
    """
    features = file.get_slice("features")
    shape, dtype = tuple(features.get_shape()), _DTYPES.get(features.get_dtype())
    if dtype is None or len(shape) != 2 or min(shape) < 1 or dtype != _precision_of(set_key, dtype):
        raise DamagedShard(f"its features are {features.get_dtype()} of shape {shape}")
    if metadata.get("layout_crc32", _layout_checksum(dtype, shape)) != _layout_checksum(dtype, shape):
        raise DamagedShard("type or shape of its features do not match their checksum")
    return shape[0], shape[1]


def _layout_checksum(dtype: str, shape: tuple[int, ...]) -> str:
    return str(zlib.crc32(f"{dtype} {'x'.join(map(str, shape))}".encode()))


def _precision_of(set_key: str, otherwise: str) -> str:
    """Return the precision in a set's key, or `otherwise` if it has none."""
    try:
        parts = json.loads(set_key)
    except ValueError:
        return otherwise
    return str(parts.get("precision", otherwise)) if isinstance(parts, dict) else otherwise


def remove_shard(shard: Path) -> None:
    """Remove the file if possible; another process may have removed it before."""
    with contextlib.suppress(OSError):
        shard.unlink()


def set_aside(shard: Path, reason: object) -> None:
    """Log a damaged shard and rename it, so that it is not read again."""
    logger.warning("the feature cache file %s is damaged (%s); its features are computed again", shard, reason)
    with contextlib.suppress(OSError):
        shard.rename(shard.with_suffix(DAMAGED_SUFFIX))


@contextlib.contextmanager
def _opened(shard: Path) -> Iterator[Any]:
    try:
        with safe_open(shard, framework="numpy") as file:
            yield file
    except (FileNotFoundError, PermissionError):
        raise
    except (SafetensorError, OSError, ValueError, TypeError, AttributeError, MemoryError) as error:
        raise DamagedShard(str(error)) from error


def _metadata(file: Any, set_key: str) -> dict[str, str]:
    metadata: dict[str, str] = file.metadata() or {}
    if metadata.get("format") != _FORMAT or metadata.get("set") != set_key:
        raise DamagedShard("it does not hold the features that belong here")
    return metadata


def _checksum(*arrays: NDArray[np.generic]) -> int:
    checksum = 0
    for array in arrays:
        checksum = zlib.crc32(np.ascontiguousarray(array).view(np.uint8).data, checksum)
    return checksum


def set_key_text(**parts: object) -> str:
    """Return the key of a set as one line of JSON, the same for equal parts."""
    return json.dumps(parts, sort_keys=True)
