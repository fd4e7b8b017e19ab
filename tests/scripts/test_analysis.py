"""The analysis script, run as a user runs it."""

import json
import logging
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import optuna
import pytest
import torch

import aesthetic_data_analysis as script
from custom_aesthetic.base.errors import UserError
from custom_aesthetic.heads import prediction
from custom_aesthetic.heads.model_file import save_model
from custom_aesthetic.heads.predictor import Predictor, from_layers
from custom_aesthetic.quality.statistics_line import statistics_line
from custom_aesthetic.scores.score_files import read_scores
from custom_aesthetic.search.storage import close_storage, open_storage
from custom_aesthetic.search.study import IDENTITY
from custom_aesthetic.search.succession import SERIES
from tests.conftest import ROOT
from tests.mean_colour import MeanColour
from tests.quality.test_statistics_line import FORM


def redness_model(sigma: float | None = None) -> Predictor:
    """Return a model whose score is a hundredth of the mean red, with a constant sigma if given."""
    first = torch.tensor([[0.01, 0.0, 0.0]])
    one = torch.ones(1, 1)
    last = one if sigma is None else torch.tensor([[1.0], [0.0]])
    bias = torch.zeros(1) if sigma is None else torch.tensor([0.0, sigma])
    return from_layers([(first, torch.zeros(1)), (one, torch.zeros(1)), (last, bias)])


