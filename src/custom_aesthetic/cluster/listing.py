"""Find the items of work in an input: a folder of pictures, tar files, parquet files, here or behind a URL.

Only a folder's names are in memory at a time, whatever the input holds.
"""

import fnmatch
import os
import re
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from custom_aesthetic.base.errors import UserError
from custom_aesthetic.base.text import printable
from custom_aesthetic.cluster.items import INCOMPLETE, MISTAKE, NOTE, PARQUET, TAR, Item, item_digest, picture_items
from custom_aesthetic.cluster.places import (
    FileInfo,
    FilePlace,
    contents,
    file_info,
    is_folder,
    open_place,
    open_to_read,
    shown_place,
    walk,
)
from custom_aesthetic.pictures.folders import Listing, empty_listing, remarks, sort_out, walk_folder

TAR_SUFFIXES = (".tar", ".tar.gz", ".tgz")
PARQUET_SUFFIX = ".parquet"
KEY_COLUMNS, PICTURE_COLUMNS = ("key", "relative_path"), ("bytes", "image")

_BRACES = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"(\d+)\.\.(\d+)")


def list_items(where: str, n_pictures: int) -> Iterator[Item]:
    """Yield the items of an input, in the same order each time; at its end notes on what was left out.

    An item of a folder has about `n_pictures` pictures, of parquet at least so many rows, of tar files one file. A
    mistake that the user can correct is an item of the kind MISTAKE, and the last.
    """
    try:
        yield from _items(where, n_pictures)
    except UserError as error:
        yield Item(MISTAKE, (str(error),))
    except OSError as error:
        reason = printable(" ".join(str(error).split()))
        yield Item(MISTAKE, (f"{shown_place(where)} cannot be read: {reason}; check -d and the access to it",))


def input_folder(where: str) -> str:
    """Return the folder that the names of an input's items are relative to, as a path or URL."""
    base, _, query = where.partition("?") if "://" in where else (where, "", "")
    if is_pattern(where) or base.lower().endswith((*TAR_SUFFIXES, PARQUET_SUFFIX)):
        folder = base.replace("\\", "/").partition("{")[0].partition("*")[0].rpartition("/")[0] or "."
        return f"{folder}?{query}" if query else folder
    return where


def check_target(where: str, target: str) -> None:
    """Raise UserError for a folder of parts inside the input: the next run would take it for a part of the input."""
    if input_folder(where) != where:  # these name their files
        return
    source, folder = open_place(where), open_place(target)
    inside = f"{folder.path.rstrip('/')}/".startswith(f"{source.path.rstrip('/')}/")
    if inside and source.scheme == folder.scheme and _tables_in(source):
        raise UserError(f"-o={shown_place(target)} lies in the tables of -d; name a folder beside it")


def is_pattern(where: str) -> bool:
    """Return whether the input names several files by braces or by stars; a folder of this machine never does."""
    if "://" not in where and os.path.isdir(where):  # noqa: PTH112 - false for a name that is too long
        return False
    return bool(_BRACES.search(where)) or "*" in where.partition("?")[0]


def expand_braces(text: str) -> list[str]:
    """Return the texts that braces stand for: `{00..11}` for numbers of that width, `{a,b}` for a choice."""
    found = _BRACES.search(text)
    if found is None:
        return [text]
    numbers = _RANGE.fullmatch(found[1])
    if numbers:
        choices = [str(i).zfill(len(numbers[1])) for i in range(int(numbers[1]), int(numbers[2]) + 1)]
    else:
        choices = found[1].split(",")
    return [
        rest for choice in choices for rest in expand_braces(f"{text[: found.start()]}{choice}{text[found.end() :]}")
    ]


def _items(where: str, n_pictures: int) -> Iterator[Item]:
    folder = input_folder(where)
    root = open_place(folder)
    lower = where.partition("?")[0].lower() if "://" in where else where.lower()
    if lower.endswith(TAR_SUFFIXES) and (folder != where):
        yield from _tar_items(root, _named_files(where, folder, root))
    elif lower.endswith(PARQUET_SUFFIX) and folder != where and not is_folder(open_place(where)):
        yield from _parquet_items(root, _named_files(where, folder, root), n_pictures)
    elif folder != where and is_pattern(where):
        raise UserError(f"-d={shown_place(where)}: a pattern names .tar or .parquet files; check its end")
    elif not is_folder(root):
        raise UserError(f"folder {shown_place(where)} does not exist or is not a directory; check -d")
    elif tables := _tables_in(root):
        yield from _parquet_items(root, tables, n_pictures)
    else:
        yield from _folder_items(where, root, n_pictures)


def _named_files(where: str, folder: str, root: FilePlace) -> Iterator[FileInfo]:
    """Yield the files that a name or pattern stands for, with paths below the folder; UserError for a missing one."""
    base = where.partition("?")[0] if "://" in where else where.replace("\\", "/")
    start = folder.partition("?")[0] if "://" in where else folder
    pattern = base if start == "." and not base.startswith("./") else base[len(start) :].lstrip("/")
    for name in expand_braces(pattern):
        if "*" not in name:
            info = file_info(root.below(name))
            if info is None:
                raise UserError(f"{name} does not exist in {shown_place(folder)}; check -d")
            yield info._replace(name=name)
            continue
        if "/" in name:
            raise UserError(f"-d={shown_place(where)}: a star can stand in the name of the files only, not of folders")
        matching = [info for info in contents(root)[1] if fnmatch.fnmatchcase(info.name, name)]
        if not matching:
            raise UserError(f"no file in {shown_place(folder)} is named {name}; check -d")
        yield from matching


