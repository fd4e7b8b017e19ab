"""The benchmark of tables runs on any machine, and a table is read without a second copy in memory."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = [sys.executable, str(ROOT / "benchmarks" / "bench_tables.py")]
pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="peak memory is measured by Unix's getrusage")


def run(*options: str) -> str:
    return subprocess.run([*SCRIPT, *options], cwd=ROOT, check=True, capture_output=True, text=True, timeout=120).stdout


def test_every_form_is_made_read_scored_and_exported() -> None:
    lines = run("--n_rows=500", "--n_features=8", "--forms", "npz").splitlines()
    assert [line.split()[1] for line in lines[2:]] == ["make", "read", "score", "export"]
    assert "500 x 8 in half precision" in lines[1]


def test_a_table_is_read_without_a_second_copy_in_memory(tmp_path: Path) -> None:
    n_rows, n_features = 60_000, 1024
    array_mb = n_rows * n_features * 4 / 1e6
    sizes = [f"--n_rows={n_rows}", f"--n_features={n_features}", "--precision=single", f"--folder={tmp_path}"]

    def step(name: str) -> dict[str, Any]:
        return json.loads(run(*sizes, "--forms", "parquet", f"--step={name}"))

    step("make")
    found = step("read")
    peak = found["peak_mb"] - found["before_mb"]
    assert array_mb < peak < 1.7 * array_mb, "a second copy would take more than twice the array"
