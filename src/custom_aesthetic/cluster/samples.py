"""The pictures of an item of work, as the bytes of their files, read a few ahead."""

import tarfile
from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from custom_aesthetic.base.text import printable
from custom_aesthetic.cluster.items import PARQUET, TAR, Item
from custom_aesthetic.cluster.places import FilePlace, open_to_read, patiently, read_all
from custom_aesthetic.pictures.folders import is_image_name

READERS, READERS_FAR = 2, 8
"""Pictures that are read at the same time for each core: from this machine, and from another, which answers later."""

ROWS_AT_ONCE = 16
"""Rows of a parquet file that are in memory together."""


class Sample(NamedTuple):
    """A picture of an item."""

    name: str
    """Its path or key."""
    content: bytes | None
    """The bytes of its file; None if they cannot be read."""
    reason: str | None = None
    """Why they cannot be read."""
    again: bool = False
    """Whether another run may find what could not be read, so that the part is made again."""


def samples_of(item: Item, root: FilePlace, n_cores: int = 1) -> Generator[Sample, None, None]:
    """Yield the pictures of an item, whose names are below `root`; what cannot be read is a sample with its reason.

    Files are read by several threads, more where there are more cores to decode them.
    """
    if item.kind == TAR:
        return _of_tar(root.below(item.names[0]), item.names[0])
    if item.kind == PARQUET:
        return _of_parquet(root.below(item.names[0]), item)
    return _of_files(root, item.names, n_cores * (READERS if root.is_local else READERS_FAR))


def _of_files(root: FilePlace, names: tuple[str, ...], n_readers: int) -> Generator[Sample, None, None]:
    with ThreadPoolExecutor(n_readers, "read") as readers:
        yield from ahead(readers, lambda name: _read(root, name), iter(names), n_readers)


def ahead(
    threads: ThreadPoolExecutor, call: Callable[[Any], Any], values: Iterator[Any], n_ahead: int
) -> Iterator[Any]:
    """Yield the function's results in the order of the values, while threads work on the next `n_ahead` ones."""
    waiting: deque[Future[Any]] = deque()
    try:
        for value in values:
            waiting.append(threads.submit(call, value))
            if len(waiting) > n_ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        for future in waiting:
            future.cancel()


def _read(root: FilePlace, name: str) -> Sample:
    try:
        return Sample(name, read_all(root.below(name)))
    except FileNotFoundError:
        return Sample(name, None, "file not found", again=True)
    except (OSError, MemoryError) as error:
        return Sample(name, None, f"cannot be read ({_in_a_line(error)})", again=True)


def _of_tar(file: FilePlace, name: str) -> Generator[Sample, None, None]:
    """Yield the first picture of each key of a tar file, which is read once from its start to its end.

    A damaged file gives its good pictures, then a sample with the name of the file.
    """
    last = None
    try:
        with patiently(file, lambda: open_to_read(file)) as stream, tarfile.open(fileobj=stream, mode="r|*") as members:
            for member in members:
                key, suffix = split_key(member.name)
                if not member.isfile() or key == last or not is_image_name(f"x.{suffix}"):
                    continue
                last = key
                opened = members.extractfile(member)
                assert opened is not None  # it is a file
                content = opened.read()
                whole = len(content) == member.size
                yield Sample(key, content if whole else None, None if whole else "the tar file ends in it")
    except (tarfile.TarError, OSError, EOFError) as error:
        reason = f"the tar file cannot be read to its end ({_in_a_line(error)})"
        yield Sample(name, None, reason, again=isinstance(error, OSError))


def split_key(name: str) -> tuple[str, str]:
    """Return WebDataset's key and suffix of a file in a tar: its name is cut at the first dot behind the folders."""
    folder, slash, file = name.removeprefix("./").rpartition("/")
    start, _, suffix = file.partition(".")
    return f"{folder}{slash}{start}", suffix.lower()


def _of_parquet(file: FilePlace, item: Item) -> Generator[Sample, None, None]:
    """Yield the rows of an item; a damaged file gives its good rows, then a sample with the name of the file."""
    try:
        with open_to_read(file, anywhere=True) as stream, pq.ParquetFile(stream, pre_buffer=False) as opened:
            batches = opened.iter_batches(
                ROWS_AT_ONCE, row_groups=range(*item.row_groups), columns=[item.column, item.picture_column]
            )
            for batch in batches:
                keys = _texts(batch.column(item.column))
                for key, value in zip(keys, batch.column(item.picture_column).to_pylist(), strict=True):
                    content = value.get("bytes") if isinstance(value, dict) else value
                    good = isinstance(content, bytes)
                    yield Sample(key or "", content if good else None, None if good else "it has no bytes")
    except (pa.ArrowException, OSError) as error:
        reason = f"the table cannot be read to its end ({_in_a_line(error)})"
        yield Sample(item.names[0], None, reason, again=isinstance(error, OSError))


def _texts(column: "pa.Array") -> list[str | None]:
    """Return a column as texts; bytes that are not UTF-8 as in the names of files."""
    if pa.types.is_binary(column.type) or pa.types.is_large_binary(column.type):
        return [None if value is None else value.decode("utf-8", "surrogateescape") for value in column.to_pylist()]
    return column.cast(pa.string()).to_pylist()


def _in_a_line(error: BaseException) -> str:
    return printable(" ".join(str(error).split()))[:200] or type(error).__name__
