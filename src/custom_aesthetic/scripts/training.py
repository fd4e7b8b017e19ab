"""Train a model on a person's scores of pictures; the model file then scores any other picture."""

import logging
from collections.abc import Sequence
from pathlib import Path

from custom_aesthetic.base.extras import require
from custom_aesthetic.base.interrupts import obey_lost
from custom_aesthetic.base.processes import imports
from custom_aesthetic.settings.arguments import differing_lines, parse_arguments, shown_lines
from custom_aesthetic.settings.console import run_script
from custom_aesthetic.settings.training import TrainingArguments

log = logging.getLogger("custom_aesthetic.training_script")


def run(argv: Sequence[str]) -> None:
    """Run the training; raise UserError for mistakes the user can correct."""
    arguments, _ = parse_arguments(TrainingArguments, argv, description="Train an aesthetic predictor.")
    lines = shown_lines(arguments) if arguments.output.verbose else differing_lines(arguments)
    log.info("%s", "\n".join(lines))
    if arguments.output.report is not None:
        require("matplotlib", "report", "--report")
    from custom_aesthetic.commands.early_checks import check_prior, check_scored_images

    check_scored_images(arguments.images, arguments.features)
    check_prior(Path(arguments.images.directory), arguments.search.prior_model)
    with imports():
        from custom_aesthetic.commands.train import train_predictor

    obey_lost()  # the imports take seconds, and a Ctrl-C during them can get lost
    train_predictor(arguments)


def main() -> int:
    """Run the script on the command line's arguments; return its exit code."""
    return run_script(run, extra="train")
