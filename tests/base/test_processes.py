"""Half-written files and the processes that they belong to."""

import os
import subprocess
import sys
import time

import pytest

from custom_aesthetic.base.files import write_atomically
from custom_aesthetic.base.processes import LEFTOVER_SECONDS, aside_name, is_running, start_of, sweep


def test_this_process_runs_and_one_that_has_ended_does_not():
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    assert is_running(os.getpid(), start_of(os.getpid()))
    assert not is_running(ended.pid, None)


@pytest.mark.skipif(start_of(os.getpid()) is None, reason="this system does not say when a process began")
def test_a_number_that_another_process_uses_again_does_not_count():
    start = start_of(os.getpid())
    assert start is not None
    assert not is_running(os.getpid(), start - 1)


def test_only_half_written_files_without_a_process_are_removed(tmp_path):
    mine = aside_name("a.csv")
    ended = mine.replace(f"-{os.getpid()}-", "-999999999-")
    elsewhere = ".a.csv.00000000-999999999-1-00000000.part"
    for name in (mine, ended, elsewhere, "mine.part", "old.part", "a.csv"):
        (tmp_path / name).touch()
    long_ago = time.time() - LEFTOVER_SECONDS - 9
    os.utime(tmp_path / "old.part", (long_ago, long_ago))
    sweep(tmp_path)
    assert {file.name for file in tmp_path.iterdir()} == {mine, elsewhere, "mine.part", "a.csv"}


def test_writing_a_file_removes_what_a_killed_run_left_beside_it(tmp_path):
    left = tmp_path / aside_name("a.csv").replace(f"-{os.getpid()}-", "-999999999-")
    left.touch()
    write_atomically(tmp_path / "a.csv", b"1")
    assert [file.name for file in tmp_path.iterdir()] == ["a.csv"]


def test_names_of_any_length_and_bytes_can_be_written(tmp_path):
    for name in ("x" * 255, "\u00fc" * 127, "\udcff.csv"):
        write_atomically(tmp_path / name, b"1")
        assert (tmp_path / name).read_bytes() == b"1"
