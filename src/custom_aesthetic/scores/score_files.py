"""Reading and writing of score files, and the search for the score file of an image directory."""

import itertools
import json
import logging
import math
import operator
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from custom_aesthetic.base.errors import UserError
from custom_aesthetic.base.files import written_aside
from custom_aesthetic.base.json_entries import opens_object, read_entries
from custom_aesthetic.base.text import encoding_of, json_bytes, may_name_a_file, printable
from custom_aesthetic.scores.csv_rows import NUMERIC_COLUMNS, PATH, csv_table, read_csv

log = logging.getLogger(__name__)

RECORDS = "ImageRecords"
"""The entry of the AB scorer's JSON form with a record for each image."""

SIGMA = "score_sigma"
"""The column of standard errors, which a score file made from answers has."""

SCORE_FILES = ("scores.json", "score.json", "scores.csv")
MOST_NAMED = 5


@dataclass(frozen=True)
class ScoreTable:
    """Rows of a score file. `paths` are relative to the image directory, with `/`; columns have one value per row.

    The columns `score`, `weight`, `comparisons`, `model_score`, `out_of_fold_score` and `out_of_fold_sigma` contain
    floats, with nan for missing values; other columns contain the values of the file.
    """

    paths: tuple[str, ...]
    columns: Mapping[str, Sequence[Any]] = field(default_factory=dict)

    @property
    def scores(self) -> Sequence[float]:
        return self.columns["score"]

    @property
    def is_made(self) -> bool:
        """Whether the scores are made from answers: their standard errors stand beside them."""
        return SIGMA in self.columns

    def __len__(self) -> int:
        return len(self.paths)

    def select(self, paths: Sequence[str]) -> "ScoreTable":
        """Return the rows of these paths, in the order of `paths`."""
        row_of = {path: row for row, path in enumerate(self.paths)}
        rows = [row_of[path] for path in paths]
        return ScoreTable(tuple(paths), {name: [values[row] for row in rows] for name, values in self.columns.items()})

    def with_column(self, name: str, values: Sequence[Any]) -> "ScoreTable":
        """Return the table with a column added or replaced."""
        assert len(values) == len(self.paths)
        return ScoreTable(self.paths, {**self.columns, name: values})


def check_directory(directory: Path) -> None:
    """Raise UserError if an image directory does not exist or cannot be read."""
    try:
        if directory.is_dir():
            return
    except OSError as error:
        shown = printable(str(directory))
        raise UserError(
            f"image directory {shown} cannot be read: {error.strerror}; check its permissions, or -d"
        ) from None
    raise UserError(
        f"image directory {printable(str(directory))} does not exist or is not a directory; "
        f"{_windows_hint(str(directory)) or f'check -d (looked from {Path.cwd()})'}"
    )


def _windows_hint(text: str) -> str:
    """Return what to type instead of a Windows path on another system; empty if it is not a Windows path."""
    if os.name == "nt" or "\\" not in text:
        return ""
    drive = PureWindowsPath(text).drive
    plain = text.replace("\\", "/")
    if len(drive) == 2:
        return f"that is a Windows path; under WSL it is /mnt/{drive[0].lower()}{plain[2:]}"
    if drive:
        return f"that is a Windows network folder: mount {drive}, and use the directory where it is mounted"
    return f"on this system directories are separated by /: -d {plain}"


def find_score_file(directory: Path, name: str | None) -> Path:
    """Return the score file: `name`, relative to the directory or absolute, or the first of the usual names.

    Raises UserError if it does not exist.
    """
    check_directory(directory)
    try:
        if name is not None:
            if (directory / name).is_file():
                return directory / name
            elsewhere = Path(name).is_file()
            hint = f"{name} is in {Path.cwd()}, but --scores is relative to -d" if elsewhere else "check --scores"
            raise UserError(f"score file {printable(str(directory / name))} does not exist; {hint}")
        usual = usual_score_file(directory)
        if usual is not None:
            return usual
    except OSError as error:
        raise UserError(
            f"image directory {directory} cannot be read: {error.strerror}; check its permissions, or -d"
        ) from None
    raise UserError(
        f"no score file in {directory}: looked for {', '.join(SCORE_FILES)}; set --scores, or score some "
        f"pictures first: python aesthetic_ab_scorer.py -d {directory}"
    )


def usual_score_file(directory: Path) -> Path | None:
    """Return the first file with a usual name in the directory; None if there is none."""
    return next((directory / name for name in SCORE_FILES if (directory / name).is_file()), None)


