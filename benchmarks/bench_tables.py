"""Time and memory of tables of features with made-up numbers: read to one array, scored, and exported.

    python benchmarks/bench_tables.py --n_rows=1000000 --n_features=768 --precision=half

The table is written in each form (parquet, npz, the folder of clip-retrieval) to a temporary folder, which is removed
afterwards; the full size takes 1.5 GB of disk and of memory at a time. Each step runs in a process of its own, so that
its peak memory is its own. `read` gives the features of all rows in another order than the file's, as training does;
`score` is what the folder scorer does with the table, in blocks; `export` writes the table again as parquet.
"""

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "src"))

from custom_aesthetic.features.parquet_parts import write_features
from custom_aesthetic.features.precomputed import PrecomputedTable, read_table
from custom_aesthetic.heads.model_file import load_model, save_model
from custom_aesthetic.heads.prediction import predict_table
from custom_aesthetic.heads.predictor import Predictor

TYPES: dict[str, type[np.floating]] = {"half": np.float16, "single": np.float32}
ROWS_AT_ONCE, N_DIFFERENT = 10_000, 500
N_FILES = 4
"""Of clip-retrieval."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n_rows", type=int, default=1_000_000)
    parser.add_argument("--n_features", type=int, default=768)
    parser.add_argument("--precision", choices=tuple(TYPES), default="half")
    parser.add_argument("--forms", nargs="+", choices=tuple(MAKERS), default=list(MAKERS))
    parser.add_argument("--folder", type=Path, help="where the temporary folder goes; default: the system's own")
    parser.add_argument("--step", choices=tuple(STEPS), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.step is not None:
        print(json.dumps(run_step(arguments)))
        return
    array_mb = arguments.n_rows * arguments.n_features * np.dtype(TYPES[arguments.precision]).itemsize / 1e6
    print(f"{platform.machine()}, {os.cpu_count()} cores, {time.strftime('%Y-%m-%d')}")
    print(f"{arguments.n_rows:,} x {arguments.n_features} in {arguments.precision} precision: {array_mb:,.0f} MB")
    for form in arguments.forms:
        with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
            for step in STEPS:
                found = in_own_process(arguments, form, step, folder)
                times = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in found["seconds"].items())
                own = found["peak_mb"] - found["before_mb"]
                peak = f"; peak memory {own:,.0f} MB ({own / array_mb:.2f} x the array)" if step != "make" else ""
                print(f"{form:14s} {step:6s} {times}{peak}", flush=True)


def in_own_process(arguments: argparse.Namespace, form: str, step: str, folder: str) -> dict:
    command = [sys.executable, __file__, f"--step={step}", f"--folder={folder}", "--forms", form]
    command += [f"--{name}={getattr(arguments, name)}" for name in ("n_rows", "n_features", "precision")]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)


def run_step(arguments: argparse.Namespace) -> dict[str, object]:
    """Return the seconds of a step, and the process's peak memory before it and after it, without the imports' own."""
    seconds: dict[str, float] = {}
    before = peak_mb()
    STEPS[arguments.step](arguments, seconds)
    return {"seconds": seconds, "peak_mb": peak_mb(), "before_mb": before}


def peak_mb() -> float:
    """Return the most memory that this process has held; on Linux, getrusage also counts its parent at the start."""
    status = Path("/proc/self/status")
    if status.exists():
        (line,) = (line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024 / 1e6
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e6


def make(arguments: argparse.Namespace, seconds: dict[str, float]) -> None:
    started = time.perf_counter()
    MAKERS[arguments.forms[0]](arguments)
    seconds["write"] = time.perf_counter() - started


def read(arguments: argparse.Namespace, seconds: dict[str, float]) -> None:
    table = opened(arguments, seconds)
    paths = [table.paths[row] for row in np.random.default_rng(1).permutation(len(table.paths))]
    started = time.perf_counter()
    values = table.load(paths).values
    seconds["features"] = time.perf_counter() - started
    assert values.shape == (arguments.n_rows, arguments.n_features)
    row = len(paths) // 2
    assert np.array_equal(values[row].numpy(), noise(arguments)[table.row_of[paths[row]] % N_DIFFERENT])


def score(arguments: argparse.Namespace, seconds: dict[str, float]) -> None:
    file = arguments.folder / "model.safetensors"
    save_model(file, Predictor(arguments.n_features, (300, 100), generator=torch.Generator().manual_seed(0)), {})
    table = opened(arguments, seconds)
    started = time.perf_counter()
    assert np.isfinite(predict_table(load_model(file), table).scores).all()
    seconds["scores"] = time.perf_counter() - started


def export(arguments: argparse.Namespace, seconds: dict[str, float]) -> None:
    table = opened(arguments, seconds)
    started = time.perf_counter()
    blocks = ((table.paths[start : start + len(values)], values) for start, values in table.blocks())
    write_features(arguments.folder / "exported.parquet", blocks)
    seconds["export"] = time.perf_counter() - started


STEPS: dict[str, Callable[[argparse.Namespace, dict[str, float]], None]] = {
    "make": make,
    "read": read,
    "score": score,
    "export": export,
}


def opened(arguments: argparse.Namespace, seconds: dict[str, float]) -> PrecomputedTable:
    started = time.perf_counter()
    table = read_table(place_of(arguments), arguments.folder)
    seconds["open"] = time.perf_counter() - started
    return table


def place_of(arguments: argparse.Namespace) -> Path:
    return arguments.folder / {"parquet": "t.parquet", "npz": "t.npz", "clip-retrieval": "out"}[arguments.forms[0]]


def noise(arguments: argparse.Namespace) -> NDArray[np.floating]:
    """Return the first rows of the table, which repeat: (N_DIFFERENT, n_features)."""
    values = np.random.default_rng(0).standard_normal((N_DIFFERENT, arguments.n_features), np.float32)
    return values.astype(TYPES[arguments.precision])


def blocks_of(arguments: argparse.Namespace) -> Iterator[tuple[list[str], NDArray[np.floating]]]:
    values = np.tile(noise(arguments), (ROWS_AT_ONCE // N_DIFFERENT, 1))
    for start in range(0, arguments.n_rows, ROWS_AT_ONCE):
        n = min(ROWS_AT_ONCE, arguments.n_rows - start)
        yield [f"{start // 1000:05d}/picture_{row:08d}.jpg" for row in range(start, start + n)], values[:n]


def make_parquet(arguments: argparse.Namespace) -> None:
    write_features(place_of(arguments), blocks_of(arguments))


def make_npz(arguments: argparse.Namespace) -> None:
    paths, values = zip(*blocks_of(arguments), strict=True)
    np.savez(place_of(arguments), paths=np.concatenate(paths), features=np.concatenate(values))


def make_clip_retrieval(arguments: argparse.Namespace) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    folder = place_of(arguments)
    (folder / "img_emb").mkdir(parents=True)
    (folder / "metadata").mkdir()
    paths, values = zip(*blocks_of(arguments), strict=True)
    for number, rows in enumerate(np.array_split(np.arange(arguments.n_rows), N_FILES)):
        np.save(folder / "img_emb" / f"img_emb_{number}.npy", np.concatenate(values)[rows[0] : rows[-1] + 1])
        names = np.concatenate(paths)[rows[0] : rows[-1] + 1].tolist()
        pq.write_table(pa.table({"image_path": names}), folder / "metadata" / f"metadata_{number}.parquet")


MAKERS = {"parquet": make_parquet, "npz": make_npz, "clip-retrieval": make_clip_retrieval}


if __name__ == "__main__":
    main()
