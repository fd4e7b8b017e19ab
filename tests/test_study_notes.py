"""What stays with a study after a run: the note of the best trial, the name of the metric; and the run's report."""

import logging
from pathlib import Path

import optuna
import pytest

import aesthetic_predictor_training as script
from src import preparation
from src.storage import opened_study
from src.study_notes import note_best_trial
from tests.mean_colour import MeanColour


def notes(study: optuna.Study) -> dict[int, str]:
    """Return trial number -> note, as the dashboard stores them."""
    stored = study._storage.get_study_system_attrs(study._study_id)
    found = {trial.number: stored.get(f"dashboard:{trial._trial_id}:note_str:0") for trial in study.get_trials()}
    return {number: note for number, note in found.items() if note is not None}


def test_only_the_best_trial_names_the_model(tmp_path: Path) -> None:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(direction="maximize", storage=optuna.storages.InMemoryStorage())
    study.optimize(lambda trial: trial.number, n_trials=2)
    note_best_trial(study, study.best_trial, tmp_path / "model.safetensors")
    assert notes(study) == {1: f"The best trial. Its model: `{tmp_path.resolve() / 'model.safetensors'}`"}
    note_best_trial(study, study.best_trial, tmp_path / "model.safetensors")
    assert len(notes(study)) == 1
    study.optimize(lambda trial: trial.number, n_trials=1)
    note_best_trial(study, study.best_trial, tmp_path / "model.safetensors")
    assert notes(study)[1] == "Was the best trial; now it is trial 2."
    assert notes(study)[2].startswith("The best trial.")


@pytest.mark.parametrize("database", ["sqlite:///db.sqlite", ""])
def test_training_writes_its_report_with_the_study_if_that_is_kept(
    colour_pictures: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, database: str
) -> None:
    monkeypatch.setattr(preparation, "build_extractors", lambda names, *_: [MeanColour()])
    monkeypatch.chdir(colour_pictures.parent)
    caplog.set_level(logging.INFO, logger="src")
    paths = sorted(file.relative_to(colour_pictures).as_posix() for file in colour_pictures.rglob("*.png"))
    rows = [f"{path},{int(Path(path).stem) / 10}" for path in paths]
    (colour_pictures / "scores.csv").write_text("\n".join(["relative_path,score", *rows]))
    small = ["--max_first_layer_size=12", "--max_second_layer_size=12", "--max_train_epochs=6", "--workers=1"]
    script.run(["-d=pictures", "--trials=3", "--loss_model=nll", f"--database={database}", "--report=r.html", *small])
    page = Path("r.html").read_text(encoding="utf-8")
    for words in ("Calibration", "<dd>nll</dd>", "<dd>mean-colour</dd>", "Most over-rated"):
        assert words in page
    assert ("Optimisation history" in page) == bool(database)
    if database:
        with opened_study(database, "aesthetic") as study:
            assert study.metric_names == ["eval_nll"]
            assert list(notes(study)) == [study.best_trial.number]
