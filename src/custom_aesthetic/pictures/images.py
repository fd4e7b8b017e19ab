"""Open pictures as upright RGB."""

import contextlib
import io
import stat
from collections.abc import Iterator
from pathlib import Path

from PIL import Image, ImageOps, UnidentifiedImageError

from custom_aesthetic.base.errors import UserError
from custom_aesthetic.base.text import printable
from custom_aesthetic.pictures import camera
from custom_aesthetic.pictures.camera import MissingPackage, is_heic, is_raw_name
from custom_aesthetic.pictures.decoding import IN_FLIGHT, decoding_bytes, to_rgb

MAX_PIXELS = 178_956_970
"""A picture with more pixels (half a gigabyte as RGB) is refused as a decompression bomb.

Pillow's limit is the same by default. It belongs to the whole process, as its warnings do, so it is not changed here.
"""

DRAFT_FACTOR = 4
"""A JPEG is decoded at half its size only if its shorter side stays at least this many times the target size.

Measured with `efficientnet-lite0`, as the mean change of a feature over its mean spread between photos: 1.2 % with this
factor, similar to the effect of rounding the resized pixels to 8 bits (1 to 3 %). With a factor of 2 it is 1.7 %;
decoding at a quarter of the size gives 2 %, at an eighth 6 %.
"""

EMPTY = "empty file (0 bytes)"
_FORMATS = ("PNG", "JPEG", "MPO", "WEBP", "BMP", "DIB", "TIFF", "GIF", "AVIF")


