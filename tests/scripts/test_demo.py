"""The packaged demo: its pictures and scores are those of its script, and the scores follow the taste."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.stats import spearmanr

from demo import make_demo

DEMO = Path(make_demo.__file__).resolve().parent


@pytest.fixture(scope="module")
def pictures() -> list[make_demo.Picture]:
    return make_demo.plan_pictures(make_demo.SEED)


def as_jpeg(picture: make_demo.Picture) -> bytes:
    buffer = io.BytesIO()
    make_demo.draw_picture(picture, make_demo.SEED).save(buffer, "JPEG", quality=make_demo.JPEG_QUALITY)
    return buffer.getvalue()


def test_the_committed_scores_are_those_the_script_makes(pictures):
    committed = json.loads((DEMO / "images" / "scores.json").read_text(encoding="utf-8"))
    made = json.loads(make_demo.score_file(pictures, make_demo.SEED))
    assert list(committed["ImageRecords"]) == list(made["ImageRecords"])
    for name, record in made["ImageRecords"].items():
        assert committed["ImageRecords"][name]["comparisons"] == record["comparisons"]
        assert committed["ImageRecords"][name]["score"] == pytest.approx(record["score"], abs=0.0011)


def test_the_same_seed_draws_the_same_bytes_and_the_committed_pictures(pictures):
    for picture in pictures[:: make_demo.PICTURES_A_FOLDER + 7]:
        drawn = as_jpeg(picture)
        assert drawn == as_jpeg(picture)
        with Image.open(DEMO / "images" / picture.relative_path) as committed, Image.open(io.BytesIO(drawn)) as again:
            difference = np.abs(np.asarray(committed, dtype=float) - np.asarray(again, dtype=float)).mean()
        assert difference < 1.0, picture.relative_path


def test_the_scored_pictures_are_exactly_those_in_the_folder():
    scored = json.loads((DEMO / "images" / "scores.json").read_text(encoding="utf-8"))["ImageRecords"]
    there = {path.relative_to(DEMO / "images").as_posix() for path in (DEMO / "images").rglob("*.jpg")}
    assert set(scored) == there
    assert len(there) >= 150
    assert sum((DEMO / "images" / name).stat().st_size for name in there) < 2_500_000


def test_the_scores_follow_the_known_taste_but_not_perfectly(pictures):
    scored = json.loads((DEMO / "images" / "scores.json").read_text(encoding="utf-8"))["ImageRecords"]
    tastes = [make_demo.taste(picture) for picture in pictures]
    agreement = spearmanr(tastes, [scored[picture.relative_path]["score"] for picture in pictures]).statistic
    assert 0.85 < agreement < 0.99


def test_another_seed_gives_other_scores(pictures):
    assert make_demo.score_file(make_demo.plan_pictures(8), 8) != make_demo.score_file(pictures, make_demo.SEED)
