"""A process group ends with the process that created it, however that ends; tested with real processes."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

PATIENCE_SECONDS = 60
GRANDCHILD = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(300)"
SCRIPT = f"""
import subprocess, sys, time
from pathlib import Path
from custom_aesthetic.base.process_group import run_in_group

def work():
    started = [subprocess.Popen([sys.executable, "-c", {GRANDCHILD!r}]) for _ in range(2)]
    Path("numbers.aside").write_text(" ".join(str(one.pid) for one in started))
    Path("numbers.aside").rename("numbers")
    WHAT

run_in_group(work)
"""

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="Windows has no process groups of this kind")


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[[str], tuple[subprocess.Popen[bytes], list[int]]]]:
    """Start the script with the last line of its work; return it and the processes that its child has started."""
    scripts: list[subprocess.Popen[bytes]] = []

    def run(what: str) -> tuple[subprocess.Popen[bytes], list[int]]:
        script = subprocess.Popen([sys.executable, "-c", SCRIPT.replace("WHAT", what)], cwd=tmp_path)
        scripts.append(script)
        wait_until((tmp_path / "numbers").exists)
        return script, [int(number) for number in (tmp_path / "numbers").read_text().split()]

    yield run
    for script in scripts:
        script.kill()
        script.wait()


def wait_until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def is_gone(number: int) -> bool:
    """Return whether a process has ended; a zombie has ended."""
    status = Path(f"/proc/{number}/stat")
    if Path("/proc/self/stat").exists():
        try:
            return status.read_text().rpartition(")")[2].split()[0] in "ZX"
        except OSError:
            return True
    try:
        os.kill(number, 0)
    except ProcessLookupError:
        return True
    return False


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGKILL])
def test_no_process_outlives_the_script(start: Callable, number: signal.Signals) -> None:
    script, started = start("time.sleep(300)")
    assert not any(is_gone(one) for one in started)
    script.send_signal(number)
    assert script.wait(PATIENCE_SECONDS) != 0
    wait_until(lambda: all(is_gone(one) for one in started))


@pytest.mark.parametrize("n_signals", [1, 2])
def test_a_child_that_ignores_signals_is_killed_and_the_status_is_that_of_the_first_signal(
    start: Callable, tmp_path: Path, n_signals: int
) -> None:
    deaf = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); Path('deaf').touch(); time.sleep(300)"
    script, started = start(deaf)
    wait_until((tmp_path / "deaf").exists)
    for _ in range(n_signals):
        script.send_signal(signal.SIGTERM)
    assert script.wait(PATIENCE_SECONDS) == 128 + signal.SIGTERM
    wait_until(lambda: all(is_gone(one) for one in started))


@pytest.mark.parametrize(("what", "status"), [("pass", 0), ("sys.exit(2)", 2), ("raise RuntimeError", 1)])
def test_the_exit_status_is_that_of_the_work_and_no_process_remains(start: Callable, what: str, status: int) -> None:
    script, started = start(what)
    assert script.wait(PATIENCE_SECONDS) == status
    wait_until(lambda: all(is_gone(one) for one in started))
