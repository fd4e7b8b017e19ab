"""Find a table of precomputed features, and its name in a model file, without heavy imports."""

import logging
import posixpath
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from custom_aesthetic.base.errors import UserError
from custom_aesthetic.base.extras import require
from custom_aesthetic.base.text import printable
from custom_aesthetic.settings.training import TABLE_PREFIX

log = logging.getLogger(__name__)

PARQUET, NPZ = ".parquet", ".npz"
CLIP_RETRIEVAL = ("img_emb", "metadata")
"""The folders that clip-retrieval writes."""

LONGEST_NAME = 80
FORMS = "a table is a .parquet or .npz file, a folder of .parquet files, or the output folder of clip-retrieval"


class BadRows(Exception):
    """Raised for rows of a table that cannot be used, with what is wrong with all of them."""

    def __init__(self, rows: Sequence[int], reason: str) -> None:
        super().__init__(reason)
        self.rows = rows
        self.reason = reason


def find_table(directory: Path, name: str) -> Path:
    """Return the file or folder of a table, relative to the directory or a path.

    UserError where there is none, where it has another form, or where the package that reads it is not installed.
    """
    option = f"--features={printable(name)}"
    place = next((place for place in (directory / name, Path(name)) if _exists(place)), None)
    if place is None:
        raise UserError(f"{option} does not exist: looked in {directory} and {Path.cwd()}; check the path")
    if place.is_dir():
        if not is_clip_retrieval(place) and not parquet_files(place):
            raise UserError(f"{option} is a folder that holds no table; {FORMS}")
    elif place.suffix.lower() not in (PARQUET, NPZ):
        raise UserError(f"{option} ends in {printable(place.suffix) or 'nothing'}; {FORMS}")
    if place.suffix.lower() != NPZ:
        require("pyarrow", "tables", option)
    return place


def is_clip_retrieval(folder: Path) -> bool:
    """Return whether clip-retrieval has written image features to the folder."""
    return all((folder / name).is_dir() for name in CLIP_RETRIEVAL)


def parquet_files(folder: Path) -> list[Path]:
    """Return the parquet files in a folder, sorted by name."""
    return sorted(file for file in folder.iterdir() if file.suffix.lower() == PARQUET and not file.name.startswith("."))


def clip_retrieval_files(folder: Path) -> list[tuple[Path, Path]]:
    """Return the files of features and of paths, pair by pair; UserError where a file has no partner."""
    features, metadata = (
        {_number(file): file for file in (folder / name).glob(f"*{suffix}")}
        for name, suffix in zip(CLIP_RETRIEVAL, (".npy", PARQUET), strict=True)
    )
    alone = sorted(features.keys() ^ metadata.keys())
    if alone or not features:
        raise UserError(
            f"{folder}: {' and '.join(CLIP_RETRIEVAL)} hold {len(features)} and {len(metadata)} files, not one for one"
            + (f" (number {alone[0]} is alone)" if alone else "")
            + "; run clip-retrieval's inference again"
        )
    return [(features[number], metadata[number]) for number in sorted(features)]


def _number(file: Path) -> int:
    """Return the number that ends the name of one of clip-retrieval's files; -1 where it has none."""
    digits = re.search(r"(\d{1,18})$", file.stem)
    return int(digits[1]) if digits else -1


def below(directory: Path, paths: Sequence[str], place: Path) -> list[str]:
    """Return clip-retrieval's paths relative to the image directory.

    It writes them as it was given its input: below the directory, absolute or as typed. Where that was elsewhere, on
    another machine perhaps, the pictures that exist tell what to cut off, or else the name of the directory, or else
    all that the paths have in common.
    """
    plain = [path.replace("\\", "/") for path in paths]
    is_absolute = any(all(re.match(root, path) for path in plain) for root in ("/", "[A-Za-z]:/"))
    starts = [f"{known.as_posix()}/" for known in (directory.absolute(), directory.resolve(), directory)]
    if is_absolute:
        starts += _guesses(directory, plain)
    start = next((start for start in starts if all(path.startswith(start) for path in plain)), "")
    if is_absolute and start not in starts[:3]:
        log.info("%s: the paths below %s are taken for those in %s", place, start, directory)
    return [path[len(start) :] for path in plain]


def _guesses(directory: Path, paths: Sequence[str]) -> Iterator[str]:
    """Yield what may stand for the image directory at the start of these absolute paths, likely ones first."""
    ends = [found.end() for found in re.finditer("/", paths[0])]
    yield from (paths[0][:end] for end in ends if _exists(directory / paths[0][end:]))
    yield from (paths[0][:end] for end in ends if paths[0][:end].endswith(f"/{directory.resolve().name}/"))
    yield posixpath.commonpath([posixpath.dirname(path) for path in paths]).rstrip("/") + "/"


def extractor_name(place: Path, given: str | None = None) -> str:
    """Return what a model file names as the extractor of a table's features, `features:NAME`.

    NAME is the one given, else that of the file; characters that a model file could not hold become `_`.
    """
    plain = re.sub(r"[^\w.-]+|_+", "_", place.resolve().stem if given is None else given)
    return TABLE_PREFIX + (plain.strip("_.")[:LONGEST_NAME].strip("_.") or "table")


def _exists(place: Path) -> bool:
    try:
        return place.exists()
    except (OSError, ValueError):
        return False
