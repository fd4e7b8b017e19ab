"""Run a module's `main` in a process that ends with the page that started it: `python -m ....minded MODULE ARGUMENTS`.

The page holds the other end of the standard input. When the page ends, even by being killed, that end closes, and this
process ends with everything that it has started. It yields the processor to everything else.
"""

import contextlib
import importlib
import os
import signal
import sys
import threading
from pathlib import Path

NICENESS = 10


def main() -> int:
    """Run `main` of the module named by the first argument on the other arguments; return its exit code."""
    stay_behind()
    stream = os.fdopen(os.dup(0), "rb")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    threading.Thread(target=_end_with_page, args=(stream,), daemon=True).start()
    module, *arguments = sys.argv[1:]
    sys.argv = [module, *arguments]
    return int(importlib.import_module(module).main())


def stay_behind() -> None:
    """Give this process a lower priority, where the system lets it.

    Where Linux groups processes by session (autogroup), niceness counts within a session only, and the session of
    background work has one of its own.
    """
    if hasattr(os, "nice"):
        with contextlib.suppress(OSError):
            os.nice(NICENESS)
    if hasattr(os, "getsid") and os.getsid(0) == os.getpid():
        with contextlib.suppress(OSError):
            Path("/proc/self/autogroup").write_text(str(NICENESS))


def _end_with_page(stream) -> None:  # type: ignore[no-untyped-def]
    while stream.read(1):
        pass
    if hasattr(os, "killpg") and os.getpgid(0) == os.getpid():
        os.killpg(0, signal.SIGKILL)
    os._exit(1)


if __name__ == "__main__":
    sys.exit(main())
