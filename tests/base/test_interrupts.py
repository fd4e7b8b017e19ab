"""Ctrl-C put off, and children that do not hear it."""

import os
import signal
import subprocess
import sys
import threading

import pytest

from custom_aesthetic.base.interrupts import deaf_children, uninterrupted, wait
from tests.conftest import ROOT

only_posix = pytest.mark.skipif(sys.platform == "win32", reason="signals to oneself are POSIX's")


def press() -> None:
    os.kill(os.getpid(), signal.SIGINT)


@only_posix
def test_ctrl_c_comes_at_the_end_of_what_is_not_to_be_torn_apart() -> None:
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
def test_a_second_ctrl_c_is_obeyed_at_once() -> None:
    done = []
    with pytest.raises(KeyboardInterrupt), uninterrupted():
        press()
        done.append(1)
        press()
        done.append(2)
    assert done == [1]


@only_posix
def test_waiting_ends_by_a_ctrl_c_that_was_put_off() -> None:
    done = []
    with pytest.raises(KeyboardInterrupt), uninterrupted():
        press()
        wait(3600)
        done.append(1)
    assert not done
    wait(0.01)  # a former one is forgotten


@only_posix
def test_an_error_meanwhile_does_not_hide_ctrl_c() -> None:
    with pytest.raises(KeyboardInterrupt), uninterrupted():
        press()
        raise ValueError


def test_errors_pass_and_other_threads_and_handlers_are_left_alone() -> None:
    with pytest.raises(ValueError, match="own"), uninterrupted():
        raise ValueError("own")
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
def test_a_ctrl_c_that_was_swallowed_is_obeyed_later() -> None:
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
def test_children_do_not_hear_ctrl_c_and_this_process_does_afterwards() -> None:
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
