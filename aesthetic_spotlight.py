"""Look at pictures, scores and errors in Renumics Spotlight.

python aesthetic_spotlight.py -d DIRECTORY [-m MODEL | --model_scores FILE] [--save FILE]
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent / "src"))

from custom_aesthetic.scripts.spotlight import main, run

__all__ = ["main", "run"]

if __name__ == "__main__":
    sys.exit(main())
