"""The training: from its arguments to a model file and its statistics."""

import logging
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch

from custom_aesthetic.base.errors import UserError
from custom_aesthetic.base.machine import choose_device, threads_for
from custom_aesthetic.commands.preparation import (
    check_plan,
    check_prior_fits,
    describe,
    load_head_input,
    load_scored_images,
    make_judge,
    make_problem,
    settle_folds,
)
from custom_aesthetic.commands.records import file_maker, study_note
from custom_aesthetic.commands.results import show_results
from custom_aesthetic.features.precomputed import open_table, without_extractor
from custom_aesthetic.priors.given import describe_prior, read_prior
from custom_aesthetic.search.dashboard import check_server, serve_dashboard
from custom_aesthetic.search.run import Target, divide_work, search
from custom_aesthetic.settings.arguments import shown_lines
from custom_aesthetic.settings.training import TrainingArguments

log = logging.getLogger(__name__)


def train_predictor(arguments: TrainingArguments) -> None:
    """Extract the features, search, keep the best model, print the verdict and statistics, write the savefile."""
    show = train_model(arguments)
    if show is not None:
        show()


def train_model(arguments: TrainingArguments) -> Callable[[], None] | None:
    """Extract the features, search, and write the model file; return the function that shows the results.

    None with --trials=0, which ends after the features.
    """
    device = choose_device(arguments.device.device)
    check_places(arguments)
    divide_work(arguments.study.workers, device)  # raises UserError before any work
    table = open_table(Path(arguments.images.directory), arguments.features)
    if table is not None:
        arguments = replace(arguments, features=without_extractor(arguments.features))
    scored = load_scored_images(arguments.images, arguments.split, table)
    arguments = settle_folds(arguments, scored)
    check_prior_fits(arguments)
    asked = arguments.search.prior_model
    prior = None if asked is None else read_prior(scored.directory, asked)
    make_judge(scored.table, arguments.objective, folded=arguments.split.n_folds > 1)  # raises it too
    scored, features, head_input = load_head_input(
        scored, arguments.features, arguments.split, device, table, check=partial(check_plan, arguments, prior)
    )
    log.info("%s", describe(scored.table, arguments.split.n_folds))
    if arguments.search.trials == 0:
        scored.record_split()
        log.info("the features are cached; no search, because --trials=0")
        return None

    with threads_for(len(scored.table)):
        settings = arguments.objective, arguments.split, device, prior
        problem = make_problem(scored.table, features, head_input, *settings, scored.answers_behind)
    target = Target(
        scored.directory / arguments.output.model,
        file_maker(arguments, scored, features, head_input),
        tuple(shown_lines(arguments)),
        study_note(arguments, scored, problem.identity),
        begin=scored.record_split,
    )
    torch.set_num_threads(1)
    with serve_dashboard(arguments.study.server, arguments.study.database):
        found = search(problem, arguments.space, arguments.search, arguments.study, target)

    def show() -> None:
        show_results(arguments, found, scored, features, problem.folds)
        if problem.prior is not None:
            log.info("%s", describe_prior(problem.prior, problem.judge.scores, problem.judge.rows["full"]))

    return show


def check_places(arguments: TrainingArguments) -> None:
    """Raise UserError if an output file is a directory, or if the dashboard cannot be served."""
    output, directory = arguments.output, Path(arguments.images.directory)
    files = {
        "--model": directory / output.model,
        "--savefile": None if output.savefile is None else directory / output.savefile,
        "--report": None if output.report is None else Path(output.report),
    }
    for option, file in files.items():
        if file is not None and file.is_dir():
            raise UserError(f"{option}={file} is a directory; give the path of a file")
    check_server(arguments.study.server, arguments.study.database)