def read_scores(file: Path, *, required: Sequence[str] = ("score",)) -> ScoreTable:
    """Return the rows of a score file in one of three forms: the AB scorer's JSON, the older JSON, or CSV.

    For a CSV file with unusual column names or separators, one line in the log says how it is read. Raises UserError
    for a file that cannot be read or lacks a required column, a score that is not a finite number, duplicate images,
    and a path outside the image directory.
    """
    try:
        with file.open("rb") as start:
            encoding = encoding_of(start.read(4))
        with file.open(encoding=encoding, errors="surrogateescape", newline="") as stream:
            first = next((line for line in stream if line.strip()), "").strip()
            stream.seek(0)
            if not first:
                raise UserError(f"score file {file} is empty; score some pictures first")
            if "\0" in first:
                raise ValueError("it is not text")
            if first[0] not in "{[":
                rows = read_csv(file, stream, required)
                if rows.remark:
                    log.info("%s: read with %s", file, printable(rows.remark, 400))
                table = make_table(f"score file {file}", rows.columns)
                if rows.is_ranked:
                    return table.with_column("score", [-rank for rank in table.scores])
                return table
            text = stream.read()
    except (OSError, ValueError) as error:
        raise UserError(f"score file {file} cannot be read: {error}; check that it is JSON or CSV text") from None
    columns = _read_json(file, text, required)
    del text  # as large as the file, and the table takes memory too
    return make_table(f"score file {file}", columns)


def _read_json(file: Path, text: str, required: Sequence[str]) -> dict[str, list[Any]]:
    """Return the columns of either JSON form, read entry by entry."""
    decoder = json.JSONDecoder(object_pairs_hook=lambda pairs: _without_repeats(file, pairs))
    older, records = _OlderRows(file), _Records(file, required)

    def take(name: str, place: int) -> int:
        if name == RECORDS and opens_object(text, place):
            records.are_there = True
            return read_entries(text, place, decoder, take_record)
        value, end = decoder.raw_decode(text, place)
        older.add(name, value)
        return end

    def take_record(name: str, place: int) -> int:
        record, end = decoder.raw_decode(text, place)
        records.add(name, record)
        return end

    try:
        start = len(text) - len(text.lstrip())
        if opens_object(text, start):
            read_entries(text, start, decoder, take, is_whole=True)
        else:
            json.loads(text)
            raise UserError(f"score file {file} is not a JSON object of image path and score; see README for the forms")
    except (ValueError, RecursionError) as error:
        raise UserError(f"score file {file} is not JSON: {printable(str(error))}; restore it from a backup") from None
    return records.columns() if records.are_there else older.columns(required)


