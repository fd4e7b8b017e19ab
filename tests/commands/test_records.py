"""What a model file says of its own quality after a training, and that nothing of the user is in a published model."""

import csv
import logging
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import aesthetic_predictor_training as script
from custom_aesthetic import Scorer
from custom_aesthetic.commands import preparation
from custom_aesthetic.hub.figures import KEY, Figures, figures_from_text
from custom_aesthetic.quality.confidence import ab_interval, spearman_interval
from tests.mean_colour import MeanColour

SMALL = ("--max_first_layer_size=12", "--max_second_layer_size=12", "--min_batch_size=8", "--max_train_epochs=8")
N_PICTURES = 60


@pytest.fixture
def wedding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> Path:
    """Scored pictures whose names, folder and scores must not become known; the redder the better, with noise."""
    monkeypatch.setattr(preparation, "build_extractors", lambda names, *_: [MeanColour(n) for n in names.split(",")])
    monkeypatch.chdir(tmp_path)
    caplog.set_level(logging.INFO, logger="custom_aesthetic")
    folder = tmp_path / "wedding" / "cousin Zebediah"
    folder.mkdir(parents=True)
    generator = np.random.default_rng(0)
    rows = ["relative_path,score"]
    for number, red in enumerate(generator.integers(0, 256, N_PICTURES)):
        name = f"grandma_{number:02}.png"
        Image.new("RGB", (16, 12), (int(red), number, 255 - number)).save(folder / name)
        rows.append(f"cousin Zebediah/{name},{4.123456 + red / 256 + generator.normal() / 4:.9f}")
    (folder.parent / "scores.csv").write_text("\n".join(rows))
    return folder.parent


def train(*more: str) -> Figures:
    script.run(["-d=wedding", "--trials=3", "--model_seed=1", "--workers=1", "--group_duplicates=off", *SMALL, *more])
    found = figures_from_text(Scorer.load("wedding/model.safetensors", device="cpu").card[KEY])
    assert found is not None
    return found


def test_the_model_file_says_what_the_verdict_says(wedding: Path, caplog: pytest.LogCaptureFixture) -> None:
    found = train("--savefile=out.csv", "--folds=4")
    with (wedding / "out.csv").open() as file:
        rows = list(csv.DictReader(file))
    scores, unseen = (np.array([float(row[name]) for row in rows]) for name in ("score", "out_of_fold_score"))
    assert (found.judged_on, found.n_images) == ("out of fold", N_PICTURES)
    spearman, pairs = (find(scores, unseen, out_of_fold=True) for find in (spearman_interval, ab_interval))
    assert found.spearman == pytest.approx(spearman.value, abs=1e-4)
    assert found.spearman_bounds == pytest.approx((spearman.low, spearman.high), abs=1e-3)
    flattery = Scorer.load("wedding/model.safetensors", device="cpu").model.ab_flattery
    assert found.right_pairs == pytest.approx(pairs.value - flattery, abs=1e-4)
    assert found.right_pairs_bounds is not None
    low, high = found.right_pairs_bounds
    (verdict,) = [line for line in caplog.messages if "Of two new pictures" in line]
    assert f"{100 * found.right_pairs:.0f} times in 100 (95 % interval {100 * low:.0f} to {100 * high:.0f};" in verdict


def test_a_test_set_is_believed_first_and_eval_without_folds(wedding: Path) -> None:
    assert train("--folds=1").judged_on == "eval"
    (wedding / "split.json").unlink()
    found = train("--folds=1", "--fraction_for_test=0.4", "--name=other", "--model=model.safetensors")
    assert (found.judged_on, found.n_images) == ("test", round(0.4 * N_PICTURES))


def test_no_picture_path_or_score_of_the_user_is_published(wedding: Path) -> None:
    found = train("--name=wedding of Zebediah")
    folder = Scorer.load("wedding/model.safetensors", device="cpu").save_folder("published")
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert f"{found.n_images} pictures, out of fold" in card
    assert f"{found.spearman:.3f}" in card
    written = card.encode() + (folder / "model.safetensors").read_bytes()
    scores = (wedding / "scores.csv").read_text().splitlines()[1:]
    secrets = [part for row in scores for part in row.split(",")]
    secrets += ["wedding", "Zebediah", "grandma", str(wedding.parent), "learnt_pictures", "scores.csv", "split.json"]
    assert [secret for secret in secrets if secret.encode() in written] == []
    assert b"Zebediah" in (wedding / "model.safetensors").read_bytes()  # the study's name, in the user's copy
