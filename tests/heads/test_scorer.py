"""`Scorer`, with a model of the mean colour: a picture has the same score in whatever form it is given."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from custom_aesthetic import ImageError, Scorer, UserError
from custom_aesthetic.base.machine import choose_device
from custom_aesthetic.heads.domain import find_domain, to_text
from custom_aesthetic.heads.model_file import save_model
from custom_aesthetic.heads.prediction import score_pictures
from custom_aesthetic.heads.predictor import Predictor, from_layers
from custom_aesthetic.pictures.folders import find_images
from tests.conftest import ROOT
from tests.mean_colour import MeanColour
from tests.tiny_checkpoints import make_picture, save_checkpoint


@pytest.fixture(autouse=True)
def mean_colour(monkeypatch: pytest.MonkeyPatch) -> None:
    def build(names: str, *_: object) -> list[MeanColour]:
        return [MeanColour(name) for name in names.split(",")]

    monkeypatch.setattr("custom_aesthetic.heads.prediction.build_extractors", build)


def redness(file: Path, n_outputs: int = 1, **metadata: str) -> Path:
    """Write a model with ten times the mean red (0...1) as score; a second output, sigma, is minus a fifth of it."""
    first = torch.zeros(2, 3)
    first[0, 0] = 1
    last = torch.tensor([[10 / 255, 0.0], [-2 / 255, 0.0]])[:n_outputs]
    layers = [(first, torch.zeros(2)), (torch.eye(2), torch.zeros(2)), (last, torch.zeros(n_outputs))]
    save_model(file, from_layers(layers), {"feature_extractor_model": "mean-colour", **metadata})
    return file


@pytest.fixture
def scorer(tmp_path: Path) -> Scorer:
    return Scorer.load(redness(tmp_path / "red.safetensors"), device="cpu")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    make_picture(24, 16, seed=4).save(tmp_path / "picture.png")
    return tmp_path / "picture.png"


def test_a_picture_has_the_same_score_in_every_form(scorer: Scorer, file: Path) -> None:
    image = Image.open(file)
    levels = np.asarray(image)
    floats = levels.astype(np.float32) / 255
    given = [
        str(file),
        file,
        file.read_bytes(),
        image,
        levels,
        floats,
        floats.astype(np.float64),
        torch.from_numpy(levels.copy()),
    ]
    given += [file.read_bytes(), torch.from_numpy(floats), torch.from_numpy(floats).double(), levels[:, :, [0, 1, 2]]]
    given.append(np.concatenate([levels, np.full((*levels.shape[:2], 1), 255, np.uint8)], axis=2))
    expected = 10 * levels[:, :, 0].astype(np.float64).mean() / 255
    for form in given:
        found = scorer.score(form)
        assert (found.shape, found.dtype) == ((1,), np.float64)
        assert found[0] == pytest.approx(expected, abs=1e-5)
    np.testing.assert_allclose(scorer.score(given), np.full(len(given), expected), atol=1e-5)


def test_batches_and_grey_images_are_scored(scorer: Scorer) -> None:
    batch = torch.stack([torch.full((4, 6, 3), level) for level in (0.0, 0.2, 1.0)])
    np.testing.assert_allclose(scorer.score(batch), [0, 2, 10], atol=1e-5)
    np.testing.assert_allclose(scorer.score([batch, batch[1].numpy()]), [0, 2, 10, 2], atol=1e-5)
    np.testing.assert_allclose(scorer.score(batch[..., :1].numpy()), [0, 2, 10], atol=1e-5)
    np.testing.assert_allclose(scorer.score(batch[1, ..., 0].numpy()), [2], atol=1e-5)
    see_through = np.zeros((4, 6, 4), np.uint8)
    np.testing.assert_allclose(scorer.score(see_through), [10], atol=1e-5)  # over white


def test_more_images_than_one_batch_keep_their_order(scorer: Scorer) -> None:
    reds = np.random.default_rng(0).integers(0, 256, 50)
    images = [np.full((3, 3, 3), red, np.uint8) for red in reds]
    np.testing.assert_allclose(scorer.score(images), 10 * reds / 255, atol=1e-4)
    best = scorer.best(images, 7)
    assert best.dtype == np.int64
    assert best.tolist() == sorted(range(50), key=lambda row: (-reds[row], row))[:7]
    assert len(scorer.best(images, 80)) == 50
    assert scorer.best(images, 0).tolist() == []


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        ("nowhere.png", "nowhere.png"),
        (np.zeros((3, 8, 8), np.uint8), r"image 1: its shape is \(3, 8, 8\).*channels last"),
        (np.zeros((8, 8, 3), np.uint16), "image 1: it holds uint16"),
        (np.full((8, 8, 3), 127.0), "image 1: its floats lie between 127 and 127"),
        (np.full((8, 8, 3), np.nan), "image 1: its floats"),
        (np.zeros((0, 8, 3), np.uint8), "image 1: its shape"),
    ],
)
def test_an_unusable_image_is_an_error_that_names_it_or_nan(
    scorer: Scorer, file: Path, bad: object, words: str
) -> None:
    with pytest.raises(ImageError, match=words):
        scorer.score([file, bad])
    found = scorer.rate([file, bad, file], on_error="nan")
    assert np.isnan(found.scores).tolist() == [False, True, False]
    assert scorer.best([bad, file], 2, on_error="nan").tolist() == [1]
    assert np.isnan(scorer.score([bad], on_error="nan")).all()


def test_wrong_arguments_and_images_raise_value_errors(scorer: Scorer) -> None:
    assert issubclass(ImageError, ValueError)
    with pytest.raises(ValueError, match="an image is"):
        scorer.score(3)
    with pytest.raises(ValueError, match="on_error"):
        scorer.score([], on_error="skip")
    with pytest.raises(ValueError, match="n=-1"):
        scorer.best([], -1)


def test_an_empty_sequence_of_images_gives_empty_arrays(scorer: Scorer) -> None:
    assert scorer.score([]).shape == (0,)
    assert scorer.features([]).shape == (0, 3)


def test_sigmas_and_distances_are_returned_if_the_model_has_them(tmp_path: Path, file: Path) -> None:
    plain = Scorer.load(redness(tmp_path / "a.safetensors"), device="cpu").rate(file)
    assert (plain.sigmas, plain.domain_distances) == (None, None)
    domain = find_domain(np.random.default_rng(0).uniform(90, 110, (40, 3)))
    assert domain is not None
    model = redness(tmp_path / "b.safetensors", 2, domain=to_text(domain))
    scorer = Scorer.load(model, device="cpu")
    red, grey = np.zeros((4, 4, 3), np.uint8), np.full((4, 4, 3), 100, np.uint8)
    red[..., 0] = 255
    found = scorer.rate([red, grey])
    assert found.sigmas == pytest.approx([2, 200 / 255], abs=1e-5)
    assert found.domain_distances is not None
    assert found.domain_distances[0] > 1 > found.domain_distances[1]
    assert "domain" not in scorer.card
    assert scorer.card["feature_extractor_model"] == "mean-colour"


def test_score_features_takes_the_output_of_features(scorer: Scorer, file: Path) -> None:
    features = scorer.features([file, file])
    assert (features.shape, features.dtype) == ((2, 3), np.float32)
    np.testing.assert_array_equal(scorer.score_features(features), scorer.score([file, file]))
    np.testing.assert_array_equal(scorer.score_features(torch.from_numpy(features)), scorer.score([file, file]))
    with pytest.raises(ValueError, match=r"shape \(2, 2\), not \(n_images, 3\)"):
        scorer.score_features(features[:, :2])


def test_several_threads_get_the_same_scores_as_one(scorer: Scorer) -> None:
    images = [np.full((3, 3, 3), red, np.uint8) for red in range(60)]
    expected = scorer.score(images)
    with ThreadPoolExecutor(6) as pool:
        found = list(pool.map(lambda _: scorer.score(images), range(12)))
    for scores in found:
        np.testing.assert_allclose(scores, expected, atol=1e-6)


def test_the_model_file_in_a_folder_is_found(tmp_path: Path) -> None:
    folder = tmp_path / "models"
    folder.mkdir()
    with pytest.raises(UserError, match="should hold one model file"):
        Scorer.load(folder)
    redness(folder / "mine.safetensors")
    assert Scorer.load(folder, device="cpu").model.file.name == "mine.safetensors"
    redness(folder / "other.safetensors")
    with pytest.raises(UserError, match=r"mine\.safetensors, other\.safetensors"):
        Scorer.load(folder)
    redness(folder / "model.safetensors")
    assert Scorer.load(folder, device="cpu").model.file.name == "model.safetensors"
    with pytest.raises(UserError, match="does not exist"):
        Scorer.load(tmp_path / "nowhere.safetensors")


@pytest.mark.parametrize("fp16", [False, True])
def test_the_scores_are_those_of_the_folder_scorer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fp16: bool) -> None:
    monkeypatch.undo()  # real extractors: CLIP and AIM, several views
    names = [str(save_checkpoint(kind, tmp_path / kind)) for kind in ("clip", "aim")]
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for number in range(21):
        make_picture(50 + 7 * number, 60, seed=number).save(pictures / f"{number:02}.jpg", quality=90)
    known = {
        "feature_extractor_model": "__".join(names),
        "hidden_states_used": "0,2__1,2",
        "hidden_states_mode": "join__average",
        "views": "centre,whole",
        **({"fp16_features": "True"} if fp16 else {}),
    }
    predictor = Predictor(2 * 24 + 16, (9, 5), 2, generator=torch.Generator().manual_seed(5))
    save_model(tmp_path / "m.safetensors", predictor, known)
    scorer = Scorer.load(tmp_path / "m.safetensors", device="cpu")
    paths = find_images(pictures)
    found = score_pictures(scorer.model, pictures, paths, device=choose_device("cpu"))
    rated = scorer.rate([pictures / path for path in paths])
    assert np.ptp(found.scores) > 1e-3
    assert found.paths == tuple(paths)
    np.testing.assert_allclose(rated.scores, found.scores, atol=1e-6)
    assert found.sigmas is not None
    np.testing.assert_allclose(rated.sigmas, found.sigmas, atol=1e-6)  # type: ignore[arg-type]


BLOCKED = """
import sys, time
started = time.perf_counter()
before = set(sys.modules)
import custom_aesthetic
seconds = time.perf_counter() - started
new = {name.partition('.')[0] for name in set(sys.modules) - before} - {'custom_aesthetic'}
assert new <= set(sys.stdlib_module_names), new
assert custom_aesthetic.__version__ and 'Scorer' in dir(custom_aesthetic)

