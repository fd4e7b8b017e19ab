"""A stand-in for the training: it writes its process id, sleeps, and prints a verdict."""

import os
import sys
import time
from pathlib import Path


def main() -> int:
    """Sleep so many seconds; the second argument is a file for the process id."""
    if sys.argv[1] == "fail":
        print("cannot sleep", flush=True)
        return 1
    if len(sys.argv) > 2:
        Path(sys.argv[2]).write_text(str(os.getpid()))
    print("asleep", flush=True)
    time.sleep(float(sys.argv[1]))
    print("\n76 times in 100.\n\nOut of fold : 240", flush=True)
    return 0
