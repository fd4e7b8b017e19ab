"""Models on a hub: published by the real client to a stand-in for the hub, and fetched again from an empty cache."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import save_file

from custom_aesthetic import Scorer, UserError
from custom_aesthetic.heads.model_file import load_model, save_model
from custom_aesthetic.heads.predictor import Predictor
from custom_aesthetic.hub.card import FILE, model_card
from custom_aesthetic.hub.figures import KEY, Figures, figures_from_text, figures_to_text
from custom_aesthetic.hub.repositories import is_repository_name
from tests.conftest import ROOT
from tests.hub.hub_stand_in import TOKEN, Hub, Repository, problems_of_card
from tests.tiny_checkpoints import make_picture, save_checkpoint

FIGURES = Figures("out of fold", 240, 0.8123, (0.78, 0.84), 0.7012, (0.64, 0.75))
KNOWN = {
    "feature_extractor_model": "somebody/tiny-aim",
    "hidden_states_used": "0",
    "hidden_states_mode": "join",
    "views": "centre,mirror",
    "folds": "4",
    "n_images": "240",
    "loss_model": "mse",
    "mean_predicted_score": "5.1234",
    KEY: figures_to_text(FIGURES),
    "study": "Grandma's wedding 2026-11-24T10:00:00",
    "learnt_pictures": '{"marks": "AAAA"}',
    "out_of_fold": "0" * 64,
}


def write_model(file: Path, seed: int = 5, **more: str) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    save_model(file, Predictor(16, (9, 5), 2, generator=torch.Generator().manual_seed(seed)), {**KNOWN, **more})
    return file


def header_of(card: str) -> dict[str, Any]:
    return yaml.safe_load(card.split("---\n")[1])


def test_a_card_holds_what_the_hub_and_a_reader_want() -> None:
    card = model_card(KNOWN, repository="user/taste", licence="mit")
    assert problems_of_card(card) == []
    header = header_of(card)
    assert header["license"] == "mit"
    assert header["library_name"] == "custom-aesthetic-training"
    assert header["base_model"] == ["somebody/tiny-aim"]
    (entry,) = header["model-index"]
    assert entry["name"] == "taste"
    (result,) = entry["results"]
    assert {metric["type"]: (metric["value"], metric["args"]["interval_95"]) for metric in result["metrics"]} == {
        "spearmanr": (0.7012, [0.64, 0.75]),
        "pairwise_accuracy": (0.8123, [0.78, 0.84]),
    }
    for part in ("81 times in 100", "0.780 ... 0.840", "240 pictures, out of fold", "`somebody/tiny-aim`", "5.123"):
        assert part in card
    assert "Scorer.load('user/taste')" in card


def test_a_card_of_little_knowledge_says_so_and_is_valid() -> None:
    for metadata in (
        {},
        {KEY: "[" * 5000},
        {KEY: '{"n_images": 3}'},
        {"feature_extractor_model": "efficientnet-lite0"},
    ):
        card = model_card(metadata, repository=None, licence=None)
        assert problems_of_card(card) == []
        assert "does not say; train it again" in card
        assert not {"license", "base_model", "model-index"} & set(header_of(card))
    assert "custom-aesthetic-training[packaged]" in card


def test_figures_survive_the_metadata_and_damage() -> None:
    few = Figures("test", 3, 1.0, None, 1.0, None)
    for figures in (FIGURES, few):
        assert figures_from_text(figures_to_text(figures)) == figures
    text = figures_to_text(FIGURES)
    for damaged in ("", "null", "[1]", text.replace("0.8123", "NaN"), text.replace("out of fold", "<b>"), text[:-9]):
        assert figures_from_text(damaged) is None


def test_save_folder_writes_model_and_card_and_nothing_private(tmp_path: Path) -> None:
    file = write_model(tmp_path / "Grandma" / "m.safetensors", feature_extractor_model="/home/grandma/models/tiny-aim")
    scorer = Scorer.load(file, device="cpu")
    folder = scorer.save_folder(tmp_path / "published")
    assert sorted(path.name for path in folder.iterdir()) == ["README.md", FILE]
    written = b"".join(path.read_bytes() for path in folder.iterdir())
    for private in (b"randma", b"wedding", b"/home", str(tmp_path).encode(), b"learnt_pictures", b"AAAA", b"0" * 64):
        assert private not in written
    assert b"put a folder of that name" in written
    again = Scorer.load(folder, device="cpu")
    assert again.model.extractors == ("tiny-aim",)
    features = np.random.default_rng(0).normal(size=(7, 16)).astype(np.float32)
    np.testing.assert_array_equal(again.score_features(features), scorer.score_features(features))
    with pytest.raises(UserError, match="nothing is overwritten"):
        scorer.save_folder(folder)
    with pytest.raises(UserError, match="nothing is overwritten"):
        scorer.save_folder(file)


def test_an_older_model_is_published_as_it_is(tmp_path: Path) -> None:
    tensors = {
        **Predictor(3, (4, 2)).state_dict(),
        "weight.0.weight": torch.tensor([[0.7, -0.2]]),
        "weight.0.bias": torch.tensor([0.3]),
    }
    save_file(tensors, tmp_path / "old.safetensors", {"hidden_states_mode": "weight", "hidden_states_used": "0_1"})
    scorer = Scorer.load(tmp_path / "old.safetensors", device="cpu")
    assert scorer.model.n_features == 6
    again = Scorer.load(scorer.save_folder(tmp_path / "published"), device="cpu")
    features = np.random.default_rng(0).normal(size=(7, scorer.model.n_features)).astype(np.float32)
    np.testing.assert_array_equal(again.score_features(features), scorer.score_features(features))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        *[(name, True) for name in ("user/repo", "user/my.repo-2", "user/repo@v1", "user/repo@refs/pr/1")],
        *[
            (name, False)
            for name in ("repo", "images/model.safetensors", "/a/b", "./a", "a/b/c", "C:\\a\\b", "a/../b", "")
        ],
    ],
)
def test_names_of_repositories_are_known_from_paths(text: str, expected: bool) -> None:
    assert is_repository_name(text) is expected


def test_a_folder_here_comes_before_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_model(tmp_path / "user" / "repo" / FILE)
    assert Scorer.load("user/repo", device="cpu").model.file == Path("user/repo") / FILE


@pytest.fixture
def hub() -> Iterator[Hub]:
    server = Hub()
    yield server
    server.shutdown()
    server.server_close()


AT_THE_HUB = """
import json, logging, sys
from pathlib import Path
from custom_aesthetic import Scorer, UserError

