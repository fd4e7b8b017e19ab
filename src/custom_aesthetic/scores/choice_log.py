"""The log of choices, `comparisons.csv`: rows are only appended, and damaged rows do not affect others.

Columns: `time` (UTC, ISO 8601), `winner`, `loser` (paths relative to the image directory), `seconds` (time taken for
the choice), `undoes` (in a row that undoes a choice: the time of that choice) and `drawn` (how the pair was drawn:
`adaptive`, `random`, or `undo`). A choice among N pictures is N - 1 rows with the same time. The order of rows does
not matter, so logs can be merged by `merge_log` or by concatenation.

A name that is not UTF-8 keeps its bytes. A name with an unprintable character, such as a newline, is stored as
JSON (`"line\\nbreak.png"`), because a row is one line.
"""

import contextlib
import csv
import errno
import io
import json
import logging
import math
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

from custom_aesthetic.base.errors import UserError
from custom_aesthetic.base.text import csv_bytes

logger = logging.getLogger(__name__)

LOG_NAME = "comparisons.csv"

COLUMNS = ("time", "winner", "loser", "seconds", "undoes", "drawn")
HEADER = ",".join(COLUMNS)
DRAWN = ("adaptive", "random", "undo")
"""Values of the last column, by which incomplete rows are recognised."""

_ESCAPED_BYTES = re.compile("[\udc80-\udcff]")
"""Bytes of a name that is not UTF-8."""

_BINARY = getattr(os, "O_BINARY", 0)  # without it, Windows would write \r\n


@dataclass(frozen=True, order=True)
class Comparison:
    """One row: `winner` was preferred to `loser`, or with `undoes`, the choice of that time was undone."""

    time: str
    winner: str
    loser: str
    seconds: float
    drawn: str = "adaptive"
    undoes: str = ""


def make_choice(
    winner: str, losers: Sequence[str], *, seconds: float, drawn: str, time: str | None = None
) -> list[Comparison]:
    """Return the rows of one choice, made now unless `time` is given."""
    moment = now() if time is None else time
    return [Comparison(moment, winner, loser, round(seconds, 3), drawn) for loser in losers]


def undo_rows(choice: Iterable[Comparison]) -> list[Comparison]:
    """Return the rows that undo a choice."""
    moment = now()
    return [Comparison(moment, row.winner, row.loser, 0.0, "undo", row.time) for row in choice]


def now() -> str:
    """Return the current time in UTC to the microsecond, which identifies a choice."""
    return datetime.now(timezone.utc).isoformat(timespec="microseconds")


class ComparisonLog:
    """A log file that this and other processes append to.

    `refresh` and `append` read the rows that any process has added since the last time.
    """

    def __init__(self, file: Path) -> None:
        """Read the log if it exists; UserError if the file is not a log of comparisons."""
        self.file = file
        self.rows: list[Comparison] = []
        """Every row read so far, in the order of the file."""
        self.n_unreadable = 0
        self._clear()
        if file.exists():
            self._check_header()
        self.refresh()

    def append(self, rows: Sequence[Comparison]) -> None:
        """Append rows in a single write, flush them to the disk, and refresh.

        Several processes may append at the same time. An incomplete last line, left by a crash, is ended first. Raises
        UserError if the file cannot be written.
        """
        try:
            descriptor = os.open(self.file, os.O_RDWR | os.O_APPEND | os.O_CREAT | _BINARY, 0o644)
            try:
                size = os.fstat(descriptor).st_size
                start = HEADER + "\n" if size == 0 else _closing(descriptor, size)
                content = csv_bytes(start + "".join(_line(row) for row in rows))
                written = os.write(descriptor, content)
                if written < len(content):
                    raise OSError(errno.ENOSPC, "the disk is full")
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            if size == 0:
                _flush_folder(self.file.parent)
        except OSError as error:
            raise UserError(
                f"{self.file} cannot be written: {error.strerror or error}; free space or make it writable"
            ) from None
        self.refresh()

    def refresh(self) -> int:
        """Read the complete rows added since the last call; return their number."""
        if not self.file.exists():
            return 0
        try:
            if self.file.stat().st_size < self._position:  # the file was cut or replaced
                self._clear()
            with self.file.open("rb") as stream:
                stream.seek(self._position)
                content = stream.read()
        except OSError as error:
            raise UserError(f"{self.file} cannot be read: {error.strerror or error}; check its permissions") from None
        whole = content[: content.rfind(b"\n") + 1]
        rows, n_unreadable = _parse(whole)
        for row in rows:
            self._take(row)
        self.n_unreadable += n_unreadable
        self._position += len(whole)
        return len(rows)

    def choices(self) -> list[Comparison]:
        """Return the rows of all choices that were not undone, without repetitions, in order of time."""
        return sorted(row for choice in self._standing.values() for row in choice.values())

    def choice_of(self, time: str) -> list[Comparison]:
        """Return the rows of the choice made at that time; empty if there is none or it was undone."""
        return list(self._standing.get(time, {}).values())

    def last_choice(self) -> list[Comparison]:
        """Return the rows of the latest choice that was not undone; empty if there is none."""
        return self.choice_of(max(self._standing, default=""))

    @property
    def n_choices(self) -> int:
        return len(self._standing)

    def _clear(self) -> None:
        self.rows, self.n_unreadable, self._position = [], 0, 0
        self._standing: dict[str, dict[tuple[str, str], Comparison]] = {}
        self._undone: set[tuple[str, str, str]] = set()

    def _take(self, row: Comparison) -> None:
        self.rows.append(row)
        time, pair = (row.undoes or row.time), (row.winner, row.loser)
        if row.drawn == "undo":
            self._undone.add((time, *pair))
            self._standing.get(time, {}).pop(pair, None)
            if not self._standing.get(time, True):
                del self._standing[time]
        elif (time, *pair) not in self._undone:
            self._standing.setdefault(time, {})[pair] = row

    def _check_header(self) -> None:
        with self.file.open("rb") as stream:
            start = stream.read(4096)
        begun = HEADER.encode().startswith(start)
        if not begun and HEADER.encode() not in start and not _parse(start)[0]:
            raise UserError(f"{self.file} is not a log of comparisons (columns {HEADER}); move it elsewhere")


