"""Ctrl-C put off over steps that must not be torn apart, such as taking a trial and noting who runs it."""

import contextlib
import multiprocessing.resource_tracker
import signal
import threading
import time
from collections.abc import Iterator
from types import FrameType

LONGEST_NAP_SECONDS = 0.1

_n_asked = 0
"""How often Ctrl-C was pressed within the present `uninterrupted`."""


_is_asked = False
"""Whether Ctrl-C was pressed at all, since `listen`."""


def listen() -> None:
    """Remember that Ctrl-C was pressed: an import that is under way may swallow the exception that it raises."""
    is_main = threading.current_thread() is threading.main_thread()
    if is_main and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _obey)


def _obey(number: int, frame: FrameType | None) -> None:
    global _is_asked
    _is_asked = True
    raise KeyboardInterrupt


def obey_lost() -> None:
    """Raise the KeyboardInterrupt that was raised before and swallowed; for places that one does not reach after it."""
    if _is_asked:
        raise KeyboardInterrupt


@contextlib.contextmanager
def uninterrupted() -> Iterator[None]:
    """Put Ctrl-C off to the end of this; the second one is obeyed at once. For steps of a fraction of a second.

    Does nothing within itself, outside the main thread, and where Ctrl-C has another meaning.
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
    """Sleep; Ctrl-C ends it, also one that was put off."""
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
    """Keep Ctrl-C from the processes started meanwhile: they inherit that it is blocked. Not on Windows."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    multiprocessing.resource_tracker.ensure_running()  # starting it, as the first child does, would unblock Ctrl-C
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
