"""An environment as ComfyUI has it, with real packages from the index: nothing is replaced, and `Scorer` works."""

import json
import os
import subprocess
import sys
import venv
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from custom_aesthetic import Scorer
from tests.conftest import MUST_RUN, ROOT
from tests.tiny_checkpoints import make_picture, save_checkpoint

HELD = ("torch==2.13.*", "transformers==4.57.*", "numpy==2.2.*", "pillow==11.*", "safetensors==0.6.*")
"""Older than what the index offers, newer than the lower bounds of the library."""

SCORE = (
    "import json, sys\n"
    "from custom_aesthetic import Scorer\n"
    "print(json.dumps(list(Scorer.load(sys.argv[1], offline=True).score(sys.argv[2:]))))\n"
)


def pip(environment: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pip", "--python", environment, *arguments]
    return subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=900, check=False)


def versions(environment: Path) -> dict[str, str]:
    listed = pip(environment, "list", "--format=json")
    return {package["name"].lower(): package["version"] for package in json.loads(listed.stdout)}


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=False, symlinks=os.name != "nt")
    done = pip(folder, "install", "--quiet", "--only-binary=:all:", *HELD)
    if done.returncode and not MUST_RUN:
        pytest.skip("needs a package index")
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def model_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model on the pooled output of a tiny CLIP tower, whose scores vary from picture to picture."""
    folder = tmp_path_factory.mktemp("model")
    clip = save_checkpoint("clip", folder / "clip")
    generator = torch.Generator().manual_seed(1)
    sizes = [24, 10, 6, 1]
    tensors = {}
    for place, (n_inputs, n_outputs) in zip((1, 4, 7), pairwise(sizes), strict=True):
        tensors[f"main_process.{place}.weight"] = torch.randn(n_outputs, n_inputs, generator=generator)
        tensors[f"main_process.{place}.bias"] = torch.zeros(n_outputs)
    metadata = {
        "feature_extractor_model": str(clip),
        "hidden_states_used": "0",
        "hidden_states_mode": "join",
        "number_of_features": "24",
        "layers": "[10, 6]",
        "output_channels": "1",
    }
    save_file(tensors, folder / "model.safetensors", metadata)
    return folder / "model.safetensors"


def test_installing_the_library_replaces_nothing_and_gives_the_same_scores(
    environment: Path, model_file: Path, tmp_path: Path
) -> None:
    before = versions(environment)
    assert before["transformers"].startswith("4.57.") and before["numpy"].startswith("2.2.")
    done = pip(environment, "install", "--quiet", ROOT)
    assert done.returncode == 0, done.stderr
    after = versions(environment)
    assert {name: after[name] for name in before} == before
    assert after.keys() - before.keys() <= {"custom-aesthetic-training", "tqdm"}

    pictures = [tmp_path / f"{number}.png" for number in range(5)]
    for number, picture in enumerate(pictures):
        make_picture(60 + number, 50, seed=number).save(picture)
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    python = environment / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    scored = subprocess.run(
        [str(part) for part in (python, "-c", SCORE, model_file, *pictures)],
        cwd=tmp_path,
        env=clean,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert scored.returncode == 0, scored.stderr
    expected = Scorer.load(model_file, offline=True).score(pictures)
    assert len(set(expected.round(3))) == len(pictures)
    assert json.loads(scored.stdout) == pytest.approx(expected.tolist(), rel=1e-5, abs=1e-6)
