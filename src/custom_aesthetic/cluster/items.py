"""Items of work: some pictures of a folder, a tar file, or some row groups of a parquet file. Each becomes one part."""

import hashlib
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from custom_aesthetic.cluster.places import FileInfo

PICTURES, TAR, PARQUET, NOTE, MISTAKE = "pictures", "tar", "parquet", "note", "mistake"
INCOMPLETE = "incomplete"
"""A note that some folders could not be listed, so that parts of pictures in them must stay."""

FORMAT = "1"
"""Part of every digest; another number makes all parts anew."""

LONGEST = 4
"""A part has at most this many times the usual number of pictures."""


@dataclass(frozen=True)
class Item:
    """A piece of work, the same from run to run as long as its pictures are."""

    kind: str
    names: tuple[str, ...]
    """Paths below the input: of the pictures, or of the one tar or parquet file. Of a message, its lines."""
    digest: str = ""
    """Spells everything that makes this item what it is: names, sizes and times of change."""
    row_groups: tuple[int, int] = (0, 0)
    """Of parquet: the first, and the one after the last."""
    column: str = "relative_path"
    """The column that the names of the pictures have in the part."""
    picture_column: str = ""
    """Of parquet: the column of the pictures."""

    @property
    def part(self) -> str:
        """The name of the part's file."""
        return f"part-{self.digest}.parquet"


def item_digest(kind: str, *parts: object) -> str:
    """Return 20 hex digits that differ wherever any of the parts does."""
    text = "\0".join([FORMAT, kind, *map(str, parts)])
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:20]


def picture_items(files: Iterable[FileInfo], n_pictures: int) -> Iterator[Item]:
    """Yield items of about `n_pictures` pictures, whose names are paths here.

    An item ends at a picture whose name's checksum says so. So new or removed pictures change only the items that they
    are in, and the parts of all others remain good.
    """
    gathered: list[FileInfo] = []
    for file in files:
        gathered.append(file)
        ends = zlib.crc32(file.name.encode("utf-8", "surrogateescape")) % (n_pictures // 2 + 1) == 0
        if (ends and len(gathered) > n_pictures // 2) or len(gathered) >= LONGEST * n_pictures:
            yield _of_pictures(gathered)
            gathered = []
    if gathered:
        yield _of_pictures(gathered)


def _of_pictures(files: list[FileInfo]) -> Item:
    names = tuple(file.name for file in files)
    return Item(PICTURES, names, item_digest(PICTURES, *(value for file in files for value in file)))
