"""Where a table of precomputed features lies and what a model file calls it; nothing heavy is imported to tell."""

import re
from collections.abc import Sequence
from pathlib import Path

from custom_aesthetic.base.errors import UserError
from custom_aesthetic.base.extras import require
from custom_aesthetic.base.text import printable
from custom_aesthetic.settings.training import TABLE_PREFIX

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
        raise UserError(f"{option} is not there: looked in {directory} and {Path.cwd()}; check the path")
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
