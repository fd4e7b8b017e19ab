"""Run a script: log to the screen, print a UserError as one line, and return an exit code."""

import logging
import os
import sys
import warnings
from collections.abc import Callable, Sequence

from custom_aesthetic.base.errors import UserError
from custom_aesthetic.base.extras import missing_package
from custom_aesthetic.base.interrupts import listen
from custom_aesthetic.base.processes import spare_last_collection
from custom_aesthetic.base.text import printable

EXIT_USER_ERROR = 2
EXIT_INTERRUPTED = 130
LONGEST_MESSAGE = 4000

PASSIVE_WAITING = {"OMP_WAIT_POLICY": "PASSIVE", "KMP_BLOCKTIME": "0"}
"""What lets waiting threads sleep: the first for GNU's OpenMP (torch on Linux), both for LLVM's and Intel's."""

LARGE_BLOCKS = ("PILLOW_BLOCK_SIZE", "64M")
"""What lets Pillow give the memory of large pictures back: blocks so large that glibc keeps none for its thread."""

WAITING_OPTIONS = (*PASSIVE_WAITING, "GOMP_SPINCOUNT", "KMP_LIBRARY")
"""The environment variables by which users choose how threads wait."""


def run_script(run: Callable[[Sequence[str]], None], *, extra: str | None = None) -> int:
    """Return the exit code of `run(arguments)`: 0, 2 after a UserError (one line on stderr), 130 after Ctrl-C.

    `extra` is the part of the installation that the script needs; a missing package is reported with it.
    """
    wait_passively()
    os.environ.setdefault(*LARGE_BLOCKS)
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(logging.Formatter("%(message)s"))
    logging.getLogger("custom_aesthetic").addHandler(handler)
    logging.getLogger("custom_aesthetic").setLevel(logging.INFO)
    warnings.filterwarnings("ignore", module=r"PIL\.")  # about odd metadata and large pictures, which can be used
    listen()
    try:
        run(sys.argv[1:])
    except UserError as error:
        return _refuse(error)
    except ModuleNotFoundError as error:
        missing = missing_package(error, extra)
        if missing is None:
            raise
        return _refuse(missing)
    except KeyboardInterrupt:
        print("stopped; the same command goes on from here", file=sys.stderr)
        return EXIT_INTERRUPTED
    finally:
        spare_last_collection()
    return 0


def wait_passively() -> None:
    """Let waiting threads of OpenMP sleep, in this process and those it starts; to be called before torch loads.

    By default they spin for a moment, and on a busy machine take the cores from the threads that they wait for. Nothing
    changes if the user has set one of WAITING_OPTIONS.
    """
    if not any(name in os.environ for name in WAITING_OPTIONS):
        os.environ.update(PASSIVE_WAITING)


def _refuse(error: UserError) -> int:
    print(f"error: {printable(' '.join(str(error).split()), LONGEST_MESSAGE)}", file=sys.stderr)
    return EXIT_USER_ERROR
