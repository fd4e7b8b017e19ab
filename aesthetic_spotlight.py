"""Look at pictures, scores and errors in Renumics Spotlight.

python aesthetic_spotlight.py -d DIRECTORY [-m MODEL | --model_scores FILE] [--save FILE]
"""

import logging
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent / "src"))

from custom_aesthetic.settings.arguments import parse_arguments
from custom_aesthetic.settings.console import run_script
from custom_aesthetic.settings.training import ViewerArguments

log = logging.getLogger("custom_aesthetic.spotlight_script")


def run(argv: Sequence[str]) -> None:
    """Show the pictures as the arguments say; raises UserError for what the user can mend."""
    arguments, ignored = parse_arguments(
        ViewerArguments, argv, description="Look at pictures, scores and errors in Spotlight.", ignore_unknown=True
    )
    if ignored:
        log.info("arguments ignored, they are none of the viewer's: %s", " ".join(ignored))
    from custom_aesthetic.base.process_group import run_in_group
    from custom_aesthetic.commands.early_checks import check_judged_images

    check_judged_images(arguments.images, arguments.model_scores)

    def show() -> None:
        from custom_aesthetic.commands.view import view

        view(arguments)

    run_in_group(show)  # Spotlight's servers and workers end with this script, however it ends


if __name__ == "__main__":
    sys.exit(run_script(run))
