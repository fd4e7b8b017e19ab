"""Time that the folder scorer takes for many pictures whose features are cached.

    python -m benchmarks.bench_scorer --pictures 100000

The pictures are links to small files, and the extractor is a fake with as many features as the packaged one (1280), so
that filling the cache is quick. Then the whole work of the script is timed: finding the pictures, reading their
features, scoring, flagging, and writing the CSV.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

import custom_aesthetic.heads.prediction
from custom_aesthetic.commands.score_folder import score_folder
from custom_aesthetic.features.table import load_features
from custom_aesthetic.heads.domain import find_domain, to_text
from custom_aesthetic.heads.model_file import save_model
from custom_aesthetic.heads.predictor import Predictor
from custom_aesthetic.pictures.images import find_images
from custom_aesthetic.settings.arguments import parse_arguments
from custom_aesthetic.settings.scorers import FolderArguments

N_FEATURES = 1280


class StandIn:
    """A fake extractor with random features of the packaged extractor's width."""

    name, fingerprint, default_mode = "stand-in", "stand-in 1", "join"
    n_hidden_states, target_size = 1, 8
    default_hidden_states: tuple[int, ...] = (0,)

    def __init__(self) -> None:
        self.generator = torch.Generator().manual_seed(0)

    def transform(self, image: Image.Image, view: str = "centre") -> Tensor:
        return torch.zeros(3, 1, 1)

    def features(self, pixels: Tensor, hidden_states: Sequence[int]) -> dict[int, Tensor]:
        return {state: torch.rand(len(pixels), N_FEATURES, generator=self.generator) for state in hidden_states}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=100_000)
    parser.add_argument("--runs", type=int, default=3)
    arguments = parser.parse_args()
    custom_aesthetic.heads.prediction.build_extractors = lambda *_: [StandIn()]
    with tempfile.TemporaryDirectory() as name:
        folder, model = Path(name) / "pictures", Path(name) / "model.safetensors"
        make_pictures(folder, arguments.pictures)
        begin = time.perf_counter()
        table = load_features(folder, find_images(folder), [StandIn()])
        print(f"cache filled in {time.perf_counter() - begin:.0f} s")
        domain = find_domain(table.values.numpy())
        assert domain is not None
        known = {"feature_extractor_model": "stand-in", "hidden_states_used": "0", "hidden_states_mode": "join"}
        save_model(model, Predictor(N_FEATURES, (300, 100)).eval(), {**known, "domain": to_text(domain)})
        for _ in range(arguments.runs):
            begin = time.perf_counter()
            options = ["-d", str(folder), "-m", str(model), "-o", str(Path(name) / "scores.csv")]
            score_folder(parse_arguments(FolderArguments, options, description="")[0])
            print(f"{arguments.pictures:,} pictures scored in {time.perf_counter() - begin:.1f} s")


def make_pictures(folder: Path, n_pictures: int) -> None:
    """Make `n_pictures` pictures, a thousand in each sub-directory, where all are links to the first."""
    for start in range(0, n_pictures, 1000):
        first = folder / f"{start // 1000:04}" / "000.png"
        first.parent.mkdir(parents=True)
        Image.new("RGB", (8, 8), (start % 256, 0, 0)).save(first)
        for number in range(1, min(1000, n_pictures - start)):
            os.link(first, first.with_name(f"{number:03}.png"))


if __name__ == "__main__":
    main()
