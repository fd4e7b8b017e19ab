"""Do score files, splits, folds and near-duplicates stay cheap as pictures become many? Made-up data, seeded.

    python -m benchmarks.bench_scores                 # a million rows; some minutes
    python -m benchmarks.bench_scores --rows=100000   # quicker

It prints for each form of a score file: its size, the peak memory of reading it (that of a process which reads it,
minus that of a process which only imports the same modules) as a multiple of the size, and the time. Then it prints the
time of a new split and of four folds at a tenth of the rows and at all of them, and of the search for near-duplicates
at 10,000, 20,000 and 40,000 pictures: twice the pictures should take little more than twice the time.
"""

import argparse
import json
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from custom_aesthetic.scores.duplicates import group_duplicates
from custom_aesthetic.scores.folds import make_folds
from custom_aesthetic.scores.score_files import ScoreTable, write_csv, write_json
from custom_aesthetic.scores.splits import assign_splits

SOURCES = str(Path(__file__).resolve().parent.parent / "src")
N_FEATURES = 1280
N_DIRECTIONS = 40
"""Along which the features of different pictures vary, roughly as those of photographs."""

IN_A_CHILD = """
import json, resource, sys, time
from pathlib import Path
from custom_aesthetic.scores.score_files import read_scores
start = time.process_time()
n_rows = len(read_scores(Path(sys.argv[1]))) if len(sys.argv) > 1 else 0
seconds = time.process_time() - start
scale = 1 if sys.platform == "darwin" else 1024
print(json.dumps([n_rows, seconds, scale * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss]))
"""


def make_paths(n_rows: int) -> tuple[str, ...]:
    return tuple(f"{row % 97:02}/{row:07}.jpg" for row in range(n_rows))


FILES = {
    "AB scorer's JSON": "scores.json",
    "the same on one line": "one_line.json",
    "older JSON": "older.json",
    "with a text for a score": "text.json",
    "CSV": "scores.csv",
}


def write_files(folder: Path, n_rows: int) -> None:
    """Write the same rows in every form."""
    generator = np.random.default_rng(0)
    paths = make_paths(n_rows)
    scores = generator.normal(size=n_rows).round(4).tolist()
    comparisons = generator.integers(1, 30, n_rows).tolist()
    table = ScoreTable(paths, {"score": scores, "comparisons": comparisons})
    write_json(folder / FILES["AB scorer's JSON"], table)
    records = json.loads((folder / FILES["AB scorer's JSON"]).read_bytes())
    (folder / FILES["the same on one line"]).write_text(json.dumps(records), encoding="utf-8")
    older = dict(zip(paths, map(list, zip(scores, comparisons, strict=True)), strict=True))
    (folder / FILES["older JSON"]).write_text(json.dumps(older), encoding="utf-8")
    older[paths[-1]][0] = str(scores[-1])
    (folder / FILES["with a text for a score"]).write_text(json.dumps(older), encoding="utf-8")
    write_csv(folder / FILES["CSV"], table)


def measure(*arguments: str) -> tuple[int, float, int]:
    """Return the rows read, the seconds, and the most bytes of memory, of a process of its own."""
    command = [sys.executable, "-c", IN_A_CHILD, *arguments]
    done = subprocess.run(
        command, env={**os.environ, "PYTHONPATH": SOURCES}, capture_output=True, text=True, check=True
    )
    n_rows, seconds, n_bytes = json.loads(done.stdout)
    return n_rows, seconds, n_bytes


def report_files(n_rows: int) -> None:
    baseline = measure()[2]
    with tempfile.TemporaryDirectory() as folder:
        # By a process of its own: the peak of a child begins at what its parent holds.
        writer = multiprocessing.get_context("spawn").Process(target=write_files, args=(Path(folder), n_rows))
        writer.start()
        writer.join()
        for form, name in FILES.items():
            file = Path(folder) / name
            n_read, seconds, n_bytes = measure(str(file))
            assert n_read == n_rows
            size = file.stat().st_size
            times = (n_bytes - baseline) / size
            print(
                f"{form:24} {n_rows:>9,} rows, {size / 1e6:6.1f} MB: {times:4.1f} times the file, {seconds:5.2f} s of "
                "processor time",
                flush=True,
            )


def report_growth(name: str, sizes: list[int], make: Callable[[int], Callable[[], object]]) -> None:
    """Print the time of the function that `make` returns for each size, and by how much it grows."""
    before: tuple[int, float] | None = None
    for size in sizes:
        run = make(size)
        start = time.process_time()
        run()
        seconds = time.process_time() - start
        growth = f", {seconds / before[1]:4.1f} times that of {before[0]:,}" if before else ""
        print(f"{name:18} {size:>9,} pictures: {seconds:6.2f} s of processor time{growth}", flush=True)
        before = size, seconds


def splitting(n_rows: int) -> Callable[[], object]:
    paths = make_paths(n_rows)
    groups = {path: paths[row - row % 5] for row, path in enumerate(paths[: n_rows // 2])}
    return lambda: assign_splits(paths, {}, fraction_for_eval=0.25, fraction_for_test=0.1, seed=42, groups=groups)


def folding(n_rows: int) -> Callable[[], object]:
    paths = make_paths(n_rows)
    groups = {path: paths[row - row % 5] for row, path in enumerate(paths[: n_rows // 2])}
    return lambda: make_folds(paths, np.arange(n_rows), 4, seed=42, groups=groups)


def made_up_features(n_pictures: int, n_features: int = N_FEATURES) -> np.ndarray:
    """Return features of which one in ten pictures is a variation of another, (n_pictures, n_features)."""
    generator = np.random.default_rng(0)
    spread = 1 / np.sqrt(1 + np.arange(N_DIRECTIONS))
    axes = generator.normal(size=(N_DIRECTIONS, n_features)).astype(np.float32)
    features = (generator.normal(size=(n_pictures, N_DIRECTIONS)) * spread).astype(np.float32) @ axes
    features += generator.normal(scale=0.5, size=features.shape).astype(np.float32)
    copies = generator.permutation(n_pictures)[: n_pictures // 10]
    noise = generator.normal(scale=0.3, size=(len(copies), n_features)).astype(np.float32)
    features[copies] = features[generator.permutation(n_pictures)[: len(copies)]] + noise
    return features


def grouping(n_pictures: int) -> Callable[[], object]:
    paths, features = make_paths(n_pictures), made_up_features(n_pictures)
    return lambda: group_duplicates(paths, features)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000, help="rows of the score files")
    parser.add_argument("--pictures", type=int, default=10_000, help="fewest pictures among near-duplicates")
    arguments = parser.parse_args()
    report_files(arguments.rows)
    report_growth("new split", [arguments.rows // 10, arguments.rows], splitting)
    report_growth("four folds", [arguments.rows // 10, arguments.rows], folding)
    report_growth("near-duplicates", [arguments.pictures * times for times in (1, 2, 4)], grouping)


if __name__ == "__main__":
    main()
