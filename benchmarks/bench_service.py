"""Requests a second of the HTTP service, beside calling `Scorer` directly.

    python -m benchmarks.bench_service

Eight clients send real photographs, one JPEG a request, to `aesthetic_scorer.py --serve` in a process of its own. The
same files go through `Scorer` one by one, and in batches. The three take turns, and the medians are printed. The model
is a head with random weights on the packaged extractor: a trained one takes the same time.
"""

import argparse
import contextlib
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx

from custom_aesthetic import Scorer
from custom_aesthetic.heads.model_file import save_model
from custom_aesthetic.heads.predictor import Predictor
from custom_aesthetic.pictures.folders import find_images
from custom_aesthetic.pictures.images import open_image

ROOT = Path(__file__).resolve().parent.parent
DATA = Path(os.environ.get("AESTHETIC_TEST_DATA", ROOT.parent / "shared" / "data")) / "photos"
N_FEATURES = 1280
KNOWN = {"feature_extractor_model": "efficientnet-lite0", "hidden_states_used": "0", "hidden_states_mode": "join"}
BATCH = 32


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, default=DATA, help="folder of photographs")
    parser.add_argument("--pictures", type=int, default=48, help="how many of them to send")
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument(
        "--side", type=int, default=0, help="enlarge to this longer side before saving; 0 = as they are"
    )
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        model = Path(name) / "model.safetensors"
        save_model(model, Predictor(N_FEATURES, (300, 100)).eval(), KNOWN)
        files = write_jpegs(arguments.photos, Path(name), arguments.side)[: arguments.pictures]
        scorer = Scorer.load(model)
        with serving(model) as address, contextlib.ExitStack() as clients:
            asking = [
                clients.enter_context(httpx.Client(base_url=address, timeout=60)) for _ in range(arguments.clients)
            ]
            ways: dict[str, Callable[[], object]] = {
                "Scorer, one by one": lambda: [scorer.score(file) for file in files],
                f"Scorer, {BATCH} at once": lambda: [
                    scorer.score(files[start : start + BATCH]) for start in range(0, len(files), BATCH)
                ],
                f"HTTP, {arguments.clients} clients": lambda: ask_all(asking, files),
                "HTTP, 1 client": lambda: ask_all(asking[:1], files),
            }
            take_turns(ways, len(files), arguments.turns)


def take_turns(ways: dict[str, Callable[[], object]], n_pictures: int, n_turns: int) -> None:
    """Print the median pictures a second of each way."""
    rates: dict[str, list[float]] = {name: [] for name in ways}
    for way in ways.values():
        way()  # warms up
    for _ in range(n_turns):
        for name, way in ways.items():
            begin = time.perf_counter()
            way()
            rates[name].append(n_pictures / (time.perf_counter() - begin))
    for name, found in rates.items():
        print(f"{name:24} {statistics.median(found):6.1f} pictures/s ({min(found):.1f} to {max(found):.1f})")
    load = f"load {os.getloadavg()[0]:.1f}, " if hasattr(os, "getloadavg") else ""
    print(f"{load}{n_pictures} pictures, {n_turns} turns")


def write_jpegs(photos: Path, folder: Path, side: int) -> list[Path]:
    """Write the photographs as JPEG files, and return these."""
    files = []
    for number, path in enumerate(find_images(photos)):
        image = open_image(photos / path)
        if side:
            scale = side / max(image.size)
            image = image.resize((round(scale * image.width), round(scale * image.height)))
        files.append(folder / f"{number:04}.jpg")
        image.save(files[-1], quality=90)
    return files


@contextlib.contextmanager
def serving(model: Path) -> Iterator[str]:
    """Start the service in a process of its own, and yield its address."""
    command = [sys.executable, str(ROOT / "aesthetic_scorer.py"), "--serve", "-m", str(model), "--port=0"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONUNBUFFERED": "1"}
    ) as process:
        try:
            assert process.stdout is not None
            for line in process.stdout:
                found = re.search(r"http://[\d.:]+", line)
                if found:
                    yield found[0]
                    return
            raise RuntimeError("the service did not start")
        finally:
            process.terminate()


def ask_all(clients: Sequence[httpx.Client], files: Sequence[Path]) -> list[float]:
    """Return the scores of the files, a request each, shared out to the clients."""

    def ask(number: int) -> list[float]:
        return [ask_one(clients[number], file) for file in files[number :: len(clients)]]

    with ThreadPoolExecutor(len(clients)) as threads:
        return [score for some in threads.map(ask, range(len(clients))) for score in some]


def ask_one(client: httpx.Client, file: Path) -> float:
    answer = client.post("/score", content=file.read_bytes(), headers={"Content-Type": "image/jpeg"})
    return float(answer.raise_for_status().json()["results"][0]["score"])


if __name__ == "__main__":
    main()
