"""Put an XMP packet inside a JPEG, PNG, TIFF or WEBP file without changing its pixels or its other metadata.

The exiv2 library writes the packet to a copy in memory. Its wheels need nothing else on Linux, Windows and Mac. Those
of pyexiv2 need Homebrew's libraries on a Mac, and PyExifTool needs a Perl program. The file is replaced, in one step,
only by a copy on the disk that has been read back and found to be the same: the pixels of every frame, ICC profile,
EXIF data, and all else that Pillow reads.
"""

import hashlib
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from io import BytesIO
from itertools import zip_longest
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from custom_aesthetic.base.errors import UserError
from custom_aesthetic.base.extras import require
from custom_aesthetic.base.files import write_atomically

EMBEDDABLE_SUFFIXES = (".jpg", ".jpeg", ".png", ".tif", ".tiff", ".webp")
"""Suffixes of the files that may get a rating inside. What counts in the end is the content."""

_FORMATS = ("JPEG", "PNG", "TIFF", "WEBP")
_NOT_COMPARED = {"xmp", "XML:com.adobe.xmp", "exif", "mpoffset", "comment", "photoshop"}
"""What Pillow lists beside the pixels and is compared in another way, or may change: XMP, and a place in the file."""
_XMP_SEGMENT = b"http://ns.adobe.com/xap/1.0/\0"
_TIFF_MAY_CHANGE = {273, 279, 288, 289, 324, 325, 330, 513, 700, 34665, 34853, 40965}
"""TIFF tags that hold the XMP packet, or the place of something in the file: strips, tiles, directories, thumbnail."""
_SUB_DIRECTORIES = {"Exif": 34665, "GPS": 34853, "interoperability": 40965}
_TIFF_FURTHER_PICTURES, _DNG_VERSION = 330, 50706


class NotEmbedded(UserError):
    """Raised for a file that is left as it is; the message names it and says why."""

    def __init__(self, picture: Path, reason: str) -> None:
        super().__init__(f"no rating was put inside {picture}: {reason}")


@dataclass(frozen=True)
class NewContent:
    """A file and the content that it is to have."""

    file: Path
    """The file itself, where the picture's path is a link."""
    content: bytes
    sha256_before: str
    mtime_ns_before: int


def need_exiv2() -> None:
    """Raise UserError if the exiv2 library is not installed."""
    require("exiv2", "photo", "--embed")


def with_packet(picture: Path, packet: bytes) -> NewContent:
    """Return the content of the file with this XMP packet inside, without any if it is empty; nothing is written.

    Raises NotEmbedded if the file cannot be written, is of another format, or holds what could not be checked.
    """
    try:
        file = picture.resolve(strict=True)
        status = file.stat()
        if not status.st_mode & 0o222 or not os.access(file, os.W_OK):
            raise NotEmbedded(picture, "the file is read-only")
        before = file.read_bytes()
    except OSError as error:
        raise NotEmbedded(picture, f"it cannot be read ({error.strerror})") from None
    _check_kind(picture, before)
    return NewContent(file, _put_in(picture, before, packet), sha256_of(before), status.st_mtime_ns)


def replace_content(new: NewContent, mtime_ns: int | None = None) -> None:
    """Replace the file by its new content, after a check that a copy on the disk holds the same picture.

    The file's times become now, so that photo programs and backups see the change, or `mtime_ns`. Raises NotEmbedded,
    with the file as it was, if it has changed since `with_packet` read it or the copy differs; UserError if the copy
    cannot be written.
    """

    def check(aside: Path) -> None:
        before = new.file.read_bytes()
        if sha256_of(before) != new.sha256_before:
            raise NotEmbedded(new.file, "another program has just changed it; start again")
        if (difference := difference_between(before, aside.read_bytes())) is not None:
            raise NotEmbedded(new.file, f"its {difference} would not have stayed the same")
        shutil.copystat(new.file, aside)
        now = time.time_ns()
        os.utime(aside, ns=(now, mtime_ns if mtime_ns is not None else now))

    write_atomically(new.file, new.content, check=check)


