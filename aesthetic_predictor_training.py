"""Train a model on a person's scores of pictures; the model file then scores any other picture.

python aesthetic_predictor_training.py @arguments.txt [more arguments]
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent / "src"))

from custom_aesthetic.scripts.training import main, run

__all__ = ["main", "run"]

if __name__ == "__main__":
    sys.exit(main())
