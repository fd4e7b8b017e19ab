"""Progress on a terminal, in a log file, and among messages."""

import io
import logging
import sys

import pytest

from custom_aesthetic.base import progress
from custom_aesthetic.base.progress import progress_of, status_line


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def open_terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """Redirect both output streams and return the buffer; call it within a test, because pytest resets them."""
    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setattr(sys, "stdout", screen)
    return screen


def test_without_a_terminal_progress_is_logged_in_whole_lines(
    capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO, logger="custom_aesthetic")
    clock = iter(range(0, 1000, 6))
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    with progress_of(10, "features", "pictures") as done, status_line() as line:
        for number in range(10):
            done.update()
            line.show(f"trial {number}")
    written = capsys.readouterr()
    assert written.err == ""
    assert "\r" not in written.out
    counted = [text for text in caplog.messages if text.startswith("features")]
    assert counted[0] == "features: 10 pictures"
    assert counted[1] == "features: 3 of 10 pictures done"
    assert 3 <= len(counted) <= 5, "not one line per picture"
    assert [text for text in caplog.messages if text.startswith("trial")] == [f"trial {number}" for number in range(10)]


def test_on_a_terminal_one_line_is_updated_below_the_messages(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = open_terminal(monkeypatch)
    handler = logging.StreamHandler(sys.stdout)
    logger = logging.getLogger("custom_aesthetic")
    logger.addHandler(handler)
    try:
        with status_line() as line:
            line.show("trial 1")
            logger.warning("a worker died")
            line.show("trial 2")
    finally:
        logger.removeHandler(handler)
    shown = terminal.getvalue()
    assert "\rtrial 1" in shown
    assert "\rtrial 2" in shown
    assert "a worker died\n" in shown
    assert shown.count("\n") == 2, "the message, and the end of the line"


def test_on_a_terminal_progress_is_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = open_terminal(monkeypatch)
    with progress_of(10, "features", "pictures") as done:
        done.update(10)
    assert "features: 100%" in terminal.getvalue()
    assert "10/10" in terminal.getvalue()


def test_hidden_progress_prints_nothing(capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="custom_aesthetic")
    with progress_of(10, "features", "pictures", is_shown=False) as done:
        done.update(10)
    assert not caplog.messages
    assert capsys.readouterr().err == ""
