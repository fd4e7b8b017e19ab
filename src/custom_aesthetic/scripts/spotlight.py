"""Look at pictures, scores and errors in Renumics Spotlight."""

from collections.abc import Sequence

from custom_aesthetic.base.processes import imports
from custom_aesthetic.settings.analysis import ViewerArguments
from custom_aesthetic.settings.arguments import parse_shared_arguments
from custom_aesthetic.settings.console import run_script


def run(argv: Sequence[str]) -> None:
    """Show the pictures in Spotlight; raise UserError for mistakes the user can correct."""
    arguments = parse_shared_arguments(
        ViewerArguments, argv, description="Look at pictures, scores and errors in Spotlight."
    )
    from custom_aesthetic.base.process_group import run_in_group
    from custom_aesthetic.commands.early_checks import check_judged_images

    check_judged_images(arguments.images, arguments.model_scores, arguments.features)

    def show() -> None:
        with imports():
            from custom_aesthetic.commands.view import view

        view(arguments)

    run_in_group(show)  # so that Spotlight's servers and workers end with this script, even if it is killed


def main() -> int:
    """Run the script on the command line's arguments; return its exit code."""
    return run_script(run, extra="view")
