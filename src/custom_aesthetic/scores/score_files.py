"""Score files, read and written; and the match of their rows with the images on the disk."""

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from custom_aesthetic.base.errors import UserError
from custom_aesthetic.base.files import write_atomically

SCORE_FILES = ("scores.json", "score.json", "scores.csv")
NUMERIC_COLUMNS = ("score", "weight", "comparisons", "model_score", "out_of_fold_score")
MOST_NAMED = 5


@dataclass(frozen=True)
class ScoreTable:
    """Rows of a score file. `paths` are relative to the image directory, with `/`; each column has one value a row.

    The columns `score`, `weight`, `comparisons`, `model_score` and `out_of_fold_score` hold floats (nan where a row
    has none); every other column holds what the file holds.
    """

    paths: tuple[str, ...]
    columns: Mapping[str, Sequence[Any]] = field(default_factory=dict)

    @property
    def scores(self) -> Sequence[float]:
        return self.columns["score"]

    def __len__(self) -> int:
        return len(self.paths)

    def select(self, paths: Sequence[str]) -> "ScoreTable":
        """Return the rows of these paths, in their order."""
        row_of = {path: row for row, path in enumerate(self.paths)}
        rows = [row_of[path] for path in paths]
        return ScoreTable(tuple(paths), {name: [values[row] for row in rows] for name, values in self.columns.items()})

    def with_column(self, name: str, values: Sequence[Any]) -> "ScoreTable":
        """Return the table with a column added or replaced."""
        assert len(values) == len(self.paths)
        return ScoreTable(self.paths, {**self.columns, name: values})


def find_score_file(directory: Path, name: str | None) -> Path:
    """Return the score file: the one named, relative to the directory or absolute, or the first of the usual names."""
    try:
        if not directory.is_dir():
            raise UserError(f"image directory {directory} is not there or not a directory; check -d")
        if name is not None:
            if not (directory / name).is_file():
                raise UserError(f"score file {directory / name} is not there; check --scores")
            return directory / name
        for usual in SCORE_FILES:
            if (directory / usual).is_file():
                return directory / usual
    except OSError as error:
        raise UserError(
            f"image directory {directory} cannot be read: {error.strerror}; check its permissions, or -d"
        ) from None
    raise UserError(f"no score file in {directory}: looked for {', '.join(SCORE_FILES)}; name yours with --scores")


def read_scores(file: Path, *, required: Sequence[str] = ("score",)) -> ScoreTable:
    """Return the rows of a score file in any of the three forms: the AB scorer's JSON, the older JSON, CSV.

    Raises UserError for a file that cannot be read or lacks a required column, for a score that is no finite number,
    for an image named twice, and for a path that leaves the directory.
    """
    try:
        text = file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"score file {file} cannot be read: {error}; check that it is JSON or CSV text") from None
    if not text.strip():
        raise UserError(f"score file {file} is empty; score some pictures first")
    rows = _read_json(file, text) if text.lstrip()[0] in "{[" else _read_csv(file, text, required)
    _require_columns(file, rows, required)
    return _table(file, rows)


def _read_json(file: Path, text: str) -> list[dict[str, Any]]:
    try:
        content = json.loads(text, object_pairs_hook=lambda pairs: _without_repeats(file, pairs))
    except (ValueError, RecursionError) as error:
        raise UserError(f"score file {file} is not JSON: {error}; restore it from a copy") from None
    if not isinstance(content, dict):
        raise UserError(f"score file {file} is not a JSON object of image path and score; see README for the forms")
    if isinstance(content.get("ImageRecords"), dict):
        return [_record_row(file, path, record) for path, record in content["ImageRecords"].items()]
    return [_older_row(file, path, value) for path, value in content.items() if path != "#meta#"]


