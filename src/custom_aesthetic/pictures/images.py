"""Open any picture a user may have, upright and RGB; find the pictures below a directory."""

import logging
import os
import stat
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from custom_aesthetic.base.errors import UserError

logger = logging.getLogger(__name__)

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tiff")
CACHE_FOLDER_NAME = ".aesthetic_features"
"""The feature cache's folder inside the picture directory: never searched for pictures."""

MAX_PIXELS = 178_956_970
"""A picture with more pixels (half a gigabyte as RGB) counts as a decompression bomb; Pillow refuses from here too."""

DRAFT_FACTOR = 4
"""The shorter side of a JPEG decoded at half its size stays at least this many times the target size.

Measured with `efficientnet-lite0`, as the mean change over the mean spread between photos: 1.2 % here, about what
rounding the resized pixels to 8 bits makes (1 to 3 %). At twice the target it is 1.7 %, at a quarter of the size 2 %,
at an eighth 6 %.
"""

_FORMATS = ("PNG", "JPEG", "MPO", "WEBP", "BMP", "DIB", "TIFF", "GIF", "AVIF")
_ORIENTATION_TAG = 0x0112
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_DECODING_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    IndexError,
    KeyError,
    EOFError,
    OverflowError,
    MemoryError,
    NotImplementedError,
    struct.error,
    zlib.error,
)
"""What Pillow's decoders are known to raise on files that they cannot read."""

# Pillow warns from MAX_IMAGE_PIXELS on and refuses from twice that on. open_image draws the line itself, so the
# warning would only add noise about pictures that work; so would those about odd metadata.
Image.MAX_IMAGE_PIXELS = MAX_PIXELS
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")


class BadImage(UserError):
    """A file that cannot be used as a picture; `reason` says why in a few words."""

    def __init__(self, path: Path | str, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.reason = reason


def find_images(directory: Path | str) -> list[str]:
    """Return the relative posix paths of all pictures below `directory`, sorted.

    Links to directories are followed unless they lead back to a directory above them. A sub-directory that cannot
    be read is named in the log and left out. Raises UserError if the directory itself cannot be read.
    """
    found: list[str] = []
    pending: list[tuple[str, str, tuple[tuple[int, int], ...]]] = [(str(directory), "", ())]
    while pending:
        folder, prefix, above = pending.pop()
        try:
            identity = _directory_identity(folder)
            if identity in above:
                continue
            with os.scandir(folder) as entries:
                for entry in entries:
                    name = entry.name
                    if _is_directory(entry):
                        if name != CACHE_FOLDER_NAME:
                            pending.append((entry.path, f"{prefix}{name}/", (*above, identity)))
                    elif name.lower().endswith(IMAGE_SUFFIXES):
                        found.append(prefix + name)
        except OSError as error:
            if not prefix:
                raise UserError(
                    f"the image directory {folder} cannot be read ({error.strerror}); check --directory"
                ) from error
            logger.warning("the sub-directory %s cannot be read (%s) and is left out", folder, error.strerror)
    found.sort()
    return found


def _is_directory(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _directory_identity(folder: str) -> tuple[int, int]:
    status = Path(folder).stat()
    return status.st_dev, status.st_ino


def open_image(path: Path | str, target_size: int | None = None) -> Image.Image:
    """Return the picture as upright RGB, 8 bits a channel, alpha laid over white; of an animation the first frame.

    With `target_size` (pixels of the shorter side after a later resize) a large JPEG is decoded at half its size, if
    its shorter side stays at least DRAFT_FACTOR times the target.
    Raises BadImage for what cannot be read whole, and for more than MAX_PIXELS pixels.
    """
    _check_is_filled_file(path)
    try:
        with Image.open(path, formats=_known_formats()) as image:
            n_pixels = image.width * image.height
            if n_pixels > MAX_PIXELS:
                raise BadImage(path, _bomb_reason(f"{n_pixels / 1e6:.0f} million pixels"))
            if target_size is not None and min(image.size) // 2 >= DRAFT_FACTOR * target_size:
                image.draft(None, (image.width // 2, image.height // 2))
            image.load()
            orientation = _orientation(image)
            rgb = _to_rgb(image)
    except BadImage:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise BadImage(path, _bomb_reason("too many pixels")) from error
    except UnidentifiedImageError as error:
        raise BadImage(path, "not an image in a known format") from error
    except _DECODING_ERRORS as error:
        raise BadImage(path, _decoding_reason(error)) from error
    return rgb.transpose(_UPRIGHT[orientation]) if orientation in _UPRIGHT else rgb


def _check_is_filled_file(path: Path | str) -> None:
    try:
        status = Path(path).stat()
    except OSError as error:
        reason = "file not found" if isinstance(error, FileNotFoundError) else f"cannot be read ({error.strerror})"
        raise BadImage(path, reason) from error
    if not stat.S_ISREG(status.st_mode):
        raise BadImage(path, "not a regular file")
    if status.st_size == 0:
        raise BadImage(path, "empty file (0 bytes)")


def _known_formats() -> tuple[str, ...]:
    """Return the formats to try. No others: some plug-ins of Pillow start outside programs on what they find."""
    Image.init()
    return tuple(name for name in _FORMATS if name in Image.OPEN)


def _orientation(image: Image.Image) -> int:
    """Return the EXIF orientation, 1 ... 8; 1 where there is none or the EXIF data are broken."""
    try:
        orientation = image.getexif().get(_ORIENTATION_TAG, 1)
    except _DECODING_ERRORS:
        return 1
    return orientation if isinstance(orientation, int) else 1


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I") or image.mode == "F":
        return _scale_deep_greys(image).convert("RGB")
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        white = Image.new("RGBA", layer.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, layer).convert("RGB")
    return image.convert("RGB")


def _scale_deep_greys(image: Image.Image) -> Image.Image:
    """Return 16-bit, 32-bit or floating-point greys as 8 bits.

    The full scale is 65535 for integers and 1 for floats; where a value is beyond, the largest value is the scale.
    """
    greys = np.nan_to_num(np.asarray(image).astype(np.float32), posinf=0.0, neginf=0.0)
    full_scale = max(1.0 if image.mode == "F" else 65535.0, float(greys.max()))
    return Image.fromarray(np.clip(np.rint(greys * (255.0 / full_scale)), 0, 255).astype(np.uint8))


def _bomb_reason(found: str) -> str:
    return f"refused as a decompression bomb: {found}, the limit is {MAX_PIXELS / 1e6:.0f} million"


def _decoding_reason(error: BaseException) -> str:
    words = " ".join(str(error).split())
    if "truncated" in words.lower():
        return "truncated image file"
    return f"damaged image file ({words[:100] or type(error).__name__})"