def read_log(file: Path) -> list[Comparison]:
    """Return all rows of a log, including a last line without line end; a warning counts unreadable lines."""
    log = ComparisonLog(file)
    with file.open("rb") as stream:
        stream.seek(log._position)
        last, n_torn = _parse(stream.read())
    if log.n_unreadable + n_torn:
        logger.warning("%s: %d line(s) cannot be read and are left out", file, log.n_unreadable + n_torn)
    return log.rows + last


def merge_log(target: ComparisonLog, other: Path) -> int:
    """Append the rows of another log that the target does not have; return their number."""
    if not other.is_file():
        raise UserError(f"--merge={other}: no such file; check the path")
    known = set(target.rows)
    new = [row for row in dict.fromkeys(read_log(other)) if row not in known]
    if new:
        target.append(new)
    return len(new)


def _line(row: Comparison) -> str:
    stream = io.StringIO(newline="")
    cells = (row.time, _cell(row.winner), _cell(row.loser), f"{row.seconds:g}", row.undoes, row.drawn)
    csv.writer(stream, lineterminator="\n").writerow(cells)
    return stream.getvalue()


def _cell(name: str) -> str:
    """Return the cell for a name: the name itself, or JSON if it is not printable or begins with a quote."""
    plain = _ESCAPED_BYTES.sub("", name)
    return name if plain.isprintable() and not name.startswith('"') else json.dumps(name)


def _name(cell: str) -> str:
    """Return the name in a cell; a cell that begins with a quote but is not valid JSON is the name itself."""
    if cell.startswith('"'):
        with contextlib.suppress(ValueError, RecursionError):
            name = json.loads(cell)
            if isinstance(name, str):
                return name
    return cell


def _parse(content: bytes) -> tuple[list[Comparison], int]:
    """Return the rows in these bytes and the number of unreadable lines; each line is parsed by itself."""
    rows, n_unreadable = [], 0
    for line in content.decode("utf-8-sig", errors="surrogateescape").split("\n"):
        text = line.rstrip("\r")
        if not text or text == HEADER:
            continue
        row = _row(text)
        if row is None:
            n_unreadable += 1
        else:
            rows.append(row)
    return rows, n_unreadable


def _row(line: str) -> Comparison | None:
    try:
        (cells,) = csv.reader([line], strict=True)
        time, first, second, seconds, undoes, drawn = cells
        winner, loser, taken = _name(first), _name(second), float(seconds)
    except (ValueError, csv.Error):
        return None
    whole = drawn in DRAWN and bool(time and winner and loser) and winner != loser and math.isfinite(taken)
    if not whole or (drawn == "undo") != bool(undoes):
        return None
    return Comparison(time, winner, loser, taken, drawn, undoes)


def _closing(descriptor: int, size: int) -> str:
    """Return the line end that the last line lacks after a crash or an edit; empty if it has one."""
    os.lseek(descriptor, size - 1, os.SEEK_SET)
    return "" if os.read(descriptor, 1) == b"\n" else "\n"


def _flush_folder(folder: Path) -> None:
    """Flush a folder to the disk, so that a new file in it survives a power cut; not possible on Windows."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
