"""Say how well a model's scores follow the scores given: a line of statistics a test, score files, a report.

python aesthetic_data_analysis.py -d DIRECTORY (-m MODEL | --model_scores FILE | a score file with model_score)
"""

import logging
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent / "src"))

from custom_aesthetic.settings.arguments import parse_arguments
from custom_aesthetic.settings.console import run_script
from custom_aesthetic.settings.training import AnalysisArguments

log = logging.getLogger("custom_aesthetic.analysis_script")


def run(argv: Sequence[str]) -> None:
    """Analyse as the arguments say; raises UserError for what the user can mend."""
    arguments, ignored = parse_arguments(
        AnalysisArguments, argv, description="Compare a model's scores with the scores given.", ignore_unknown=True
    )
    if ignored:
        log.info("arguments ignored, they are none of the analysis's: %s", " ".join(ignored))
    from custom_aesthetic.commands.early_checks import check_judged_images

    check_judged_images(arguments.images, arguments.model_scores)
    from custom_aesthetic.commands.analyse import analyse

    analyse(arguments)


if __name__ == "__main__":
    sys.exit(run_script(run))
