"""Open pictures as upright RGB and find the pictures below a directory."""

import contextlib
import io
import logging
import os
import re
import stat
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageOps, UnidentifiedImageError

from custom_aesthetic.base.errors import UserError
from custom_aesthetic.pictures import camera
from custom_aesthetic.pictures.camera import HEIC_SUFFIXES, MissingPackage, is_heic, is_raw_name
from custom_aesthetic.pictures.decoding import IN_FLIGHT, decoding_bytes, to_rgb

logger = logging.getLogger(__name__)

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tiff", ".tif", ".gif", ".avif")
"""Suffixes of picture files that Pillow reads, in upper or lower case; see also `pictures.camera`."""

DEVELOPED_SUFFIXES = (".jpg", ".jpeg", *HEIC_SUFFIXES)
"""What cameras write beside a RAW file of the same name: the two are one picture."""

SIDECAR_SUFFIXES = (".xmp", ".aae", ".thm", ".pp3", ".dop")
"""Suffixes of files that programs and cameras keep beside pictures."""

SYSTEM_FILES = ("thumbs.db", "desktop.ini")

CACHE_FOLDER_NAME = ".aesthetic_features"
"""Folder of the feature cache inside the picture directory; it is not searched for pictures."""

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
_MOST_KINDS_NAMED = 8
_MOST_LINKS_NAMED = 3
_KIND = re.compile(r"\.[a-z0-9]{1,12}")


