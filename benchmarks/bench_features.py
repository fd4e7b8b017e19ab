"""Pictures per second on the same pictures: one at a time, this program, and the bound by decoding and the model.

    python -m benchmarks.bench_features [--directory=PICTURES] [--feature_extractor_model=NAME] [--device=cpu]
    python -m benchmarks.bench_features --random_vit=large --device=cuda

(a) is a simple loop that opens, transforms and computes one picture after the other. (b) is `load_features` on an
empty cache, including the search for the batch size and writing. (c) is the slower of decoding alone (all cores,
with transform) and the model alone (transformed pictures in memory, best batch size and number of lanes). The four
are timed in turn, in several rounds. The output shows medians; (b) / (c) is the median of the ratios of all rounds.
Weights are loaded before timing. `--random_vit` measures a CLIP tower with random weights, tiny or of the size of
ViT-L/14.
"""

import argparse
import itertools
import json
import platform
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from custom_aesthetic.base.errors import UserError
from custom_aesthetic.base.machine import choose_device, n_cores
from custom_aesthetic.extractors import FeatureExtractor, build_extractor
from custom_aesthetic.features.extraction import decode, model_features
from custom_aesthetic.features.table import load_features
from custom_aesthetic.pictures.images import find_images, open_image

DEMO = Path(__file__).resolve().parent.parent / "demo" / "images"
VIT_SIZES = {"large": (1024, 24, 16, 4096, 224, 14, 768), "tiny": (16, 2, 2, 32, 28, 14, 8)}
"""Width, blocks, heads, hidden width, image size, patch size, projection width."""

N_IN_MEMORY = 256
Lanes = tuple[int, int]
"""(number of batches at once, torch threads of each)."""


@dataclass(frozen=True)
class Rates:
    """Pictures per second in one round."""

    one_by_one: float
    program: float
    decoding: float
    model: float

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
    parser.add_argument("--n_pictures", type=int, default=600, help="pictures are repeated to reach this number")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--max_batch_size", type=int, default=64)
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
        print(
            f"{len(paths)} pictures of {arguments.directory.name}, {Path(extractor.name).name} on {device}", flush=True
        )
        measure(extractor, directory, paths, arguments.rounds, arguments.max_batch_size)


def measure(
    extractor: FeatureExtractor, directory: Path, paths: Sequence[str], n_rounds: int, max_batch_size: int
) -> None:
    with ThreadPoolExecutor(n_cores()) as pool:
        some = list(pool.map(lambda path: centre_pixels(extractor, directory, path), paths[:N_IN_MEMORY]))
    pixels = torch.stack(some)
    lanes, batch_size = best_arrangement(extractor, pixels, max_batch_size)
    rounds = []
    for number in range(n_rounds):
        shutil.rmtree(directory / ".aesthetic_features", ignore_errors=True)
        rounds.append(
            Rates(
                one_by_one=rate(len(paths), lambda: one_by_one(extractor, directory, paths)),
                program=rate(len(paths), lambda: program(extractor, directory, paths)),
                decoding=rate(len(paths), lambda: decoding(extractor, directory, paths)),
                model=model_rate(extractor, pixels, lanes, batch_size, seconds=len(paths) / 100),
            )
        )
        print(f"round {number + 1}: {rounds[-1]}", flush=True)
    show(rounds, lanes, batch_size)


def show(rounds: Sequence[Rates], lanes: Lanes, batch_size: int) -> None:
    median = Rates(*(statistics.median(column) for column in zip(*map(_values, rounds), strict=True)))
    binds = "decoding" if median.decoding < median.model else "the model"
    model = f"model alone, {lanes[0]} x batch {batch_size}, {lanes[1]} threads each"
    lines = {
        "(a) one picture at a time": f"{median.one_by_one:.1f}",
        "(b) this program": f"{median.program:.1f}",
        f"    decoding alone, {n_cores()} threads": f"{median.decoding:.1f}",
        f"    {model}": f"{median.model:.1f}",
        "(c) bound": f"{median.bound:.1f}  {binds} binds",
        "(b) / (c)": f"{statistics.median(rates.program / rates.bound for rates in rounds):.2f}",
        "(b) / (a)": f"{statistics.median(rates.program / rates.one_by_one for rates in rounds):.2f}",
    }
    print(f"pictures per second, median of {len(rounds)}:")
    for name, value in lines.items():
        print(f"  {name:48s} {value}")


def _values(rates: Rates) -> tuple[float, ...]:
    return rates.one_by_one, rates.program, rates.decoding, rates.model


def one_by_one(extractor: FeatureExtractor, directory: Path, paths: Sequence[str]) -> None:
    for path in paths:
        pixels = extractor.transform(open_image(directory / path))[None]
        for values in extractor.features(pixels, extractor.default_hidden_states).values():
            values.cpu()


def program(extractor: FeatureExtractor, directory: Path, paths: Sequence[str]) -> None:
    table = load_features(directory, paths, [extractor], show_progress=False)
    assert len(table.paths) == len(paths)


def decoding(extractor: FeatureExtractor, directory: Path, paths: Sequence[str]) -> None:
    with ThreadPoolExecutor(n_cores()) as pool:
        for _ in pool.map(lambda path: decode(directory, 0, path, extractor, ("centre",)).row, paths):
            pass


def best_arrangement(extractor: FeatureExtractor, pixels: Tensor, max_batch_size: int) -> tuple[Lanes, int]:
    """Return the fastest combination of lanes (if the extractor allows several) and batch size."""
    n_threads = torch.get_num_threads()
    arrangements = [(1, n_threads)]
    if getattr(extractor, "features_thread_safe", False) and n_threads > 1:
        arrangements.append((n_threads, 1))
    sizes = list(itertools.takewhile(lambda size: size <= max_batch_size, (2**i for i in range(20))))
    tried = {
        (lanes, size): model_rate(extractor, pixels, lanes, size, seconds=0.5)
        for lanes, size in itertools.product(arrangements, sizes)
    }
    for ((n_lanes, n_lane_threads), size), found in tried.items():
        print(f"  model alone, {n_lanes} x batch {size}, {n_lane_threads} threads each: {found:.1f} pictures/s")
    return max(tried, key=lambda key: tried[key])


def model_rate(extractor: FeatureExtractor, pixels: Tensor, lanes: Lanes, batch_size: int, *, seconds: float) -> float:
    """Return the pictures per second of the model alone, timed for about `seconds` after a warm-up round."""
    n_lanes, n_torch_threads = lanes
    batches = itertools.cycle([batch for batch in pixels.split(batch_size) if len(batch) == batch_size] or [pixels])

    def run(batch: Tensor) -> int:
        torch.set_num_threads(n_torch_threads)
        model_features(extractor, batch, extractor.default_hidden_states)
        return len(batch)

    n_torch_threads_before = torch.get_num_threads()
    with ThreadPoolExecutor(n_lanes) as pool:
        started = time.perf_counter()
        list(pool.map(run, itertools.islice(batches, n_lanes)))
        n_rounds = max(2, int(seconds / (time.perf_counter() - started)))
        started = time.perf_counter()
        n_pictures = sum(pool.map(run, itertools.islice(batches, n_rounds * n_lanes)))
        elapsed = time.perf_counter() - started
    torch.set_num_threads(n_torch_threads_before)
    return n_pictures / elapsed


def rate(n_pictures: int, work: Callable[[], None]) -> float:
    started = time.perf_counter()
    work()
    return n_pictures / (time.perf_counter() - started)


def centre_pixels(extractor: FeatureExtractor, directory: Path, path: str) -> Tensor:
    return extractor.transform(open_image(directory / path, extractor.target_size))


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