def _tar_items(root: FilePlace, files: Iterator[FileInfo]) -> Iterator[Item]:
    for file in files:
        yield Item(TAR, (file.name,), item_digest(TAR, *file), column="key")


def _tables_in(root: FilePlace) -> Iterator[FileInfo] | None:
    """Return the parquet files below a folder if there are some at its top, and the first holds pictures."""
    found = [file for file in contents(root)[1] if file.name.endswith(PARQUET_SUFFIX) and file.name[0] not in "._"]
    if not found:
        return None
    with open_to_read(root.below(found[0].name), anywhere=True) as stream:
        try:
            names = pq.ParquetFile(stream).schema_arrow.names
        except pa.ArrowException:
            names = []
    return _all_tables(root) if set(names) & set(PICTURE_COLUMNS) else None


def _all_tables(root: FilePlace) -> Iterator[FileInfo]:
    for prefix, files in walk(root):
        for file in files:
            if file.name.endswith(PARQUET_SUFFIX) and file.name[0] not in "._":
                yield file._replace(name=f"{prefix}{file.name}")


def _parquet_items(root: FilePlace, files: Iterator[FileInfo], n_pictures: int) -> Iterator[Item]:
    for file in files:
        with open_to_read(root.below(file.name), anywhere=True) as stream:
            try:
                opened = pq.ParquetFile(stream)
            except pa.ArrowException as error:
                reason = printable(" ".join(str(error).split()))
                raise UserError(f"table {file.name} cannot be read: {reason}; write it again") from None
            key = _column(file.name, opened.schema_arrow.names, KEY_COLUMNS)
            picture = _column(file.name, opened.schema_arrow.names, PICTURE_COLUMNS)
            lengths = [opened.metadata.row_group(i).num_rows for i in range(opened.metadata.num_row_groups)]
        for first, last in row_group_ranges(lengths, n_pictures):
            digest = item_digest(PARQUET, *file, first, last)
            yield Item(PARQUET, (file.name,), digest, (first, last), column=key, picture_column=picture)


def row_group_ranges(lengths: list[int], n_rows: int) -> Iterator[tuple[int, int]]:
    """Yield ranges of row groups, as first and one after the last; each but the last has at least `n_rows` rows."""
    first, gathered = 0, 0
    for number, length in enumerate(lengths, 1):
        gathered += length
        if gathered and (gathered >= n_rows or number == len(lengths)):
            yield first, number
            first, gathered = number, 0


def _column(table: str, names: list[str], wanted: tuple[str, ...]) -> str:
    for name in wanted:
        if name in names:
            return name
    known = ", ".join(map(printable, names[:20]))
    raise UserError(f"table {table} has no column {' or '.join(wanted)}; its columns are {known}: rename or add it")


def _folder_items(where: str, root: FilePlace, n_pictures: int) -> Iterator[Item]:
    left_out, n_items = empty_listing(), 0

    def pictures() -> Iterator[FileInfo]:
        for files, listing in _local_folders(root) if root.is_local else _folders(root):
            left_out.count(listing)
            yield from files

    for item in picture_items(pictures(), n_pictures):
        n_items += 1
        yield item
    n_tars = sum(left_out.ignored[kind] for kind in TAR_SUFFIXES)
    shown = shown_place(where).rstrip("/")
    if not n_items and n_tars:
        raise UserError(f"no pictures in {shown}, but {n_tars} tar files; name them by -d={shown}/*.tar")
    lines = tuple(text for _, text in remarks(shown, left_out))
    if lines:
        yield Item(INCOMPLETE if left_out.unread else NOTE, lines)


def _local_folders(root: FilePlace) -> Iterator[tuple[list[FileInfo], Listing]]:
    """Yield the pictures of each folder of this machine, and what else is in it."""
    for listing in walk_folder(root.path):
        yield [_local_info(root, path) for path in listing.pictures], listing


def _local_info(root: FilePlace, path: str) -> FileInfo:
    try:
        status = Path(root.path, path).stat()
    except OSError:  # gone since, or a link to nothing: it becomes a row with its error
        return FileInfo(path, 0, 0)
    return FileInfo(path, status.st_size, status.st_mtime_ns)


def _folders(root: FilePlace) -> Iterator[tuple[list[FileInfo], Listing]]:
    """Yield the pictures of each folder of another machine, and what else is in it."""
    for prefix, files in walk(root):
        listing = empty_listing()
        known = {f"{prefix}{file.name}": file for file in files}
        sort_out([file.name for file in files if not file.name.startswith(".")], prefix, listing)
        yield [known[path]._replace(name=path) for path in sorted(listing.pictures)], listing