from importlib.machinery import PathFinder

class Hiding:  # as if the blocked libraries were not installed
    find_distributions = staticmethod(PathFinder.find_distributions)

    def find_spec(self, name, path=None, target=None):
        return None if name.partition('.')[0] in BLOCKED else PathFinder.find_spec(name, path, target)

sys.meta_path[:] = [Hiding() if finder is PathFinder else finder for finder in sys.meta_path]
from custom_aesthetic import Scorer
import numpy
scorer = Scorer.load(sys.argv[1], device='cpu')
for name in BLOCKED:
    try:
        __import__(name)
    except ImportError:
        continue
    raise AssertionError(f'{name} is not blocked')
"""
SCORE = """
import warnings
from PIL import Image, ImageFile
import torch
def settings():
    pillow = [filter for filter in warnings.filters if 'PIL' in str(filter)]
    return Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES, pillow, torch.get_num_threads()
before = settings()
print(scorer.score(sys.argv[2])[0])
assert settings() == before == (89478485, False, [], torch.get_num_threads()), (before, settings())
"""
HEAVY = {"optuna", "scipy", "sklearn", "pandas", "matplotlib"}


def run(code: str, blocked: set[str], *arguments: object) -> str:
    script = f"BLOCKED = {blocked!r}\n{BLOCKED}\n{code}"
    ended = subprocess.run(
        [sys.executable, "-c", script, *map(str, arguments)], cwd=ROOT / "src", capture_output=True, text=True
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def test_a_picture_is_scored_without_the_libraries_of_training(tmp_path: Path, file: Path) -> None:
    name = str(save_checkpoint("clip", tmp_path / "clip"))
    predictor = Predictor(24, (9, 5), generator=torch.Generator().manual_seed(5))
    save_model(tmp_path / "m.safetensors", predictor, {"feature_extractor_model": name, "hidden_states_used": "0"})
    out = run(SCORE, HEAVY, tmp_path / "m.safetensors", file)
    assert np.isfinite(float(out))


def test_features_are_scored_without_transformers(tmp_path: Path) -> None:
    blocked = HEAVY | {"transformers", "huggingface_hub", "efficientnet_lite_pytorch"}
    code = "print(scorer.score_features(numpy.array([[255, 0, 0]]))[0])"
    assert float(run(code, blocked, redness(tmp_path / "m.safetensors"))) == pytest.approx(10)
