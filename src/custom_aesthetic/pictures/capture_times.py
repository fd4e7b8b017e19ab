"""When and with which camera photographs were taken, from their EXIF data; and which were taken within seconds."""

from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.ExifTags import IFD, Base

from custom_aesthetic.pictures.camera import open_metadata

BURST_SECONDS = 3.0
"""Two pictures of a burst are at most this far apart: cameras take several a second, people one in a second or two."""

NEXT_SHOTS = 10
"""A picture is compared with this many that its camera took after it, so that a million of one time stay cheap."""

_FORMATS = ("JPEG", "MPO", "TIFF")
"""Formats that cameras write, beside HEIC. Pillow may have to decode a whole PNG to find its EXIF data."""


class Shot(NamedTuple):
    """When a photograph was taken, and by what."""

    camera: str
    """Maker, model and serial number, as far as they are known."""
    seconds: float
    """Since 1970 by the clock of the camera."""


def read_shot(picture: Path) -> Shot | None:
    """Return when and with which camera a photograph was taken; None if its EXIF data do not say when.

    The time is `DateTimeOriginal`, with `SubSecTimeOriginal` or `SubSecTime` where one of them is there.
    """
    try:
        with open_metadata(picture, _FORMATS) as image:
            exif = image.getexif()
            inside = exif.get_ifd(IFD.Exif)
        taken = datetime.strptime(_text(inside[Base.DateTimeOriginal]), "%Y:%m:%d %H:%M:%S")
        fraction = _text(inside.get(Base.SubsecTimeOriginal, inside.get(Base.SubsecTime, "")))
        names = [_text(value) for value in (exif.get(Base.Make, ""), exif.get(Base.Model, ""))]
        camera = " ".join([*names, _text(inside.get(Base.BodySerialNumber, ""))])
    except Exception:  # what a decoder raises depends on the format and the damage
        return None
    seconds = taken.replace(tzinfo=timezone.utc).timestamp()
    return Shot(camera, seconds + (float(f"0.{fraction}") if fraction.isdecimal() and fraction.isascii() else 0.0))


def _text(value: object) -> str:
    """Return an EXIF text without the zero bytes and spaces that some cameras fill it up with."""
    return str(value).replace("\0", " ").strip()


def shot_together(directory: Path, paths: Sequence[str]) -> NDArray[np.int64]:
    """Return the pairs of rows, (n_pairs, 2), that one camera took within BURST_SECONDS of each other.

    Each picture is paired with at most NEXT_SHOTS later ones. Memory is by the number of pictures.
    """
    Image.init()
    return close_in_time([read_shot(directory / path) for path in paths])


def close_in_time(shots: Sequence[Shot | None]) -> NDArray[np.int64]:
    """Return the pairs of rows, (n_pairs, 2), of `shot_together`."""
    known = [row for row, shot in enumerate(shots) if shot is not None]
    rows = np.array(sorted(known, key=lambda row: (shots[row], row)), dtype=np.int64)
    cameras = np.unique(np.array([shots[row].camera for row in rows], dtype=object), return_inverse=True)[1]
    seconds = np.array([shots[row].seconds for row in rows])
    pairs = [np.zeros((0, 2), np.int64)]
    for ahead in range(1, min(NEXT_SHOTS, len(rows) - 1) + 1):
        is_close = (cameras[ahead:] == cameras[:-ahead]) & (seconds[ahead:] - seconds[:-ahead] <= BURST_SECONDS)
        pairs.append(np.stack([rows[:-ahead][is_close], rows[ahead:][is_close]], axis=1))
    return np.concatenate(pairs)
