"""Open what cameras and telephones write and Pillow does not read: HEIC by pillow-heif, RAW by rawpy.

Both packages are optional, and imported on first use. Pillow's own list of formats is left as it is, because it belongs
to the whole process.
"""

import importlib.util
import io
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from PIL.ExifTags import Base

from custom_aesthetic.base.extras import how_to_install
from custom_aesthetic.pictures.decoding import IN_FLIGHT

HEIC_SUFFIXES = (".heic", ".heif")
RAW_SUFFIXES = (".cr2", ".cr3", ".nef", ".arw", ".raf", ".rw2", ".dng", ".orf", ".srw", ".pef")
NEEDED = {suffix: "pillow_heif" for suffix in HEIC_SUFFIXES} | {suffix: "rawpy" for suffix in RAW_SUFFIXES}
"""Suffix -> the package that reads such files, by the name of its import."""

DISTRIBUTIONS = {"pillow_heif": "pillow-heif", "rawpy": "rawpy"}

LEAST_PREVIEW_PIXELS = 1000
"""Longer side of a preview that is large enough: extractors look at 224 to 518 pixels."""

DEVELOPING_BYTES = 7
"""Memory for a pixel of RAW data while it is developed at half its size: two bytes as read, two as colours at a quarter
of the pixels and four channels, and the result three times.
"""

START_BYTES = 64
"""Bytes at the start of a file that show whether it is HEIC."""

_HEIC_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx"}
_TURNS = {3: 3, 5: 8, 6: 6}
"""LibRaw's code of a turn -> that of EXIF."""


class MissingPackage(Exception):
    """Raised for a file whose package is not installed; the message is the reason in a few words."""


@cache
def is_installed(package: str) -> bool:
    """Return whether a package can be imported."""
    return importlib.util.find_spec(package) is not None


def readable_suffixes() -> tuple[str, ...]:
    """Return the suffixes of HEIC and RAW files that can be read here, in lower case."""
    return tuple(suffix for suffix, package in NEEDED.items() if is_installed(package))


def is_raw_name(name: str) -> bool:
    """Return whether a file with this name is a RAW file."""
    return name.lower().endswith(RAW_SUFFIXES)


def is_heic(start: bytes) -> bool:
    """Return whether a file that starts so is HEIC, whatever its name: some programs call it .jpg."""
    brands = {start[place : place + 4] for place in range(8, START_BYTES, 4)}
    return start[4:8] == b"ftyp" and bool(brands & _HEIC_BRANDS)


def how_to_read(suffixes: Iterable[str]) -> str:
    """Return which packages are missing to read files with these suffixes, and how to install them."""
    names = sorted({DISTRIBUTIONS[NEEDED[suffix]] for suffix in suffixes})
    needs = f"the packages {' and '.join(names)} are" if len(names) > 1 else f"the package {names[0]} is"
    return f"{needs} not installed; {how_to_install('camera')}"


def open_heic(source: Path | str | io.BytesIO) -> Image.Image:
    """Return the main picture of a HEIC file, not yet decoded, and upright; its EXIF data are kept."""
    _need(HEIC_SUFFIXES[0])
    import pillow_heif

    return pillow_heif.HeifImageFile(source)


def start_of(file: Path | str) -> bytes:
    """Return the first bytes of a file, for `is_heic`."""
    with Path(file).open("rb") as stream:
        return stream.read(START_BYTES)


def open_metadata(file: Path, formats: tuple[str, ...]) -> Image.Image:
    """Return a HEIC file, or one of these formats of Pillow, not yet decoded; to Pillow, most RAW files are TIFF.

    Raises what the decoder raises, or MissingPackage.
    """
    return open_heic(file) if is_heic(start_of(file)) else Image.open(file, formats=formats)


def open_raw(source: Path | str | io.BytesIO, most_pixels: int) -> Image.Image:
    """Return the preview in a RAW file, not yet decoded, if it is large enough, else the RAW data at half their size.

    The preview's orientation is in its EXIF data. RAW data wait for memory while they are developed; more than
    `most_pixels` of them raise Image.DecompressionBombError. What LibRaw says of a damaged file comes as
    rawpy.LibRawError.
    """
    _need(RAW_SUFFIXES[0])
    import rawpy

    with rawpy.imread(str(source) if isinstance(source, Path) else source) as raw:
        preview = _preview(raw)
        half_size = max(raw.sizes.iwidth, raw.sizes.iheight) // 2
        if preview is not None and max(preview.size) >= min(LEAST_PREVIEW_PIXELS, half_size):
            return preview
        n_pixels = raw.sizes.raw_width * raw.sizes.raw_height
        if n_pixels > most_pixels:
            raise Image.DecompressionBombError(f"{n_pixels / 1e6:.0f} million pixels")
        with IN_FLIGHT.taking(DEVELOPING_BYTES * n_pixels):
            return Image.fromarray(raw.postprocess(half_size=True, use_camera_wb=True))


def _need(suffix: str) -> None:
    if not is_installed(NEEDED[suffix]):
        raise MissingPackage(how_to_read([suffix]))


def _preview(raw: Any) -> Image.Image | None:
    """Return the largest preview in an opened RAW file, with its orientation; None if none can be read."""
    import rawpy

    try:
        thumb = raw.extract_thumb()
        if thumb.format == rawpy.ThumbFormat.JPEG:
            preview: Image.Image = Image.open(io.BytesIO(thumb.data), formats=("JPEG",))
        else:
            preview = Image.fromarray(np.ascontiguousarray(thumb.data))
    except (rawpy.LibRawError, OSError, ValueError, TypeError):
        return None
    exif = preview.getexif()
    is_as_the_sensor = (preview.width >= preview.height) == (raw.sizes.iwidth >= raw.sizes.iheight)
    if Base.Orientation not in exif and is_as_the_sensor and raw.sizes.flip in _TURNS:
        exif[Base.Orientation] = _TURNS[raw.sizes.flip]
    return preview