@pytest.fixture
def pictures(colour_pictures: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> Path:
    """24 colours, number i scored 7 i modulo 24, a model that scores i / 10, every third picture eval."""
    monkeypatch.setattr(prediction, "build_extractors", lambda names, *_: [MeanColour(n) for n in names.split(",")])
    monkeypatch.chdir(colour_pictures.parent)
    caplog.set_level(logging.INFO, logger="custom_aesthetic")
    files = sorted(colour_pictures.rglob("*.png"), key=lambda file: file.stem)
    lines = ["relative_path,score,split"]
    for number, file in enumerate(files):
        path = file.relative_to(colour_pictures).as_posix()
        lines.append(f"{path},{7 * number % 24},{'train' if number % 3 else 'eval'}")
    (colour_pictures / "scores.csv").write_text("\n".join(lines))
    save_model(colour_pictures / "model.safetensors", redness_model(), {"feature_extractor_model": "mean-colour"})
    return colour_pictures


@pytest.fixture
def analyse(caplog: pytest.LogCaptureFixture) -> Callable[..., dict[str, str]]:
    """Run the script; return test name -> its line."""

    def run(*argv: str) -> dict[str, str]:
        caplog.clear()
        script.run(["-d=pictures", *argv])
        return {line.partition(" : ")[0]: line for line in caplog.messages if " images, " in line}

    return run


def score_and_model(numbers: list[int]) -> tuple[np.ndarray, np.ndarray]:
    return np.array([7 * number % 24 for number in numbers], dtype=float), np.array(numbers) / 10


def test_the_eval_images_are_analysed_unless_all_are_asked_for(
    pictures: Path, analyse: Callable[..., dict[str, str]]
) -> None:
    lines = analyse("-m=model.safetensors")
    assert lines == {"All": statistics_line("All", *score_and_model(list(range(0, 24, 3))))}
    assert FORM.match(lines["All"])
    lines = analyse("-m=model.safetensors", "--include_train_split")
    learnt = [number for number in range(24) if number % 3]
    assert lines == {
        "All": statistics_line("All", *score_and_model(list(range(24)))),
        "Learnt from": statistics_line("Learnt from", *score_and_model(learnt)),
    }


def test_each_pattern_and_each_sub_directory_has_its_line(
    pictures: Path, analyse: Callable[..., dict[str, str]]
) -> None:
    lines = analyse("-m=model.safetensors", "--include_train_split", "--regex=/0", "--regex=nothing", "--directories")
    assert list(lines) == ["All", "Learnt from", "/0", "nothing", "cold", "warm"]
    assert lines["/0"] == statistics_line("/0", *score_and_model(list(range(10))))
    assert lines["nothing"] == "nothing :     0 images, too few for statistics"
    assert lines["warm"] == statistics_line("warm", *score_and_model(list(range(1, 24, 2))))


def test_the_files_written_read_back_as_score_files(pictures: Path, analyse: Callable[..., dict[str, str]]) -> None:
    direct = analyse("-m=model.safetensors", "--save_scores_and_errors", "--save_error_scorefile=errors.csv")
    models, errors = read_scores(pictures / "model_scores.json"), read_scores(pictures / "errors.csv")
    assert models.paths == errors.paths
    numbers = [int(Path(path).stem) for path in models.paths]
    scores, expected = score_and_model(numbers)
    np.testing.assert_allclose(models.scores, expected, atol=1e-6)
    np.testing.assert_allclose(errors.scores, np.abs(scores - expected), atol=1e-6)
    assert len(numbers) == 24
    assert analyse("--model_scores=model_scores.json") == direct


def test_the_savefile_of_a_training_serves_as_model_scores(
    pictures: Path, analyse: Callable[..., dict[str, str]]
) -> None:
    Path("out.csv").write_text("relative_path,score,model_score\ncold/00.png,9,0.5\nwarm/03.png,9,0.1\n")
    lines = analyse("--model_scores=out.csv")
    assert lines == {"All": statistics_line("All", np.array([0.0, 21.0]), np.array([0.5, 0.1]))}


def test_without_a_score_file_the_model_alone_still_writes_its_scores(
    pictures: Path, analyse: Callable[..., dict[str, str]]
) -> None:
    (pictures / "scores.csv").unlink()
    assert analyse("-m=model.safetensors", "--report=report.html") == {}
    assert len(read_scores(pictures / "model_scores.json")) == 24
    assert not (pictures / "error_scores.json").exists()
    assert "none of them has a score" in Path("report.html").read_text()


def test_a_column_of_model_scores_needs_no_model(
    pictures: Path, analyse: Callable[..., dict[str, str]], caplog: pytest.LogCaptureFixture
) -> None:
    (pictures / "scores.csv").write_text(
        "relative_path,score,model_score,split\na.png,1,3,eval\nb.png,2,4,eval\nc.png,3,,eval\nd.png,9,1,train\n"
    )
    assert analyse()["All"] == statistics_line("All", np.array([1.0, 2.0]), np.array([3.0, 4.0]))
    assert "left out 1 pictures that have no model score" in caplog.text


def test_a_model_given_beats_a_file_of_model_scores(pictures: Path, analyse: Callable[..., dict[str, str]]) -> None:
    direct = analyse("-m=model.safetensors")
    assert analyse("-m=model.safetensors", "--model_scores=nowhere.json") == direct


def test_the_split_file_is_used_if_there_is_no_split_column(
    pictures: Path, analyse: Callable[..., dict[str, str]]
) -> None:
    (pictures / "scores.csv").write_text(
        "relative_path,score,model_score\n" + "".join(f"{i}.png,{i},{-i}\n" for i in range(5))
    )
    (pictures / "split.json").write_text(json.dumps({"0.png": "train", "1.png": "eval"}))
    assert analyse()["All"].startswith("All :     4 images"), "new pictures are not training pictures"


def test_a_training_arguments_file_works_and_ignored_arguments_are_listed(
    pictures: Path, analyse: Callable[..., dict[str, str]], caplog: pytest.LogCaptureFixture
) -> None:
    Path("arguments.txt").write_text("--model = model.safetensors\n# a comment\n--trials=5\n--calculate_ab\n")
    assert "All" in analyse("@arguments.txt")
    assert "ignored" in caplog.messages[0]
    assert "--trials=5 --calculate_ab" in caplog.messages[0]


def test_the_report_shows_calibration_and_the_study(pictures: Path, analyse: Callable[..., dict[str, str]]) -> None:
    save_model(pictures / "nll.safetensors", redness_model(0.5), {"feature_extractor_model": "mean-colour"})
    storage = open_storage("sqlite:///db.sqlite")
    study = optuna.create_study(study_name="mine", storage=storage)
    study.optimize(lambda trial: trial.suggest_float("dropout", 0, 1), n_trials=3)
    close_storage(storage)
    analyse("-m=nll.safetensors", "--report=report.html", "--database=sqlite:///db.sqlite", "--name=mine")
    page = Path("report.html").read_text()
    for words in ("Calibration", "Optimisation history", "The study mine has 3", "AB by distance", "<dd>mean-colour"):
        assert words in page


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        ([], "no model scores: give a model by --model"),
        (["-m=other.safetensors"], "--model=other.safetensors does not exist"),
        (["--model_scores=other.json"], "--model_scores=other.json does not exist"),
        (["-m=model.safetensors", "--regex=("], "--regex=\\( is not a regular expression"),
        (["-m=model.safetensors", "--scores=other.csv"], "check --scores"),
        (["-m=model.safetensors", "--report=r.html", "--name=mine"], "sqlite:///db.sqlite does not exist"),
    ],
)
def test_a_mistake_of_the_user_is_named(
    pictures: Path, analyse: Callable[..., dict[str, str]], argv: list[str], words: str
) -> None:
    with pytest.raises(UserError, match=words):
        analyse(*argv)