class BadImage(UserError):
    """Raised for a file that cannot be used as a picture; `reason` says why in a few words."""

    def __init__(self, path: Path | str, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.reason = reason


@dataclass
class Listing:
    """The contents of a directory and its sub-directories."""

    pictures: list[str]
    """Relative posix paths, sorted."""

    ignored: Counter[str]
    """Suffix in lower case -> number of files that are not pictures.

    Hidden files, sidecars, and what systems leave in folders are not counted.
    """

    unreadable: Counter[str]
    """Suffix in lower case -> number of HEIC and RAW files that a package is missing for."""

    n_paired: int
    """RAW files that count as one with the JPEG or HEIC file of the same name."""

    links: list[str]
    """Relative paths of links to directories, sorted. They are not followed."""

    unread: list[str]
    """Sub-directories that cannot be read, each with the reason."""

    def count(self, other: "Listing") -> None:
        """Add the other listing to this one, but for its pictures."""
        self.ignored += other.ignored
        self.unreadable += other.unreadable
        self.n_paired += other.n_paired
        self.links += other.links
        self.unread += other.unread


def empty_listing() -> Listing:
    """Return the listing of an empty directory."""
    return Listing([], Counter(), Counter(), 0, [], [])


def find_images(directory: Path | str) -> list[str]:
    """Return the relative posix paths of all pictures below `directory`, sorted.

    Ignored files and links are logged. Raises UserError if the directory itself cannot be read.
    """
    listing = list_folder(directory)
    for level, text in remarks(str(directory), listing):
        logger.log(level, "%s", text)
    return listing.pictures


def remarks(directory: str, listing: Listing) -> list[tuple[int, str]]:
    """Return what was left out of a directory, as levels of the log and lines."""
    found, shown = [], _printable(directory)
    for folder in listing.unread:
        found.append((logging.WARNING, f"the sub-directory {folder} and is left out"))
    if listing.ignored:
        found.append((logging.INFO, f"ignored in {shown}: {_kinds_in_words(listing.ignored)}"))
    if listing.unreadable:
        kinds = _kinds_in_words(listing.unreadable)
        found.append((logging.WARNING, f"not read in {shown}: {kinds}; {camera.how_to_read(listing.unreadable)}"))
    if listing.n_paired:
        line = f"RAW files that count as one with the JPEG or HEIC file of the same name: {listing.n_paired}"
        found.append((logging.INFO, line))
    if listing.links:
        named = ", ".join(_printable(link) for link in listing.links[:_MOST_LINKS_NAMED])
        n_more = len(listing.links) - _MOST_LINKS_NAMED
        line = (
            f"links to directories are not followed: {named}{f' and {n_more} more' if n_more > 0 else ''}; run on "
            "those directories separately, or move them in"
        )
        found.append((logging.WARNING, line))
    return found


def is_image_name(name: str) -> bool:
    """Return whether a file with this name counts as a picture; a hidden one does not, such as `._photo.jpg`."""
    return not name.startswith(".") and name.lower().endswith(picture_suffixes())


def picture_suffixes() -> tuple[str, ...]:
    """Return the suffixes of the pictures that can be read here, in lower case."""
    return IMAGE_SUFFIXES + camera.readable_suffixes()


def list_folder(directory: Path | str) -> Listing:
    """Return the contents of `directory`, which may itself be a link, and of its sub-directories.

    Links to directories are not followed, since they may form a loop or leave the directory. Each directory is listed
    once, even if a junction or mount shows it twice. A sub-directory that cannot be read is left out. Raises UserError
    if the directory itself cannot be read.
    """
    whole = empty_listing()
    for listing in walk_folder(directory):
        whole.pictures += listing.pictures
        whole.count(listing)
    whole.pictures.sort()
    whole.links.sort()
    return whole


def walk_folder(directory: Path | str) -> Iterator[Listing]:
    """Yield the contents of `directory` and of each of its sub-directories alone, in the same order each time.

    Paths are relative to `directory`. Otherwise this is `list_folder`.
    """
    seen: set[tuple[int, int]] = set()
    pending = [(str(directory), "")]
    while pending:
        folder, prefix = pending.pop()
        listing = empty_listing()
        try:
            identity = _directory_identity(folder)
            if identity in seen:
                continue
            seen.add(identity)
            below = _list_one(folder, prefix, listing)
        except OSError as error:
            if not prefix:
                raise UserError(
                    f"the image directory {folder} cannot be read ({error.strerror}); check --directory"
                ) from error
            listing, below = empty_listing(), []
            listing.unread.append(f"{_printable(folder)} cannot be read ({error.strerror})")
        pending += sorted(below, reverse=True)
        listing.pictures.sort()
        yield listing


def _list_one(folder: str, prefix: str, listing: Listing) -> list[tuple[str, str]]:
    """Add the contents of one directory to the listing; return its sub-directories and their prefixes."""
    below, names = [], []
    with os.scandir(folder) as entries:
        for entry in entries:
            if not _is_directory(entry):
                names.append(entry.name)
            elif _is_link(entry):
                listing.links.append(prefix + entry.name)
            elif entry.name != CACHE_FOLDER_NAME:
                below.append((entry.path, f"{prefix}{entry.name}/"))
    sort_out([name for name in names if not name.startswith(".")], prefix, listing)
    return below


def sort_out(names: list[str], prefix: str, listing: Listing) -> None:
    """Add the files of one directory to the listing, as pictures or as what they are counted as."""
    suffixes = picture_suffixes()
    paired = raws_in_pairs(names)
    listing.n_paired += len(paired)
    for name in names:
        if name in paired:
            continue
        lower = name.lower()
        if lower.endswith(suffixes):
            listing.pictures.append(prefix + name)
        elif lower.endswith(tuple(camera.NEEDED)):
            listing.unreadable[_kind_of(name)] += 1
        elif not lower.endswith(SIDECAR_SUFFIXES) and lower not in SYSTEM_FILES:
            listing.ignored[_kind_of(name)] += 1


def raws_in_pairs(names: Collection[str]) -> dict[str, str]:
    """Return RAW file -> the JPEG or HEIC file of the same name, among the files of one directory."""
    raws = [name for name in names if is_raw_name(name)]
    if not raws:
        return {}
    suffixes = tuple(suffix for suffix in DEVELOPED_SUFFIXES if suffix in picture_suffixes())
    developed = {_stem(name): name for name in sorted(names, reverse=True) if name.lower().endswith(suffixes)}
    return {raw: developed[_stem(raw)] for raw in raws if _stem(raw) in developed}


def _stem(name: str) -> str:
    return name.rpartition(".")[0]


def _is_directory(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that points to itself
        return False


def _is_link(entry: os.DirEntry[str]) -> bool:
    """Return whether the entry is a symbolic link or, on Windows, a junction."""
    if entry.is_symlink():
        return True
    attributes = getattr(entry.stat(follow_symlinks=False), "st_reparse_tag", 0) if os.name == "nt" else 0
    return attributes == getattr(stat, "IO_REPARSE_TAG_MOUNT_POINT", -1)


def _directory_identity(folder: str) -> tuple[int, int]:
    status = Path(folder).stat()
    return status.st_dev, status.st_ino


def _kind_of(name: str) -> str:
    suffix = os.path.splitext(name)[1].lower()  # noqa: PTH122 - a million Path objects would take seconds
    return suffix if _KIND.fullmatch(suffix) else "other"


def _kinds_in_words(ignored: Counter[str]) -> str:
    """Return `12 .mp4, 3 .txt`: the most frequent kinds first, then by name."""
    kinds = sorted(ignored.items(), key=lambda kind: (-kind[1], kind[0]))
    named = [f"{n_files} {kind}" for kind, n_files in kinds[:_MOST_KINDS_NAMED]]
    rest = sum(n_files for _, n_files in kinds[_MOST_KINDS_NAMED:])
    return ", ".join([*named, f"{rest} of other kinds"] if rest else named)


def _printable(name: str) -> str:
    """Return the name on one line that any terminal can show; bytes that are not UTF-8 become backslash escapes."""
    safe = name.encode("utf-8", "backslashreplace").decode("utf-8")
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in safe)


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
        raise BadImage(path, f"refused as a decompression bomb: {_printable(str(error))}") from error
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
    words = _printable(" ".join(_text_of(error).split()))
    if isinstance(error, MemoryError):
        return "not enough memory to decode it"
    if "truncated" in words.lower():
        return "truncated image file"
    return f"damaged image file ({words[:100] or type(error).__name__})"
