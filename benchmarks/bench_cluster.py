"""Pictures a second of the folder scorer by Ray, beside the plain one, and the memory of the process that starts it.

    python -m benchmarks.bench_cluster
    python -m benchmarks.bench_cluster --only memory --made_up 10000 100000

Speed: real photographs, copied so often that there are enough, with a model on the packaged extractor. In turn they go
through the plain scorer without its cache, through as many processes as there are cores that make the same parts
without Ray (what Ray has to be compared with), through Ray on this machine, and through Ray with two nodes on this
machine, which share its cores. Printed are pictures a second from the first finished part on, the seconds until then,
and the largest difference of a score to the plain scorer's.

Memory: made-up pictures of 8 x 8 pixels and an extractor that does nothing but average them. Printed is the peak of
the memory of the process that starts the run; it should not depend on the number of pictures.
"""

import argparse
import multiprocessing
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch
from PIL import Image
from torch import Tensor

from benchmarks.made_up_pictures import make_pictures
from custom_aesthetic import Scorer
from custom_aesthetic.base.machine import n_cores
from custom_aesthetic.cluster.engine import BATCH_CPU, LOCAL, ClusterWork, connected, outcomes
from custom_aesthetic.cluster.items import Item
from custom_aesthetic.cluster.listing import list_items
from custom_aesthetic.cluster.parts import Outcome, PartScorer
from custom_aesthetic.cluster.places import open_place
from custom_aesthetic.heads.model_file import Model, load_model, save_model
from custom_aesthetic.heads.predictor import Predictor
from custom_aesthetic.pictures.folders import find_images

ROOT = Path(__file__).resolve().parent.parent
DATA = Path(os.environ.get("AESTHETIC_TEST_DATA", ROOT.parent / "shared" / "data")) / "photos"
KNOWN = {"feature_extractor_model": "efficientnet-lite0", "hidden_states_used": "0", "hidden_states_mode": "join"}
IN_PART = 40


class Average:
    """A stand-in for an extractor: the mean of the pixels."""

    name, fingerprint, default_mode = "average", "average 1", "join"
    n_hidden_states, target_size = 1, 8
    default_hidden_states: tuple[int, ...] = (0,)

    def transform(self, image: Image.Image, view: str = "centre") -> Tensor:
        return torch.from_numpy(np.asarray(image, np.float32).mean(axis=(0, 1)))[:, None, None].expand(3, 2, 2)

    def features(self, pixels: Tensor, hidden_states: Sequence[int]) -> dict[int, Tensor]:
        return {state: pixels.mean(dim=(2, 3)) for state in hidden_states}


