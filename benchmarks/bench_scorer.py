"""Time and memory of the folder scorer for many pictures whose features are cached, up to a million.

    python -m benchmarks.bench_scorer                                   # 100,000 pictures
    python -m benchmarks.bench_scorer --pictures 100000 1000000         # 13 GB of disk, a quarter of an hour

The pictures are links to small files. Their made-up features are those of the packaged extractor's recommended hidden
states, 2,480 a picture in half precision, and lie in the cache in shards of the usual size. Then whole runs of the
script are measured, each in a process of its own: the scores and a selection of the best thousand; and a CSV of all,
with groups of near-duplicates. Printed are the time by the clock and by the processor, which other programs hardly
change, the peak of the memory and how much of it belongs to the imports, and beside them the bound: the time that it
takes to read the shards and multiply them with the first layer.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from safetensors.numpy import load_file
from torch import Tensor

import custom_aesthetic.heads.prediction
from benchmarks.bench_scores import made_up_features
from benchmarks.made_up_pictures import make_pictures
from custom_aesthetic.features.cache import FULL_SHARD_BYTES, open_feature_set
from custom_aesthetic.features.cache_folders import cache_folders
from custom_aesthetic.features.picture_keys import Pictures
from custom_aesthetic.heads.domain import find_domain, to_text
from custom_aesthetic.heads.model_file import save_model
from custom_aesthetic.heads.predictor import Predictor
from custom_aesthetic.pictures.folders import find_images
from custom_aesthetic.scores.score_files import read_scores

WIDTHS = {0: 1280, 1: 320, 2: 320, 3: 192, 4: 192, 5: 112, 6: 64}
"""Hidden state -> its features, 2,480 in all."""

RUNS = {
    "the best thousand": ["--top=1000", "--dry_run", "--copy_to"],
    "a CSV of all, with groups": ["-o"],
}


class Cost(NamedTuple):
    """What a step took in a process of its own."""

    seconds: float
    """By the clock, without the imports."""
    cpu_seconds: float
    """Of the processor, with the imports."""
    peak_megabytes: float

    def __str__(self) -> str:
        return f"{self.seconds:7.1f} s, {self.cpu_seconds:7.1f} s of processor time"


class MadeUp:
    """A stand-in for an extractor whose features are all in the cache."""

    name, fingerprint, default_mode = "made-up", "made-up 1", "join"
    n_hidden_states, target_size = len(WIDTHS), 8
    default_hidden_states = tuple(WIDTHS)

    def transform(self, image: Image.Image, view: str = "centre") -> Tensor:
        raise AssertionError("the features are in the cache")

    def features(self, pixels: Tensor, hidden_states: Sequence[int]) -> dict[int, Tensor]:
        raise AssertionError("the features are in the cache")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, nargs="+", default=[100_000])
    parser.add_argument("--step", choices=STEPS, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--options", nargs="*", default=[], help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.step is not None:
        seconds = STEPS[arguments.step](arguments)
        unit = 1 if sys.platform == "darwin" else 1024
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6
        print(json.dumps(Cost(seconds, time.process_time(), peak)))
        return
    for n_pictures in arguments.pictures:
        measure_all(n_pictures)


def measure_all(n_pictures: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        in_a_process("build", Path(name), str(n_pictures))
        print(f"{n_pictures:,} pictures x {sum(WIDTHS.values()):,} features in half precision")
        print(f"  {'bound: read and multiply':26} {in_a_process('bound', Path(name))}", flush=True)
        imported = in_a_process("imports", Path(name)).peak_megabytes
        for title, options in RUNS.items():
            target = str(Path(name) / ("out" if options[-1] == "--copy_to" else "scores.csv"))
            cost = in_a_process("score", Path(name), *options, target)
            memory = f"{cost.peak_megabytes:.0f} MB at the peak, {imported:.0f} of them the imports"
            print(f"  {title:26} {cost}, {memory}", flush=True)
        assert len(read_scores(Path(name) / "scores.csv")) == n_pictures


def in_a_process(step: str, folder: Path, *options: str) -> Cost:
    """Return what a step takes in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.bench_scorer", f"--step={step}", f"--folder={folder}", "--options"]
    done = subprocess.run([*command, *[f" {option}" for option in options]], check=True, stdout=subprocess.PIPE)
    return Cost(*json.loads(done.stdout.splitlines()[-1]))


