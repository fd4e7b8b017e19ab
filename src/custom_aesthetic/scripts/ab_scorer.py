"""Score pictures by comparing two (up to four) at a time, on a page in the browser."""

from collections.abc import Sequence
from pathlib import Path

from custom_aesthetic.base.processes import imports
from custom_aesthetic.settings.arguments import parse_shared_arguments
from custom_aesthetic.settings.console import run_script
from custom_aesthetic.settings.scorers import ABArguments


def run(argv: Sequence[str]) -> None:
    """Run the A/B scorer; raise UserError for mistakes the user can correct."""
    arguments = parse_shared_arguments(ABArguments, argv, description="Score pictures by comparisons.")
    from custom_aesthetic.scores.score_files import check_directory

    check_directory(Path(arguments.images.directory))
    with imports():
        from custom_aesthetic.commands.score_pairs import score_by_comparisons

    score_by_comparisons(arguments)


def main() -> int:
    """Run the script on the command line's arguments; return its exit code."""
    return run_script(run, extra="label")