def _without_repeats(file: Path, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return the pairs of a JSON object as a dict; UserError for a duplicate name."""
    content = dict(pairs)
    if len(content) < len(pairs):
        _refuse_repeats(f"score file {file}", [name for name, _ in pairs])
    return content


class _Records:
    """The columns of the AB scorer's form, path -> record, as they grow; an empty text stands for a missing value."""

    def __init__(self, file: Path, required: Sequence[str]) -> None:
        self._file = file
        self._lacking: dict[str, list[str]] = {name: [] for name in required}
        self._names: list[str] = []
        self._paths: list[Any] = []
        self._columns: dict[str, list[Any]] = {}
        self.are_there = False

    def add(self, name: str, record: Any) -> None:
        if not isinstance(record, dict):
            raise UserError(
                f"score file {self._file}: the record of {printable(name)} is not an object with a score; fix or "
                "remove it"
            )
        path = record.pop(PATH, record.pop("relative_filepath", name))
        for key, paths in self._lacking.items():
            if key not in record:
                paths.append(str(path))
        for key, value in record.items():
            column = self._columns.setdefault(key, [])
            column += [""] * (len(self._paths) - len(column))
            column.append(value)
        self._names.append(name)
        self._paths.append(name if path == name else path)  # one text in memory, not two

    def columns(self) -> dict[str, list[Any]]:
        """Return the columns; UserError for a name twice, and for records without a required value."""
        _refuse_repeats(f"score file {self._file}", self._names)
        for name, paths in self._lacking.items():
            if paths:
                raise UserError(f"score file {self._file}: no {name} for {name_some(paths)}; add it or remove the rows")
        for column in self._columns.values():
            column += [""] * (len(self._paths) - len(column))
        return {PATH: self._paths, **self._columns}


class _OlderRows:
    """The columns of the older form, path -> score or [score, comparisons], as they grow."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._paths: list[str] = []
        self._scores: list[Any] = []
        self._comparisons: list[Any] = []
        self._is_counted = False
        self._wrong: str | None = None

    def add(self, path: str, value: Any) -> None:
        if path == "#meta#":
            return
        pair = value if isinstance(value, list) else [value]
        if 1 <= len(pair) <= 2:
            self._is_counted |= len(pair) > 1
            self._paths.append(path)
            self._scores.append(pair[0])
            self._comparisons.append(pair[1] if len(pair) > 1 else "")
        elif self._wrong is None:
            self._wrong = f"{printable(path)} has {len(pair)} values; write a score, or [score, comparisons]"

    def columns(self, required: Sequence[str]) -> dict[str, list[Any]]:
        """Return the columns; UserError for a row of another form, and without a required column."""
        if self._wrong is not None:
            raise UserError(f"score file {self._file}: {self._wrong}")
        counts = {"comparisons": self._comparisons} if self._is_counted else {}
        columns: dict[str, list[Any]] = {PATH: self._paths, "score": self._scores, **counts}
        missing = [name for name in required if name not in columns]
        if missing:
            raise UserError(f"score file {self._file} has no {' or '.join(missing)}; choose a file in another form")
        return columns


def make_table(place: str, columns: Mapping[str, Sequence[Any]]) -> ScoreTable:
    """Return the table with these columns, one of them `relative_path`; raises UserError as `read_scores` does.

    `place` is the source of the columns, for messages: `score file scores.csv`.
    """
    if not columns.get(PATH):
        raise UserError(f"{place} contains no images; score some pictures first")
    paths = check_paths(place, columns[PATH])
    return ScoreTable(
        tuple(paths),
        {
            name: _numbers(place, name, paths, values) if name in NUMERIC_COLUMNS else values
            for name, values in columns.items()
            if name != PATH
        },
    )


def check_paths(place: str, paths: Sequence[Any]) -> list[str]:
    """Return the paths with `/`; UserError for duplicates and for paths outside the image directory."""
    found = [_relative_path(place, path) for path in paths]
    _refuse_repeats(place, found)
    return found


_PLAIN = re.compile(r"(?:[^/\\:\0.][^/\\:\0]*/)*[^/\\:\0.][^/\\:\0]*")
"""A relative path that certainly needs no further checks."""


def _relative_path(place: str, text: Any) -> str:
    if isinstance(text, str) and _PLAIN.fullmatch(text) and may_name_a_file(text):
        return text
    if not isinstance(text, str):
        raise UserError(f"{place}: found a {type(text).__name__} instead of the path of an image; fix it")
    windows = PureWindowsPath(text)
    path = PurePosixPath(text.replace("\\", "/"))
    is_elsewhere = path.is_absolute() or (windows.drive and (windows.root or os.name == "nt"))
    if is_elsewhere or ".." in path.parts or path == PurePosixPath(".") or not may_name_a_file(text):
        raise UserError(
            f"{place}: '{printable(text)}' is not a path inside the image directory; make it relative to it"
        )
    return str(path)


def _refuse_repeats(place: str, paths: list[str]) -> None:
    ordered = sorted(paths)  # takes a tenth of the memory of a set
    if not any(map(operator.eq, ordered, itertools.islice(ordered, 1, None))):
        return
    seen: set[str] = set()
    repeated = list(dict.fromkeys(path for path in paths if path in seen or seen.add(path)))  # type: ignore[func-returns-value]
    raise UserError(f"{place} has duplicates: {name_some(repeated)}; keep one of each")


def _numbers(place: str, name: str, paths: Sequence[str], values: Sequence[Any]) -> list[float]:
    """Return a numeric column. Every row needs a `score`; other values may be empty."""
    numbers = [_number(value) for value in values]
    bad = [
        f"{path} ({printable(repr(value), 60)})"
        for path, value, number in zip(paths, values, numbers, strict=True)
        if not math.isfinite(number) and not (name != "score" and value in ("", None))
    ]
    if bad:
        raise UserError(f"{place}: {name} is not a finite number for {name_some(bad)}; fix or remove the rows")
    return [_whole(number) for number in numbers] if name == "comparisons" else numbers


def _whole(number: float) -> float:
    """Return a whole number as int, other numbers unchanged."""
    return int(number) if number.is_integer() else number


def _number(value: Any) -> float:
    if isinstance(value, bool) or value is None:
        return math.nan
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        return math.nan


def name_some(items: Sequence[str], most: int = MOST_NAMED) -> str:
    """Return the first items in one line, followed by the number of remaining ones."""
    rest = len(items) - most
    return ", ".join(map(printable, items[:most])) + (f" and {rest:,} more" if rest > 0 else "")


def write_csv(file: Path, table: ScoreTable) -> None:
    """Write `relative_path` and every column as CSV, as `csv_bytes` returns them."""
    with written_aside(file) as stream:
        stream.writelines(_csv_parts(table))


def csv_bytes(table: ScoreTable) -> bytes:
    """Return `relative_path` and every column as CSV, which `read_scores` can read."""
    return b"".join(_csv_parts(table))


def _csv_parts(table: ScoreTable) -> Iterator[bytes]:
    return csv_table([PATH, *table.columns], zip(table.paths, *table.columns.values(), strict=True))


def write_json(file: Path, table: ScoreTable) -> None:
    """Write the table in the AB scorer's JSON form, which `read_scores` can read."""
    with written_aside(file) as stream:
        stream.writelines(map(json_bytes, _json_parts(table)))


def _json_parts(table: ScoreTable) -> Iterator[str]:
    """Yield the text of the JSON form a record at a time: all of them as objects would take a kilobyte each."""
    encoder = json.JSONEncoder(indent=1, ensure_ascii=False)
    yield f'{{\n "{RECORDS}": {{'
    for row, path in enumerate(table.paths):
        cells = {name: values[row] for name, values in table.columns.items()}
        kept = {name: value for name, value in cells.items() if not (isinstance(value, float) and math.isnan(value))}
        record = encoder.encode({path: {"relative_filepath": path, **kept}})
        yield f"{',' if row else ''}{record[1:-2]}".replace("\n", "\n ")
    extra = [name for name in table.columns if name not in ("score", "comparisons")]
    rest = encoder.encode({"Metadata": {}} | ({"Additionals": extra} if extra else {}))
    yield ("\n }," if len(table) else "},") + rest[1:]
