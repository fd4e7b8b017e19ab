"""A model is judged by pictures that it has not learnt from, or by out-of-fold scores, and everywhere by the same."""

import csv
import json
import logging
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import aesthetic_data_analysis as script
from custom_aesthetic.commands import view
from custom_aesthetic.commands.judging import load_judged_pictures
from custom_aesthetic.commands.spotlight import make_frame
from custom_aesthetic.heads import prediction
from custom_aesthetic.heads.learnt_pictures import learnt_metadata
from custom_aesthetic.heads.model_file import save_model
from custom_aesthetic.quality.statistics_line import statistics_line
from custom_aesthetic.report.judged_pictures import JudgedPictures
from custom_aesthetic.scores.out_of_fold import FINGERPRINT, out_of_fold_file, write_out_of_fold
from custom_aesthetic.scores.score_files import read_scores
from custom_aesthetic.settings.analysis import ModelScoreSettings
from custom_aesthetic.settings.training import FeatureSettings, ImageSettings
from tests.mean_colour import MeanColour
from tests.scripts.test_analysis import redness_model

Lines = dict[str, str]
N_TAUGHT = 20


@pytest.fixture
def pictures(colour_pictures: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> Path:
    """24 colours scored as red as they are, so that the model is perfect on them; it has learnt from the first 20.

    Its out-of-fold scores are poor: they are what it should be judged by. The last four are its test set.
    """
    monkeypatch.setattr(prediction, "build_extractors", lambda names, *_: [MeanColour(n) for n in names.split(",")])
    monkeypatch.setattr(view, "build_extractors", lambda names, *_: [MeanColour()])
    monkeypatch.chdir(colour_pictures.parent)
    caplog.set_level(logging.INFO, logger="custom_aesthetic")
    paths = paths_in(colour_pictures)
    splits = ["test" if number >= N_TAUGHT else "eval" if number % 4 == 0 else "train" for number in range(24)]
    (colour_pictures / "split.json").write_text(json.dumps(dict(zip(paths, splits, strict=True))))
    rows = [f"{path},{number / 10}" for number, path in enumerate(paths)]
    (colour_pictures / "scores.csv").write_text("\n".join(["relative_path,score", *rows]))
    write_model(colour_pictures / "model.safetensors", paths, splits)
    return colour_pictures


def paths_in(folder: Path) -> list[str]:
    files = sorted(folder.rglob("*.png"), key=lambda file: file.stem)
    return [file.relative_to(folder).as_posix() for file in files]


def out_of_fold_scores() -> np.ndarray:
    return (np.arange(N_TAUGHT) * 7 % N_TAUGHT) / 10


def write_model(file: Path, paths: list[str], splits: list[str]) -> None:
    numbers = np.arange(24)
    colours = np.stack([10 * numbers, 128 - numbers, 255 - 10 * numbers], axis=1).astype(np.float32)
    metadata = {"feature_extractor_model": "mean-colour", "folds": "4"}
    tied = write_out_of_fold(file, paths[:N_TAUGHT], numbers[:N_TAUGHT] / 10, out_of_fold_scores())
    save_model(file, redness_model(), metadata | {FINGERPRINT: tied} | learnt_metadata(colours, splits, folded=True))


@pytest.fixture
def analyse(caplog: pytest.LogCaptureFixture) -> Callable[..., Lines]:
    def run(*argv: str) -> Lines:
        caplog.clear()
        script.run(argv)
        return {line.partition(" : ")[0]: line for line in caplog.messages if " : " in line}

    return run


def expected(name: str, rows: list[int]) -> str:
    judged = np.append(out_of_fold_scores(), np.arange(N_TAUGHT, 24) / 10)
    return statistics_line(name, np.arange(24)[rows] / 10, judged[rows])


def judged_pictures(folder: Path, **source: str) -> JudgedPictures:
    return load_judged_pictures(
        ImageSettings(str(folder)), ModelScoreSettings(**source), FeatureSettings("mean-colour"), torch.device("cpu")
    )


def test_pictures_that_trained_the_model_count_by_their_out_of_fold_scores(
    pictures: Path, analyse: Callable[..., Lines], caplog: pytest.LogCaptureFixture
) -> None:
    lines = analyse("-d=pictures", "-m=model.safetensors", "--directories")
    assert lines["All"] == expected("All", list(range(24)))
    assert lines["warm"] == expected("warm", list(range(1, 24, 2)))
    assert "20 of 24 pictures trained the model: they are judged by their out-of-fold scores" in caplog.text
    assert analyse("-d=pictures", "-m=model.safetensors", "--include_train_split")["All"] == lines["All"]


def test_terminal_report_and_viewer_count_the_same_pictures_and_give_the_same_share(
    pictures: Path, analyse: Callable[..., Lines], caplog: pytest.LogCaptureFixture
) -> None:
    line = analyse("-d=pictures", "-m=model.safetensors", "--report=report.html", "--directories")["All"]
    share = float(line.rpartition("AB")[2].strip(" %"))
    page = Path("report.html").read_text()
    table = page[page.index("<table>") : page.index("</table>")]
    cells = [
        re.findall(r"<td>([\d.]+)", re.search(f'<th scope="row">{row}</th>(.*?)</tr>', table)[1])  # type: ignore[index]
        for row in ("Pictures", "AB")
    ]
    assert re.findall(r'<th scope="col">(.*?)</th>', table) == ["All", "Test", "Out of fold", "cold", "warm"]
    assert (cells[0][0], float(cells[1][0])) == ("24", pytest.approx(share, abs=0.05))
    assert f"{share:.0f} times in 100" in re.sub("<.*?>", "", page)
    assert f"{share:.0f} times in 100" in caplog.text
    frame = make_frame(judged_pictures(pictures, model="model.safetensors"), None)
    judged = frame[frame["judged_by"] != "learnt from"]
    assert statistics_line("All", judged["score"].to_numpy(), (judged["score"] - judged["error"]).to_numpy()) == line


@pytest.mark.parametrize("change", ["gone", "of another training"])
def test_without_its_out_of_fold_scores_a_model_is_judged_only_by_what_it_has_not_learnt_from(
    pictures: Path, analyse: Callable[..., Lines], caplog: pytest.LogCaptureFixture, change: str
) -> None:
    file = out_of_fold_file(pictures / "model.safetensors")
    if change == "gone":
        file.unlink()
    else:
        file.write_text(file.read_text().replace("0.7", "0.8"))
    lines = analyse("-d=pictures", "-m=model.safetensors", "--report=report.html")
    assert lines["All"] == expected("All", list(range(20, 24)))
    assert "model.out_of_fold.csv does not hold its out-of-fold scores" in caplog.text
    assert "run the same training command" in caplog.text
    assert "20 further pictures are learnt from" in Path("report.html").read_text()
    lines = analyse("-d=pictures", "-m=model.safetensors", "--include_train_split")
    assert lines["Learnt from"].startswith("Learnt from :    20 images")


def test_copies_of_training_pictures_elsewhere_are_named_and_not_judged(
    pictures: Path, analyse: Callable[..., Lines], caplog: pytest.LogCaptureFixture
) -> None:
    other = pictures.parent / "other"
    other.mkdir()
    rows = ["relative_path,score"]
    for number, path in enumerate(paths_in(pictures)):
        shutil.copy(pictures / path, other / f"copy {number:02}.png")
        rows.append(f"copy {number:02}.png,{number / 10}")
    (other / "scores.csv").write_text("\n".join(rows))
    lines = analyse("-d=other", f"-m={pictures / 'model.safetensors'}")
    assert lines["All"] == expected("All", list(range(20, 24)))
    assert "20 of 24 pictures are copies of pictures that the model has learnt from" in caplog.text
    assert "copy 00.png, copy 01.png" in caplog.text


def test_other_pictures_under_the_same_paths_are_not_taken_for_those_that_were_learnt_from(
    pictures: Path, analyse: Callable[..., Lines]
) -> None:
    other = pictures.parent / "other"
    shutil.copytree(pictures, other)
    for path in paths_in(other):
        Image.new("RGB", (9, 9), (20, 250, 3 * int(Path(path).stem))).save(other / path)
    lines = analyse("-d=other", f"-m={pictures / 'model.safetensors'}")
    assert lines["All"].startswith("All :    24 images")
    assert "model score  0.200 +/- 0.00" in lines["All"], "not by the out-of-fold scores of the same paths"


@pytest.mark.parametrize("name", ["model_scores.json", "scores of the model.csv"])
def test_a_file_of_model_scores_is_judged_as_the_model_is(
    pictures: Path, analyse: Callable[..., Lines], name: str
) -> None:
    save = ["--save_scores_and_errors", f"--save_model_scorefile={name}"]
    direct = analyse("-d=pictures", "-m=model.safetensors", *save)
    assert analyse("-d=pictures", f"--model_scores={name}") == direct
    out_of_fold_file(pictures / "model.safetensors").unlink()
    direct = analyse("-d=pictures", "-m=model.safetensors", *save)
    assert analyse("-d=pictures", f"--model_scores={name}") == direct
    errors = read_scores(pictures / "error_scores.json")
    assert set(errors.columns["judged_by"]) == {"learnt from", "unseen (test)"}


def test_the_savefile_of_a_training_with_folds_is_judged_by_its_out_of_fold_column(
    pictures: Path, analyse: Callable[..., Lines]
) -> None:
    splits = json.loads((pictures / "split.json").read_text())
    with (pictures / "saved.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["relative_path", "score", "model_score", "out_of_fold_score", "split"])
        for number, path in enumerate(paths_in(pictures)):
            by_folds = out_of_fold_scores()[number] if number < N_TAUGHT else ""
            writer.writerow([path, number / 10, number / 10, by_folds, splits[path]])
    assert analyse("-d=pictures", "--model_scores=saved.csv")["All"] == expected("All", list(range(24)))
    assert analyse("-d=pictures", "--scores=saved.csv")["All"] == expected("All", list(range(24)))


@pytest.mark.parametrize("name", ["model_scores.json", "error_scores.json", "model.out_of_fold.csv"])
def test_every_file_that_is_written_opens_as_a_score_file(
    pictures: Path, analyse: Callable[..., Lines], name: str
) -> None:
    analyse("-d=pictures", "-m=model.safetensors", "--save_scores_and_errors")
    assert "All" in analyse("-d=pictures", "-m=model.safetensors", f"--scores={name}")
    assert "All" in analyse("-d=pictures", f"--model_scores={name}")
    frame = make_frame(judged_pictures(pictures, model_scores=name), None)
    assert len(frame) >= N_TAUGHT


def test_baselines_are_judged_on_the_same_pictures_by_fits_that_never_saw_them(
    pictures: Path, analyse: Callable[..., Lines]
) -> None:
    scores = np.random.default_rng(0).normal(size=24).round(3)
    rows = [f"{path},{score}" for path, score in zip(paths_in(pictures), scores, strict=True)]
    (pictures / "scores.csv").write_text("\n".join(["relative_path,score", *rows]))
    lines = analyse("-d=pictures", "-m=model.safetensors", "--baselines")
    found = {name: line for name, line in lines.items() if name.startswith("All, ")}
    assert set(found) >= {"All, ridge", "All, SVR", "All, kernel ridge"}
    assert all(" 24 images" in line for line in found.values())
    shares = [float(line.rpartition("AB")[2].strip(" %")) for line in found.values()]
    assert max(shares) < 75, "random scores cannot be learnt"


@pytest.mark.parametrize("n_images", [1, 2, 24])
def test_few_pictures_and_equal_scores_are_reported_in_words(
    pictures: Path, analyse: Callable[..., Lines], caplog: pytest.LogCaptureFixture, n_images: int
) -> None:
    rows = [f"{path},5" for path in paths_in(pictures)[-n_images:]]
    (pictures / "scores.csv").write_text("\n".join(["relative_path,score", *rows]))
    analyse("-d=pictures", "-m=model.safetensors", "--report=report.html", "--directories")
    assert "Too few different scores" in caplog.text
    visible = re.sub("<style>.*?</style>|<.*?>", "", Path("report.html").read_text(), flags=re.DOTALL)
    assert not re.search(r"\bnan\b", visible + caplog.text)
