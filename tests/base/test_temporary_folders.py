"""Temporary folders of processes that were killed."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from custom_aesthetic.base.processes import folder_prefix, start_of, sweep_folders

LEAVE = """
import os, sys, tempfile
from custom_aesthetic.base.processes import folder_prefix
print(tempfile.mkdtemp(prefix=folder_prefix(), dir=sys.argv[1]), flush=True)
os.kill(os.getpid(), 9)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows does not say whether a process runs")
def test_only_folders_of_ended_processes_are_removed(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", LEAVE, str(tmp_path)], stdout=subprocess.PIPE, text=True, check=False)
    left = Path(done.stdout.strip())
    (left / "features_0").write_bytes(b"a copy of all features")
    alive = Path(tempfile.mkdtemp(prefix=folder_prefix(), dir=tmp_path))
    others = [tmp_path / name for name in ("aesthetic-notes", "aesthetic-pg-abc", "aesthetic-00000000-1-2-abc")]
    for folder in others:
        folder.mkdir()
    linked = tmp_path / (left.name[:-1] + ("a" if left.name.endswith("_") else "_"))
    linked.symlink_to(alive, target_is_directory=True)
    sweep_folders(tmp_path)
    assert not left.exists()
    assert {alive, linked, *others} == set(tmp_path.iterdir())


@pytest.mark.skipif(start_of(os.getpid()) is None, reason="the system does not say when a process began")
def test_a_reused_process_number_does_not_protect_a_folder(tmp_path: Path) -> None:
    prefix = folder_prefix().removesuffix(f"-{start_of(os.getpid())}-")
    folder = tmp_path / f"{prefix}-1-abcd_efg"
    folder.mkdir()
    sweep_folders(tmp_path)
    assert not folder.exists()
