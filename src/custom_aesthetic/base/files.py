"""Writing a file so that it is either the old one or the new one, whole, at every moment."""

import os
from functools import cache
from pathlib import Path

from custom_aesthetic.base.errors import UserError
from custom_aesthetic.base.processes import aside_name, sweep


def is_file(path: Path) -> bool:
    """Return whether there is a file of that name; one that cannot be asked for, such as a name too long, is none."""
    try:
        return path.is_file()
    except OSError:
        return False


def write_atomically(file: Path, content: bytes) -> None:
    """Write aside, flush to the disk, then rename; an error leaves the old file as it was.

    The first write to a folder removes the half-written files that ended processes have left there.
    Raises UserError where the disk is full, the directory missing or read-only.
    """
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        _sweep_once(file.parent)
        aside = file.with_name(aside_name(file.name))
        descriptor = os.open(aside, os.O_CREAT | os.O_EXCL | os.O_WRONLY | getattr(os, "O_BINARY", 0), 0o600)
        try:
            with os.fdopen(descriptor, "wb") as stream:
                stream.write(content)
                stream.flush()
                os.fsync(stream.fileno())
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
    """Sweep a folder, but not again in this process: it may get a million files one by one."""
    sweep(folder)


def _make_like_new(aside: Path, file: Path) -> None:
    """Give the file aside the permissions that an ordinary new file, or the file it replaces, has."""
    if os.name == "nt":
        return
    if file.exists():
        aside.chmod(file.stat().st_mode & 0o777)
        return
    mask = os.umask(0)
    os.umask(mask)
    aside.chmod(0o666 & ~mask)
