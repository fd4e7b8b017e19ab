"""The results of a training: print the verdict and the figures behind it, write the savefile and the report."""

import contextlib
import logging
from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from custom_aesthetic.base.arrays import Array
from custom_aesthetic.commands.judging import short_floats
from custom_aesthetic.commands.preparation import ScoredImages
from custom_aesthetic.commands.records import BLEND
from custom_aesthetic.features.table import FeatureTable
from custom_aesthetic.heads.fold_training import Fold
from custom_aesthetic.heads.model_file import Model, load_model
from custom_aesthetic.heads.prediction import model_input, predict_features
from custom_aesthetic.quality.answers import find_taste
from custom_aesthetic.quality.closing import Judged, closing_lines, find_out, statistics_lines
from custom_aesthetic.quality.verdict import verdict
from custom_aesthetic.report.trial_description import describe_trial
from custom_aesthetic.scores.folds import fold_levels
from custom_aesthetic.scores.out_of_fold import COLUMN, LEVELS, SIGMA_COLUMN, read_out_of_fold
from custom_aesthetic.scores.score_files import ScoreTable, write_csv
from custom_aesthetic.search.run import Found, begin_note
from custom_aesthetic.search.storage import opened_study
from custom_aesthetic.search.study import kept_texts
from custom_aesthetic.settings.training import FeatureSettings, OutputSettings, StudySettings, TrainingArguments

log = logging.getLogger(__name__)

RICHER_VIEWS = "centre,whole,mirror,mirror_whole"


def show_results(
    arguments: TrainingArguments, found: Found, scored: ScoredImages, features: FeatureTable, folds: Sequence[Fold]
) -> None:
    """Print the results of a search, and write the files that the arguments ask for."""
    model_file = scored.directory / arguments.output.model
    model = load_model(model_file)
    by_folds = read_out_of_fold(model_file) if model.folded else {}
    sigmas = read_out_of_fold(model_file, SIGMA_COLUMN) if by_folds else {}
    judged = judge_model(model, by_folds, scored, features, folds)
    judged = replace(judged, out_of_fold_sigmas=_by_path(sigmas, scored), eval_chose=model.eval_chose)
    with _kept(replace(arguments.study, name=found.study)) as (study, kept):
        said = print_results(arguments, found, judged, flattery=model.ab_flattery, kept=kept)
        if study is not None:
            begin_note(study, kept, said)
    log.info("model written to %s", model_file)
    if BLEND in model.metadata:
        log.info("it adds up heads and linear models, with the weights %s", model.metadata[BLEND])
    write_files(arguments.output, replace(arguments.study, name=found.study), scored, features, judged)


@contextlib.contextmanager
def _kept(where: StudySettings) -> Iterator[tuple[Any, dict[str, str]]]:
    """Yield the Optuna study, and the texts kept with it; None and no texts without a database."""
    if not where.database:
        yield None, {}
        return
    with opened_study(where.database, where.name) as study, kept_texts(study) as texts:
        yield study, texts


def judge_model(
    model: Model, by_folds: Mapping[str, float], scored: ScoredImages, features: FeatureTable, folds: Sequence[Fold]
) -> Judged:
    """Return what a model says of the scored images, with its out-of-fold predictions by path.

    The folds' levels are taken off the predictions where an earlier version left them in.
    """
    values = model_input(model, features)
    said = predict_features(model, values)
    rows = [fold.rows for fold in folds]
    unseen = _by_path(by_folds, scored)
    if unseen is not None and rows and LEVELS not in model.metadata:
        unseen -= fold_levels(np.asarray(scored.table.scores, dtype=np.float64), rows)
    judged = Judged(
        scored.table,
        said.scores,
        values.float().numpy(),
        said.sigmas,
        model.folded,
        scored.answers,
        unseen,
        rows,
    )
    return replace(
        judged, taste=find_taste(scored.answers, scored.table, features.values.float().numpy(), judged.unseen)
    )


def _by_path(values: Mapping[str, float], scored: ScoredImages) -> Array | None:
    """Return the value of each scored image, nan where it has none; None where none has one."""
    return np.array([values.get(path, np.nan) for path in scored.table.paths]) if values else None


def print_results(
    arguments: TrainingArguments,
    found: Found,
    judged: Judged,
    *,
    flattery: float = 0.0,
    kept: MutableMapping[str, str] | None = None,
) -> str:
    """Print the verdict first, then the figures behind it, last the best trial; return the verdict.

    `flattery` is how much the choice of trials adds to AB, read from the model file, as in the analysis.
    """
    findings = find_out(judged, flattery=flattery, kept=kept)
    said = verdict(findings, richer=how_to_enrich(arguments.features))
    log.info("\n%s\n", said)
    for line in (*statistics_lines(judged), *closing_lines(findings)):
        log.info("%s", line)
    verbose = arguments.output.verbose
    if verbose:
        log.info("%s", findings.curve)
    if found.optimism is not None:
        log.info("%s", found.optimism)
    best = found.trials[0]
    where = "out of fold" if judged.folded else f"on the {arguments.objective.set_for_scoring} set"
    log.info(
        "best trial %d of study %s: %s %.4f %s",
        best.number,
        found.study,
        arguments.objective.metric,
        best.value,
        where,
    )
    if len(found.trials) > 1:
        log.info("the model averages the heads of trials %s", ", ".join(str(trial.number) for trial in found.trials))
    for line in describe_trial(best, verbose=verbose, folded=judged.folded):
        log.info("%s", line)
    return said


def how_to_enrich(features: FeatureSettings) -> str:
    """Return advice on richer features."""
    if features.features is not None:
        return "try a table of richer --features"
    if len(features.views) == 1:
        return f"show each picture in several ways by --views={RICHER_VIEWS}"
    return "try another --feature_extractor_model"


def write_files(
    output: OutputSettings, study: StudySettings, scored: ScoredImages, features: FeatureTable, judged: Judged
) -> None:
    """Write the savefile and the report, if the arguments ask for them."""
    if output.savefile is not None:
        write_savefile(scored.directory / output.savefile, judged)
    if output.report is not None:
        from custom_aesthetic.commands.run_report import write_run_report  # most runs write no report

        kept = opened_study(study.database, study.name) if study.database else contextlib.nullcontext()
        with kept as opened:
            write_run_report(Path(output.report), opened, scored, features, scored.directory / output.model)


def write_savefile(file: Path, judged: Judged) -> None:
    """Write score, model_score, out_of_fold_score, split and every other column of the score file as CSV."""
    table = judged.table
    columns = {"score": table.scores, "model_score": short_floats(judged.predictions).tolist()}
    if judged.out_of_fold is not None:
        columns[COLUMN] = judged.out_of_fold.tolist()
    columns["split"] = table.columns["split"]
    others = {name: values for name, values in table.columns.items() if name not in (*columns, COLUMN)}
    write_csv(file, ScoreTable(table.paths, {**columns, **others}))
    log.info("scores written to %s", file)
