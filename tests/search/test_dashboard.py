"""Serving of optuna-dashboard during and after a training."""

import logging
import os
import re
import signal
import socket
import time
import urllib.error
import urllib.request
from pathlib import Path

import optuna
import pytest

from custom_aesthetic.base.errors import UserError
from custom_aesthetic.search.dashboard import free_port, serve_dashboard, start_dashboard
from custom_aesthetic.search.storage import close_storage, open_storage


def answer_of(address: str) -> str:
    """Return the dashboard's list of studies, after waiting for it to start."""
    for _ in range(300):
        try:
            with urllib.request.urlopen(f"{address}api/studies", timeout=10) as answer:
                return answer.read().decode()
        except (urllib.error.URLError, ConnectionError):
            time.sleep(0.2)
    raise AssertionError("the dashboard did not start")


@pytest.fixture
def database(tmp_path: Path) -> str:
    url = f"sqlite:///{tmp_path}/db.sqlite"
    storage = open_storage(url)
    optuna.create_study(study_name="my taste", storage=storage)
    close_storage(storage)
    return url


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # `on` leaves its process running
@pytest.mark.parametrize("mode", ["on", "daemon"])
def test_the_dashboard_shows_the_study_and_ends_according_to_its_mode(
    database: str, caplog: pytest.LogCaptureFixture, mode: str
) -> None:
    caplog.set_level(logging.INFO, logger="custom_aesthetic")
    with serve_dashboard(mode, database):
        address = re.findall(r"http://127\.0\.0\.1:\d+/", caplog.text)[0]
        assert "my taste" in answer_of(address)
    if mode == "daemon":
        with pytest.raises(urllib.error.URLError):
            urllib.request.urlopen(address, timeout=10)
        return
    assert "my taste" in answer_of(address)
    process = int(re.findall(r"end process (\d+)", caplog.text)[0])
    os.kill(process, signal.SIGTERM)
    os.waitpid(process, 0)


@pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="needs /proc")
def test_the_command_line_of_the_dashboard_does_not_show_its_database(database: str) -> None:
    process, _ = start_dashboard(f"{database}?password=hush")
    try:
        for name in ("cmdline", "environ"):
            assert b"hush" not in Path(f"/proc/{process.pid}/{name}").read_bytes()
        assert b"sqlite" not in Path(f"/proc/{process.pid}/cmdline").read_bytes()
    finally:
        process.terminate()
        process.wait()


def test_a_study_that_is_not_saved_cannot_be_shown() -> None:
    with pytest.raises(UserError, match="--database is empty"), serve_dashboard("on", ""):
        pass


def test_a_port_in_use_is_skipped() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        assert free_port(port) > port