def open_average(work: ClusterWork, _: str) -> Scorer:
    scorer = Scorer(work.model, device="cpu")
    scorer._extractors = [Average()]
    return scorer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, default=DATA, help="folder of photographs")
    parser.add_argument("--pictures", type=int, default=960, help="photographs to score, with copies")
    parser.add_argument("--turns", type=int, default=1)
    parser.add_argument("--made_up", type=int, nargs="+", default=[10_000, 100_000], help="for the memory")
    parser.add_argument("--only", choices=("speed", "memory"))
    parser.add_argument("--one_run", nargs=3, metavar=("PICTURES", "PARTS", "MODEL"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    if arguments.one_run:
        run_made_up(*arguments.one_run)
        return
    with tempfile.TemporaryDirectory() as name:
        if arguments.only != "memory":
            compare_speed(Path(name), arguments.photos, arguments.pictures, arguments.turns)
        if arguments.only != "speed":
            compare_memory(Path(name), arguments.made_up)


def compare_speed(folder: Path, photos: Path, n_pictures: int, n_turns: int) -> None:
    """Print the speed of each way."""
    copy_photos(photos, folder / "pictures", n_pictures)
    torch.manual_seed(0)
    save_model(folder / "model.safetensors", Predictor(1280, (300, 100)).eval(), KNOWN)
    model = load_model(folder / "model.safetensors")
    ways: dict[str, Callable[[ClusterWork], Iterator[Outcome]]] = {
        f"{n_cores()} processes without Ray": by_processes,
        "Ray on this machine": by_ray,
        "Ray with two nodes": by_two_nodes,
    }
    plain: list[float] = []
    speeds: dict[str, list[float]] = {way: [] for way in ways}
    starts: dict[str, list[float]] = {way: [] for way in ways}
    furthest = 0.0
    for turn in range(n_turns):
        begin = time.perf_counter()
        expected = plainly(model, folder / "pictures")
        plain.append(n_pictures / (time.perf_counter() - begin))
        for number, (way, run) in enumerate(ways.items()):
            parts = folder / f"parts-{turn}-{number}"
            speed, start = timed(run, ClusterWork(str(folder / "pictures"), str(parts), model, IN_PART))
            speeds[way].append(speed)
            starts[way].append(start)
            furthest = max(furthest, largest_difference(expected, parts))
    print(f"{n_pictures} photographs, packaged extractor, one view, {n_cores()} cores; medians of {n_turns}:")
    print(f"  plain scorer, all of it: {statistics.median(plain):.1f} pictures a second")
    for way in ways:
        speed, start = statistics.median(speeds[way]), statistics.median(starts[way])
        print(f"  {way}: {speed:.1f} pictures a second from the first part on, which is there after {start:.1f} s")
    print(f"  largest difference of a score: {furthest:.1e}")


def copy_photos(photos: Path, folder: Path, n_pictures: int) -> None:
    paths = find_images(photos)
    for number in range(n_pictures):
        path = paths[number % len(paths)]
        target = folder / str(number // len(paths)) / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes((photos / path).read_bytes())


def plainly(model: Model, folder: Path) -> dict[str, float]:
    """Return the scores of the plain scorer; the cache of the folder is removed afterwards."""
    found = Scorer(model).score_folder(folder, find_images(folder))
    subprocess.run(["rm", "-rf", str(folder / ".aesthetic_features")], check=True)
    return dict(zip(found.paths, found.scores.tolist(), strict=True))


def timed(run: Callable[[ClusterWork], Iterator[Outcome]], work: ClusterWork) -> tuple[float, float]:
    """Return the pictures a second after the first part was done, and the seconds until then."""
    begin = time.perf_counter()
    first, n_pictures = 0.0, 0
    for outcome in run(work):
        if outcome.mistake:
            raise SystemExit(outcome.mistake)
        if not outcome.part:
            continue
        if first:
            n_pictures += outcome.n_pictures
        else:
            first = time.perf_counter()
    return n_pictures / (time.perf_counter() - first), first - begin


def by_processes(work: ClusterWork) -> Iterator[Outcome]:
    """Make the parts by one process a core."""
    context = multiprocessing.get_context("spawn")
    with context.Pool(n_cores(), initializer=start_process, initargs=(work,)) as pool:
        yield from pool.imap_unordered(make_part, list_items(work.source, work.n_pictures))


def start_process(work: ClusterWork) -> None:
    global _maker
    torch.set_num_threads(1)
    source, target = open_place(work.source), open_place(work.target)
    _maker = PartScorer(work.scorer("cpu"), source, target, n_threads=1, batch_size=BATCH_CPU, with_features=False)


_maker: PartScorer | None = None
"""Of a process of `by_processes`."""


def make_part(item: Item) -> Outcome:
    assert _maker is not None
    return _maker.make(item)


def by_ray(work: ClusterWork) -> Iterator[Outcome]:
    with connected(LOCAL):
        yield from outcomes(work, LOCAL)


def by_two_nodes(work: ClusterWork) -> Iterator[Outcome]:
    """Start two nodes with half of the cores each, and connect to them."""
    from ray.cluster_utils import Cluster

    node = {"num_cpus": max(1, n_cores() // 2), "object_store_memory": 80 * 2**20}
    cluster = Cluster(initialize_head=True, head_node_args={**node, "include_dashboard": False})
    cluster.add_node(**node)
    try:
        with connected(cluster.address):
            yield from outcomes(work, cluster.address)
    finally:
        cluster.shutdown()


def largest_difference(expected: dict[str, float], parts: Path) -> float:
    rows = pq.read_table(parts, columns=["relative_path", "score"]).to_pydict()
    found = dict(zip(rows["relative_path"], rows["score"], strict=True))
    assert found.keys() == expected.keys()
    return max(abs(found[path] - expected[path]) for path in expected)


def compare_memory(folder: Path, numbers: Sequence[int]) -> None:
    """Print the peak memory of the driver for each number of pictures."""
    model = folder / "average.safetensors"
    save_model(model, Predictor(3, (3, 3)).eval(), {"feature_extractor_model": "average"})
    for n_pictures in numbers:
        pictures = folder / f"made-up-{n_pictures}"
        make_pictures(pictures, n_pictures)
        command = [sys.executable, "-m", "benchmarks.bench_cluster", "--one_run", str(pictures)]
        subprocess.run([*command, f"{pictures}-parts", str(model)], check=True, cwd=ROOT)


def run_made_up(pictures: str, parts: str, model: str) -> None:
    """Score made-up pictures by Ray on this machine; print speed and memory of this process."""
    work = ClusterWork(pictures, parts, load_model(model), 1000, open_scorer=open_average)
    with connected(LOCAL):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        n_pictures, begin = 0, time.perf_counter()
        for outcome in outcomes(work, LOCAL):
            assert outcome.mistake is None, outcome.mistake
            n_pictures += outcome.n_pictures
        seconds = time.perf_counter() - begin
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        f"{n_pictures:,} made-up pictures in {seconds:.0f} s; peak memory of the process that started the run: "
        f"{peak:.0f} MB, {before:.0f} MB of them when it was connected",
        flush=True,
    )


if __name__ == "__main__":
    main()
