"""The report of a training, and the notes in its study."""

import logging
from pathlib import Path

import optuna
import pytest

import aesthetic_predictor_training as script
from custom_aesthetic.commands import preparation
from custom_aesthetic.search.storage import opened_study
from tests.mean_colour import MeanColour


def notes(study: optuna.Study) -> dict[int, str]:
    """Return trial number -> note, as the dashboard stores them."""
    stored = study._storage.get_study_system_attrs(study._study_id)
    found = {trial.number: stored.get(f"dashboard:{trial._trial_id}:note_str:0") for trial in study.get_trials()}
    return {number: note for number, note in found.items() if note is not None}


@pytest.mark.parametrize("database", ["sqlite:///db.sqlite", ""])
def test_a_training_writes_a_report_and_notes_in_the_study_where_the_model_is(
    colour_pictures: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, database: str
) -> None:
    monkeypatch.setattr(preparation, "build_extractors", lambda names, *_: [MeanColour()])
    monkeypatch.chdir(colour_pictures.parent)
    caplog.set_level(logging.INFO, logger="custom_aesthetic")
    paths = sorted(file.relative_to(colour_pictures).as_posix() for file in colour_pictures.rglob("*.png"))
    rows = [f"{path},{int(Path(path).stem) / 10}" for path in paths]
    (colour_pictures / "scores.csv").write_text("\n".join(["relative_path,score", *rows]))
    run = [
        "-d=pictures",
        "--loss_model=nll",
        f"--database={database}",
        "--report=r.html",
        "--workers=1",
        "--model_seed=1",
        "--sampler=random",
        "--set_for_scoring=train",
        "--ensemble=1",
    ]
    small = ["--max_first_layer_size=12", "--max_second_layer_size=12", "--max_train_epochs=6"]
    script.run([*run, *small, "--trials=3"])
    page = Path("r.html").read_text(encoding="utf-8")
    for words in ("Calibration", "<dd>nll</dd>", "<dd>mean-colour</dd>", "Most under-rated"):
        assert words in page
    assert ("Optimisation history" in page) == bool(database)
    if not database:
        return
    for more in (["--trials=3"], ["--trials=9", "--min_train_epochs=60", "--max_train_epochs=60"]):
        script.run([*run, *small, *more])
        with opened_study(database, "aesthetic") as study:
            assert study.metric_names == ["train_nll"]
            best, written = study.best_trial.number, notes(study)
            assert written.pop(best) == f"In the model file `{colour_pictures / 'model.safetensors'}`"
            expected = f"No longer in the model file, which now holds trial {best}"
            assert all(note == expected for note in written.values())
    assert written, "another trial was the best earlier"
