"""The undo file of ratings and captions: what a file held before it was changed, a line of JSON for each change.

A line is on the disk before its change is made. Only what was there before is kept, not the picture: a sidecar, a
caption, or the XMP packet inside a picture.
"""

import base64
import binascii
import json
import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from custom_aesthetic.base.errors import UserError
from custom_aesthetic.base.files import write_atomically
from custom_aesthetic.pictures.embedding import replace_content, sha256_of, with_packet

_MARK = "rated"
"""Key of the file's path in a line; no other undo file has it."""


@dataclass(frozen=True)
class Change:
    """A change of one file; hashes are SHA-256 of the whole file."""

    file: Path
    inside: bool
    """Whether the file is a picture, and `before` the XMP packet inside it; otherwise it is a sidecar or caption."""
    before: bytes | None
    """None if there was none."""
    sha256_before: str | None
    sha256_after: str
    mtime_ns_before: int | None


@dataclass(frozen=True)
class Undone:
    """What `undo_ratings` did."""

    n_restored: int
    n_identical: int
    """Files that are equal to the earlier ones in every byte; the others have the same pixels and metadata."""
    left: list[str]
    """A message for each file that was not restored."""


class UndoFile:
    """An undo file, which is created with the first change."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.n_changes = 0

    def add(self, change: Change) -> None:
        """Append a change and sync it to the disk; UserError if that is not possible."""
        row = {
            _MARK: str(change.file),
            "inside": change.inside,
            "before": None if change.before is None else base64.b64encode(change.before).decode("ascii"),
            "sha256_before": change.sha256_before,
            "sha256_after": change.sha256_after,
            "mtime_ns_before": change.mtime_ns_before,
        }
        try:
            with self.file.open("a" if self.n_changes else "x", encoding="utf-8", newline="\n") as stream:
                stream.write(json.dumps(row) + "\n")
                stream.flush()
                os.fsync(stream.fileno())
        except FileExistsError:
            raise UserError(f"{self.file} exists already; wait a second and start again") from None
        except OSError as error:
            raise UserError(f"the undo file {self.file} cannot be written ({error.strerror}); free space") from None
        self.n_changes += 1


def undo_file_of_ratings(directory: Path, now: datetime) -> Path:
    """Return the path of the undo file for ratings that start at the time `now`."""
    return directory / f"undo-stars-{now:%Y%m%d-%H%M%S}.jsonl"


def undo_file_of_captions(directory: Path, now: datetime) -> Path:
    """Return the path of the undo file for captions that are changed from the time `now` on."""
    return directory / f"undo-captions-{now:%Y%m%d-%H%M%S}.jsonl"


def is_rating_undo(undo_file: Path) -> bool:
    """Return whether this is an undo file of ratings or captions; False if it cannot be read."""
    with suppress(OSError, ValueError, RecursionError), undo_file.open(encoding="utf-8") as stream:
        row = json.loads(stream.readline())
        return isinstance(row, dict) and _MARK in row
    return False


def undo_ratings(undo_file: Path) -> Undone:
    """Restore what the files held before, the last change first; files that have changed since are left as they are.

    Raises UserError if the undo file is damaged.
    """
    n_restored, n_identical, left = 0, 0, []
    for change in reversed(list(_changes(undo_file))):
        try:
            identical = _take_back(change)
        except UserError as error:
            left.append(str(error))
            continue
        n_restored += identical is not None
        n_identical += identical is True
    return Undone(n_restored, n_identical, left)


def _take_back(change: Change) -> bool | None:
    """Return whether the file now equals the earlier one in every byte; None if there was nothing to take back."""
    try:
        content = change.file.read_bytes()
    except FileNotFoundError:
        if change.sha256_before is None:
            return None
        raise UserError(f"{change.file} no longer exists") from None
    except OSError as error:
        raise UserError(f"{change.file} cannot be read ({error.strerror})") from None
    if sha256_of(content) == change.sha256_before:
        return None
    if sha256_of(content) != change.sha256_after:
        raise UserError(f"{change.file} has changed since, so it was left as it is")
    return _restore_picture(change) if change.inside else _restore_sidecar(change)


def _restore_picture(change: Change) -> bool:
    new = with_packet(change.file, change.before or b"")
    identical = sha256_of(new.content) == change.sha256_before
    replace_content(new, change.mtime_ns_before if identical else None)
    return identical


def _restore_sidecar(change: Change) -> bool:
    if change.before is None:
        try:
            change.file.unlink()
        except OSError as error:
            raise UserError(f"{change.file} cannot be removed ({error.strerror})") from None
    else:
        write_atomically(change.file, change.before)
    return True


def _changes(undo_file: Path) -> Iterator[Change]:
    """Yield the changes of an undo file; an incomplete last line is ignored, as its change was not made."""
    try:
        lines = undo_file.read_text(encoding="utf-8").split("\n")[:-1]
        for row in map(json.loads, lines):
            before = None if row["before"] is None else base64.b64decode(row["before"], validate=True)
            mtime, hashes = row["mtime_ns_before"], (row["sha256_before"], row["sha256_after"])
            if not isinstance(mtime, int | None) or not isinstance(row["inside"], bool):
                raise TypeError
            yield Change(Path(row[_MARK]), row["inside"], before, *hashes, mtime)
    except OSError as error:
        raise UserError(f"--undo={undo_file} cannot be read: {error.strerror}; check its permissions") from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, binascii.Error):
        raise UserError(f"--undo={undo_file} is damaged; nothing was changed") from None
