"""The log of answers, `comparisons.csv`: rows are only appended, and damaged rows do not affect others.

Columns: `time` (UTC, ISO 8601), `winner`, `loser` (paths relative to the image directory), `seconds` (time taken for
the answer), `undoes` (in a row that undoes an answer: the time of that answer) and `drawn` (`undo` there, else how the
pictures were drawn, after the kind of answer where it is not a choice):

| kind              | rows of one time                                             | last column, for example |
|-------------------|--------------------------------------------------------------|--------------------------|
| choice            | the winner before each of the others                         | `adaptive`               |
| tie               | the first picture and each of the others, all equal          | `tie-random`             |
| pick              | each picked picture before each that was not                 | `pick-random`            |
| stars1 ... stars5 | the picture as winner, no loser                              | `stars4-random`          |
| keep, reject      | the picture as winner, no loser: a mark from the gallery     | `keep-gallery`           |

A pair that is asked again, to see how consistent the answers are, is drawn by `repeat`: `repeat` and `tie-repeat`.
The columns are those of earlier versions, so their logs can be continued, and they read the choices of later logs. The
order of rows does not matter, so logs can be merged by `merge_log` or by concatenation.

To log an answer: `log.append(make_choice(...))`, or `make_tie`, `make_pick`, `make_stars`, `make_mark`. To get all
back: `log.answers()`; `scores.evidence` turns them into what the scores are fitted to.

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
LOG_OF_CRITERION = "comparisons-{}.csv"
SCORES_OF_CRITERION = "scores-{}.json"

COLUMNS = ("time", "winner", "loser", "seconds", "undoes", "drawn")
HEADER = ",".join(COLUMNS)

STARS = (1, 2, 3, 4, 5)
PAIR_KINDS = ("choice", "tie", "pick")
PICTURE_KINDS = (*(f"stars{stars}" for stars in STARS), "keep", "reject")
"""Kinds of answers about a single picture."""

DRAWN = ("adaptive", "random", "model", "repeat", "gallery")
"""How pictures come to be shown: by the scores, by chance, by a model, once more, or as the user's pick."""

_LAST_CELLS = {
    "undo": ("choice", "undo"),
    **{drawn: ("choice", drawn) for drawn in DRAWN},
    **{f"{kind}-{drawn}": (kind, drawn) for kind in (*PAIR_KINDS[1:], *PICTURE_KINDS) for drawn in DRAWN},
}
"""Value of the last column -> (kind, drawn). None is the beginning of another, so an incomplete row is recognised."""

_ESCAPED_BYTES = re.compile("[\udc80-\udcff]")
"""Bytes of a name that is not UTF-8."""

_BINARY = getattr(os, "O_BINARY", 0)  # without it, Windows would write \r\n


@dataclass(frozen=True, order=True)
class Comparison:
    """One row: `winner` was preferred to `loser`, or what its kind says; with `undoes`, that answer was undone."""

    time: str
    winner: str
    loser: str
    seconds: float
    drawn: str = "adaptive"
    undoes: str = ""
    kind: str = "choice"

    @property
    def stars(self) -> int | None:
        """The stars of an answer of that kind, 1...5."""
        return int(self.kind[-1]) if self.kind.startswith("stars") else None


def make_choice(
    winner: str, losers: Sequence[str], *, seconds: float, drawn: str, time: str | None = None
) -> list[Comparison]:
    """Return the rows of one choice, made now unless `time` is given."""
    return _rows("choice", [(winner, loser) for loser in losers], seconds, drawn, time)


def make_tie(pictures: Sequence[str], *, seconds: float, drawn: str, time: str | None = None) -> list[Comparison]:
    """Return the rows of the answer that these pictures, at least two, are equally good."""
    return _rows("tie", [(pictures[0], other) for other in pictures[1:]], seconds, drawn, time)


def make_pick(
    picked: Sequence[str], others: Sequence[str], *, seconds: float, drawn: str, time: str | None = None
) -> list[Comparison]:
    """Return the rows of a grid of which some pictures were picked; none if none or all were."""
    return _rows("pick", [(picture, other) for picture in picked for other in others], seconds, drawn, time)


def make_stars(picture: str, stars: int, *, seconds: float, drawn: str, time: str | None = None) -> list[Comparison]:
    """Return the row of the answer that a picture deserves these stars, 1...5."""
    return _rows(f"stars{stars}", [(picture, "")], seconds, drawn, time)


