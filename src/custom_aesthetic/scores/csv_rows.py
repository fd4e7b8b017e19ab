"""Tables of scores as CSV, read as people and spreadsheets write them, and written so that they read back equal."""

import csv
import io
import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from custom_aesthetic.base.errors import UserError
from custom_aesthetic.base.text import csv_bytes, printable

PATH, SCORE, MODEL_SCORE = "relative_path", "score", "model_score"
NUMERIC_COLUMNS = (SCORE, "weight", "comparisons", MODEL_SCORE, "out_of_fold_score")
_KNOWN = (PATH, "split", *NUMERIC_COLUMNS)

_OTHER_NAMES = {
    PATH: (
        *("path", "filename", "file_name", "file", "filepath", "file_path", "relative_filepath"),
        *("image", "image_path", "image_name"),
    ),
    SCORE: ("aesthetic", "aesthetic_score", "rating", "stars", "mos", "rank"),
}
"""What other programs call a column; the first of them that is there is taken."""

RANK = "rank"
"""Its 1 is the best, so the score is minus the rank."""

_SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs"}


@dataclass(frozen=True)
class CsvRows:
    """The columns of a CSV file by their names here, each with one text a row; and how the file was understood."""

    columns: dict[str, list[str]]
    is_ranked: bool
    """Whether the scores are ranks, of which 1 is the best."""
    remark: str
    """What a reader should know of how the file was understood; empty if it has the usual form."""


def read_csv(file: Path, stream: TextIO, required: Sequence[str]) -> CsvRows:
    """Return the columns of a CSV stream that is at its start; UserError for a line that does not fit the header."""
    header = stream.readline()
    stream.seek(0)
    separator = _separator(header)
    reader = csv.reader(stream, delimiter=separator, strict=True, skipinitialspace=True)
    try:
        found = [name.strip() for name in next(reader, [])]
        renamed = _renamed(found)
        names = [renamed.get(name, name) for name in found]
        _check_header(file, names, found, required)
        columns = _columns(file, reader, len(names))
    except csv.Error as error:
        raise UserError(f"score file {file}, line {reader.line_num}: not CSV: {error}; mend that line") from None
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
    """Return what separates the columns: the separator by which most of the columns we look for are found."""

    def n_found(separator: str) -> int:
        names = [name.strip().strip('"').strip() for name in header.split(separator)]
        return len(set(_renamed(names).values()) & set(_KNOWN))

    return max(_SEPARATORS, key=n_found)


def _renamed(names: Sequence[str]) -> dict[str, str]:
    """Return column name in the file -> name here, for the columns that we know."""
    plain: dict[str, str] = {}
    for name in names:
        plain.setdefault(name.lower().replace(" ", "_").replace("-", "_"), name)
    meant = {name: name for name in names if name in _KNOWN}
    for known in _KNOWN:
        if known in meant or (known == SCORE and MODEL_SCORE in plain and SCORE not in plain):
            continue
        other = next((one for one in (known, *_OTHER_NAMES.get(known, ())) if one in plain), None)
        if other is not None and plain[other] not in meant:
            meant[plain[other]] = known
    return meant


def _said(name: str, meant: str) -> str:
    if name.lower() == RANK:
        return f"{name} as the place in an order, 1 the best (score = minus {name}; call the column score if not)"
    return f"{name} as {meant}"


def _check_header(file: Path, names: Sequence[str], found: Sequence[str], required: Sequence[str]) -> None:
    repeated = {name: None for name in names if name and names.count(name) > 1}
    if repeated:
        raise UserError(f"score file {file} names twice: {', '.join(map(printable, repeated))}; keep one of each")
    missing = [name for name in (PATH, *required) if name not in names]
    if missing:
        raise UserError(
            f"score file {file}, line 1: no column {' or '.join(missing)}; the header has "
            f"{printable(', '.join(found))}: the first line names the columns, such as relative_path,score"
        )


def _columns(file: Path, reader: Any, n_columns: int) -> list[list[str]]:
    columns: list[list[str]] = [[] for _ in range(n_columns)]
    for cells in reader:
        if len(cells) != n_columns:
            if not cells:
                continue
            raise UserError(
                f"score file {file}, line {reader.line_num}: more or fewer values than the header has; mend that line"
            )
        for column, cell in zip(columns, cells, strict=True):
            column.append(cell)
    return columns


def _use_decimal_points(columns: dict[str, list[str]]) -> bool:
    """Turn the decimal commas of numeric columns into points; return whether there were any."""
    with_commas = [name for name in NUMERIC_COLUMNS if any("," in value for value in columns.get(name, ()))]
    for name in with_commas:
        columns[name] = [value.replace(",", ".") for value in columns[name]]
    return bool(with_commas)


def csv_table(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> bytes:
    """Return a CSV file in UTF-8 with `\\n`; file names keep their bytes, and floats read back equal."""
    stream = io.StringIO(newline="")
    plain = csv.writer(stream, lineterminator="\n")
    quoted = csv.writer(stream, lineterminator="\n", quoting=csv.QUOTE_ALL)
    plain.writerow(header)
    for row in rows:
        cells = [_cell(value) for value in row]
        (quoted if any(map(_needs_quotes, cells)) else plain).writerow(cells)
    return csv_bytes(stream.getvalue())


def _cell(value: Any) -> Any:
    if isinstance(value, float):
        return "" if math.isnan(value) else repr(value)
    return json.dumps(value) if isinstance(value, dict | list) else value


def _needs_quotes(cell: Any) -> bool:
    """Return whether a reader would take something off a cell that csv itself writes without quotes."""
    return isinstance(cell, str) and (cell.startswith(" ") or "\r" in cell)
