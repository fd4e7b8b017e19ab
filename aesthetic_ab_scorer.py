"""Score pictures by comparing two (up to four) at a time, on a page in the browser.

python aesthetic_ab_scorer.py -d images
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent / "src"))

from custom_aesthetic.scripts.ab_scorer import main, run

__all__ = ["main", "run"]

if __name__ == "__main__":
    sys.exit(main())
