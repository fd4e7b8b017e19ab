"""Read and write the score files of the A/B scorer: the starting point, its backup, and the result."""

import logging
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from custom_aesthetic.base.errors import UserError
from custom_aesthetic.base.files import write_atomically
from custom_aesthetic.scores.choice_log import LOG_NAME, LOG_OF_CRITERION, SCORES_OF_CRITERION
from custom_aesthetic.scores.score_files import SCORE_FILES, SIGMA, ScoreTable, read_scores, write_csv, write_json

log = logging.getLogger(__name__)

_CRITERION = re.compile(r"[\w-]{1,40}")


@dataclass(frozen=True)
class ScoreFiles:
    """The files of a session: scores in both formats, and the log that they are computed from."""

    json: Path
    csv: Path
    log: Path
    start: ScoreTable | None
    """Scores from before the first comparison, in any unit; None if there are none."""


def open_score_files(directory: Path, name: str | None, criterion: str | None = None) -> ScoreFiles:
    """Return the files of the session; scores of another program are backed up and become the starting point.

    The backup is `scores.start.json` (or .csv; numbered if that exists). It is never changed, so that the scores can
    be recomputed from it and the log.
    """
    file = _score_file(directory, name, criterion)
    files = [file.with_suffix(".json"), file.with_suffix(".csv")]
    for one in sorted({file, *files}, key=lambda each: each != file, reverse=True):
        if one.exists() and not read_scores(one).is_made:
            _back_up(one)
    starts = sorted(
        file.parent.glob(f"{_escaped(file.stem)}.start*"), key=lambda each: (each.stat().st_mtime_ns, each.name)
    )
    starts = [one for one in starts if one.suffix in (".json", ".csv")]
    start = read_scores(starts[-1]) if starts else None
    return ScoreFiles(files[0], files[1], log_beside(file, criterion), start)


def find_log(directory: Path, name: str | None, criterion: str | None = None) -> Path:
    """Return the path of the log of a session, which may not exist; `name` is that of the score file."""
    return log_beside(_score_file(directory, name, criterion), criterion)


def log_beside(score_file: Path, criterion: str | None = None) -> Path:
    return score_file.parent / (LOG_NAME if criterion is None else LOG_OF_CRITERION.format(criterion))


def _score_file(directory: Path, name: str | None, criterion: str | None) -> Path:
    if criterion is not None and not _CRITERION.fullmatch(criterion):
        raise UserError(
            f"--criterion={criterion}: the name becomes part of file names; use letters, digits, - and _, at most 40"
        )
    if not directory.is_dir():
        raise UserError(f"image directory {directory} does not exist or is not a directory; check -d")
    if name is not None:
        file = directory / name
        if file.suffix.lower() not in (".json", ".csv") or file.name == LOG_NAME:
            raise UserError(f"--scores={name}: the name must end in .json or .csv and must not be {LOG_NAME}")
        return file
    if criterion is not None:
        return directory / SCORES_OF_CRITERION.format(criterion)
    return next(
        (directory / usual for usual in SCORE_FILES if (directory / usual).is_file()), directory / SCORE_FILES[0]
    )


def _back_up(file: Path) -> None:
    """Copy a score file to an unused name."""
    number = 1
    while (backup := file.with_name(f"{file.stem}.start{'' if number == 1 else number}{file.suffix}")).exists():
        number += 1
    write_atomically(backup, file.read_bytes())
    log.info("%s is the starting point; a copy is kept as %s", file.name, backup.name)


def _escaped(text: str) -> str:
    return "".join(f"[{letter}]" if letter in "*?[" else letter for letter in text)


def score_table(
    paths: Sequence[str], numbers: Mapping[str, np.ndarray], n_comparisons: np.ndarray, start: ScoreTable | None
) -> ScoreTable:
    """Return the table to write: one row for each picture that was compared or had a score before.

    `numbers` contains `score` and `score_sigma`, (n_pictures,), in the units to write. `comparisons` includes those of
    the start, and other columns of the start are kept. `weight` is for `--loss_model=wmse`: its mean is 1, and it is
    smaller for uncertain scores. It is the inverse of the score's variance plus half the variance of all scores,
    because features cannot predict a score exactly even if it is certain.
    """
    earlier = {} if start is None else {path: row for row, path in enumerate(start.paths)}
    rows = [row for row, path in enumerate(paths) if n_comparisons[row] > 0 or path in earlier]
    kept = [paths[row] for row in rows]
    before = [_earlier_comparisons(start, earlier.get(path)) for path in kept]
    scores, sigmas = numbers["score"][rows], numbers[SIGMA][rows]
    weights = 1 / (sigmas**2 + max(float(np.var(scores)) / 2, 1e-9)) if len(rows) else sigmas
    columns: dict[str, Sequence[Any]] = {
        "score": [round(float(score), 4) for score in scores],
        "comparisons": [int(n_comparisons[row]) + count for row, count in zip(rows, before, strict=True)],
        SIGMA: [round(float(sigma), 4) for sigma in sigmas],
        "weight": [round(float(weight), 4) for weight in weights / weights.mean()] if len(rows) else [],
    }
    if start is not None:
        for name, values in start.columns.items():
            if name not in columns:
                columns[name] = [values[earlier[path]] if path in earlier else math.nan for path in kept]
    return ScoreTable(tuple(kept), columns)


def _earlier_comparisons(start: ScoreTable | None, row: int | None) -> int:
    if start is None or row is None or "comparisons" not in start.columns:
        return 0
    count = start.columns["comparisons"][row]
    return int(count) if math.isfinite(count) else 0


def write_score_files(files: ScoreFiles, table: ScoreTable) -> None:
    """Write the scores in both formats; write nothing if there are no scores yet."""
    if len(table):
        write_json(files.json, table)
        write_csv(files.csv, table)
