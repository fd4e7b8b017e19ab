"""Quality tags in the caption files of training pictures: `photo.txt` beside `photo.jpg`, as kohya's scripts read them.

The trainer takes the first line of a caption, tags separated by commas or free text. The tag is one of the parts
between the commas of that line: a quality tag that is there is replaced, a new one is put in front. Everything else in
the file stays as it is, byte for byte.
"""

import os
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from custom_aesthetic.base.errors import UserError
from custom_aesthetic.base.files import write_atomically
from custom_aesthetic.pictures.embedding import sha256_of
from custom_aesthetic.pictures.rating_undo import Change, UndoFile

CAPTION_SUFFIX = ".txt"
_TAG = re.compile(r"score_\d(_up)?")
"""What counts as a quality tag, if it is all there is between two commas."""

_FIRST_LINE = re.compile(r"\ufeff?([^\r\n]*)")

MOST_BYTES = 2**20
"""A larger text file is not a caption."""


class NotACaption(UserError):
    """Raised for a file that is left as it is, because it is not text in UTF-8."""


def caption_of(picture: Path) -> Path:
    """Return the path of a picture's caption file: `photo.txt` for `photo.jpg`, shared with `photo.png`."""
    return picture.with_suffix(CAPTION_SUFFIX)


def with_tag(caption: str, tag: str | None) -> str:
    """Return the caption with this quality tag in place of those that it has, or in front; without any for None."""
    first_line = _FIRST_LINE.match(caption)
    assert first_line is not None
    start, end = first_line.span(1)
    return caption[:start] + _line_with_tag(first_line[1], tag) + caption[end:]


def _line_with_tag(line: str, tag: str | None) -> str:
    parts = line.split(",")
    places = [place for place, part in enumerate(parts) if _TAG.fullmatch(part.strip())]
    if not places:
        return line if tag is None else f"{tag}, {line}" if line.strip() else f"{tag}{line}"
    indent = _indent(parts[0])
    if tag is not None:
        first = places.pop(0)
        parts[first] = parts[first].replace(parts[first].strip(), tag)
    kept = [part for place, part in enumerate(parts) if place not in places]
    if kept and 0 in places:
        kept[0] = indent + kept[0].lstrip()
    return ",".join(kept)


def _indent(text: str) -> str:
    return text[: len(text) - len(text.lstrip())]


@dataclass(frozen=True)
class CaptionPlan:
    """Which tag goes to which caption file."""

    tags: dict[Path, str | None]
    """Caption file -> its tag; None where it is to have none."""
    shared: list[str] = field(default_factory=list)
    """Selected pictures that share their caption with a picture of another tag, so that it gets neither."""


def plan_captions(directory: Path, tags: Mapping[str, str | None], selected: Collection[str]) -> CaptionPlan:
    """Return what to write for the selected paths; `tags` has the tag of every picture below the directory."""
    wanted: dict[str, set[str | None]] = {}
    for path, tag in tags.items():
        wanted.setdefault(_key(path), set()).add(tag)
    plan = CaptionPlan({})
    for path in selected:
        if len(wanted[_key(path)]) > 1:
            plan.shared.append(path)
        else:
            plan.tags[caption_of(directory / path)] = tags[path]
    return plan


def _key(path: str) -> str:
    """Return the caption's name, in one case on systems where upper and lower case name one file."""
    return os.path.normcase(caption_of(Path(path)))


def tagged(caption: Path, tag: str | None) -> tuple[bytes | None, bytes] | None:
    """Return the content of a caption file and what it becomes with the tag; None if nothing changes.

    The content is None if there is no file. Raises NotACaption for a file that is not text in UTF-8, UserError for a
    file that cannot be read.
    """
    try:
        with caption.open("rb") as stream:
            before = stream.read(MOST_BYTES + 1)
    except FileNotFoundError:
        return None if tag is None else (None, f"{tag}\n".encode())
    except OSError as error:
        raise UserError(f"caption {caption} cannot be read: {error.strerror}; check its permissions") from None
    if len(before) > MOST_BYTES:
        raise NotACaption(f"{caption} (larger than {MOST_BYTES // 2**20} MiB)")
    try:
        after = with_tag(before.decode("utf-8"), tag).encode("utf-8")
    except UnicodeDecodeError:
        raise NotACaption(f"{caption} (not UTF-8)") from None
    return None if after == before else (before, after)


def write_tag(caption: Path, tag: str | None, undo_file: UndoFile) -> bool:
    """Write the tag to a caption file, after a line in the undo file; return False if nothing had to change."""
    file = caption.resolve() if caption.is_symlink() else caption.absolute()
    change = tagged(file, tag)
    if change is None:
        return False
    before, after = change
    sha256_before = None if before is None else sha256_of(before)
    undo_file.add(Change(file, False, before, sha256_before, sha256_of(after), None))
    write_atomically(file, after)
    return True
