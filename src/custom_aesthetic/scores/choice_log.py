"""The raw log of choices, `comparisons.csv`: appended to, never rewritten, and read whatever happened to it.

Columns: `time` (UTC, ISO 8601), `winner`, `loser` (paths relative to the image directory), `seconds` (taken for the
choice), `undoes` (in a row that takes a choice back: the time of that choice) and `drawn` (how the pair came about:
`adaptive`, `random`, or `undo`). One choice among N pictures is N - 1 rows of one time. A log is a set of rows:
order does not matter, so logs are merged by `merge_log` or by putting one below the other.

A name that is not UTF-8 keeps its bytes. A name with a character that cannot be printed, such as a newline, stands as
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
"""The last word of every whole row: a torn row does not have it."""

_ESCAPED_BYTES = re.compile("[\udc80-\udcff]")
"""Bytes of a name that is not UTF-8."""

_BINARY = getattr(os, "O_BINARY", 0)  # Windows alone has it, and would write other line ends without it


@dataclass(frozen=True, order=True)
class Comparison:
    """One row: `winner` was preferred to `loser`; or, with `undoes`, that choice taken back."""

    time: str
    winner: str
    loser: str
    seconds: float
    drawn: str = "adaptive"
    undoes: str = ""


def make_choice(
    winner: str, losers: Sequence[str], *, seconds: float, drawn: str, time: str | None = None
) -> list[Comparison]:
    """The rows of one choice, made now unless `time` is given."""
    moment = now() if time is None else time
    return [Comparison(moment, winner, loser, round(seconds, 3), drawn) for loser in losers]


def undo_rows(choice: Iterable[Comparison]) -> list[Comparison]:
    """The rows that take a choice back."""
    moment = now()
    return [Comparison(moment, row.winner, row.loser, 0.0, "undo", row.time) for row in choice]


def now() -> str:
    """The time in UTC to the microsecond; it names a choice."""
    return datetime.now(timezone.utc).isoformat(timespec="microseconds")


class ComparisonLog:
    """A log file that this and other processes append to.

    `refresh` reads what has been added since the last time, by anyone; `append` does so too.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        self.rows: list[Comparison] = []
        """Every row read so far, in the order of the file."""
        self.n_unreadable = 0
        self._clear()
        if file.exists():
            self._check_header()
        self.refresh()

    def append(self, rows: Sequence[Comparison]) -> None:
        """Put rows on the disk before returning: one write at the file's end, then flushed. Then refresh.

        Two processes may do so at once. A row that a crash tore is ended first, so that it cannot swallow ours.
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
        """Read the whole rows added since the last call; return how many."""
        if not self.file.exists():
            return 0
        try:
            if self.file.stat().st_size < self._position:  # cut or replaced: read it all again
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
        """The rows that stand: every choice once, without those taken back, in order of time."""
        return sorted(row for choice in self._standing.values() for row in choice.values())

    def choice_of(self, time: str) -> list[Comparison]:
        """The rows of the choice of that time; none if there is none or it was taken back."""
        return list(self._standing.get(time, {}).values())

    def last_choice(self) -> list[Comparison]:
        """The rows of the latest choice that stands; none if there is none."""
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
    """Every row of a log, also a last one without a line's end; what cannot be read is left out and counted."""
    log = ComparisonLog(file)
    with file.open("rb") as stream:
        stream.seek(log._position)
        last, n_torn = _parse(stream.read())
    if log.n_unreadable + n_torn:
        logger.warning("%s: %d line(s) cannot be read and are left out", file, log.n_unreadable + n_torn)
    return log.rows + last


def merge_log(target: ComparisonLog, other: Path) -> int:
    """Append the rows of another log that the target does not have yet; return how many."""
    if not other.is_file():
        raise UserError(f"--merge={other}: there is no such file")
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
    """Return a name as it stands in a row: as it is, or as JSON where it could be mistaken or would break the line."""
    plain = _ESCAPED_BYTES.sub("", name)
    return name if plain.isprintable() and not name.startswith('"') else json.dumps(name)


def _name(cell: str) -> str:
    """Return the name that stands in a cell; one that begins with a quote but is no JSON stands for itself."""
    if cell.startswith('"'):
        with contextlib.suppress(ValueError, RecursionError):
            name = json.loads(cell)
            if isinstance(name, str):
                return name
    return cell


def _parse(content: bytes) -> tuple[list[Comparison], int]:
    """The rows in these bytes and the number of lines that are none. Lines stand alone: a torn one spoils no other."""
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
    """What ends the last line: nothing, or the line's end that a crash or an editor left out."""
    os.lseek(descriptor, size - 1, os.SEEK_SET)
    return "" if os.read(descriptor, 1) == b"\n" else "\n"


def _flush_folder(folder: Path) -> None:
    """Make a new file's name durable, where the system can."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
