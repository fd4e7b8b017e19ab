"""Pictures per second on the same pictures: one at a time, this program, and the bound by decoding and the model.

    python -m benchmarks.bench_features [--directory=PICTURES] [--feature_extractor_model=NAME] [--device=cpu]
    python -m benchmarks.bench_features --random_vit=large --device=cuda

(a) is a simple loop that opens, transforms and computes one picture after the other, by PyTorch. The peer is a loop as
in clip-retrieval: PyTorch's DataLoader, whose worker processes decode, large batches, one file written at the end. (b)
is `load_features` on an empty cache, with writing. (c) is the slower of decoding alone (all cores, with transform) and
the model alone: transformed pictures in memory, computed by the best of all engines, ways to share the cores and batch
sizes. The engines are PyTorch and, on a CPU, OpenVINO and (packaged networks) ONNX Runtime, where installed. (b) is
measured once more beside two processes that keep a core busy each; its fair share is then that of its threads among all
that want to run. All are timed in turn, in several rounds. The output shows medians; ratios are medians of the ratios
of all rounds. On a machine that other programs use as well, the rates per second of CPU time tell more. Weights are
loaded before timing. `--random_vit` measures a CLIP tower with random weights, tiny or of the size of ViT-B/32,
ViT-L/14 or ViT-H/14.
"""

import argparse
import itertools
import json
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from benchmarks.feature_engines import Compute, Way, best_ways, engines_for, model_rate
from custom_aesthetic.base.errors import UserError
from custom_aesthetic.base.machine import choose_device, n_cores
from custom_aesthetic.engines.lanes import single_threads
from custom_aesthetic.extractors import FeatureExtractor, build_extractor
from custom_aesthetic.features.extraction import decode
from custom_aesthetic.features.table import load_features
from custom_aesthetic.pictures.folders import find_images
from custom_aesthetic.pictures.images import open_image

DEMO = Path(__file__).resolve().parent.parent / "demo" / "images"
VIT_SIZES = {
    "tiny": (16, 2, 2, 32, 28, 14, 8),
    "base": (768, 12, 12, 3072, 224, 32, 512),
    "large": (1024, 24, 16, 4096, 224, 14, 768),
    "huge": (1280, 32, 16, 5120, 224, 14, 1024),
}
"""Width, blocks, heads, hidden width, image size, patch size, projection width."""

LOADER_BATCH_SIZE = 256
"""Of the peer, as clip-retrieval has it."""

N_IN_MEMORY = 256
N_BUSY = 2


@dataclass(frozen=True)
class Rates:
    """Pictures per second in one round."""

    one_by_one: float
    loader: float
    program: float
    decoding: float
    busy: float
    engines: tuple[float, ...]
    """The model alone, by each engine in its best way."""
    program_cpu: float
    model_cpu: float
    """Per second of CPU time; the engine with the most."""

    @property
    def model(self) -> float:
        return max(self.engines)

    @property
    def bound(self) -> float:
        return min(self.decoding, self.model)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--directory", type=Path, default=DEMO)
    parser.add_argument("--feature_extractor_model", default="efficientnet-lite0")
    parser.add_argument("--random_vit", choices=tuple(VIT_SIZES))
    parser.add_argument("--dtype", choices=("float16", "bfloat16"), default="float16", help="of --random_vit")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--views", default="centre", help="of each picture, separated by commas")
    parser.add_argument("--n_pictures", type=int, default=600, help="pictures are repeated to reach this number")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--max_batch_size", type=int, default=16)
    arguments = parser.parse_args()
    device = choose_device(arguments.device)
    with tempfile.TemporaryDirectory() as folder:
        name = arguments.feature_extractor_model
        if arguments.random_vit is not None:
            name = make_random_vit(Path(folder) / f"random_vit_{arguments.random_vit}", arguments)
        extractor = build_extractor(name, device)
        directory, paths = copy_pictures(arguments.directory, Path(folder) / "pictures", arguments.n_pictures)
        print(f"{platform.machine()}, {n_cores()} cores, torch {torch.__version__}, {time.strftime('%Y-%m-%d')}")
        if device.type == "cuda":
            print(torch.cuda.get_device_name(device))
        views = tuple(arguments.views.split(","))
        print(
            f"{len(paths)} pictures of {arguments.directory.name}, {len(views)} views, "
            f"{Path(extractor.name).name} on {device}",
            flush=True,
        )
        measure(Job(extractor, directory, paths, views), arguments.rounds, arguments.max_batch_size)


