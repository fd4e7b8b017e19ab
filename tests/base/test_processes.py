"""Half-written files and the processes that they belong to."""

import gc
import os
import subprocess
import sys
import time

import pytest

from custom_aesthetic.base.files import write_atomically
from custom_aesthetic.base.processes import LEFTOVER_SECONDS, aside_name, imports, is_running, start_of, sweep


def test_a_process_is_running_until_it_ends():
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    assert is_running(os.getpid(), start_of(os.getpid()))
    assert not is_running(ended.pid, None)


@pytest.mark.skipif(start_of(os.getpid()) is None, reason="this system does not say when a process began")
def test_a_reused_process_number_is_not_the_same_process():
    start = start_of(os.getpid())
    assert start is not None
    assert not is_running(os.getpid(), start - 1)


def test_half_written_files_of_running_processes_are_kept(tmp_path):
    mine = aside_name("a.csv")
    ended = mine.replace(f"-{os.getpid()}-", "-999999999-")
    elsewhere = ".a.csv.00000000-999999999-1-00000000.part"
    for name in (mine, ended, elsewhere, "mine.part", "old.part", "a.csv"):
        (tmp_path / name).touch()
    long_ago = time.time() - LEFTOVER_SECONDS - 9
    os.utime(tmp_path / "old.part", (long_ago, long_ago))
    sweep(tmp_path)
    assert {file.name for file in tmp_path.iterdir()} == {mine, elsewhere, "mine.part", "a.csv"}


def test_writing_a_file_removes_half_written_files_of_killed_runs(tmp_path):
    left = tmp_path / aside_name("a.csv").replace(f"-{os.getpid()}-", "-999999999-")
    left.touch()
    write_atomically(tmp_path / "a.csv", b"1")
    assert [file.name for file in tmp_path.iterdir()] == ["a.csv"]


def test_files_with_long_or_non_utf8_names_can_be_written(tmp_path):
    for name in ("x" * 255, "\u00fc" * 127, "\udcff.csv"):
        write_atomically(tmp_path / name, b"1")
        assert (tmp_path / name).read_bytes() == b"1"


def test_imports_search_for_no_garbage_and_searching_goes_on_afterwards() -> None:
    with imports():
        assert not gc.isenabled()
    assert gc.isenabled()
    gc.disable()
    try:
        with imports():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()
        gc.unfreeze()
