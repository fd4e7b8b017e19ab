"""Writing a file so that it is either the old one or the new one, whole, at every moment."""

import os
import tempfile
from pathlib import Path

from custom_aesthetic.base.errors import UserError


def is_file(path: Path) -> bool:
    """Return whether there is a file of that name; one that cannot be asked for, such as a name too long, is none."""
    try:
        return path.is_file()
    except OSError:
        return False


def write_atomically(file: Path, content: bytes) -> None:
    """Write aside, flush to the disk, then rename; an error leaves the old file as it was.

    Raises UserError where the disk is full, the directory missing or read-only.
    """
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        descriptor, aside = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.", suffix=".part")
        try:
            with os.fdopen(descriptor, "wb") as stream:
                stream.write(content)
                stream.flush()
                os.fsync(stream.fileno())
            _make_like_new(Path(aside), file)
            Path(aside).replace(file)
        except BaseException:
            Path(aside).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise UserError(
            f"{file} cannot be written: {error.strerror or error}; free space or choose another place"
        ) from None


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
