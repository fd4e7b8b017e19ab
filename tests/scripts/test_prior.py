"""Training from a prior model, as a user runs it."""

import logging
from pathlib import Path

import numpy as np
import pytest

import aesthetic_predictor_training
from custom_aesthetic.base.errors import UserError
from custom_aesthetic.commands.score_pairs import Guesses, first_guesses
from custom_aesthetic.heads.linear_members import LinearModel
from custom_aesthetic.heads.model_file import input_metadata, load_model, save_model
from custom_aesthetic.heads.prediction import predict_features
from custom_aesthetic.priors.given import as_predictor
from custom_aesthetic.scores.out_of_fold import read_out_of_fold
from custom_aesthetic.settings.arguments import parse_arguments
from custom_aesthetic.settings.scorers import ABArguments

torch = pytest.importorskip("torch")

RANDOM = np.random.default_rng(8)
N_ROWS, N_SCORED, N_FEATURES = 300, 30, 60
PATHS = [f"{number}.jpg" for number in range(N_ROWS)]
FEATURES = RANDOM.normal(size=(N_ROWS, N_FEATURES)).astype(np.float32)
WEIGHT = RANDOM.normal(size=N_FEATURES) / N_FEATURES**0.5
TASTE = FEATURES @ WEIGHT
PRIOR_WEIGHT = WEIGHT + 0.1 * RANDOM.normal(size=N_FEATURES)
SCORES = np.round(5 + 2 * TASTE + RANDOM.normal(size=N_ROWS))

SMALL = [
    *("--features=t.npz", "--trials=2", "--workers=1", "--model_seed=1", "--max_first_layer_size=12"),
    *("--max_second_layer_size=10", "--min_batch_size=8", "--max_train_epochs=6"),
]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> Path:
    """A table of features in the current directory, scores of its first rows, and a prior in units of its own."""
    caplog.set_level(logging.INFO, logger="custom_aesthetic")
    monkeypatch.chdir(tmp_path)
    np.savez("t.npz", paths=PATHS, features=FEATURES)
    rows = [f"{path},{score}" for path, score in zip(PATHS[:N_SCORED], SCORES, strict=False)]
    Path("scores.csv").write_text("\n".join(["relative_path,score", *rows]))
    write_prior("prior.safetensors", 30 * PRIOR_WEIGHT)
    return tmp_path


def write_prior(name: str, weight: np.ndarray, features: str = "features:t") -> None:
    metadata = input_metadata([features], [[0]], ["join"], ["centre"], fp16=False)
    save_model(Path(name), as_predictor(LinearModel(weight, -700.0)), metadata)


def train(*more: str) -> None:
    aesthetic_predictor_training.run([*SMALL, *more])


def likeness() -> float:
    """Return the correlation of the model's scores with the taste on pictures without a score."""
    scores = predict_features(load_model("model.safetensors"), torch.from_numpy(FEATURES)).scores
    return float(np.corrcoef(scores[N_SCORED:], TASTE[N_SCORED:])[0, 1])


@pytest.mark.parametrize("more", [(), ("--ensemble=1",), ("--workers=2",)])
def test_the_new_model_learns_the_difference_and_stands_alone(
    more: tuple[str, ...], folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    train("--database=", *more)
    without = likeness()
    train("--database=", "--prior_model=prior.safetensors", *more)
    Path("prior.safetensors").unlink()
    assert likeness() > without + 0.1
    model = load_model("model.safetensors")
    assert model.metadata["prior_model"] == "prior.safetensors"
    assert "prior " in model.metadata["blend"]
    assert "the prior model alone has spearman" in caplog.text
    unseen = read_out_of_fold(Path("model.safetensors"))
    found = [unseen[path] for path in PATHS[:N_SCORED]]
    assert abs(np.mean(found) - SCORES[:N_SCORED].mean()) < 0.5, "the scores have the user's units, not the prior's"


def test_the_older_model_of_the_same_pictures_is_not_believed_too_much(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    train("--database=", "-m=first.safetensors")
    train("--database=", "--prior_model=first.safetensors")
    assert f"first.safetensors has learnt from {N_SCORED} of these pictures; its out-of-fold scores" in caplog.text
    Path("first.out_of_fold.csv").unlink()
    caplog.clear()
    train("--database=", "--prior_model=first.safetensors")
    assert "it is believed too much there, and the figures flatter" in caplog.text
    assert f"of which it has learnt from {N_SCORED}" in caplog.text


def test_another_prior_needs_another_study(folder: Path) -> None:
    train("--prior_model=prior.safetensors")
    train("--prior_model=prior.safetensors", "--trials=3")
    write_prior("other.safetensors", -WEIGHT)
    for more in (["--prior_model=other.safetensors"], []):
        with pytest.raises(UserError, match=r"made with other prior .*choose another --name"):
            train(*more)
    train("--name=second", "--prior_model=other.safetensors")


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--prior_model=none.safetensors"], r"--prior_model=none.safetensors does not exist"),
        (["--prior_model=other.safetensors"], r"takes the features features:u 0 centre; join, but this training fe"),
        (["--prior_model=prior.safetensors", "--folds=1"], "needs scores that each fold leaves out: set --folds=4"),
        (["--prior_model=prior.safetensors", "--loss_model=ab"], "needs --loss_model=mse, not ab"),
        (["--prior_model=scores.csv"], "cannot be read"),
    ],
)
def test_a_prior_that_cannot_serve_is_an_error_before_any_work(
    more: list[str], message: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_prior("other.safetensors", WEIGHT, "features:u")
    monkeypatch.setattr("custom_aesthetic.features.precomputed.PrecomputedTable.load", None)
    with pytest.raises(UserError, match=message):
        train(*more)
    assert not Path("db.sqlite").exists()


def guesses(folder: Path, *more: str) -> Guesses:
    arguments, _ = parse_arguments(ABArguments, ["-d", str(folder), *more], description="")
    return first_guesses(folder, PATHS[:10], arguments)


def test_the_page_starts_from_the_same_prior(folder: Path) -> None:
    by_prior = guesses(folder, "--features=t.npz", "--prior_model=prior.safetensors").model_scores
    by_model = guesses(folder, "--features=t.npz", "--model=prior.safetensors").model_scores
    assert by_prior is not None and by_model is not None
    np.testing.assert_array_equal(by_prior, by_model)
    np.testing.assert_allclose(by_prior, 30 * FEATURES[:10] @ PRIOR_WEIGHT - 700, rtol=1e-4)
    torch.save({"weight": torch.from_numpy(WEIGHT)[None], "bias": torch.ones(1)}, "head.pth")
    found = guesses(folder, "--features=t.npz", "--prior_model=head.pth")
    assert found.model_scores is not None and found.features is not None
    lengths = np.linalg.norm(FEATURES[:10], axis=1)
    np.testing.assert_allclose(found.model_scores, TASTE[:10] / lengths + 1, atol=1e-5)
    np.testing.assert_allclose(found.features, FEATURES[:10])


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--prior_model=head.pth"], "does not name its extractor; set --feature_extractor_model"),
        (["--prior_model=head.pth", "--features=t.npz"], "takes 4 features, but there are 60"),
        (["--prior_model=a.pth", "--model=b.safetensors"], "both name the model to start from"),
        (["--prior_model=none.pth", "--features=t.npz"], "--prior_model=none.pth does not exist"),
    ],
)
def test_a_prior_that_the_page_cannot_start_from_is_an_error(more: list[str], message: str, folder: Path) -> None:
    torch.save({"weight": torch.ones(1, 4)}, "head.pth")
    with pytest.raises(UserError, match=message):
        guesses(folder, *more)
