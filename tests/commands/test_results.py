"""The results of the shortest call: folds, out-of-fold predictions, the verdict first."""

import csv
import logging
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
import torch

import aesthetic_predictor_training as script
from custom_aesthetic.base.errors import UserError
from custom_aesthetic.commands import preparation
from custom_aesthetic.heads.model_file import load_model, save_model
from custom_aesthetic.quality import closing
from custom_aesthetic.quality.optimism import unpack_outputs
from custom_aesthetic.scores.folds import fold_levels, make_folds
from custom_aesthetic.scores.out_of_fold import FINGERPRINT, read_out_of_fold, write_out_of_fold
from custom_aesthetic.search.storage import close_storage, open_storage
from custom_aesthetic.search.trials import OUTPUTS
from custom_aesthetic.settings.arguments import parse_arguments
from custom_aesthetic.settings.training import SplitSettings, TrainingArguments
from tests.conftest import ROOT
from tests.mean_colour import MeanColour

SMALL = ("--max_first_layer_size=12", "--max_second_layer_size=12", "--min_batch_size=8", "--max_train_epochs=8")


@pytest.fixture
def scored_pictures(colour_pictures: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> Path:
    """Coloured pictures, scored by how red they are, in the current directory; the extractor is their mean colour."""
    monkeypatch.setattr(preparation, "build_extractors", lambda names, *_: [MeanColour(n) for n in names.split(",")])
    monkeypatch.chdir(colour_pictures.parent)
    caplog.set_level(logging.INFO, logger="custom_aesthetic")
    write_scores(colour_pictures, [int(file.stem) / 10 for file in sorted(colour_pictures.rglob("*.png"))])
    return colour_pictures


def write_scores(folder: Path, scores: list[float], split: str = "") -> None:
    files = sorted(folder.rglob("*.png"))
    rows = [f"{file.relative_to(folder).as_posix()},{score},{split}" for file, score in zip(files, scores, strict=True)]
    (folder / "scores.csv").write_text("\n".join(["relative_path,score,split", *rows]))


def train(*more: str) -> None:
    script.run(["-d=pictures", "--trials=5", "--model_seed=1", "--workers=1", *SMALL, *more])


def test_an_ensemble_without_linear_models_keeps_the_mean_of_its_heads_out_of_fold_outputs(
    scored_pictures: Path,
) -> None:
    train("--savefile=out.csv", "--group_duplicates=off", "--loss_model=nll")
    kept = read_out_of_fold(scored_pictures / "model.safetensors")
    with (scored_pictures / "out.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {row["relative_path"]: float(row["out_of_fold_score"]) for row in rows} == kept
    storage = open_storage("sqlite:///db.sqlite")
    trials = optuna.load_study(study_name="aesthetic", storage=storage).get_trials()
    close_storage(storage)
    scores = np.array([float(row["score"]) for row in rows])
    best = sorted(trials, key=lambda trial: trial.value or 0.0)[:4]
    outputs = [unpack_outputs(trial.system_attrs[OUTPUTS], scores) for trial in best]
    expected = np.mean([member[:, 0] for member in outputs if member is not None], axis=0)
    paths, every = [row["relative_path"] for row in rows], np.arange(len(rows))
    folds = make_folds(paths, every, 4, seed=SplitSettings().eval_pick_seed)
    expected -= fold_levels(scores, folds)
    np.testing.assert_allclose(list(kept.values()), expected, atol=3e-3)
    assert any(abs(kept[row["relative_path"]] - float(row["model_score"])) > 1e-3 for row in rows)


def test_the_levels_of_the_folds_are_taken_off_the_predictions_beside_an_older_file_too(
    scored_pictures: Path, caplog: pytest.LogCaptureFixture
) -> None:
    train("--group_duplicates=off")
    file = scored_pictures / "model.safetensors"
    kept, model = read_out_of_fold(file), load_model(file)
    scores = np.array([int(Path(path).stem) / 10 for path in kept])
    folds = make_folds(list(kept), np.arange(len(kept)), 4, seed=SplitSettings().eval_pick_seed)
    older = np.array(list(kept.values())) + fold_levels(scores, folds)
    metadata = {key: value for key, value in model.metadata.items() if key != "out_of_fold_levels"}
    save_model(file, model.predictor, metadata | {FINGERPRINT: write_out_of_fold(file, list(kept), scores, older)})
    train("--group_duplicates=off")
    assert read_out_of_fold(file) != kept, "the file stays"
    first, second = (line for line in caplog.messages if line.startswith("Out of fold :"))
    assert first == second


def test_the_model_file_says_how_heads_and_linear_models_are_weighted(
    scored_pictures: Path, caplog: pytest.LogCaptureFixture
) -> None:
    train("--savefile=out.csv")
    blend = load_model(scored_pictures / "model.safetensors").metadata["blend"]
    assert re.fullmatch(r"heads \d\.\d{4}, ridge \d\.\d{4}", blend)
    assert f"it adds up heads and linear models, with the weights {blend}" in caplog.messages


def test_the_verdict_comes_first_and_no_figure_is_in_sample(
    scored_pictures: Path, caplog: pytest.LogCaptureFixture
) -> None:
    train()
    spoken = caplog.messages[next(row for row, line in enumerate(caplog.messages) if "5 of 5" in line) + 1 :]
    said = next(row for row, line in enumerate(spoken) if "Of two new pictures" in line)
    assert spoken[said + 1].startswith("Out of fold :")
    assert not any(line.startswith(("Train :", "Full :", "Eval :")) for line in spoken)
    assert not any("nan" in line or "seed" in line or "log_weight_lr" in line for line in spoken)


def test_only_what_differs_from_the_defaults_is_printed_unless_verbose(
    scored_pictures: Path, caplog: pytest.LogCaptureFixture
) -> None:
    train("--trials=0")
    assert "--ensemble" not in caplog.messages[0]
    assert "--trials=0" in caplog.messages[0]
    train("--trials=0", "--verbose")
    assert any("--ensemble=4" in line for line in caplog.messages)


def test_the_same_command_again_trains_nothing_and_prints_the_same(
    scored_pictures: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    train()
    first = [line for line in caplog.messages if "Of two new" in line or "optimism" in line]
    caplog.clear()
    monkeypatch.setattr(torch.optim, "AdamW", None)
    train()
    assert "training the head" not in caplog.text
    assert [line for line in caplog.messages if "Of two new" in line or "optimism" in line] == first


def test_lost_out_of_fold_predictions_are_written_again(scored_pictures: Path) -> None:
    train()
    file = scored_pictures / "model.out_of_fold.csv"
    content = file.read_bytes()
    for damage in (file.unlink, lambda: file.write_text("relative_path,score\n")):
        damage()
        train()
        assert file.read_bytes() == content


@pytest.mark.parametrize(
    ("more", "split", "words"),
    [
        ((), "", "in 4 folds (--folds=auto)"),
        ((), "column", "--folds=auto is 1 here, because the score file has a column split"),
        (("--fraction_for_eval=0.25",), "", "--folds=1"),
        (("--set_for_scoring=eval",), "", "--folds=1"),
        (("--split=split.json",), "", "--folds=1"),
        (("--folds=auto", "--fraction_for_eval=0.5"), "", "--folds=auto is 1 here, because a split is asked for"),
    ],
)
def test_auto_folds_are_used_unless_a_split_is_asked_for(
    scored_pictures: Path, caplog: pytest.LogCaptureFixture, more: tuple[str, ...], split: str, words: str
) -> None:
    if split:
        text = (scored_pictures / "scores.csv").read_text().splitlines()
        rows = [f"{line}{'eval' if row % 3 else 'train'}" for row, line in enumerate(text[1:])]
        (scored_pictures / "scores.csv").write_text("\n".join([text[0], *rows]))
    train("--trials=0", *more)
    assert words in caplog.text


def test_many_pictures_are_judged_by_the_eval_set_instead_of_folds(
    scored_pictures: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preparation, "MOST_FOR_AUTO_FOLDS", 23)
    train("--trials=0")
    assert "--folds=auto is 1 here, because more than 23 pictures are scored" in caplog.text


def test_equal_scores_are_refused_before_any_work(scored_pictures: Path) -> None:
    write_scores(scored_pictures, [3.0] * 24)
    with pytest.raises(UserError, match=r"all 24 scores in .*scores\.csv are equal"):
        train()
    assert not (scored_pictures / ".aesthetic_features").exists()
    assert not (scored_pictures / "split.json").exists()


@pytest.mark.parametrize("loss_model", ["ab", "nll"])
@pytest.mark.parametrize("mode", ["weight", "join"])
def test_the_default_folds_work_with_every_loss_and_mode(scored_pictures: Path, loss_model: str, mode: str) -> None:
    train(f"--loss_model={loss_model}", "--hidden_states_used=0,2", f"--hidden_states_mode={mode}", "--trials=1")
    assert len(read_out_of_fold(scored_pictures / "model.safetensors")) == 24


def test_the_recommended_arguments_are_known_and_add_what_the_defaults_leave_out() -> None:
    arguments, _ = parse_arguments(TrainingArguments, [f"@{ROOT / 'arguments-recommended.txt'}"], description="")
    assert len(arguments.features.views) == 4
    assert arguments.study.name != "aesthetic", "the study of the shortest call has other features"
    assert arguments.split.folds == "auto", "it must not undo the folds"


@pytest.mark.parametrize("more", [(), ("--folds=1",), ("--database=journal.log",)])
def test_a_second_run_fits_no_simple_method_again_and_says_the_same(
    scored_pictures: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    more: tuple[str, ...],
) -> None:
    fitted: list[str] = []

    def count(name: str, fit: Callable) -> Callable:
        def counting(*arguments: Any, **options: Any) -> Any:
            fitted.append(name)
            return fit(*arguments, **options)

        return counting

    for name in ("fit_baselines", "out_of_fold_baselines", "learning_curve"):
        monkeypatch.setattr(closing, name, count(name, getattr(closing, name)))
    spoken = []
    for _ in range(2):
        caplog.clear()
        train("--verbose", *more)
        spoken.append(caplog.messages[next(i for i, line in enumerate(caplog.messages) if "Of two new" in line) :])
    assert fitted == ["learning_curve", "fit_baselines" if "--folds=1" in more else "out_of_fold_baselines"]
    assert spoken[0] == spoken[1]
    write_scores(scored_pictures, [1 + int(file.stem) / 10 for file in sorted(scored_pictures.rglob("*.png"))])
    train(*more)
    assert len(fitted) == 4, "other scores"


def test_a_second_run_imports_neither_the_dashboard_nor_the_simple_methods(scored_pictures: Path) -> None:
    train()
    code = f"""
import sys
from custom_aesthetic.commands import preparation
from custom_aesthetic.quality import closing
from tests.mean_colour import MeanColour
preparation.build_extractors = lambda names, *_: [MeanColour(n) for n in names.split(",")]
import aesthetic_predictor_training as script
script.run(["-d=pictures", "--trials=5", "--model_seed=1", "--workers=1", *{SMALL!r}])
print(*sys.modules)
"""
    path = os.pathsep.join([str(ROOT), os.environ["PYTHONPATH"]])
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert not {"optuna_dashboard", "sklearn", "matplotlib", "transformers"} & set(done.stdout.split())


def test_other_settings_than_the_study_s_are_refused_before_any_feature_is_computed(
    scored_pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train("--trials=1")
    write_scores(scored_pictures, [1 + int(file.stem) / 10 for file in sorted(scored_pictures.rglob("*.png"))])

    def never(*_: object) -> None:
        raise AssertionError("a feature is computed")

    monkeypatch.setattr(MeanColour, "features", never)
    for more, words in (
        ("--hidden_states_used=0,2", r"made with other features \(ChrisGoringe/vitH16 0 centre"),
        ("--views=mirror", "made with other features"),
        ("--loss_model=ab", "made with other loss_model .*, metric_for_scoring"),
        ("--folds=2", r"made with other folds \(4 by seed 42; now 2 by seed 42\)"),
    ):
        with pytest.raises(UserError, match=words):
            train("--trials=1", more)
    with pytest.raises(AssertionError, match="a feature is computed"):
        train("--trials=1", "--hidden_states_used=0,2", "--name=other")
