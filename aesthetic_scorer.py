"""Score every picture under a folder by a trained model; list, copy, link, move, or rate the best.

python aesthetic_scorer.py -d folder -m model.safetensors --top=100 --sheet=best.html
"""

import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent / "src"))

from custom_aesthetic.settings.arguments import parse_arguments
from custom_aesthetic.settings.console import run_script
from custom_aesthetic.settings.scorers import FolderArguments


def run(argv: Sequence[str]) -> None:
    """Score as the arguments say; raises UserError for what the user can mend."""
    arguments, _ = parse_arguments(FolderArguments, argv, description="Score the pictures under a folder.")
    from custom_aesthetic.commands.score_folder import score_folder

    score_folder(arguments)


if __name__ == "__main__":
    sys.exit(run_script(run))
