"""Benchmarks; they import the library from this checkout, even if another version is installed."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "src"))

from custom_aesthetic.settings.console import wait_passively

wait_passively()  # as the scripts do, before torch is loaded
