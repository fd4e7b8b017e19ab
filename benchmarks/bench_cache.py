"""Time and memory of the feature cache with made-up features: build, reopen, load into a tensor.

    python benchmarks/bench_cache.py --n_pictures=1000000 --width=1280

The pictures are empty files in a temporary folder (the cache uses only path, size and time), which is removed
afterwards. The full size takes 2.6 GB of disk and about as much memory. Each step runs in a separate process, so that
its peak memory can be measured. `without work` is the time that a run needs if all features are cached: find the
pictures, read the size and time of each, and look them up in the cache.
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
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "src"))

from custom_aesthetic.features.cache import FeatureSet, open_feature_set
from custom_aesthetic.features.cache_folders import cache_folders
from custom_aesthetic.features.picture_keys import Pictures
from custom_aesthetic.features.table import load_features
from custom_aesthetic.pictures.folders import find_images

FOLDER_SIZE = 1000


class MadeUp:
    """An extractor whose features are all in the cache; it must never run."""

    name = "made-up"
    fingerprint = "made-up 1"
    n_hidden_states = 1
    default_hidden_states: tuple[int, ...] = (0,)
    default_mode = "join"
    target_size = 224

    def transform(self, image: Image.Image, view: str = "centre") -> Tensor:
        raise AssertionError("the cache should hold everything")

    def features(self, pixels: Tensor, hidden_states: Sequence[int]) -> dict[int, Tensor]:
        raise AssertionError("the cache should hold everything")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n_pictures", type=int, default=100_000)
    parser.add_argument("--width", type=int, default=1280)
    parser.add_argument("--batch_size", type=int, default=8)
    parser.add_argument("--folder", type=Path, help="parent of the temporary folder; default: the system's")
    parser.add_argument("--step", choices=tuple(STEPS), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.step is not None:
        print(json.dumps(run_step(arguments)))
        return
    features_mb = arguments.n_pictures * arguments.width * 2 / 1e6
    print(f"{platform.machine()}, {os.cpu_count()} cores, {time.strftime('%Y-%m-%d')}")
    print(f"{arguments.n_pictures} pictures x {arguments.width} half-precision features: {features_mb:.0f} MB")
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        make_pictures(Path(folder), arguments.n_pictures)
        for step in STEPS:
            command = [sys.executable, __file__, f"--step={step}", f"--folder={folder}"]
            command += [f"--{name}={getattr(arguments, name)}" for name in ("n_pictures", "width", "batch_size")]
            found = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
            share = found["peak_mb"] / features_mb
            times = ", ".join(f"{name} {seconds:.2f} s" for name, seconds in found["seconds"].items())
            print(f"{step:7s} {times}; peak memory {found['peak_mb']:.0f} MB ({share:.2f} x the features)", flush=True)


def make_pictures(folder: Path, n_pictures: int) -> None:
    for i in range(n_pictures):
        parent = folder / f"{i // FOLDER_SIZE:05d}"
        if i % FOLDER_SIZE == 0:
            parent.mkdir()
        (parent / f"picture_{i:08d}.jpg").touch()


def run_step(arguments: argparse.Namespace) -> dict[str, object]:
    seconds: dict[str, float] = {}
    STEPS[arguments.step](arguments, seconds)
    unit = 1 if sys.platform == "darwin" else 1024
    return {"seconds": seconds, "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6}


def build(arguments: argparse.Namespace, seconds: dict[str, float]) -> None:
    """Add the features to the cache in batches, as a run does, and compact it."""
    feature_set = made_up_set(arguments.folder)
    with timed(seconds, "find and look at"):
        pictures = Pictures(arguments.folder, find_images(arguments.folder))
    generator = np.random.default_rng(0)
    noise = generator.standard_normal((10_000, arguments.width), np.float32).astype(np.float16)
    with timed(seconds, "write"):
        for start in range(0, len(pictures.keys), arguments.batch_size):
            rows = np.arange(start, min(start + arguments.batch_size, len(pictures.keys)))
            feature_set.add(pictures.keys.take(rows), noise[rows % len(noise)])
    with timed(seconds, "compact"):
        feature_set.compact(pictures)


def reopen(arguments: argparse.Namespace, seconds: dict[str, float]) -> None:
    with timed(seconds, "without work, in all"):
        with timed(seconds, "find"):
            paths = find_images(arguments.folder)
        with timed(seconds, "look at"):
            pictures = Pictures(arguments.folder, paths)
        with timed(seconds, "index"):
            located = made_up_set(arguments.folder).locate(pictures)
    assert (located.shard_of >= 0).all()


def load(arguments: argparse.Namespace, seconds: dict[str, float]) -> None:
    with timed(seconds, "find, look at, index and load"):
        paths = find_images(arguments.folder)
        table = load_features(arguments.folder, paths, [MadeUp()], fp16=True, show_progress=False)
    assert table.values.shape == (arguments.n_pictures, arguments.width) and table.values.dtype == torch.float16


STEPS = {"build": build, "reopen": reopen, "load": load}


def made_up_set(folder: Path) -> FeatureSet:
    folders, extractor = cache_folders(folder), MadeUp()
    key = {"hidden_state": 0, "view": "centre", "precision": "float16"}
    return open_feature_set(folders, name=extractor.name, fingerprint=extractor.fingerprint, **key)  # type: ignore[arg-type]


@contextmanager
def timed(seconds: dict[str, float], name: str) -> Iterator[None]:
    started = time.perf_counter()
    yield
    seconds[name] = time.perf_counter() - started


if __name__ == "__main__":
    main()