def build(arguments: argparse.Namespace) -> float:
    """Make the pictures, their features in shards of the usual size, and a model with a domain."""
    begin = time.perf_counter()
    pictures_folder = arguments.folder / "pictures"
    make_pictures(pictures_folder, int(arguments.options[0]))
    pictures = Pictures(pictures_folder, find_images(pictures_folder))
    n_features = sum(WIDTHS.values())
    pool = made_up_features(20_000, n_features).astype(np.float16)
    generator = np.random.default_rng(1)
    start_of = dict(zip(WIDTHS, np.cumsum([0, *WIDTHS.values()]), strict=False))
    for state, width in WIDTHS.items():
        at_once = FULL_SHARD_BYTES // (2 * width)
        for start in range(0, len(pictures.keys), at_once):
            rows = np.arange(start, min(start + at_once, len(pictures.keys)))
            columns = pool[:, start_of[state] : start_of[state] + width]
            feature_set = feature_set_of(pictures_folder, state)  # a new one merges no shards
            feature_set.add(pictures.keys.take(rows), made_different(columns[rows % len(pool)], rows))
    domain = find_domain(pool[generator.permutation(len(pool))[:5000]].astype(np.float32))
    assert domain is not None
    known = {"feature_extractor_model": "made-up", "hidden_states_used": "0,1,2,3,4,5,6", "hidden_states_mode": "join"}
    known |= {"fp16_features": "True", "domain": to_text(domain)}
    predictor = Predictor(n_features, (300, 100), generator=torch.Generator().manual_seed(0)).eval()
    save_model(arguments.folder / "model.safetensors", predictor, known)
    return time.perf_counter() - begin


def made_different(values: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Return the features of pictures that repeat every 20,000, shifted by a little: no two of them are equal."""
    values[:, 0] += (0.01 * (rows // 20_000)).astype(np.float16)
    return values


def feature_set_of(folder: Path, state: int):  # type: ignore[no-untyped-def]
    key = {"hidden_state": state, "view": "centre", "precision": "float16"}
    return open_feature_set(cache_folders(folder), name=MadeUp.name, fingerprint=MadeUp.fingerprint, **key)  # type: ignore[arg-type]


def bound(arguments: argparse.Namespace) -> float:
    """Read every shard as safetensors does, and multiply them with a first layer of 300 units."""
    begin = time.perf_counter()
    for state, width in WIDTHS.items():
        weights = np.zeros((width, 300), np.float32)
        for folder in feature_set_of(arguments.folder / "pictures", state)._folders:
            for shard in folder.glob("*.safetensors"):
                rows = load_file(shard)["features"]
                for part in np.array_split(rows, len(rows) // 8192 + 1):
                    part.astype(np.float32) @ weights
    return time.perf_counter() - begin


def score(arguments: argparse.Namespace) -> float:
    from custom_aesthetic.commands.score_folder import score_folder
    from custom_aesthetic.settings.arguments import parse_arguments
    from custom_aesthetic.settings.scorers import FolderArguments

    custom_aesthetic.heads.prediction.build_extractors = lambda *_: [MadeUp()]
    begin = time.perf_counter()
    given = [option.strip() for option in arguments.options]
    options = ["-d", str(arguments.folder / "pictures"), "-m", str(arguments.folder / "model.safetensors"), *given]
    score_folder(parse_arguments(FolderArguments, options, description="")[0])
    return time.perf_counter() - begin


def imports(arguments: argparse.Namespace) -> float:
    import custom_aesthetic.commands.score_folder
    import custom_aesthetic.features.picture_groups  # noqa: F401

    return 0.0


STEPS = {"build": build, "bound": bound, "score": score, "imports": imports}


if __name__ == "__main__":
    main()
