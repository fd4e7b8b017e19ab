"""The training script as one machine of several runs it, on pictures whose features are their mean colour.

python -m tests.machine -d pictures [more arguments]
"""

import sys

import aesthetic_predictor_training as script
from custom_aesthetic.commands import preparation
from custom_aesthetic.settings.console import run_script
from tests.mean_colour import MeanColour

if __name__ == "__main__":
    preparation.build_extractors = lambda names, *_: [MeanColour(name) for name in names.split(",")]  # type: ignore[assignment]
    sys.exit(run_script(script.run))
