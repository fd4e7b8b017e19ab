"""The benchmark of features runs on any machine and names the bound."""

import re
import subprocess
import sys
from pathlib import Path

from tests.mean_colour import make_pictures

ROOT = Path(__file__).resolve().parents[2]


def test_the_table_for_random_weights_is_whole_and_consistent(tmp_path: Path) -> None:
    make_pictures(tmp_path, 6)
    command = [sys.executable, "-m", "benchmarks.bench_features", f"--directory={tmp_path}", "--random_vit=tiny"]
    command += ["--device=cpu", "--n_pictures=12", "--rounds=1", "--max_batch_size=2"]

    output = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True, timeout=120).stdout

    found = dict(re.findall(r"^  (\([abc]\)(?: / \([abc]\))?|  *\w+ alone, \d+ threads).*?  +([\d.]+)", output, re.M))
    assert "12 pictures of" in output and "random_vit_tiny on cpu" in output
    assert all(float(found[name]) > 0 for name in ("(a)", "(b)", "(c)", "(b) / (c)", "(b) / (a)"))
    assert re.search(r"\(c\) bound +[\d.]+  (decoding|the model) binds", output)
    alone = [float(rate) for rate in re.findall(r"^    .* alone, .* threads(?: each)? +([\d.]+)$", output, re.M)]
    assert len(alone) == 2 and float(found["(c)"]) == min(alone)
