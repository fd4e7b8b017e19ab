"""Delay Ctrl-C until the end of steps that belong together, such as taking a trial and recording its owner."""

import contextlib
import multiprocessing.resource_tracker
import signal
import threading
import time
from collections.abc import Iterator
from types import FrameType

LONGEST_NAP_SECONDS = 0.1

_n_asked = 0
"""How often Ctrl-C was pressed within the current `uninterrupted`."""


_is_asked = False
"""Whether Ctrl-C was pressed since `listen`."""


def listen() -> None:
    """Remember Ctrl-C from now on, because an import in progress may swallow the KeyboardInterrupt."""
    is_main = threading.current_thread() is threading.main_thread()
    if is_main and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _obey)


def _obey(number: int, frame: FrameType | None) -> None:
    global _is_asked
    _is_asked = True
    raise KeyboardInterrupt


def obey_lost() -> None:
    """Raise KeyboardInterrupt again if Ctrl-C was pressed but the exception was swallowed."""
    if _is_asked:
        raise KeyboardInterrupt


@contextlib.contextmanager
def uninterrupted() -> Iterator[None]:
    """Delay Ctrl-C to the end of the block; a second Ctrl-C takes effect at once. For steps shorter than a second.

    Does nothing if nested, outside the main thread, or if another handler for Ctrl-C is installed.
    """
    global _n_asked
    is_main = threading.current_thread() is threading.main_thread()
    before = signal.getsignal(signal.SIGINT)
    if not is_main or before not in (signal.default_int_handler, _obey):
        yield
        return
    _n_asked = 0
    signal.signal(signal.SIGINT, _note)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        asked, _n_asked = _n_asked, 0
        if asked:
            raise KeyboardInterrupt


def _note(number: int, frame: FrameType | None) -> None:
    global _n_asked
    _n_asked += 1
    if _n_asked > 1:
        raise KeyboardInterrupt


def wait(seconds: float) -> None:
    """Sleep for that many seconds; Ctrl-C ends the sleep, even within `uninterrupted`."""
    end = time.monotonic() + seconds
    while True:
        if _n_asked and threading.current_thread() is threading.main_thread():
            raise KeyboardInterrupt
        left = end - time.monotonic()
        if left <= 0:
            return
        time.sleep(min(left, LONGEST_NAP_SECONDS))


@contextlib.contextmanager
def deaf_children() -> Iterator[None]:
    """Block Ctrl-C for the processes started within the block, which inherit it. No effect on Windows."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    multiprocessing.resource_tracker.ensure_running()  # else the first child starts it, which unblocks Ctrl-C
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
