"""Turn decoded pictures into RGB without needless copies, and bound the memory of all that are decoded at once."""

import contextlib
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image

BYTES_A_PIXEL = 9
"""Memory of a picture while it is decoded and resized: Pillow's four bytes twice, and a float of one channel."""

COEFFICIENT_BYTES = 2
"""What libjpeg holds of each channel of a progressive JPEG for every pixel of the file, also while it shrinks it."""

MEMORY_FRACTION = 0.25
"""The part of this machine's memory that pictures may take while they are decoded and resized."""

LEAST_BYTES = 2**30
"""What they may take in any case, and on systems that do not tell their memory."""

BAND_PIXELS = 2**20
"""Pixels of a band: copies for a change of the colours are no larger than that."""

CONTAINER_LIMIT = Path("/sys/fs/cgroup/memory.max")
"""Where Linux tells the memory of a container."""


class BytesInFlight:
    """Lets pictures be decoded at once up to a number of bytes; one larger than that waits until it is alone."""

    def __init__(self, most: int) -> None:
        self._most = most
        self.begin_anew()

    def begin_anew(self) -> None:
        """Forget who holds bytes: in a forked process none of those threads is there to give them back."""
        self._taken, self._changed = 0, threading.Condition()

    @contextlib.contextmanager
    def taking(self, n_bytes: int) -> Iterator[None]:
        """Wait until there is room for so many bytes, which are taken until the end of the block.

        A thread must not take some while it holds others.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._taken <= 0 or self._taken + n_bytes <= self._most)
            self._taken += n_bytes
        try:
            yield
        finally:
            with self._changed:
                self._taken -= n_bytes
                self._changed.notify_all()


def memory_for_pictures() -> int:
    """Return how many bytes pictures may take on this machine, or in this container, while they are decoded."""
    sizes = []
    with contextlib.suppress(AttributeError, OSError, ValueError):
        sizes.append(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    with contextlib.suppress(OSError, ValueError):
        sizes.append(int(CONTAINER_LIMIT.read_text()))  # "max" where there is no limit
    return max(LEAST_BYTES, int(MEMORY_FRACTION * min(sizes, default=0)))


IN_FLIGHT = BytesInFlight(memory_for_pictures())
"""All pictures that this process decodes."""

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=IN_FLIGHT.begin_anew)


def decoding_bytes(image: Image.Image, n_pixels: int) -> int:
    """Return about how many bytes it takes to decode and resize an opened picture, `n_pixels` in the file."""
    is_progressive = bool(image.info.get("progressive"))
    coefficients = COEFFICIENT_BYTES * len(image.getbands()) * n_pixels if is_progressive else 0
    return BYTES_A_PIXEL * image.width * image.height + coefficients


def to_rgb(image: Image.Image) -> Image.Image:
    """Return a loaded picture as RGB, 8 bits a channel, with transparent parts on white; itself if it is that."""
    if image.mode.startswith("I") or image.mode == "F":
        return _scale_deep_greys(image).convert("RGB")
    if image.has_transparency_data:
        return _in_bands(image, "RGB", _on_white)
    return image if image.mode == "RGB" else image.convert("RGB")


def _on_white(image: Image.Image) -> Image.Image:
    layer = image.convert("RGBA")
    white = Image.new("RGBA", layer.size, (255, 255, 255, 255))
    return Image.alpha_composite(white, layer).convert("RGB")


def _scale_deep_greys(image: Image.Image) -> Image.Image:
    """Return 16-bit, 32-bit or floating-point greys as 8 bits.

    White is 65535 for integers and 1 for floats, or the largest value if that is greater.
    """
    largest = max(float(_deep_greys(band).max()) for _, band in _bands(image))
    full_scale = max(1.0 if image.mode == "F" else 65535.0, largest)

    def scale(band: Image.Image) -> Image.Image:
        greys = _deep_greys(band)
        return Image.fromarray(np.clip(np.rint(greys * (255.0 / full_scale)), 0, 255).astype(np.uint8))

    return _in_bands(image, "L", scale)


def _deep_greys(image: Image.Image) -> np.ndarray:
    """Return the values as (height, width) float32, with 0 for those that are not finite."""
    return np.nan_to_num(np.asarray(image).astype(np.float32), posinf=0.0, neginf=0.0)


def _in_bands(image: Image.Image, mode: str, convert: Callable[[Image.Image], Image.Image]) -> Image.Image:
    """Return the result of `convert`, of this mode, computed band by band."""
    bands = _bands(image)
    top, first = next(bands)
    if first is image:
        return convert(image)
    whole = Image.new(mode, image.size)
    whole.paste(convert(first), (0, top))
    for top, band in bands:
        whole.paste(convert(band), (0, top))
    return whole


def _bands(image: Image.Image) -> Iterator[tuple[int, Image.Image]]:
    """Yield the picture in bands of at most BAND_PIXELS pixels, or as it is if it has no more, with their tops."""
    n_rows = max(1, BAND_PIXELS // image.width)
    if n_rows >= image.height:
        yield 0, image
        return
    for top in range(0, image.height, n_rows):
        yield top, image.crop((0, top, image.width, min(top + n_rows, image.height)))
