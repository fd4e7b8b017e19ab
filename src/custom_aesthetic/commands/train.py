"""The main job, from arguments to a model file and its statistics."""

import contextlib
import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from custom_aesthetic.base.arrays import Array
from custom_aesthetic.base.errors import UserError
from custom_aesthetic.base.machine import choose_device
from custom_aesthetic.commands.preparation import (
    ScoredImages,
    check_folds,
    describe,
    load_head_input,
    load_scored_images,
    make_judge,
    make_problem,
)
from custom_aesthetic.commands.run_report import write_run_report
from custom_aesthetic.commands.trial_description import describe_trial
from custom_aesthetic.features.hidden_states import HeadInput, arrange
from custom_aesthetic.features.table import FeatureTable
from custom_aesthetic.heads.domain import find_domain, to_text
from custom_aesthetic.heads.learnt_pictures import learnt_metadata
from custom_aesthetic.heads.model_file import input_metadata, load_model, model_bytes
from custom_aesthetic.heads.prediction import model_input, predict_features
from custom_aesthetic.heads.predictor import fold_mixtures
from custom_aesthetic.quality.closing import Judged, closing_lines
from custom_aesthetic.quality.statistics_line import statistics_line
from custom_aesthetic.scores.choice_log import LOG_NAME, Comparison, ComparisonLog
from custom_aesthetic.scores.score_files import ScoreTable, write_csv
from custom_aesthetic.search.best_models import BestModel
from custom_aesthetic.search.dashboard import check_server, serve_dashboard
from custom_aesthetic.search.run import Found, Target, divide_work, search
from custom_aesthetic.search.storage import opened_study
from custom_aesthetic.search.study import PROCESS, Study
from custom_aesthetic.settings.arguments import shown_lines
from custom_aesthetic.settings.training import StudySettings, TrainingArguments

log = logging.getLogger(__name__)

OF_THE_MACHINE = (PROCESS, "seconds")
"""What a trial records that is no business of those who are given the model: the machine's name, its speed."""


def train_predictor(arguments: TrainingArguments) -> None:
    """Extract the features, search, keep the best model, print the statistics, write the savefile."""
    device = choose_device(arguments.device.device)
    check_places(arguments)
    divide_work(arguments.study.workers, device)  # a wrong number is told before any work
    scored = load_scored_images(arguments.images, arguments.split)
    check_folds(arguments.split, arguments.scoring)
    make_judge(scored.table, arguments.scoring)  # what cannot be had from these scores is told before any work
    scored, features, head_input = load_head_input(scored, arguments.features, arguments.split, device)
    log.info("%s", describe(scored.table))
    if arguments.search.trials == 0:
        scored.record_split()
        log.info("features are cached; --trials=0, so no search")
        return
    problem = make_problem(scored.table, features, head_input, arguments.scoring, arguments.split, device)
    torch.set_num_threads(1)
    model_file = scored.directory / arguments.output.model

    domain = find_domain(arrange(features, head_input.modes).float().numpy())
    known = {} if domain is None else {"domain": to_text(domain)}
    known |= learnt_metadata(features.values.numpy(), scored.table.columns["split"], folded=bool(problem.folds))

    def make_file(model: BestModel) -> bytes:
        return model_bytes(
            fold_mixtures(model.predictor, head_input.fixed), _metadata(arguments, features, head_input, model) | known
        )

    target = Target(
        model_file,
        make_file,
        tuple(shown_lines(arguments)),
        study_note(arguments, scored, problem.identity),
        begin=scored.record_split,
    )
    with serve_dashboard(arguments.study.server, arguments.study.database):
        found = search(problem, arguments.space, arguments.search, arguments.study, target)
    judged = replace(judge_model(model_file, scored.table, features), comparisons=choices_in(scored.directory))
    what = f"{arguments.scoring.set_for_scoring} {arguments.scoring.metric}"
    report(found.study, what, found, judged)
    log.info("model written to %s", model_file)
    if arguments.output.savefile is not None:
        write_savefile(Path(arguments.output.savefile), scored.table, judged.predictions)
    if arguments.output.report is not None:
        with kept_study(replace(arguments.study, name=found.study)) as study:
            write_run_report(Path(arguments.output.report), study, scored, features, model_file)


def check_places(arguments: TrainingArguments) -> None:
    """Raise UserError where a result cannot be written to the place that is named, or shown from it."""
    output = arguments.output
    files = {
        "--model": Path(arguments.images.directory) / output.model,
        "--savefile": None if output.savefile is None else Path(output.savefile),
        "--report": None if output.report is None else Path(output.report),
    }
    for option, file in files.items():
        if file is not None and file.is_dir():
            raise UserError(f"{option}={file} is a directory; name a file in it")
    check_server(arguments.study.server, arguments.study.database)


