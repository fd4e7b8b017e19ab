"""Score all pictures in a folder by a trained model; list, copy, link, move or rate the best ones.

python aesthetic_scorer.py -d folder -m model.safetensors --top=100 --sheet=best.html
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent / "src"))

from custom_aesthetic.scripts.scorer import main, run

__all__ = ["main", "run"]

if __name__ == "__main__":
    sys.exit(main())