@dataclass(frozen=True)
class Job:
    """What is measured."""

    extractor: FeatureExtractor
    directory: Path
    paths: Sequence[str]
    views: tuple[str, ...]

    def load(self, *, n_pictures: int | None = None) -> None:
        """Load the features by this program, with an empty cache."""
        shutil.rmtree(self.directory / ".aesthetic_features", ignore_errors=True)
        paths = self.paths[:n_pictures]
        table = load_features(self.directory, paths, [self.extractor], views=self.views, show_progress=False)
        assert len(table.paths) == len(paths)


def measure(job: Job, n_rounds: int, max_batch_size: int) -> None:
    with ThreadPoolExecutor(n_cores()) as pool:
        some = list(pool.map(lambda path: centre_pixels(job, path), job.paths[:N_IN_MEMORY]))
    pixels = torch.stack(some)
    engines = engines_for(job.extractor, pixels)
    ways = best_ways(engines, pixels, max_batch_size)
    n_pictures, n_few = len(job.paths), max(1, len(job.paths) // 4)
    job.load(n_pictures=min(n_pictures, 16))
    rounds = []
    for number in range(n_rounds):
        seconds = n_pictures / 100
        cpu_started = time.process_time()
        program = rate(n_pictures, job.load)
        program_cpu = n_pictures / (time.process_time() - cpu_started)
        models = [model_rate(engines[way.engine], pixels, way, seconds=seconds) for way in ways]
        rounds.append(
            Rates(
                one_by_one=rate(n_few, lambda: one_by_one(job, engines["PyTorch"], n_few)),
                loader=rate(n_pictures, lambda: loader_loop(job, engines["PyTorch"])),
                program=program,
                decoding=rate(n_pictures, lambda: decoding(job)),
                busy=busy_rate(job, n_few),
                engines=tuple(model.wall / len(job.views) for model in models),
                program_cpu=program_cpu,
                model_cpu=max(model.cpu for model in models) / len(job.views),
            )
        )
        print(f"round {number + 1}: {rounds[-1]}", flush=True)
    show(rounds, ways)


def show(rounds: Sequence[Rates], ways: Sequence[Way]) -> None:
    columns = zip(*map(_values, rounds), strict=True)
    one_by_one, loader, program, decoding, busy, model, bound = map(statistics.median, columns)
    engines = [statistics.median(column) for column in zip(*(rates.engines for rates in rounds), strict=True)]
    binds = "decoding" if decoding < model else "the model"
    share = min(1.0, n_cores() / (torch.get_num_threads() + N_BUSY))
    lines = {
        "(a) one picture at a time, PyTorch": f"{one_by_one:.1f}",
        "    the peer: workers that decode, large batches": f"{loader:.1f}",
        "(b) this program": f"{program:.1f}",
        f"    decoding alone, {n_cores()} threads": f"{decoding:.1f}",
        **{f"    model alone, {way}": f"{rate:.1f}" for way, rate in zip(ways, engines, strict=True)},
        "(c) bound": f"{bound:.1f}  {binds} binds",
        "(b) / (c)": f"{statistics.median(rates.program / rates.bound for rates in rounds):.2f}",
        "(b) / (a)": f"{statistics.median(rates.program / rates.one_by_one for rates in rounds):.2f}",
        "(b) / peer": f"{statistics.median(rates.program / rates.loader for rates in rounds):.2f}",
        f"(b) beside {N_BUSY} busy processes": f"{busy:.1f}",
        "    of the fair share of (b)": f"{statistics.median(r.busy / (r.program * share) for r in rounds):.2f}",
        "    of the fair share of (c)": f"{statistics.median(r.busy / (r.bound * share) for r in rounds):.2f}",
    }
    lines |= {
        "(b) per CPU second": f"{statistics.median(rates.program_cpu for rates in rounds):.1f}",
        "    model alone, per CPU second": f"{statistics.median(rates.model_cpu for rates in rounds):.1f}",
        "    (b) of it": f"{statistics.median(rates.program_cpu / rates.model_cpu for rates in rounds):.2f}",
    }
    if not torch.cuda.is_available():
        lines["on a GPU: --random_vit=large and huge, in half precision"] = "open: no GPU at hand"
    print(f"pictures per second, median of {len(rounds)}:")
    for name, value in lines.items():
        print(f"  {name:64s} {value}")


def _values(rates: Rates) -> tuple[float, ...]:
    return rates.one_by_one, rates.loader, rates.program, rates.decoding, rates.busy, rates.model, rates.bound


@contextmanager
def busy_processes() -> Iterator[None]:
    """Keep N_BUSY processes at work within the block."""
    processes = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(N_BUSY)]
    try:
        time.sleep(0.5)
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def busy_rate(job: Job, n_pictures: int) -> float:
    with busy_processes():
        return rate(n_pictures, lambda: job.load(n_pictures=n_pictures))