def kept_study(where: StudySettings) -> contextlib.AbstractContextManager[Study | None]:
    """Give the study meanwhile; None where it is not kept."""
    return opened_study(where.database, where.name) if where.database else contextlib.nullcontext()


def study_note(arguments: TrainingArguments, scored: ScoredImages, identity: Mapping[str, str]) -> str:
    """Return what the dashboard shows of the study, in Markdown."""
    command = "\n".join(shown_lines(arguments))
    return (
        f"Pictures in `{arguments.images.directory}`: {describe(scored.table)}\n\n"
        f"Features: {identity['features']}\n\n"
        f"Loss {arguments.scoring.loss_model}; the search improves {arguments.scoring.metric} on the "
        f"{arguments.scoring.set_for_scoring} set\n\n"
        f"Model: `{scored.directory / arguments.output.model}`\n\n"
        f"Arguments of `aesthetic_predictor_training.py`:\n\n```\n{command}\n```\n"
    )


def judge_model(model_file: Path, table: ScoreTable, features: FeatureTable) -> Judged:
    """Return what the model file says of the scored images, by what it holds and nothing else."""
    model = load_model(model_file)
    values = model_input(model, features)
    found = predict_features(model, values)
    return Judged(table, found.scores, values.float().numpy(), found.sigmas, model.folded)


def choices_in(directory: Path) -> list[Comparison]:
    """Return the choices of the A/B scorer's log beside the pictures; none where there is no such log."""
    file = directory / LOG_NAME
    with contextlib.suppress(UserError):
        return ComparisonLog(file).choices()
    log.warning("%s is not a log of comparisons, and is not looked at", file)
    return []


def report(name: str, what: str, found: Found, judged: Judged) -> None:
    """Print the best trial, its parameters, the statistics on every set, and how far they are to be believed."""
    trials = found.trials
    trial = trials[0]
    log.info("best trial %d of study %s: %s %.4f", trial.number, name, what, trial.value)
    if len(trials) > 1:
        log.info("the model averages the heads of trials %s", ", ".join(str(trial.number) for trial in trials))
    for line in describe_trial(trial):
        log.info("%s", line)
    sets = {"Train": ("train",), "Eval": ("eval",), "Full": ("train", "eval"), "Test": ("test",)}
    for title, names in sets.items():
        rows = judged.rows(*names)
        if len(rows):
            log.info("%s", statistics_line(title, judged.scores[rows], judged.predictions[rows]))
    if judged.folded:
        log.info("the model has learnt from train and eval; out of fold the best trial reached %.4f", trial.value)
    if found.optimism is not None:
        log.info("%s", found.optimism)
    if judged.folded:
        log.info("out of fold one head judges an image; the model is the mean of them all, which usually does better")
    for line in closing_lines(judged):
        log.info("%s", line)


def write_savefile(file: Path, table: ScoreTable, predictions: Array) -> None:
    """Write score, model_score, split and every other column of the score file as CSV."""
    model_score = [float(str(np.float32(value))) for value in predictions]
    columns = {"score": table.scores, "model_score": model_score, "split": table.columns["split"]}
    write_csv(
        file, ScoreTable(table.paths, {**columns, **{k: v for k, v in table.columns.items() if k not in columns}})
    )
    log.info("scores written to %s", file)


def _metadata(
    arguments: TrainingArguments,
    features: FeatureTable,
    head_input: HeadInput,
    model: BestModel,
) -> dict[str, str]:
    """Return what the model file says of itself; all strings."""
    predictions = model.outputs[:, 0]
    trial = model.trials[0]
    extractors = list(dict.fromkeys(block.extractor for block in features.blocks))
    states = [[block.hidden_state for block in features.blocks if block.extractor == name] for name in extractors]
    known_input = input_metadata(
        extractors, states, head_input.modes, arguments.features.views, fp16=arguments.features.fp16_features
    )
    found = {"hidden_state_weights": str(model.state_weights)} if model.state_weights else {}
    known = {**trial.user_attrs, **model.metrics, **trial.params}
    parameters = {key: str(value) for key, value in known.items() if key not in OF_THE_MACHINE}
    return {
        **known_input,
        "folds": str(arguments.split.folds),
        "n_images": str(len(predictions)),
        "mean_predicted_score": str(float(predictions.mean())),
        "stdev_predicted_score": str(float(predictions.std())),
        "loss_model": arguments.scoring.loss_model,
        "metric_for_scoring": arguments.scoring.metric,
        **model.origin,
        **parameters,
        **found,
    }
