"""Pictures whose names are not UTF-8 or contain newlines are trained on, analysed, scored and moved like others."""

import json
import logging
import os
import sys
from pathlib import Path

import pytest
from PIL import Image

import aesthetic_data_analysis
import aesthetic_predictor_training
import aesthetic_scorer
from custom_aesthetic.commands import preparation
from custom_aesthetic.heads import prediction
from custom_aesthetic.pictures.folders import find_images
from custom_aesthetic.scores.score_files import ScoreTable, read_scores, write_csv
from custom_aesthetic.scores.splits import read_split_file
from tests.mean_colour import MeanColour

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="file names of bytes are Linux's")

SMALL = ["--max_first_layer_size=20", "--max_second_layer_size=12", "--max_train_epochs=8", "--workers=1"]


@pytest.fixture
def odd_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> Path:
    """Sixteen pictures with odd names in a folder with an odd name, scored in a CSV file by how red they are."""
    for module in (preparation, prediction):
        monkeypatch.setattr(module, "build_extractors", lambda names, *_: [MeanColour(n) for n in names.split(",")])
    monkeypatch.chdir(tmp_path)
    caplog.set_level(logging.INFO, logger="custom_aesthetic")
    names = [b"caf\xe9 %d.png", b"line\nbreak %d.png", b" \xff\r, \"%d'.png", b"plain %d.png"]
    folder = tmp_path / "pictures" / os.fsdecode(b"b\xfcro")
    folder.mkdir(parents=True)
    for number in range(16):
        image = Image.new("RGB", (20, 20), (15 * number, 128 - number, (90 * number) % 256))
        image.save(folder / os.fsdecode(names[number % 4] % number), "PNG")
    paths = find_images(tmp_path / "pictures")
    assert len(paths) == 16
    write_csv(tmp_path / "pictures" / "scores.csv", ScoreTable(tuple(paths), {"score": [float(n) for n in range(16)]}))
    return tmp_path / "pictures"


def test_odd_names_go_through_training_analysis_scoring_and_moves(odd_pictures: Path) -> None:
    paths = set(find_images(odd_pictures))
    options = ["-d=pictures", "--trials=2", "--savefile=saved.csv", "--report=report.html", "--folds=2", *SMALL]
    aesthetic_predictor_training.run([*options, "--group_duplicates=off"])
    saved = next(file for file in (odd_pictures / "saved.csv", Path("saved.csv")) if file.is_file())
    assert set(read_scores(saved).paths) == paths
    assert set(read_split_file(odd_pictures / "split.json")) == paths
    for file in odd_pictures.glob("*.out_of_fold.csv"):
        assert set(read_scores(file).paths) == paths
    html = Path("report.html").read_text(encoding="utf-8")
    assert "caf\\udce9" in html

    options = [
        "-d=pictures",
        "-m=model.safetensors",
        "--include_train_split",
        "--directories",
        "--report=analysis.html",
    ]
    aesthetic_data_analysis.run([*options, "--save_scores_and_errors"])
    assert set(read_scores(odd_pictures / "model_scores.json").paths) == paths
    assert set(json.loads((odd_pictures / "model_scores.json").read_bytes())["ImageRecords"]) == paths
    assert set(read_scores(odd_pictures / "error_scores.json").paths) == paths

    options = ["-d=pictures", "-m=model.safetensors"]
    for name in ("scores.csv", "scores.json"):
        aesthetic_scorer.run([*options, f"-o={name}", "--sheet=sheet.html"])
        assert set(read_scores(Path(name)).paths) == paths
    assert Path("sheet.html").read_text(encoding="utf-8").count("<li>") == 16

    before = {path: (odd_pictures / path).read_bytes() for path in paths}
    aesthetic_scorer.run([*options, "--top=16", "--move_to=best"])
    assert not find_images(odd_pictures)
    (undo_file,) = Path("best").glob("undo*.jsonl")
    aesthetic_scorer.run([f"--undo={undo_file}"])
    assert {path: (odd_pictures / path).read_bytes() for path in find_images(odd_pictures)} == before


def test_a_list_of_odd_names_has_one_line_a_picture(odd_pictures: Path, caplog: pytest.LogCaptureFixture) -> None:
    options = ["-d=pictures", "--trials=1", "--group_duplicates=off", "--folds=1", *SMALL]
    aesthetic_predictor_training.run(options)
    caplog.clear()
    aesthetic_scorer.run(["-d=pictures", "-m=model.safetensors"])
    listed = [message for message in caplog.messages if ".png" in message and "unfamiliar to" not in message]
    assert len(listed) == 16
    assert not any("\n" in message for message in listed)
