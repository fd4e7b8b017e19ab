"""The analysis: from its arguments to statistics lines, score files and the report."""

import contextlib
import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import numpy as np

from custom_aesthetic.base.errors import UserError
from custom_aesthetic.base.machine import choose_device
from custom_aesthetic.commands.judging import LEARNT_COLUMN, load_judged_pictures
from custom_aesthetic.quality.answers import how_often
from custom_aesthetic.quality.baselines import advice, fit_baselines, out_of_fold_baselines
from custom_aesthetic.quality.closing import BY_ANSWERS, flattery_line
from custom_aesthetic.quality.statistics_line import statistics_line
from custom_aesthetic.report.judged_pictures import JUDGED_BY, JudgedPictures, standing_lines
from custom_aesthetic.report.page import ReportData, write_report
from custom_aesthetic.scores.duplicates import group_duplicates
from custom_aesthetic.scores.folds import make_folds
from custom_aesthetic.scores.out_of_fold import COLUMN
from custom_aesthetic.scores.score_files import ScoreTable, write_csv, write_json
from custom_aesthetic.search.storage import opened_study
from custom_aesthetic.search.succession import newest_name
from custom_aesthetic.settings.analysis import AnalysisArguments, AnalysisSettings

if TYPE_CHECKING:
    from custom_aesthetic.search.study import Study

log = logging.getLogger(__name__)

N_FOLDS = 4
FEWEST_JUDGED = 2
DEFAULT_DATABASE, DEFAULT_NAME = "sqlite:///db.sqlite", "aesthetic"


def analyse(arguments: AnalysisArguments) -> None:
    """Print a line of statistics for each set that the arguments ask for, and write the files that they ask for."""
    settings = arguments.analysis
    patterns = [compile_pattern(pattern) for pattern in settings.regex]
    with _study(settings) as study:
        _analyse(arguments, patterns, study)


def _study(settings: AnalysisSettings) -> "contextlib.AbstractContextManager[Study | None]":
    """Open the study that the report shows; None unless both a report and a study are asked for."""
    if settings.report is None or (settings.database is None and settings.name is None):
        return contextlib.nullcontext()
    database = DEFAULT_DATABASE if settings.database is None else settings.database
    return opened_study(database, DEFAULT_NAME if settings.name is None else settings.name, newest_name)


def _analyse(arguments: AnalysisArguments, patterns: Sequence[re.Pattern[str]], study: "Study | None") -> None:
    settings = arguments.analysis
    pictures = load_judged_pictures(
        arguments.images, arguments.model_scores, arguments.features, choose_device(arguments.device.device)
    )
    has_scores = bool(np.isfinite(pictures.scores).any())
    rows = pictures.rows(include_train_split=settings.include_train_split)
    groups = group_rows(pictures.paths, rows, patterns, directories=settings.directories)
    if has_scores:
        for line in figure_lines(pictures, rows, groups):
            log.info("%s", line)
    if settings.baselines:
        for line in compare_baselines(pictures):
            log.info("%s", line)
    if settings.save_scores_and_errors or not has_scores:
        write_model_scores(pictures, pictures.directory / settings.save_model_scorefile)
    if settings.save_scores_and_errors and has_scores:
        write_errors(pictures, pictures.directory / settings.save_error_scorefile)
    if settings.report is not None:
        data = report_data(pictures, groups, include_learnt=settings.include_train_split)
        write_report(Path(settings.report), data, study=study)
        log.info("report written to %s", settings.report)


def figure_lines(pictures: JudgedPictures, rows: Sequence[int], groups: Mapping[str, list[int]]) -> Iterator[str]:
    """Yield the verdict, then the statistics of all rows, of the rows that the model has learnt from, and by group."""
    judged = np.flatnonzero(pictures.is_judged)
    yield how_often(
        pictures.scores[judged],
        pictures.judged_scores[judged],
        taste=pictures.taste,
        rows=judged,
        flattery=pictures.flattery,
        chose=pictures.is_chosen,
        out_of_fold=bool(np.isfinite(pictures.out_of_fold[judged]).any()),
    )
    yield from standing_lines(pictures)
    if pictures.taste is not None:
        yield BY_ANSWERS
    if pictures.flattery:
        yield flattery_line(pictures.flattery, eval_chose=pictures.is_chosen)
    learnt = [row for row in rows if not pictures.is_judged[row]]
    sets = {"All": rows} | ({"Learnt from": learnt} if learnt else {}) | dict(groups)
    for name, members in sets.items():
        yield statistics_line(name, pictures.scores[members], pictures.judged_scores[members])
    if learnt:
        yield (
            f"the statistics include {len(learnt)} pictures that the model has learnt from, so they look better than "
            "the model is"
        )


