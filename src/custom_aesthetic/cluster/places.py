"""Files and folders by path or URL: local ones by Python, object stores by pyarrow, everything else by fsspec."""

import errno
import stat
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import IO, Any, BinaryIO, NamedTuple, TypeVar
from urllib.parse import urlsplit, urlunsplit

import pyarrow as pa
import pyarrow.fs as pafs

from custom_aesthetic.base.errors import UserError
from custom_aesthetic.base.files import written_aside
from custom_aesthetic.base.text import printable

PAUSES = (0.5, 2.0)
"""Seconds before a failed read from another machine is tried again."""

OF_PYARROW = ("s3", "gs", "gcs", "hdfs", "viewfs", "abfs", "abfss", "file")
"""Schemes that pyarrow opens itself; fsspec opens the others."""

WHOLE_OR_NOTHING = ("s3", "gs", "gcs", "abfs", "abfss", "az", "memory")
"""Schemes where a file appears when all of it is written; elsewhere it is written aside and renamed."""

CHUNK_BYTES = 2**23

ABSENT = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)
"""Error numbers of a path on this machine that does not exist, or is a link to nothing."""

Value = TypeVar("Value")


class FilePlace(NamedTuple):
    """A file or folder, and how to reach it."""

    scheme: str
    """That of the URL; empty for a path of this machine."""
    files: Any
    """pyarrow's file system; None for a path of this machine."""
    path: str

    @property
    def is_local(self) -> bool:
        return self.files is None

    def below(self, name: str) -> "FilePlace":
        """Return the place of a file or folder below this one, by its relative posix path."""
        return self._replace(path=f"{self.path.rstrip('/')}/{name}" if name else self.path)


class FileInfo(NamedTuple):
    """A file in a folder."""

    name: str
    size: int
    changed: int
    """When it was changed last, in nanoseconds; 0 where that is not known."""


@cache
def open_place(where: str) -> FilePlace:
    """Return the place of a path or URL; UserError for a URL that nothing installed can open."""
    scheme = scheme_of(where)
    if not scheme:
        return FilePlace("", None, Path(where).absolute().as_posix())
    try:
        if scheme in OF_PYARROW:
            files, path = pafs.FileSystem.from_uri(where)
            return FilePlace("", None, path) if scheme == "file" else FilePlace(scheme, files, path)
        from fsspec.core import url_to_fs

        found, path = url_to_fs(where)
        return FilePlace(scheme, pafs.PyFileSystem(pafs.FSSpecHandler(found)), path)
    except (ImportError, ValueError, OSError, pa.ArrowException) as error:
        reason = printable(" ".join(str(error).split()))
        raise UserError(f"{shown_place(where)} cannot be opened: {reason}; check the address") from None


def scheme_of(where: str) -> str:
    """Return the scheme of a URL such as `s3://bucket/folder`; empty for a path, also one of Windows."""
    return where.partition("://")[0].lower() if "://" in where else ""


def shown_place(where: str) -> str:
    """Return a path or URL without the keys that a URL may contain."""
    if not scheme_of(where):
        return where
    parts = urlsplit(where)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def patiently(place: FilePlace, read: Callable[[], Value]) -> Value:
    """Return what the function returns; where another machine fails it, but for a missing file, it is called again."""
    for pause in () if place.is_local else PAUSES:
        try:
            return read()
        except FileNotFoundError:
            raise
        except OSError:
            time.sleep(pause)
    return read()


def open_to_read(place: FilePlace, *, anywhere: bool = False) -> IO[bytes]:
    """Return the file opened: to be read once from its start, or `anywhere`, as parquet needs it; raises OSError."""
    if place.is_local:
        return Path(place.path).open("rb")
    if anywhere:
        return patiently(place, lambda: place.files.open_input_file(place.path))
    return patiently(place, lambda: place.files.open_input_stream(place.path, compression=None))


def read_all(place: FilePlace) -> bytes:
    """Return the content of the file; raises OSError."""

    def read() -> bytes:
        with open_to_read(place) as stream:
            return stream.read()

    return patiently(place, read)


def is_folder(place: FilePlace) -> bool:
    if place.is_local:
        return Path(place.path).is_dir()
    return place.files.get_file_info(place.path).type == pafs.FileType.Directory


def file_info(place: FilePlace) -> FileInfo | None:
    """Return what is known of the file; None if there is no such file."""
    if place.is_local:
        path = Path(place.path)
        try:
            status = path.stat()
        except OSError as error:
            if error.errno not in ABSENT:
                raise
            return None
        return FileInfo(path.name, status.st_size, status.st_mtime_ns) if stat.S_ISREG(status.st_mode) else None
    found = patiently(place, lambda: place.files.get_file_info(place.path))
    return _info(found) if found.type == pafs.FileType.File else None


def contents(place: FilePlace) -> tuple[list[str], list[FileInfo]]:
    """Return the names of the folders and the files in a folder, sorted; none for a folder that does not exist."""
    if place.is_local:
        entries = sorted(Path(place.path).iterdir()) if Path(place.path).is_dir() else []
        files = [info for entry in entries if (info := file_info(place.below(entry.name))) is not None]
        return [entry.name for entry in entries if entry.is_dir()], files
    selector = pafs.FileSelector(place.path, allow_not_found=True)
    found = patiently(place, lambda: place.files.get_file_info(selector))
    folders = sorted(info.base_name for info in found if info.type == pafs.FileType.Directory)
    return folders, sorted(_info(info) for info in found if info.type == pafs.FileType.File)


def walk(place: FilePlace) -> Iterator[tuple[str, list[FileInfo]]]:
    """Yield each folder as the prefix of its relative paths, which is empty or ends in `/`, and its files."""
    pending = [""]
    while pending:
        prefix = pending.pop()
        folders, files = contents(place.below(prefix.rstrip("/")))
        yield prefix, files
        pending += [f"{prefix}{name}/" for name in reversed(folders)]


def write_once(place: FilePlace, write: Callable[[BinaryIO], None]) -> None:
    """Write a file that appears when it is whole; raises UserError or OSError."""
    if place.is_local:
        with written_aside(Path(place.path)) as stream:
            write(stream)
        return
    with tempfile.TemporaryFile() as aside:
        write(aside)
        patiently(place, lambda: _upload(aside, place))


def remove(place: FilePlace) -> None:
    """Remove a file."""
    if place.is_local:
        Path(place.path).unlink(missing_ok=True)
    else:
        place.files.delete_file(place.path)


def _upload(content: BinaryIO, place: FilePlace) -> None:
    content.seek(0)
    atomic = place.scheme in WHOLE_OR_NOTHING
    folder, _, name = place.path.rpartition("/")
    target = place.path if atomic else f"{folder}/_{name}.{time.time_ns():x}.partial"  # readers of parquet skip "_"
    if not atomic:
        place.files.create_dir(folder, recursive=True)
    with place.files.open_output_stream(target) as stream:
        while chunk := content.read(CHUNK_BYTES):
            stream.write(chunk)
    if not atomic:
        place.files.move(target, place.path)


def _info(found: "pafs.FileInfo") -> FileInfo:
    return FileInfo(found.base_name, found.size or 0, found.mtime_ns or 0)
