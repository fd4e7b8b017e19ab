"""Convert images of other programs to Pillow: paths, bytes of files, Pillow images, arrays and tensors, one or many."""

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from custom_aesthetic.base.errors import ImageError
from custom_aesthetic.pictures.images import BadImage, opened_image, upright_rgb

MODES = {1: "L", 3: "RGB", 4: "RGBA"}
"""Number of channels -> mode of the Pillow image."""

SLACK = 0.5
"""Floats that leave 0...1 by at most this much are clipped, because resampling overshoots; beyond it, an error."""


def split_images(images: Any) -> list[Any]:
    """Return the images as a list; an array or tensor with four axes is a batch of images.

    Raises ImageError for anything that is not an image or a sequence of images.
    """
    if _is_single(images):
        return [images]
    if _is_array(images):
        array = _as_numpy(images)
        if array.ndim == 4:
            return list(array)
        return [array]
    if isinstance(images, Sequence):
        return [part for image in images for part in split_images(image)]
    raise ImageError(
        f"an image is a path, the bytes of a file, a PIL image, an array or a tensor, not {type(images).__name__}"
    )


def load_image(image: Any, name: str, target_size: int | None = None) -> Image.Image:
    """Return one image as upright RGB, 8 bits per channel, with transparent parts on white.

    Arrays and tensors are (height, width, channels) with 1, 3 or 4 channels, or (height, width), uint8 or float 0...1.
    `target_size` is passed to `open_image`. `name` is that of an image without a path: the bytes of a file are read as
    a file of that name. Raises ImageError, with the image's path or `name`, if the image cannot be used.
    """
    with loaded_image(image, name, target_size) as loaded:
        return loaded


@contextlib.contextmanager
def loaded_image(image: Any, name: str, target_size: int | None = None) -> Iterator[Image.Image]:
    """Yield what `load_image` returns; the memory of a file counts as in use until the end of the block."""
    if not isinstance(image, str | os.PathLike | bytes):
        yield _converted(image, name)
        return
    path, content = (name, image) if isinstance(image, bytes) else (Path(image), None)
    with contextlib.ExitStack() as memory:
        try:
            opened = memory.enter_context(opened_image(path, target_size, content=content))
        except BadImage as error:
            raise ImageError(str(error), error.reason) from error
        yield opened


def _converted(image: Any, name: str) -> Image.Image:
    try:
        return upright_rgb(image if isinstance(image, Image.Image) else _from_array(_as_numpy(image)))
    except BadImage as error:
        raise ImageError(f"{name}: {error.reason}", error.reason) from error
    except ImageError as error:
        raise ImageError(f"{name}: {error}", error.reason) from None


def _is_single(image: Any) -> bool:
    return isinstance(image, str | os.PathLike | bytes | Image.Image)


def _is_array(image: Any) -> bool:
    return isinstance(image, np.ndarray) or hasattr(image, "detach")


def _as_numpy(image: Any) -> np.ndarray:
    """Return an array, or a tensor on any device, as a numpy array; floating-point tensors become float32."""
    if isinstance(image, np.ndarray):
        return image
    tensor = image.detach().cpu()
    return (tensor.float() if tensor.is_floating_point() else tensor).numpy()


def _from_array(array: np.ndarray) -> Image.Image:
    if array.ndim == 2:
        array = array[:, :, None]
    if array.ndim != 3 or array.shape[2] not in MODES or not array.size:
        raise ImageError(
            f"its shape is {array.shape}; an image is (height, width, channels) with 1, 3 or 4 channels, channels last"
        )
    if np.issubdtype(array.dtype, np.floating):
        array = _from_floats(array)
    if array.dtype != np.uint8:
        raise ImageError(f"it holds {array.dtype}; give uint8 0...255 or floats 0...1")
    return Image.fromarray(np.ascontiguousarray(array[:, :, 0] if array.shape[2] == 1 else array))


def _from_floats(array: np.ndarray) -> np.ndarray:
    low, high = float(array.min()), float(array.max())
    if not (low >= -SLACK and high <= 1 + SLACK):
        raise ImageError(f"its floats lie between {low:g} and {high:g}; give floats 0...1, or uint8 0...255")
    return np.rint(np.clip(array.astype(np.float32), 0, 1) * 255).astype(np.uint8)
