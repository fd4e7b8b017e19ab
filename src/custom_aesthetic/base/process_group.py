"""A group of processes that ends with the process that started it, even if that is killed."""

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from types import FrameType

PATIENCE_SECONDS = 3.5
"""How long the group may take to end after Ctrl-C or SIGTERM before it is killed."""

NAP_SECONDS = 0.05


def run_in_group(work: Callable[[], None]) -> None:
    """Run `work` in a child process that leads a process group, and end all processes that it starts.

    The group ends when the work ends and when this process is interrupted, terminated or killed. This process exits
    with the status of the child. Call it before any thread is started or any heavy library is loaded. On Windows, which
    has no such process groups, `work` runs in this process. If a signal was passed on and the child ended by a signal,
    also by being killed because it took too long, the status is that of the signal that was passed on: 143 for SIGTERM.
    """
    if not hasattr(os, "fork"):
        work()
        return
    sys.stdout.flush()
    sys.stderr.flush()
    ours, theirs = os.pipe()
    child = os.fork()
    if child == 0:
        os.setsid()
        os.close(theirs)
        threading.Thread(target=_end_with_parent, args=(ours,), daemon=True).start()
        work()
        return
    os.close(ours)
    _set_group_apart(child)
    raise SystemExit(_mind(child))


def _set_group_apart(child: int) -> None:
    """Wait until the child leads its group, so that a signal to the group reaches it."""
    while _is_running(child) and os.getpgid(child) != child:
        time.sleep(0.001)


def _end_with_parent(pipe: int) -> None:
    """Kill the group, including this process, when the parent dies, which closes its end of the pipe."""
    while os.read(pipe, 1):
        pass
    os.killpg(0, signal.SIGKILL)


def _mind(child: int) -> int:
    """Wait for the child, pass signals on to it, then kill what is left of its group; return its exit status."""
    asked: list[tuple[float, int]] = []

    def pass_on(number: int, frame: FrameType | None) -> None:
        asked.append((time.monotonic(), number))
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, number if len(asked) == 1 else signal.SIGKILL)

    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    heeded = [number for number in numbers if signal.getsignal(number) is not signal.SIG_IGN]
    former = {number: signal.signal(number, pass_on) for number in heeded}
    try:
        while _is_running(child):
            if asked and time.monotonic() > asked[0][0] + PATIENCE_SECONDS:
                break
            time.sleep(NAP_SECONDS)
    finally:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(child, signal.SIGKILL)  # the child is not reaped yet, so its id is not reused
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        for number, handler in former.items():
            signal.signal(number, handler)
    if status >= 0:
        return status
    return 128 + (asked[0][1] if asked else -status)


def _is_running(child: int) -> bool:
    """Return whether the child is running; a child that has ended is not reaped."""
    return os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None
