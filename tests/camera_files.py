"""Small files as cameras write them: HEIC by pillow-heif, and a DNG put together by hand."""

import io
import struct
from collections.abc import Sequence

import numpy as np
import pytest
from PIL import Image

BYTE, ASCII, SHORT, LONG, RATIONAL, SRATIONAL = 1, 2, 3, 4, 5, 10
SIZES = {BYTE: 1, ASCII: 1, SHORT: 2, LONG: 4, RATIONAL: 8, SRATIONAL: 8}
XYZ_TO_SRGB = (32406, -15372, -4986, -9689, 18758, 415, 557, -2040, 10570)
"""In ten thousandths: the camera of these files sees sRGB, so that developing gives the colour back."""

Tag = tuple[int, int, Sequence[int] | Sequence[tuple[int, int]] | str]


def heic_bytes(image: Image.Image, exif: bytes = b"", thumbnails: Sequence[int] = ()) -> bytes:
    """Return a picture as HEIC; the test is skipped where pillow-heif is missing."""
    pillow_heif = pytest.importorskip("pillow_heif", reason="pillow-heif is not installed")
    stream = io.BytesIO()
    pillow_heif.from_pillow(image).save(stream, quality=95, exif=exif or None, thumbnails=list(thumbnails))
    return stream.getvalue()


def jpeg_bytes(image: Image.Image, exif: bytes = b"") -> bytes:
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=95, exif=exif)
    return stream.getvalue()


def dng_bytes(
    preview: Image.Image | None,
    colour: tuple[int, int, int] = (200, 60, 40),
    *,
    size: tuple[int, int] = (64, 48),
    orientation: int = 1,
) -> bytes:
    """Return an uncompressed DNG of one colour, with a preview of its own colours to tell them apart.

    Little endian: the first directory holds the preview as JPEG, and leads to the one with the sensor's pixels.
    """
    width, height = size
    pixels = np.empty((height, width), "<u2")
    levels = [round(65535 * (level / 255) ** 2.2) for level in colour]
    for place, level in zip(
        ((0, 0), (0, 1), (1, 0), (1, 1)), (levels[0], levels[1], levels[1], levels[2]), strict=True
    ):
        pixels[place[0] :: 2, place[1] :: 2] = level
    sensor = pixels.tobytes()
    camera: list[Tag] = [
        *((50706, BYTE, [1, 4, 0, 0]), (50707, BYTE, [1, 1, 0, 0]), (50708, ASCII, "Test Camera")),
        *((271, ASCII, "Test"), (272, ASCII, "Camera"), (274, SHORT, [orientation]), (50778, SHORT, [21])),
        (50721, SRATIONAL, [(value, 10_000) for value in XYZ_TO_SRGB]),
        (50728, RATIONAL, [(1, 1)] * 3),
    ]

    def sensor_tags(place: int) -> list[Tag]:
        return [
            *((254, LONG, [0]), (256, LONG, [width]), (257, LONG, [height]), (258, SHORT, [16]), (259, SHORT, [1])),
            *((262, SHORT, [32803]), (273, LONG, [place]), (277, SHORT, [1]), (278, LONG, [height])),
            *((279, LONG, [len(sensor)]), (284, SHORT, [1]), (33421, SHORT, [2, 2]), (33422, BYTE, [0, 1, 1, 2])),
            *((50714, SHORT, [0]), (50717, LONG, [65535])),
        ]

    if preview is None:
        place = 8 + len(directory(camera + sensor_tags(0), 8))
        return struct.pack("<2sHI", b"II", 42, 8) + directory(camera + sensor_tags(place), 8) + sensor
    jpeg = jpeg_bytes(preview) + b"\0"

    def preview_tags(place: int, below: int) -> list[Tag]:
        return [
            *((254, LONG, [1]), (256, LONG, [preview.width]), (257, LONG, [preview.height]), (258, SHORT, [8, 8, 8])),
            *((259, SHORT, [7]), (262, SHORT, [6]), (273, LONG, [place]), (277, SHORT, [3])),
            *((278, LONG, [preview.height]), (279, LONG, [len(jpeg)]), (330, LONG, [below])),
        ]

    below = 8 + len(directory(camera + preview_tags(0, 0), 8))
    jpeg_at = below + len(directory(sensor_tags(0), below))
    first = directory(camera + preview_tags(jpeg_at, below), 8)
    second = directory(sensor_tags(jpeg_at + len(jpeg)), below)
    return struct.pack("<2sHI", b"II", 42, 8) + first + second + jpeg + sensor


def directory(tags: Sequence[Tag], place: int) -> bytes:
    """Return a TIFF directory that lies at this place of the file, with its values behind it."""
    fields, values = b"", b""
    values_at = place + 2 + 12 * len(tags) + 4
    for number, kind, value in sorted(tags):
        content = encoded(kind, value)
        where = content.ljust(4, b"\0") if len(content) <= 4 else struct.pack("<I", values_at + len(values))
        fields += struct.pack("<HHI", number, kind, len(content) // SIZES[kind]) + where
        if len(content) > 4:
            values += content + b"\0" * (len(content) % 2)
    return struct.pack("<H", len(tags)) + fields + struct.pack("<I", 0) + values


def encoded(kind: int, value: Sequence[int] | Sequence[tuple[int, int]] | str) -> bytes:
    if isinstance(value, str):
        return value.encode() + b"\0"
    if kind in (RATIONAL, SRATIONAL):
        return b"".join(struct.pack("<II" if kind == RATIONAL else "<ii", *pair) for pair in value)  # type: ignore[misc]
    return struct.pack(f"<{len(value)}{ {BYTE: 'B', SHORT: 'H', LONG: 'I'}[kind] }", *value)
