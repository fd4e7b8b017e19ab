"""Find the pictures below a directory, and count what else is in it."""

import logging
import os
import re
import stat
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from custom_aesthetic.base.errors import UserError
from custom_aesthetic.base.text import LONGEST_PATH, printable
from custom_aesthetic.pictures import camera
from custom_aesthetic.pictures.camera import HEIC_SUFFIXES, is_raw_name

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

_MOST_KINDS_NAMED = 8
_MOST_LINKS_NAMED = 3
_KIND = re.compile(r"\.[a-z0-9]{1,12}")


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
    found, shown = [], printable(directory, LONGEST_PATH)
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
        named = ", ".join(printable(link, LONGEST_PATH) for link in listing.links[:_MOST_LINKS_NAMED])
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
            listing.unread.append(f"{printable(folder, LONGEST_PATH)} cannot be read ({error.strerror})")
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
