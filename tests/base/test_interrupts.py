"""Delayed Ctrl-C, and child processes that ignore it."""

import signal
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest

from custom_aesthetic.base.interrupts import deaf_children, uninterrupted, wait
from tests.conftest import ROOT

only_posix = pytest.mark.skipif(sys.platform == "win32", reason="signals to oneself are POSIX's")


@pytest.fixture(autouse=True)
def the_handler_of_a_new_process() -> Iterator[None]:
    """Start from Python's own handler: a test that ran a script in this process has left another one."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def press() -> None:
    signal.raise_signal(signal.SIGINT)  # os.kill may reach another thread first, and this one too late


@only_posix
def test_ctrl_c_waits_until_the_end_of_a_protected_block() -> None:
    done = []
    with pytest.raises(KeyboardInterrupt):
        with uninterrupted():
            press()
            with uninterrupted():
                done.append("within")
            done.append("all")
        done.append("too far")
    assert done == ["within", "all"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@only_posix
def test_a_second_ctrl_c_interrupts_at_once() -> None:
    done = []
    with pytest.raises(KeyboardInterrupt), uninterrupted():
        press()
        done.append(1)
        press()
        done.append(2)
    assert done == [1]


@only_posix
def test_a_delayed_ctrl_c_ends_waiting() -> None:
    done = []
    with pytest.raises(KeyboardInterrupt), uninterrupted():
        press()
        wait(3600)
        done.append(1)
    assert not done
    wait(0.01)  # an earlier one is forgotten


@only_posix
def test_an_error_in_a_protected_block_does_not_hide_ctrl_c() -> None:
    with pytest.raises(KeyboardInterrupt), uninterrupted():
        press()
        raise ValueError


def test_protected_blocks_pass_errors_and_leave_other_threads_and_handlers_alone() -> None:
    with pytest.raises(ValueError, match="from the block"), uninterrupted():
        raise ValueError("from the block")
    seen = []

    def look() -> None:
        with uninterrupted():
            seen.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        look()
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    assert seen == [signal.default_int_handler, signal.SIG_IGN]


@only_posix
def test_a_swallowed_ctrl_c_is_raised_later() -> None:
    program = (
        "import os, signal\n"
        "from custom_aesthetic.base.interrupts import listen, obey_lost, uninterrupted\nlisten()\nobey_lost()\n"
        "try:\n    os.kill(os.getpid(), signal.SIGINT)\nexcept BaseException:\n    pass\n"
        "with uninterrupted():\n    print('cleaned up')\n"
        "try:\n    obey_lost()\nexcept KeyboardInterrupt:\n    print('obeyed')"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.split("\n") == ["cleaned up", "obeyed", ""]


@only_posix
def test_children_ignore_ctrl_c_but_this_process_does_not() -> None:
    heard = False
    try:
        with deaf_children():
            child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
            press()
    except KeyboardInterrupt:
        heard = True
    assert heard
    child.send_signal(signal.SIGINT)
    child.communicate(b"\n", timeout=60)
    assert child.returncode == 0
