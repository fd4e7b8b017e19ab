"""Prepare pictures for the page: upright, no larger than the window, and cached in memory."""

import io
import threading
from collections import OrderedDict
from pathlib import Path

from PIL import Image

from custom_aesthetic.pictures.images import open_image

SIZES = (320, 640, 1024, 1600, 2000, 2400, 3840)
"""Longest sides of pictures in pixels; the page asks for the size that fills its window."""

WHOLE = 100_000
"""Asks for a picture in its full size."""

CACHE_BYTES = 256 * 2**20
LEAST_SHARE = 0.9
MOST_SHARE = 1.3
"""A JPEG that is decoded at a half, quarter or eighth of its size is not resized if that gives between these shares of
the size that is wanted: the browser fits it into the window anyway, and resizing takes longer than decoding."""

SENT_AS_IT_IS = 600_000
"""A JPEG or WebP of at most this many bytes, and of at most the requested size, is sent unchanged."""


class PictureCache:
    """Cache of prepared pictures; the most recently used ones are kept."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._ready: OrderedDict[tuple[str, int, int], tuple[bytes, str]] = OrderedDict()
        self._n_bytes = 0
        self._lock = threading.Lock()

    def get(self, path: str, size: int) -> tuple[bytes, str]:
        """Return the picture as bytes and media type; its longest side is about the smallest of SIZES >= `size`.

        It is between LEAST_SHARE and MOST_SHARE times that, or the picture's own size if that is smaller. A size of
        `WHOLE` gives the picture in its full size.

        Raises BadImage if the picture cannot be read.
        """
        longest = next((known_size for known_size in SIZES if known_size >= size), SIZES[-1])
        file = self._directory / path
        try:
            changed = file.stat().st_mtime_ns
        except OSError:
            changed = 0
        longest = WHOLE if size >= WHOLE else longest
        key = (path, longest, changed)
        with self._lock:
            if key in self._ready:
                self._ready.move_to_end(key)
                return self._ready[key]
        made = _make(file, longest)
        with self._lock:
            if key not in self._ready:
                self._ready[key] = made
                self._n_bytes += len(made[0])
            while self._n_bytes > CACHE_BYTES and len(self._ready) > 1:
                _, (content, _) = self._ready.popitem(last=False)
                self._n_bytes -= len(content)
        return made


def details(file: Path) -> dict[str, int]:
    """Return the size of a picture's file in bytes, and its width and height in pixels; raises BadImage."""
    n_bytes = file.stat().st_size if file.exists() else 0
    image = open_image(file)
    return {"width": image.width, "height": image.height, "bytes": n_bytes}


def _make(file: Path, longest: int) -> tuple[bytes, str]:
    untouched = _as_it_is(file, longest)
    if untouched is not None:
        return untouched
    image = open_image(file, shown_size=int(LEAST_SHARE * longest))
    if max(image.size) > MOST_SHARE * longest:
        image.thumbnail((longest, longest), Image.Resampling.BICUBIC, reducing_gap=2.0)
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=92, subsampling=0)
    return stream.getvalue(), "image/jpeg"


def _as_it_is(file: Path, longest: int) -> tuple[bytes, str] | None:
    """Return the bytes of the file if every browser shows them as `open_image` does, else None."""
    try:
        if file.stat().st_size > SENT_AS_IT_IS and longest < WHOLE:
            return None
        content = file.read_bytes()
        with Image.open(io.BytesIO(content), formats=("JPEG", "WEBP")) as image:
            plain = image.mode == "RGB" and getattr(image, "n_frames", 1) == 1 and max(image.size) <= longest
            upright = image.getexif().get(0x0112, 1) == 1
            if plain and upright:
                image.load()  # raises an error for a damaged one; a larger one is decoded smaller, by `open_image`
    except Exception:  # decoders raise many kinds of errors; open_image then reports the damage
        return None
    return (content, Image.MIME[image.format]) if plain and upright and image.format else None
