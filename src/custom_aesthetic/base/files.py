"""Write files atomically: at every moment a file has either its old or its new content."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import BinaryIO

from custom_aesthetic.base.errors import UserError
from custom_aesthetic.base.processes import aside_name, sweep
from custom_aesthetic.base.text import printable


def is_file(path: Path) -> bool:
    """Return whether the path is a file; False for a path that the system rejects, such as a name that is too long."""
    try:
        return path.is_file()
    except OSError:
        return False


def in_folder_or_here(folder: Path | None, name: str) -> Path:
    """Return the path of a file; `name` is relative to the folder if it exists there, else a path."""
    return folder / name if folder is not None and is_file(folder / name) else Path(name)


def existing_file(folder: Path, name: str, option: str) -> Path:
    """Return the file that `in_folder_or_here` finds; UserError, which names the option, if there is no such file."""
    file = in_folder_or_here(folder, name)
    if not is_file(file):
        raise UserError(
            f"{option}={printable(name)} does not exist: looked in {folder} and {Path.cwd()}; check the path"
        )
    return file


def write_atomically(file: Path, content: bytes, *, check: Callable[[Path], None] | None = None) -> None:
    """Write the content as `written_aside` does."""
    with written_aside(file, check=check) as stream:
        stream.write(content)


@contextmanager
def written_aside(file: Path, *, check: Callable[[Path], None] | None = None) -> Iterator[BinaryIO]:
    """Yield a stream to a temporary file, which is synced to the disk and renamed at the end of the block.

    `check` is called with the temporary file before it is renamed. An error, in it or in the block, leaves the old file
    unchanged. Missing parent folders are created. The first write to a folder removes partial files of processes that
    have ended. Raises UserError if the disk is full or the folder cannot be written.
    """
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        _sweep_once(file.parent)
        aside = file.with_name(aside_name(file.name))
        descriptor = os.open(aside, os.O_CREAT | os.O_EXCL | os.O_WRONLY | getattr(os, "O_BINARY", 0), 0o600)
        try:
            with os.fdopen(descriptor, "wb") as stream:
                yield stream
                stream.flush()
                os.fsync(stream.fileno())
            if check is not None:
                check(aside)
            _make_like_new(aside, file)
            aside.replace(file)
        except BaseException:
            aside.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise UserError(
            f"{file} cannot be written: {error.strerror or error}; free space or choose another place"
        ) from None


@cache
def _sweep_once(folder: Path) -> None:
    """Sweep a folder once per process, because a run may write a million files to it one by one."""
    sweep(folder)


def _make_like_new(aside: Path, file: Path) -> None:
    """Give the temporary file the permissions of the file that it replaces, or of an ordinary new file."""
    if os.name == "nt":
        return
    if file.exists():
        aside.chmod(file.stat().st_mode & 0o777)
        return
    mask = os.umask(0)
    os.umask(mask)
    aside.chmod(0o666 & ~mask)