def one_by_one(job: Job, compute: Compute, n_pictures: int) -> None:
    for path in job.paths[:n_pictures]:
        image = open_image(job.directory / path)
        for view in job.views:
            compute(job.extractor.transform(image, view)[None])


class Transformed(Dataset[Tensor]):
    """The pictures of a job, each transformed for all views, (n_views, 3, height, width)."""

    def __init__(self, job: Job) -> None:
        self._job = job

    def __len__(self) -> int:
        return len(self._job.paths)

    def __getitem__(self, number: int) -> Tensor:
        job = self._job
        image = open_image(job.directory / job.paths[number])
        return torch.stack([job.extractor.transform(image, view) for view in job.views])


def loader_loop(job: Job, compute: Compute) -> None:
    """Compute the features in large batches that processes of PyTorch's DataLoader decode, and write them."""
    loader = DataLoader(
        Transformed(job),
        LOADER_BATCH_SIZE,
        num_workers=n_cores(),
        pin_memory=torch.cuda.is_available(),
        multiprocessing_context="fork" if sys.platform == "linux" else None,
    )
    found = [compute(batch.flatten(0, 1)) for batch in loader]
    joined = [np.concatenate(list(states.values()), axis=1) for states in found]
    np.save(job.directory / "features.npy", np.concatenate(joined).astype(np.float16))


def decoding(job: Job) -> None:
    """Decode and transform all pictures on all cores, as the program does, and give torch its threads back."""
    with single_threads(), ThreadPoolExecutor(n_cores()) as pool:
        for _ in pool.map(lambda path: decode(job.directory, 0, path, job.extractor, job.views).row, job.paths):
            pass


def rate(n_pictures: int, work: Callable[[], None]) -> float:
    started = time.perf_counter()
    work()
    return n_pictures / (time.perf_counter() - started)


def centre_pixels(job: Job, path: str) -> Tensor:
    return job.extractor.transform(open_image(job.directory / path, job.extractor.target_size))


def copy_pictures(source: Path, target: Path, n_pictures: int) -> tuple[Path, list[str]]:
    """Copy the pictures into a new folder, repeatedly until there are `n_pictures`; return the folder and the paths."""
    found = find_images(source)
    if not found:
        raise UserError(f"no pictures in {source}; give a folder by --directory")
    for i, path in zip(range(n_pictures), itertools.cycle(found), strict=False):
        file = target / f"{i // len(found):03d}" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source / path, file)
    return target, find_images(target)


def make_random_vit(folder: Path, arguments: argparse.Namespace) -> str:
    """Write a CLIP vision tower with random weights as a local checkpoint, and return its folder."""
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    width, n_blocks, n_heads, hidden_width, image_size, patch_size, projected = VIT_SIZES[arguments.random_vit]
    torch.manual_seed(0)
    config = CLIPVisionConfig(
        hidden_size=width,
        num_hidden_layers=n_blocks,
        num_attention_heads=n_heads,
        intermediate_size=hidden_width,
        image_size=image_size,
        patch_size=patch_size,
        projection_dim=projected,
    )
    model = CLIPVisionModelWithProjection(config).to(getattr(torch, arguments.dtype))
    model.save_pretrained(folder)
    processor = {
        "image_processor_type": "CLIPImageProcessor",
        "size": {"shortest_edge": image_size},
        "crop_size": {"height": image_size, "width": image_size},
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    return str(folder)


if __name__ == "__main__":
    main()
