"""Learn a person's taste in pictures: from scored pictures to a model file that scores any other.

python aesthetic_predictor_training.py @arguments.txt [more arguments]
"""

import logging
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent / "src"))

from custom_aesthetic.settings.arguments import parse_arguments, shown_lines
from custom_aesthetic.settings.console import run_script
from custom_aesthetic.settings.training import TrainingArguments

log = logging.getLogger("custom_aesthetic.training_script")


def run(argv: Sequence[str]) -> None:
    """Train as the arguments say; raises UserError for what the user can mend."""
    arguments, _ = parse_arguments(TrainingArguments, argv, description="Train an aesthetic predictor.")
    log.info("%s", "\n".join(shown_lines(arguments)))
    from custom_aesthetic.commands.early_checks import check_scored_images

    check_scored_images(arguments.images)
    from custom_aesthetic.commands.train import train_predictor

    train_predictor(arguments)


if __name__ == "__main__":
    sys.exit(run_script(run))