logging.basicConfig(level=logging.INFO)
logging.getLogger("httpx").setLevel(logging.ERROR)

def said(call):
    try:
        return repr(call())
    except UserError as error:
        return str(error)

import huggingface_hub
from huggingface_hub import constants
assert not Path(constants.HF_HUB_CACHE).exists()
token, images = sys.argv[1], sorted(map(str, Path('pictures').iterdir()))
mine = Scorer.load('m.safetensors', device='cpu')
refused = said(lambda: mine.push_to_hub('user/taste', token='hf_wrong'))
address = mine.push_to_hub('user/taste', private=True, token=token, license='mit')
second = Scorer.load('other.safetensors', device='cpu').push_to_hub('user/taste', token=token)
strangers = said(lambda: mine.push_to_hub('stranger/taste', token=token))

if not huggingface_hub.__version__.startswith('0.'):  # older ones ask huggingface.co, whatever HF_ENDPOINT says
    huggingface_hub.ModelCard(Path('card.md').read_text()).validate()
    try:
        huggingface_hub.ModelCard(Path('card.md').read_text().replace('image-classification', 'taste')).validate()
        raise AssertionError('a wrong card passes')
    except ValueError:
        pass
import os
os.environ['HF_TOKEN'] = token  # of a private repository
fetched = Scorer.load('user/taste', device='cpu')
print(json.dumps({
    'address': address, 'refused': refused, 'strangers': strangers,
    'first': Scorer.load(f'user/taste@{sys.argv[2]}', device='cpu').score(images).tolist(),
    'newest': fetched.score(images).tolist(),
    'named': Scorer.load('user/named', device='cpu').model.file.name,
    'file': str(fetched.model.file),
    'again': Scorer.load('user/taste', offline=True, device='cpu').score(images).tolist(),
    'offline': said(lambda: Scorer.load('user/named@main', offline=True)) and
        said(lambda: Scorer.load('user/absent', offline=True)),
    'absent': said(lambda: Scorer.load('user/absent')),
    'revision': said(lambda: Scorer.load('user/taste@v9')),
    'several': said(lambda: Scorer.load('user/several')),
    'name': said(lambda: Scorer.load('user/a--b')),
}))
"""


def run(code: str, folder: Path, url: str, *arguments: str) -> dict[str, Any]:
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("HF_")},
        **{"PYTHONPATH": str(ROOT / "src"), "HF_ENDPOINT": url, "HF_HOME": str(folder / "empty")},
        "HF_HUB_DISABLE_XET": "1",  # the stand-in takes large files as Git LFS
    }
    done = subprocess.run(
        [sys.executable, "-W", "error::UserWarning", "-c", code, *arguments],
        **{"cwd": folder, "env": environment, "capture_output": True, "text": True, "check": False},
    )
    assert done.returncode == 0, done.stderr
    return {**json.loads(done.stdout.splitlines()[-1]), "log": done.stderr}


def test_a_published_model_scores_alike_from_an_empty_cache(tmp_path: Path, hub: Hub) -> None:
    checkpoint = save_checkpoint("aim", tmp_path / "tiny-aim")
    hub.repositories["somebody/tiny-aim"] = Repository()
    hub.repositories["somebody/tiny-aim"].commit({file.name: file.read_bytes() for file in checkpoint.iterdir()})
    file = write_model(tmp_path / "m.safetensors")
    other = write_model(tmp_path / "other.safetensors", seed=6)
    hub.repositories["user/named"] = Repository()
    hub.repositories["user/named"].commit({"mine.safetensors": file.read_bytes(), "notes.txt": b""})
    hub.repositories["user/several"] = Repository()
    hub.repositories["user/several"].commit({"a.safetensors": b"", "b.safetensors": b""})
    (tmp_path / "card.md").write_text(model_card(KNOWN, repository="user/taste", licence="mit"))
    (tmp_path / "pictures").mkdir()
    for number in range(5):
        make_picture(60 + number, 50, seed=number).save(tmp_path / "pictures" / f"{number}.png")
    first = Repository().commit({})  # the name of the first commit of any repository
    found = run(AT_THE_HUB, tmp_path, hub.url, TOKEN, first)

    published = hub.repositories["user/taste"]
    assert found["address"] == f"{hub.url}/user/taste"
    assert published.private
    assert [set(files) for files in published.revisions.values()] == [{"README.md", FILE}] * 2
    card = published.revisions[first]["README.md"].decode()
    assert problems_of_card(card) == []
    assert "Scorer.load('user/taste')" in card
    assert header_of(card)["license"] == "mit"
    for name, path in (("first", file), ("newest", other)):
        save_model(path, load_model(path).predictor, {**KNOWN, "feature_extractor_model": str(checkpoint)})  # type: ignore[arg-type]
        expected = Scorer.load(path, device="cpu").score(sorted((tmp_path / "pictures").iterdir()))
        np.testing.assert_allclose(found[name], expected, atol=1e-6)
    assert np.abs(np.array(found["first"]) - found["newest"]).max() > 1e-4
    assert str(tmp_path / "empty") in found["file"]
    assert found["named"] == "mine.safetensors"
    assert found["again"] == found["newest"]
    assert f"user/taste: asking {hub.url} for this model" in found["log"]
    for name, words in {
        "refused": "cannot publish user/taste: the hub does not let you; log in with `hf auth login`",
        "strangers": "cannot publish stranger/taste: the hub does not let you",
        "offline": "model user/absent: not downloaded before, and offline=True forbids",
        "absent": "model user/absent: neither a file or folder here nor a model on the hub",
        "revision": "model user/taste@v9: the repository has no such revision",
        "several": "should hold one model file, *.safetensors, and holds a.safetensors, b.safetensors",
        "name": "model user/a--b: the hub allows no such name",
    }.items():
        assert words in found[name]
        assert "\n" not in found[name]


OUT_OF_REACH = """
import json
from custom_aesthetic import Scorer, UserError
said = []
mine = Scorer.load('m.safetensors', device='cpu')
for call in (lambda: Scorer.load('user/taste'), lambda: mine.push_to_hub('user/taste', token='hf_x')):
    try:
        call()
    except UserError as error:
        said.append(str(error))
print(json.dumps({'said': said}))
"""


def test_a_hub_out_of_reach_is_one_line(tmp_path: Path) -> None:
    write_model(tmp_path / "m.safetensors")
    fetched, pushed = run(OUT_OF_REACH, tmp_path, "http://127.0.0.1:9")["said"]
    assert re.fullmatch(
        r"model user/taste: the hub is out of reach \(\w+\); try again later, or give a model file", fetched
    )
    assert re.fullmatch(r"cannot publish user/taste: the hub is out of reach \(\w+\); try again later.*", pushed)
