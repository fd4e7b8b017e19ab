"""Compare a model's scores with the scores given: lines of statistics, score files, a report."""

from collections.abc import Sequence

from custom_aesthetic.base.extras import require
from custom_aesthetic.base.processes import imports
from custom_aesthetic.settings.analysis import AnalysisArguments
from custom_aesthetic.settings.arguments import parse_shared_arguments
from custom_aesthetic.settings.console import run_script


def run(argv: Sequence[str]) -> None:
    """Run the analysis; raise UserError for mistakes the user can correct."""
    arguments = parse_shared_arguments(
        AnalysisArguments, argv, description="Compare a model's scores with the scores given."
    )
    if arguments.analysis.report is not None and arguments.analysis.database is not None:
        require("matplotlib", "report", "--report with --database")
    from custom_aesthetic.commands.early_checks import check_judged_images

    check_judged_images(arguments.images, arguments.model_scores, arguments.features)
    with imports():
        from custom_aesthetic.commands.analyse import analyse

    analyse(arguments)


def main() -> int:
    """Run the script on the command line's arguments; return its exit code."""
    return run_script(run, extra="report")