def make_mark(
    picture: str, *, keep: bool, seconds: float = 0.0, drawn: str = "gallery", time: str | None = None
) -> list[Comparison]:
    """Return the row of a picture marked to be kept or rejected."""
    return _rows("keep" if keep else "reject", [(picture, "")], seconds, drawn, time)


def _rows(
    kind: str, pairs: Iterable[tuple[str, str]], seconds: float, drawn: str, time: str | None
) -> list[Comparison]:
    moment = now() if time is None else time
    return [Comparison(moment, winner, loser, round(seconds, 3), drawn, kind=kind) for winner, loser in pairs]


def undo_rows(answer: Iterable[Comparison]) -> list[Comparison]:
    """Return the rows that undo an answer."""
    moment = now()
    return [Comparison(moment, row.winner, row.loser, 0.0, "undo", row.time) for row in answer]


def now() -> str:
    """Return the current time in UTC to the microsecond, which identifies an answer."""
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

    def answers(self) -> list[Comparison]:
        """Return the rows of all answers that were not undone, without repetitions, in order of time."""
        return sorted(row for answer in self._standing.values() for row in answer.values())

    def choices(self) -> list[Comparison]:
        """Return the rows of `answers` that are choices."""
        return [row for row in self.answers() if row.kind == "choice"]

    def answer_of(self, time: str) -> list[Comparison]:
        """Return the rows of the answer given at that time; empty if there is none or it was undone."""
        return list(self._standing.get(time, {}).values())

    def last_answer(self) -> list[Comparison]:
        """Return the rows of the latest answer that was not undone; empty if there is none."""
        return self.answer_of(max(self._standing, default=""))

    @property
    def n_answers(self) -> int:
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
            rows = self._standing.setdefault(time, {})
            rows[pair] = max(row, rows.get(pair, row))  # whatever the order of the rows

    def _check_header(self) -> None:
        with self.file.open("rb") as stream:
            start = stream.read(4096)
        begun = HEADER.encode().startswith(start)
        if not begun and HEADER.encode() not in start and not _parse(start)[0]:
            raise UserError(f"{self.file} is not a log of comparisons (columns {HEADER}); move it elsewhere")


def log_of_scores(directory: Path, score_file: str) -> Path:
    """Return the log that a score file comes from: that of its criterion if there is one, else `comparisons.csv`.

    Neither needs to exist; `score_file` is a name or path.
    """
    stem = Path(score_file).stem
    start = SCORES_OF_CRITERION.partition("{}")[0]
    own = directory / LOG_OF_CRITERION.format(stem.removeprefix(start))
    return own if stem.startswith(start) and own.is_file() else directory / LOG_NAME


def read_log(file: Path) -> list[Comparison]:
    """Return all rows of a log, including a last line without line end; a warning counts unreadable lines."""
    log = ComparisonLog(file)
    with file.open("rb") as stream:
        stream.seek(log._position)
        last, n_torn = _parse(stream.read())
    if log.n_unreadable + n_torn:
        logger.warning("%s: %d line(s) cannot be read and are left out", file, log.n_unreadable + n_torn)
    return log.rows + last


def read_answers(file: Path) -> list[Comparison]:
    """Return the answers in a log; none, with a warning, if the file is not a log, and none if there is no file."""
    with contextlib.suppress(UserError):
        return ComparisonLog(file).answers()
    logger.warning("%s is not a log of comparisons, so it is not used", file)
    return []


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
    last = row.drawn if row.kind == "choice" else f"{row.kind}-{row.drawn}"
    cells = (row.time, _cell(row.winner), _cell(row.loser), f"{row.seconds:g}", row.undoes, last)
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
        time, first, second, seconds, undoes, last = cells
        winner, loser, taken = _name(first), _name(second), float(seconds)
        kind, drawn = _LAST_CELLS[last]
    except (ValueError, KeyError, csv.Error):
        return None
    whole = bool(time and winner) and winner != loser and math.isfinite(taken) and (drawn == "undo") == bool(undoes)
    if not whole or (drawn != "undo" and (loser == "") != (kind in PICTURE_KINDS)):
        return None
    return Comparison(time, winner, loser, taken, drawn, undoes, kind)


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