def sha256_of(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def difference_between(before: bytes, after: bytes) -> str | None:
    """Return what differs between two picture files, other than the XMP packet; None if nothing does."""
    try:
        if before[:2] == b"\xff\xd8" and _from_first_scan(before) != _from_first_scan(after):
            return "compressed data"
        nothing: dict[str, Any] = {}
        for one, other in zip_longest(_described_frames(before), _described_frames(after), fillvalue=nothing):
            for what in one.keys() | other.keys():
                if not _are_equal(one.get(what), other.get(what)):
                    return what
    except Exception as error:  # what a decoder raises depends on the format and the damage
        return f"content ({type(error).__name__} in the check)"
    return None


def _check_kind(picture: Path, content: bytes) -> None:
    """Raise NotEmbedded for a file whose content could not be checked afterwards."""
    Image.init()
    try:
        with Image.open(BytesIO(content), formats=_FORMATS) as image:
            tags = getattr(image, "tag_v2", {})
    except UnidentifiedImageError:
        raise NotEmbedded(picture, "it is not a JPEG, PNG, TIFF or WEBP file") from None
    except Exception as error:  # what a decoder raises depends on the format and the damage
        raise NotEmbedded(picture, f"the file is damaged ({type(error).__name__})") from None
    if _DNG_VERSION in tags:
        raise NotEmbedded(picture, "it is a raw file (DNG)")
    if _TIFF_FURTHER_PICTURES in tags:
        raise NotEmbedded(picture, "it holds further pictures (TIFF SubIFDs), which could not be checked")


def _put_in(picture: Path, content: bytes, packet: bytes) -> bytes:
    exiv2 = _exiv2()
    copy = bytes(
        bytearray(content)
    )  # exiv2 works in its memory: it changes the bytes of a TIFF, and keeps no reference
    try:
        image = exiv2.ImageFactory.open(copy)
        image.readMetadata()
        image.setXmpPacket(packet.decode("utf-8"))
        image.writeXmpFromPacket(True)
        image.writeMetadata()
        stream = image.io()
        stream.open()
        return bytes(stream.mmap())
    except UnicodeDecodeError:
        raise NotEmbedded(picture, "its XMP is not UTF-8") from None
    except exiv2.Exiv2Error as error:
        raise NotEmbedded(picture, f"{' '.join(str(error).split())[:200]}") from None


@cache
def _exiv2() -> Any:
    """Return the library, without its messages: what it reports of damaged metadata does not concern the user."""
    need_exiv2()
    import exiv2

    exiv2.LogMsg.setLevel(exiv2.LogMsg.Level.mute)
    return exiv2


def _described_frames(content: bytes) -> Iterator[dict[str, Any]]:
    """Yield for each frame of a picture its pixels and all metadata but XMP, by name."""
    with Image.open(BytesIO(content), formats=_FORMATS) as image:
        for number in range(getattr(image, "n_frames", 1)):
            image.seek(number)
            image.load()
            yield {
                "format": image.format,
                "mode": image.mode,
                "pixels": np.asarray(image),
                "palette": image.getpalette(),
                "EXIF data": _exif_tags(image),
                "TIFF tags": _unmoved(getattr(image, "tag_v2", {})),
                "segments": sorted(filter(None, map(_segment, getattr(image, "applist", []))), key=itemgetter(0)),
                "Photoshop data": {name: value for name, value in image.info.get("photoshop", {}).items() if value},
                **{name: value for name, value in image.info.items() if name not in _NOT_COMPARED},
            }


def _directory(tags: Image.Exif, number: int) -> Mapping[int, Any]:
    """Return a part of the EXIF data; empty where there is none, for which Pillow before 11.1 raises KeyError."""
    try:
        return tags.get_ifd(number)
    except KeyError:
        return {}


def _exif_tags(image: Image.Image) -> dict[str, Any]:
    """Return the EXIF tags as values: exiv2 may store them in another order."""
    tags = image.getexif()
    found: dict[str, Any] = {"main": _unmoved(tags)}
    return found | {name: _unmoved(_directory(tags, number)) for name, number in _SUB_DIRECTORIES.items()}


def _unmoved(tags: Any) -> dict[int, str]:
    return {int(number): repr(value) for number, value in sorted(tags.items()) if number not in _TIFF_MAY_CHANGE}


def _segment(segment: tuple[str, bytes]) -> tuple[str, bytes] | None:
    """Return a JPEG segment as it is to stay; None for those that are compared by content, and for XMP.

    exiv2 may write segments of different kinds in another order, ends a comment with a zero byte, and leaves out empty
    blocks of Photoshop data.
    """
    name, content = segment
    if (name == "APP1" and content.startswith((b"Exif\0", _XMP_SEGMENT))) or content.startswith(b"Photoshop 3.0\0"):
        return None
    return name, content.rstrip(b"\0") if name == "COM" else content


def _from_first_scan(jpeg: bytes) -> bytes:
    """Return the compressed data of a JPEG, from the first scan to the end of the file."""
    place = 2
    while jpeg[place : place + 1] == b"\xff" and jpeg[place + 1] != 0xDA:
        place += 2 + int.from_bytes(jpeg[place + 2 : place + 4], "big")
    return jpeg[place:]


def _are_equal(one: Any, other: Any) -> bool:
    if isinstance(one, np.ndarray) and isinstance(other, np.ndarray):
        return bool(one.dtype == other.dtype and np.array_equal(one, other))
    return repr(one) == repr(other)