def compare_baselines(pictures: JudgedPictures) -> Iterator[str]:
    """Yield a line for each baseline, on the pictures that the model is judged by, and a line that compares them.

    The baselines are fitted to the pictures that the model has learnt from, and predict those out of fold, as the model
    does. UserError if there are no features or no training pictures.
    """
    if pictures.features is None:
        raise UserError("--baselines needs the features of a model; give the model by --model")
    known = np.isfinite(pictures.scores)
    taught = np.flatnonzero(known & pictures.learnt)
    judged = np.flatnonzero(pictures.is_judged)
    if not len(taught):
        raise UserError("--baselines needs training pictures, but no split lists any; give the split file by --split")
    if len(judged) < FEWEST_JUDGED:
        yield f"baselines: too few pictures to compare them on ({len(judged)})"
        return
    features = pictures.features.values.float().numpy()
    scores, judged_scores = pictures.scores, pictures.judged_scores
    given = np.where(known, scores, 0)
    baselines = fit_baselines(features, given, taught)
    if pictures.learnt[judged].any():
        groups = group_duplicates([pictures.paths[row] for row in taught], features[taught])
        folds = make_folds(pictures.paths, taught, N_FOLDS, seed=0, groups=groups)
        by_folds = out_of_fold_baselines(features, given, folds)
        baselines = {
            name: np.where(pictures.learnt, by_folds[name], found)
            for name, found in baselines.items()
            if name in by_folds
        }
    for name, predictions in baselines.items():
        yield statistics_line(f"All, {name}", scores[judged], predictions[judged])
    chosen = {name: found[judged] for name, found in baselines.items()}
    yield advice(scores[judged], judged_scores[judged], chosen, taste=pictures.taste, rows=judged)


def compile_pattern(pattern: str) -> re.Pattern[str]:
    """Return the compiled pattern; UserError if it is not a regular expression."""
    try:
        return re.compile(pattern)
    except re.error as error:
        raise UserError(f"--regex={pattern} is not a regular expression: {error}; correct it") from None


def group_rows(
    paths: Sequence[str], rows: Sequence[int], patterns: Sequence[re.Pattern[str]], *, directories: bool
) -> dict[str, list[int]]:
    """Return name -> rows: for each pattern the rows whose path matches, then for each sub-directory the rows in it.

    If a directory has the same name as a pattern, `/` is added to it.
    """
    groups = {pattern.pattern: [row for row in rows if pattern.search(paths[row])] for pattern in patterns}
    if directories:
        below: dict[str, list[int]] = {}
        for row in rows:
            for parent in list(PurePosixPath(paths[row]).parents)[:-1]:
                below.setdefault(str(parent), []).append(row)
        groups |= {name + "/" * (name in groups): members for name, members in sorted(below.items())}
    return groups


def write_model_scores(pictures: JudgedPictures, file: Path) -> None:
    """Write the model's scores as a score file: CSV if the name ends in .csv, else JSON.

    The file also holds the out-of-fold scores and whether the model has learnt from each picture, so that an analysis
    of the file gives the same figures as an analysis of the model.
    """
    columns: dict[str, Sequence[float]] = {"score": pictures.model_scores.tolist()}
    if np.isfinite(pictures.out_of_fold).any():
        columns[COLUMN] = pictures.out_of_fold.tolist()
    columns[LEARNT_COLUMN] = pictures.learnt.astype(int).tolist()
    _write(file, ScoreTable(pictures.paths, columns))
    log.info("model scores of %d pictures written to %s", len(pictures.paths), file)


def write_errors(pictures: JudgedPictures, file: Path) -> None:
    """Write the absolute errors of the pictures that have a score, and what each is judged by, as a score file."""
    rows = np.flatnonzero(np.isfinite(pictures.errors))
    errors = np.abs(pictures.errors[rows]).tolist()
    kinds = [JUDGED_BY[pictures.kinds[row]] for row in rows]
    _write(file, ScoreTable(tuple(pictures.paths[row] for row in rows), {"score": errors, "judged_by": kinds}))
    log.info("absolute errors of %d pictures written to %s", len(rows), file)


def _write(file: Path, table: ScoreTable) -> None:
    if file.suffix.lower() == ".csv":
        write_csv(file, table)
    else:
        write_json(file, table.with_column("comparisons", [0] * len(table)))


def report_data(
    pictures: JudgedPictures, groups: Mapping[str, Sequence[int]], *, include_learnt: bool = False
) -> ReportData:
    """Return the data of the report."""
    return ReportData(
        pictures.directory,
        pictures.paths,
        pictures.scores,
        pictures.judged_scores,
        pictures.kinds,
        pictures.sigmas,
        pictures.facts,
        groups,
        include_learnt=include_learnt,
        flattery=pictures.flattery,
        eval_chose=pictures.is_chosen,
        taste=pictures.taste,
    )
