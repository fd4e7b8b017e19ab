"""Progress of long work: a bar or a line that is updated on a terminal, a line now and then elsewhere."""

import contextlib
import logging
import sys
import time
from collections.abc import Iterator

from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

log = logging.getLogger(__name__)

SECONDS_BETWEEN_LINES = 15.0
"""Where there is no terminal, such as in a log file."""


def is_terminal() -> bool:
    """Return whether a person watches: both output streams are terminals."""
    return sys.stdout.isatty() and sys.stderr.isatty()


class Progress:
    """The part of some work that is done: a bar on a terminal; elsewhere a line at the start and now and then."""

    def __init__(self, n_wanted: int, description: str, unit: str, *, is_shown: bool = True) -> None:
        self._n_wanted, self._n_done = n_wanted, 0
        self._description, self._unit = description, unit
        self._is_logged = is_shown and not is_terminal()
        self._next_line = time.monotonic() + SECONDS_BETWEEN_LINES
        self._bar = tqdm(
            total=n_wanted, desc=description, unit=f" {unit}", smoothing=0.1, disable=not is_shown or self._is_logged
        )
        if self._is_logged:
            log.info("%s: %d %s", description, n_wanted, unit)

    def update(self, n_more: int = 1) -> None:
        """Count more as done."""
        self._n_done += n_more
        self._bar.update(n_more)
        if self._is_logged and time.monotonic() > self._next_line:
            self._next_line = time.monotonic() + SECONDS_BETWEEN_LINES
            log.info("%s: %d of %d %s done", self._description, self._n_done, self._n_wanted, self._unit)

    def close(self) -> None:
        """Leave the bar on the screen."""
        self._bar.close()


@contextlib.contextmanager
def progress_of(n_wanted: int, description: str, unit: str, *, is_shown: bool = True) -> Iterator[Progress]:
    """Yield the progress of work in the block, which says by `update` what it has done."""
    progress = Progress(n_wanted, description, unit, is_shown=is_shown)
    try:
        yield progress
    finally:
        progress.close()


class StatusLine:
    """A line that replaces itself on a terminal; elsewhere each is a line of the log."""

    def __init__(self) -> None:
        self._bar = tqdm(total=0, bar_format="{desc}") if is_terminal() else None

    def show(self, text: str) -> None:
        """Show the text in place of the one before."""
        if self._bar is None:
            log.info("%s", text)
        else:
            self._bar.set_description_str(text)

    def close(self) -> None:
        """Leave the last text on the screen."""
        if self._bar is not None:
            self._bar.close()


@contextlib.contextmanager
def status_line() -> Iterator[StatusLine]:
    """Yield a status line; within the block messages of the log stand above it."""
    line = StatusLine()
    try:
        if line._bar is None:
            yield line
        else:
            with logging_redirect_tqdm(loggers=[logging.getLogger("custom_aesthetic")]):
                yield line
    finally:
        line.close()
