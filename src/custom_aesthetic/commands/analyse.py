"""The analysis, from arguments to statistics lines, score files and the report."""

import contextlib
import logging
import re
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

import numpy as np
import optuna

from custom_aesthetic.base.errors import UserError
from custom_aesthetic.base.machine import choose_device
from custom_aesthetic.commands.judged_pictures import Comparison, load_comparison, splits_learnt
from custom_aesthetic.quality.closing import Judged, baseline_lines
from custom_aesthetic.quality.statistics_line import statistics_line
from custom_aesthetic.report.page import ReportData, write_report
from custom_aesthetic.scores.score_files import ScoreTable, write_csv, write_json
from custom_aesthetic.search.storage import opened_study
from custom_aesthetic.settings.training import AnalysisArguments, AnalysisSettings

log = logging.getLogger(__name__)

DEFAULT_DATABASE, DEFAULT_NAME = "sqlite:///db.sqlite", "aesthetic"


def analyse(arguments: AnalysisArguments) -> None:
    """Print a line of statistics for each set asked for; write what was asked for."""
    settings = arguments.analysis
    patterns = [compile_pattern(pattern) for pattern in settings.regex]
    with _study(settings) as study:
        _analyse(arguments, patterns, study)


def _study(settings: AnalysisSettings) -> contextlib.AbstractContextManager[optuna.Study | None]:
    """Give the study that the report shows meanwhile: none unless a report and a study are asked for."""
    if settings.report is None or (settings.database is None and settings.name is None):
        return contextlib.nullcontext()
    database = DEFAULT_DATABASE if settings.database is None else settings.database
    return opened_study(database, DEFAULT_NAME if settings.name is None else settings.name)


def _analyse(arguments: AnalysisArguments, patterns: Sequence[re.Pattern[str]], study: optuna.Study | None) -> None:
    settings = arguments.analysis
    comparison = load_comparison(
        arguments.images, arguments.model_scores, arguments.features, choose_device(arguments.device.device)
    )
    has_scores = bool(np.isfinite(comparison.scores).any())
    rows = comparison.rows(include_train_split=settings.include_train_split)
    groups = group_rows(comparison.paths, rows, patterns, directories=settings.directories)
    if has_scores:
        for name, members in {"All": rows, **groups}.items():
            log.info("%s", statistics_line(name, comparison.scores[members], comparison.model_scores[members]))
    if settings.baselines:
        for line in compare_baselines(comparison):
            log.info("%s", line)
    if settings.save_scores_and_errors or not has_scores:
        write_model_scores(comparison, comparison.directory / settings.save_model_scorefile)
    if settings.save_scores_and_errors and has_scores:
        write_errors(comparison, comparison.directory / settings.save_error_scorefile)
    if settings.report is not None:
        write_report(Path(settings.report), report_data(comparison, groups), study=study)
        log.info("report written to %s", settings.report)


def compare_baselines(comparison: Comparison) -> Iterator[str]:
    """Yield the lines of the baselines; UserError where there are no features or no training pictures to fit them."""
    if comparison.features is None:
        raise UserError("--baselines learn from the features of a model: give the model by --model")
    rows = np.flatnonzero(np.isfinite(comparison.scores))
    splits = [comparison.splits[row] for row in rows]
    if "train" not in splits:
        raise UserError("--baselines learn from the training pictures, but no split names any; give the split file")
    table = ScoreTable(
        tuple(comparison.paths[row] for row in rows),
        {"score": comparison.scores[rows].tolist(), "split": splits},
    )
    features = comparison.features.values.float().numpy()[rows]
    return baseline_lines(Judged(table, comparison.model_scores[rows], features, folded=comparison.folded))


def compile_pattern(pattern: str) -> re.Pattern[str]:
    """Return the compiled pattern; UserError if it is no regular expression."""
    try:
        return re.compile(pattern)
    except re.error as error:
        raise UserError(f"--regex={pattern} is not a regular expression: {error}; mend it") from None


def group_rows(
    paths: Sequence[str], rows: Sequence[int], patterns: Sequence[re.Pattern[str]], *, directories: bool
) -> dict[str, list[int]]:
    """Return name -> rows: of each pattern those whose path it is found in, then those below each sub-directory.

    A directory that a pattern is named like is told apart by a closing `/`.
    """
    groups = {pattern.pattern: [row for row in rows if pattern.search(paths[row])] for pattern in patterns}
    if directories:
        below: dict[str, list[int]] = {}
        for row in rows:
            for parent in list(PurePosixPath(paths[row]).parents)[:-1]:
                below.setdefault(str(parent), []).append(row)
        groups |= {name + "/" * (name in groups): members for name, members in sorted(below.items())}
    return groups


def write_model_scores(comparison: Comparison, file: Path) -> None:
    """Write the model's scores as a score file: JSON, or CSV if the name ends so."""
    _write(file, ScoreTable(comparison.paths, {"score": comparison.model_scores.tolist()}))
    log.info("model scores of %d pictures written to %s", len(comparison.paths), file)


def write_errors(comparison: Comparison, file: Path) -> None:
    """Write the absolute errors of the pictures that have a score, as a score file."""
    rows = np.flatnonzero(np.isfinite(comparison.errors))
    errors = np.abs(comparison.errors[rows]).tolist()
    _write(file, ScoreTable(tuple(comparison.paths[row] for row in rows), {"score": errors}))
    log.info("absolute errors of %d pictures written to %s", len(rows), file)


def _write(file: Path, table: ScoreTable) -> None:
    if file.suffix.lower() == ".csv":
        write_csv(file, table)
    else:
        write_json(file, table.with_column("comparisons", [0] * len(table)))


def report_data(comparison: Comparison, groups: dict[str, list[int]]) -> ReportData:
    """Return what the report shows of a comparison."""
    return ReportData(
        comparison.directory,
        comparison.paths,
        comparison.scores,
        comparison.model_scores,
        splits_learnt(comparison.splits, folded=comparison.folded),
        comparison.sigmas,
        comparison.facts or {},
        groups,
    )