def _without_repeats(file: Path, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return the pairs of a JSON object; UserError where a name stands twice, of which JSON would keep the last."""
    content = dict(pairs)
    if len(content) < len(pairs):
        _refuse_repeats(file, [name for name, _ in pairs])
    return content


def _record_row(file: Path, path: str, record: Any) -> dict[str, Any]:
    if not isinstance(record, dict):
        raise UserError(f"score file {file}: the record of {path} is not an object with a score; mend or remove it")
    others = {name: value for name, value in record.items() if name != "relative_filepath"}
    return {"relative_path": record.get("relative_filepath", path), **others}


def _older_row(file: Path, path: str, value: Any) -> dict[str, Any]:
    if isinstance(value, list):
        if not 1 <= len(value) <= 2:
            raise UserError(
                f"score file {file}: {path} has {len(value)} values; score, or [score, comparisons] expected"
            )
        return {"relative_path": path} | dict(zip(("score", "comparisons"), value, strict=False))
    return {"relative_path": path, "score": value}


def _read_csv(file: Path, text: str, required: Sequence[str]) -> list[dict[str, Any]]:
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True, skipinitialspace=True)
    try:
        names = [name.strip() for name in reader.fieldnames or ()]
        reader.fieldnames = names
        _refuse_repeats(file, names)
        missing = [name for name in ("relative_path", *required) if name not in names]
        if missing:
            raise UserError(
                f"score file {file}, line 1: no column {' or '.join(missing)}; the header has {', '.join(names)}"
            )
        return [_csv_row(file, reader.line_num, row) for row in reader]
    except csv.Error as error:
        raise UserError(f"score file {file}, line {reader.line_num}: not CSV: {error}; mend that line") from None


def _csv_row(file: Path, line: int, row: dict[str, Any]) -> dict[str, Any]:
    if None in row or None in row.values():
        raise UserError(f"score file {file}, line {line}: more or fewer values than the header has; mend that line")
    return row


def _require_columns(file: Path, rows: list[dict[str, Any]], required: Sequence[str]) -> None:
    if not rows:
        raise UserError(f"score file {file} names no image; score some pictures first")
    for name in required:
        lacking = [str(row["relative_path"]) for row in rows if name not in row]
        if lacking:
            raise UserError(f"score file {file}: no {name} for {name_some(lacking)}; add it or remove the rows")


def _table(file: Path, rows: list[dict[str, Any]]) -> ScoreTable:
    paths = [_relative_path(file, row["relative_path"]) for row in rows]
    _refuse_repeats(file, paths)
    names = list(dict.fromkeys(name for row in rows for name in row if name != "relative_path"))
    columns: dict[str, Sequence[Any]] = {}
    for name in names:
        values = [row.get(name, "") for row in rows]
        columns[name] = _numbers(file, name, paths, values) if name in NUMERIC_COLUMNS else values
    return ScoreTable(tuple(paths), columns)


def _relative_path(file: Path, text: Any) -> str:
    windows = PureWindowsPath(str(text))
    path = PurePosixPath(str(text).replace("\\", "/"))
    if path.is_absolute() or windows.drive or ".." in path.parts or path == PurePosixPath("."):
        raise UserError(
            f"score file {file}: {str(text)!r} is not a path inside the image directory; make it relative to it"
        )
    return str(path)


def _refuse_repeats(file: Path, paths: list[str]) -> None:
    seen: set[str] = set()
    repeated = list(dict.fromkeys(path for path in paths if path in seen or seen.add(path)))  # type: ignore[func-returns-value]
    if repeated:
        raise UserError(f"score file {file} names twice: {name_some(repeated)}; keep one of each")


def _numbers(file: Path, name: str, paths: list[str], values: list[Any]) -> list[float]:
    """Return a numeric column; only `score` must be there for every row, the others may be empty."""
    numbers = [_number(value) for value in values]
    bad = [
        f"{path} ({value!r})"
        for path, value, number in zip(paths, values, numbers, strict=True)
        if not math.isfinite(number) and not (name != "score" and value in ("", None))
    ]
    if bad:
        raise UserError(
            f"score file {file}: {name} is not a finite number for {name_some(bad)}; mend or remove the rows"
        )
    return [_whole(number) for number in numbers] if name == "comparisons" else numbers


def _whole(number: float) -> float:
    """Return a count as an int, as it was written; others as they are."""
    return int(number) if number.is_integer() else number


def _number(value: Any) -> float:
    if isinstance(value, bool) or value is None:
        return math.nan
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        return math.nan


def name_some(items: Sequence[str], most: int = MOST_NAMED) -> str:
    """Return the first few items, and how many more there are."""
    rest = len(items) - most
    return ", ".join(items[:most]) + (f" and {rest:,} more" if rest > 0 else "")


def write_csv(file: Path, table: ScoreTable) -> None:
    """Write `relative_path` and every column as CSV, as `csv_bytes` gives them."""
    write_atomically(file, csv_bytes(table))


def csv_bytes(table: ScoreTable) -> bytes:
    """Return `relative_path` and every column as CSV, UTF-8 with `\\n`; numbers so that they read back equal."""
    stream = io.StringIO(newline="")
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(["relative_path", *table.columns])
    rows = zip(table.paths, *table.columns.values(), strict=True)
    writer.writerows([_cell(value) for value in row] for row in rows)
    return stream.getvalue().encode()


def _cell(value: Any) -> Any:
    if isinstance(value, float):
        return "" if math.isnan(value) else repr(value)
    return json.dumps(value) if isinstance(value, dict | list) else value


def write_json(file: Path, table: ScoreTable) -> None:
    """Write the table in the AB scorer's JSON form, which `read_scores` reads back."""
    records = {}
    for row, path in enumerate(table.paths):
        cells = {name: values[row] for name, values in table.columns.items()}
        kept = {name: value for name, value in cells.items() if not (isinstance(value, float) and math.isnan(value))}
        records[path] = {"relative_filepath": path, **kept}
    extra = [name for name in table.columns if name not in ("score", "comparisons")]
    content = {"ImageRecords": records, "Metadata": {}} | ({"Additionals": extra} if extra else {})
    write_atomically(file, json.dumps(content, indent=1, ensure_ascii=False).encode())