class BadImage(UserError):
    """Raised for a file that cannot be used as a picture; `reason` says why in a few words."""

    def __init__(self, path: Path | str, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.reason = reason


def open_image(
    path: Path | str, target_size: int | None = None, *, shown_size: int | None = None, content: bytes | None = None
) -> Image.Image:
    """Return the picture as upright RGB, 8 bits per channel, with transparent parts on white.

    An animation gives its first frame. `target_size` is the shorter side, in pixels, after a later resize: with it, a
    JPEG is decoded at half its size if its shorter side stays at least DRAFT_FACTOR times the target. `shown_size` is
    the longer side, in pixels, at which people look at it: with it, a JPEG is decoded at a half, quarter or eighth of
    its size if its longer side stays at least that. `content` is that of a file in memory, of which `path` is the name
    alone.
    Raises BadImage if the file cannot be decoded completely or has more than MAX_PIXELS pixels.
    """
    with opened_image(path, target_size, shown_size=shown_size, content=content) as image:
        return image


@contextlib.contextmanager
def opened_image(
    path: Path | str, target_size: int | None = None, *, shown_size: int | None = None, content: bytes | None = None
) -> Iterator[Image.Image]:
    """Yield what `open_image` returns; its memory counts as in use, by `IN_FLIGHT`, until the end of the block."""
    with contextlib.ExitStack() as memory:
        with _opened(path, content) as image:
            n_pixels = image.width * image.height
            if target_size is not None and min(image.size) // 2 >= DRAFT_FACTOR * target_size:
                _draft(image, 2)
            elif shown_size is not None:
                _draft(image, max(image.size) / shown_size)
            memory.enter_context(IN_FLIGHT.taking(decoding_bytes(image, n_pixels)))
            upright = _upright(image)
        del image  # as large as the one yielded
        yield upright


def _draft(image: Image.Image, at_most: float) -> None:
    """Let a JPEG be decoded at a half, quarter or eighth of its size, the smallest that is not below 1 / `at_most`."""
    if image.format in ("JPEG", "MPO"):  # in HEIC, it would take a thumbnail
        image.draft(None, (max(1, int(image.width / at_most)), max(1, int(image.height / at_most))))


def count_pixels(path: Path | str, *, content: bytes | None = None) -> int:
    """Return the number of pixels of a picture, given as to `open_image`, without decoding it; raises BadImage."""
    with _opened(path, content) as image:
        return image.width * image.height


@contextlib.contextmanager
def _opened(path: Path | str, content: bytes | None) -> Iterator[Image.Image]:
    """Yield the picture, not yet decoded; whatever goes wrong with it, also within the block, becomes BadImage."""
    if content is None:
        _check_is_filled_file(path)
    elif not content:
        raise BadImage(path, EMPTY)
    try:
        with open_undecoded(path, content=content) as image:
            n_pixels = image.width * image.height
            if n_pixels > MAX_PIXELS:
                raise BadImage(path, _bomb_reason(f"{n_pixels / 1e6:.0f} million pixels"))
            yield image
    except BadImage:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise BadImage(path, f"refused as a decompression bomb: {printable(str(error))}") from error
    except MissingPackage as error:
        raise BadImage(path, str(error)) from error
    except UnidentifiedImageError as error:
        raise BadImage(path, "not an image in a known format") from error
    except Exception as error:  # decoders are many, and raise whatever they like on damaged files
        raise BadImage(path, _decoding_reason(error)) from error


def open_undecoded(path: Path | str, *, content: bytes | None = None) -> Image.Image:
    """Return a picture of which only the size and the metadata are read; of RAW, that is the preview.

    `content` is as for `open_image`. Raises what the decoder raises, or MissingPackage.
    """
    source = path if content is None else io.BytesIO(content)
    if is_raw_name(str(path)):
        return camera.open_raw(source, MAX_PIXELS)
    if is_heic(camera.start_of(path) if content is None else content):
        return camera.open_heic(source)
    return Image.open(source, formats=_known_formats())


def upright_rgb(image: Image.Image) -> Image.Image:
    """Return an opened image as upright RGB with transparent parts on white, as `open_image` does.

    The image passed in is not changed. Raises BadImage if it cannot be decoded or has more than MAX_PIXELS pixels.
    """
    if image.width * image.height > MAX_PIXELS:
        raise BadImage("image", _bomb_reason(f"{image.width * image.height / 1e6:.0f} million pixels"))
    try:
        return _upright(image.copy())
    except Exception as error:  # decoders are many, and raise whatever they like on damaged files
        raise BadImage("image", _decoding_reason(error)) from error


def _upright(image: Image.Image) -> Image.Image:
    image.load()
    _turn_upright(image)
    return to_rgb(image)


def _check_is_filled_file(path: Path | str) -> None:
    try:
        status = Path(path).stat()
    except OSError as error:
        reason = "file not found" if isinstance(error, FileNotFoundError) else f"cannot be read ({error.strerror})"
        raise BadImage(path, reason) from error
    if not stat.S_ISREG(status.st_mode):
        raise BadImage(path, "not a regular file")
    if status.st_size == 0:
        raise BadImage(path, EMPTY)


def _known_formats() -> tuple[str, ...]:
    """Return the formats to try. Others are left out because some Pillow plug-ins start external programs."""
    Image.init()
    return tuple(name for name in _FORMATS if name in Image.OPEN)


def _turn_upright(image: Image.Image) -> None:
    """Rotate the loaded picture as its EXIF data say; damaged EXIF data are ignored."""
    with contextlib.suppress(Exception):  # what the parser raises depends on the format and the damage
        ImageOps.exif_transpose(image, in_place=True)


def _text_of(error: BaseException) -> str:
    """Return the message of an exception; LibRaw's are bytes."""
    told = error.args[0] if error.args else ""
    return told.decode("utf-8", "replace") if isinstance(told, bytes) else str(error)


def _bomb_reason(found: str) -> str:
    return f"refused as a decompression bomb: {found}, the limit is {MAX_PIXELS / 1e6:.0f} million"


def _decoding_reason(error: BaseException) -> str:
    words = printable(" ".join(_text_of(error).split()))
    if isinstance(error, MemoryError):
        return "not enough memory to decode it"
    if "truncated" in words.lower():
        return "truncated image file"
    return f"damaged image file ({words[:100] or type(error).__name__})"
