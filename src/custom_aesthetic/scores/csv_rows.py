"""Reading and writing of tables of scores as CSV, including common variants by spreadsheets and other programs."""

import csv
import io
import itertools
import json
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from custom_aesthetic.base.errors import UserError
from custom_aesthetic.base.text import csv_bytes, printable

PATH, SCORE, MODEL_SCORE = "relative_path", "score", "model_score"
NUMERIC_COLUMNS = (SCORE, "weight", "comparisons", MODEL_SCORE, "out_of_fold_score", "out_of_fold_sigma")
_KNOWN = (PATH, "split", *NUMERIC_COLUMNS)

_OTHER_NAMES = {
    PATH: (
        *("path", "filename", "file_name", "file", "filepath", "file_path", "relative_filepath"),
        *("image", "image_path", "image_name"),
    ),
    SCORE: ("aesthetic", "aesthetic_score", "rating", "stars", "mos", "rank"),
}
"""Names of the columns in other programs' files; the first one present is used."""

RANK = "rank"
"""Name of a column of ranks, in which 1 is the best; the score is minus the rank."""

ROWS_AT_ONCE = 1024
"""Rows of a CSV file that are in memory as text while it is written."""

_SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs"}


@dataclass(frozen=True)
class CsvRows:
    """The columns of a CSV file by their names in this program, with a text or number per row, and how it was read."""

    columns: dict[str, list[Any]]
    is_ranked: bool
    """Whether the scores are ranks, where 1 is the best."""
    remark: str
    """How the file was interpreted, for the log; empty if it has the usual form."""


def read_csv(file: Path, stream: TextIO, required: Sequence[str]) -> CsvRows:
    """Return the columns of a CSV stream, positioned at its start; UserError if header or lines are invalid."""
    header = stream.readline()
    stream.seek(0)
    separator = _separator(header)
    reader = csv.reader(stream, delimiter=separator, strict=True, skipinitialspace=True)
    try:
        found = [name.strip() for name in next(reader, [])]
        renamed = _renamed(found)
        names = [renamed.get(name, name) for name in found]
        _check_header(file, names, found, required)
        columns = _columns(file, reader, names)
    except csv.Error as error:
        raise UserError(f"score file {file}, line {reader.line_num}: not CSV: {error}; fix that line") from None
    by_name = {name: column for name, column in zip(names, columns, strict=True) if name}
    remarks = [f"separated by {_SEPARATORS[separator]}"] if separator != "," else []
    remarks += [_said(name, meant) for name, meant in renamed.items() if name != meant]
    if separator != "," and _use_decimal_points(by_name):
        remarks.append("commas in numbers as decimal points")
    if "" in names:
        remarks.append(f"{names.count('')} column(s) without a name left out")
    return CsvRows(
        by_name, any(name.lower() == RANK and renamed[name] == SCORE for name in renamed), ", ".join(remarks)
    )


def _separator(header: str) -> str:
    """Return the separator of the columns, by which most column names are known."""

    def n_found(separator: str) -> int:
        names = [name.strip().strip('"').strip() for name in header.split(separator)]
        return len(set(_renamed(names).values()) & set(_KNOWN))

    return max(_SEPARATORS, key=n_found)


def _renamed(names: Sequence[str]) -> dict[str, str]:
    """Return name in the file -> name in this program, for all known columns."""
    plain: dict[str, str] = {}
    for name in names:
        plain.setdefault(name.lower().replace(" ", "_").replace("-", "_"), name)
    meant = {name: name for name in names if name in _KNOWN}
    for known in _KNOWN:
        if known in meant or (known == SCORE and MODEL_SCORE in plain and SCORE not in plain):
            continue
        other = next((name for name in (known, *_OTHER_NAMES.get(known, ())) if name in plain), None)
        if other is not None and plain[other] not in meant:
            meant[plain[other]] = known
    return meant


def _said(name: str, meant: str) -> str:
    if name.lower() == RANK:
        return f"{name} as ranks where 1 is the best (score = minus {name}; otherwise rename the column to score)"
    return f"{name} as {meant}"


def _check_header(file: Path, names: Sequence[str], found: Sequence[str], required: Sequence[str]) -> None:
    repeated = {name: None for name in names if name and names.count(name) > 1}
    if repeated:
        raise UserError(f"score file {file} has duplicates: {', '.join(map(printable, repeated))}; keep one of each")
    missing = [name for name in (PATH, *required) if name not in names]
    if missing:
        raise UserError(
            f"score file {file}, line 1: no column {' or '.join(missing)}; the header has "
            f"{printable(', '.join(found))}: the first line names the columns, such as relative_path,score"
        )


def _columns(file: Path, reader: Any, names: Sequence[str]) -> list[list[Any]]:
    """Return the cells of each column; those of numeric columns as numbers, which take half the memory of texts."""
    columns: list[list[Any]] = [[] for _ in names]
    readers = [_number_or_text if name in NUMERIC_COLUMNS else None for name in names]
    for cells in reader:
        if len(cells) != len(names):
            if not cells:
                continue
            raise UserError(
                f"score file {file}, line {reader.line_num}: more or fewer values than the header has; fix that line"
            )
        for column, cell, read in zip(columns, cells, readers, strict=True):
            column.append(cell if read is None else read(cell))
    return columns


def _number_or_text(cell: str) -> float | str:
    """Return a finite number as such; anything else as it stands, for the message that says what is wrong."""
    try:
        number = float(cell)
    except ValueError:
        return cell
    return number if math.isfinite(number) else cell


def _use_decimal_points(columns: dict[str, list[Any]]) -> bool:
    """Turn the decimal commas of numeric columns into points; return whether there were any."""

    def has_comma(value: Any) -> bool:
        return isinstance(value, str) and "," in value

    with_commas = [name for name in NUMERIC_COLUMNS if any(map(has_comma, columns.get(name, ())))]
    for name in with_commas:
        columns[name] = [value.replace(",", ".") if has_comma(value) else value for value in columns[name]]
    return bool(with_commas)


def csv_table(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> Iterator[bytes]:
    """Yield the parts of a CSV file in UTF-8 with `\\n`; names keep their bytes, and floats their exact value."""
    rows = iter(rows)
    part: Iterable[Sequence[Any]] = [header]
    while lines := _lines(part):
        yield csv_bytes(lines)
        part = itertools.islice(rows, ROWS_AT_ONCE)


def _lines(rows: Iterable[Sequence[Any]]) -> str:
    stream = io.StringIO(newline="")
    plain = csv.writer(stream, lineterminator="\n")
    quoted = csv.writer(stream, lineterminator="\n", quoting=csv.QUOTE_ALL)
    for row in rows:
        cells = [_cell(value) for value in row]
        (quoted if any(map(_needs_quotes, cells)) else plain).writerow(cells)
    return stream.getvalue()


def _cell(value: Any) -> Any:
    if isinstance(value, float):
        return "" if math.isnan(value) else repr(value)
    return json.dumps(value) if isinstance(value, dict | list) else value


def _needs_quotes(cell: Any) -> bool:
    """Return whether a cell would be read back differently although the csv module writes it without quotes."""
    return isinstance(cell, str) and (cell.startswith(" ") or "\r" in cell)
