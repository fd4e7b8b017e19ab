"""Pictures as JPEG: small ones as data URIs, for an HTML page, and files, for programs that read no HEIC or RAW."""

import base64
import io
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from custom_aesthetic.pictures.images import BadImage, open_image

THUMBNAIL_SIZE = 224
JPEG_QUALITY = 80


def thumbnail_uri(file: Path, size: int = THUMBNAIL_SIZE) -> str | None:
    """Return the picture as a JPEG data URI, at most `size` pixels wide and high; None if it cannot be opened."""
    content = jpeg_of(file, size)
    return None if content is None else _data_uri("image/jpeg", content)


def jpeg_of(file: Path, size: int) -> bytes | None:
    """Return the picture as JPEG, at most `size` pixels wide and high; None if it cannot be opened."""
    try:
        image = open_image(file, shown_size=size)
    except BadImage:
        return None
    image.thumbnail((size, size), Image.Resampling.LANCZOS)
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=JPEG_QUALITY, optimize=True)
    return stream.getvalue()


def png_uri(pixels: NDArray[np.uint8]) -> str:
    """Return RGBA pixels (height, width, 4) as a PNG data URI."""
    stream = io.BytesIO()
    Image.fromarray(pixels, "RGBA").save(stream, "PNG", optimize=True)
    return _data_uri("image/png", stream.getvalue())


def _data_uri(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
