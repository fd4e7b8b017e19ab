"""What every script does around its work."""

import gc
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from custom_aesthetic.base.errors import UserError
from custom_aesthetic.settings.console import PASSIVE_WAITING, WAITING_OPTIONS, run_script, wait_passively
from tests.conftest import ROOT

SCRIPTS = sorted(file.stem for file in ROOT.glob("aesthetic_*.py"))


@pytest.fixture(autouse=True)
def _thawed() -> Iterator[None]:
    gc.unfreeze()
    yield
    gc.unfreeze()


@pytest.mark.parametrize(
    ("error", "code"), [(None, 0), (KeyboardInterrupt(), 130), (UserError("no pictures"), 2)], ids=str
)
def test_a_script_ends_without_a_final_garbage_collection(error: BaseException | None, code: int) -> None:
    def run(argv: Sequence[str]) -> None:
        if error is not None:
            raise error

    assert run_script(run) == code
    assert gc.get_freeze_count() > 0


@pytest.fixture
def no_waiting_options(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in WAITING_OPTIONS:
        monkeypatch.setenv(name, "")  # so that it is put back whatever the test does
        monkeypatch.delenv(name)


@pytest.mark.usefixtures("no_waiting_options")
def test_waiting_threads_sleep_in_every_script_that_does_not_say_otherwise() -> None:
    assert run_script(lambda argv: None) == 0
    assert {name: os.environ.get(name) for name in PASSIVE_WAITING} == PASSIVE_WAITING


@pytest.mark.usefixtures("no_waiting_options")
@pytest.mark.parametrize("option", WAITING_OPTIONS)
def test_how_threads_wait_stays_as_the_user_chose(monkeypatch: pytest.MonkeyPatch, option: str) -> None:
    monkeypatch.setenv(option, "1")
    wait_passively()
    assert {name for name in WAITING_OPTIONS if name in os.environ} == {option}


TORCH_IN_A_WORKER = """
import multiprocessing, sys

def load():
    import torch

def run(argv):
    assert "torch" not in sys.modules
    worker = multiprocessing.get_context("spawn").Process(target=load)
    worker.start()
    worker.join()
    load()

if __name__ == "__main__":
    {imports}
    from custom_aesthetic.settings.console import run_script
    sys.exit(run_script(run))
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="asks GNU's OpenMP, which torch has on Linux")
@pytest.mark.usefixtures("no_waiting_options")
def test_torch_and_the_torch_of_worker_processes_are_loaded_with_threads_that_sleep(tmp_path: Path) -> None:
    """Beside the imports of all scripts, none of which loads torch."""
    program = tmp_path / "program.py"
    program.write_text(TORCH_IN_A_WORKER.format(imports=f"import {', '.join(SCRIPTS)}"))
    environment = {**os.environ, "OMP_DISPLAY_ENV": "VERBOSE", "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}"}
    done = subprocess.run([sys.executable, program], env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("GOMP_SPINCOUNT = '0'") == done.stderr.count("GOMP_SPINCOUNT") >= 2