def test_a_missing_study_is_named_with_the_existing_ones(
    pictures: Path, analyse: Callable[..., dict[str, str]]
) -> None:
    storage = open_storage("sqlite:///db.sqlite")
    optuna.create_study(study_name="mine", storage=storage)
    close_storage(storage)
    with pytest.raises(UserError, match=r"--name=yours: no such study .*: mine"):
        analyse("-m=model.safetensors", "--report=r.html", "--database=sqlite:///db.sqlite", "--name=yours")


def test_a_study_is_shown_by_its_newest_successor_as_training_goes_on_with_it(
    pictures: Path, analyse: Callable[..., dict[str, str]]
) -> None:
    storage = open_storage("sqlite:///db.sqlite")
    for name, series in (("mine", None), ("mine-2", "mine"), ("mine-10", "mine"), ("mine-11", None)):
        study = optuna.create_study(study_name=name, storage=storage)
        study.set_user_attr(IDENTITY, {})
        if series is not None:
            study.set_user_attr(SERIES, series)
        study.optimize(lambda trial: trial.suggest_float("dropout", 0, 1), n_trials=3)
    close_storage(storage)
    for name, shown in (("mine", "mine-10"), ("mine-2", "mine-2")):
        analyse("-m=model.safetensors", "--report=report.html", "--database=sqlite:///db.sqlite", f"--name={name}")
        assert f"The study {shown} has 3" in Path("report.html").read_text()


def test_a_million_images_are_analysed() -> None:
    scores, noise = np.random.default_rng(0).normal(size=(2, 1_000_000)).round(3)
    assert FORM.match(statistics_line("All", scores, scores + noise))


def test_older_models_give_the_same_scores_as_before(data_folder: Path, tmp_path: Path) -> None:
    photos, models = data_folder / "photos", data_folder / "older-models"
    expected = json.loads((models / "expected_scores.json").read_text())["older"]
    for name in list(expected)[:12]:
        (tmp_path / "photos" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "photos" / name).write_bytes((photos / name).read_bytes())
    command = [sys.executable, str(ROOT / "aesthetic_data_analysis.py"), "-d=photos", f"-m={models}/older.safetensors"]
    command.append("--feature_extractor_model=efficientnet-lite0")
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    found = read_scores(tmp_path / "photos" / "model_scores.json")
    np.testing.assert_allclose(found.scores, [expected[path] for path in found.paths], atol=1e-3)
    assert len(found) == 12


@pytest.mark.parametrize("name", ["aesthetic_data_analysis.py", "aesthetic_spotlight.py"])
def test_a_mistake_is_one_line_on_stderr_and_status_2(tmp_path: Path, name: str) -> None:
    command = [sys.executable, str(ROOT / name), "-d=nowhere", "-m=x"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("error: image directory nowhere does not exist")
    assert done.stderr.count("\n") == 1
