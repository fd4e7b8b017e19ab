"""Compare a model's scores with the scores given: lines of statistics, score files, a report.

python aesthetic_data_analysis.py -d DIRECTORY (-m MODEL | --model_scores FILE | a score file with model_score)
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent / "src"))

from custom_aesthetic.scripts.analysis import main, run

__all__ = ["main", "run"]

if __name__ == "__main__":
    sys.exit(main())
