"""The training script, run as a user runs it."""

import csv
import json
import logging
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import optuna
import pytest
import safetensors.torch
import torch
from scipy import stats
from torch import nn

import aesthetic_data_analysis
import aesthetic_predictor_training as script
from custom_aesthetic.base.errors import UserError
from custom_aesthetic.commands import preparation
from custom_aesthetic.heads import prediction
from custom_aesthetic.heads.model_file import FLATTERY, Model, load_model
from custom_aesthetic.hub.figures import KEY as FIGURES
from custom_aesthetic.hub.figures import figures_from_text
from custom_aesthetic.quality import metrics
from custom_aesthetic.scores.bradley_terry import fit_scores, flat_prior
from custom_aesthetic.scores.choice_log import ComparisonLog, make_choice
from custom_aesthetic.scores.score_files import read_scores
from custom_aesthetic.search.storage import close_storage, open_storage
from custom_aesthetic.settings.console import run_script
from tests.conftest import ROOT
from tests.mean_colour import MeanColour
from tests.quality.test_statistics_line import FORM

SIMPLE = ("ridge", "SVR", "kernel ridge")
SMALL = ["--max_first_layer_size=20", "--max_second_layer_size=12", "--min_batch_size=8", "--max_train_epochs=8"]


@pytest.fixture
def scored_pictures(colour_pictures: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> Path:
    """Coloured pictures, scored by how red they are, in the current directory; the extractor is their mean colour."""
    monkeypatch.setattr(preparation, "build_extractors", lambda names, *_: [MeanColour(n) for n in names.split(",")])
    monkeypatch.chdir(colour_pictures.parent)
    caplog.set_level(logging.INFO, logger="custom_aesthetic")
    files = sorted(colour_pictures.rglob("*.png"))
    rows = [
        f"{file.relative_to(colour_pictures).as_posix()},{int(file.stem) / 10},{index + 1},n{index}"
        for index, file in enumerate(files)
    ]
    (colour_pictures / "scores.csv").write_text("\n".join(["relative_path,score,weight,note", *rows]))
    return colour_pictures


def train(*more: str) -> None:
    """Train by the eval set and one head, unless `more` says otherwise."""
    script.run(
        ["-d=pictures", "--trials=3", "--model_seed=1", "--workers=1", "--folds=1", "--ensemble=1", *SMALL, *more]
    )


def savefile_rows() -> list[dict[str, str]]:
    return list(csv.DictReader(Path("pictures/out.csv").read_text(encoding="utf-8").splitlines()))


def statistics_names(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [line["name"] for line in map(FORM.match, caplog.messages) if line]


def plain_scores(file: Path, features: np.ndarray) -> np.ndarray:
    """Return the scores of the plain stack, built from nothing but the file."""
    with safetensors.safe_open(file, "pt") as opened:
        sizes = [int(opened.metadata()["number_of_features"]), *json.loads(opened.metadata()["layers"])]
        n_outputs = int(opened.metadata()["output_channels"])
    linears = [nn.Linear(sizes[0], sizes[1]), nn.Linear(sizes[1], sizes[2]), nn.Linear(sizes[2], n_outputs)]
    parts = [part for linear in linears for part in (nn.Dropout(), linear, nn.ReLU())][:-1]
    stack = nn.Sequential()
    stack.main_process = nn.Sequential(*parts)
    stack.load_state_dict(safetensors.torch.load_file(file))
    with torch.no_grad():
        return stack.eval()(torch.from_numpy(features).float())[:, 0].double().numpy()


def colours(folder: Path, paths: list[str]) -> np.ndarray:
    numbers = np.array([int(Path(path).stem) for path in paths])
    return np.stack([10 * numbers, 128 - numbers, 255 - 10 * numbers], axis=1)


def test_the_model_split_study_and_savefile_of_a_run_agree(
    scored_pictures: Path, caplog: pytest.LogCaptureFixture
) -> None:
    train("--savefile=out.csv", "--metric_for_scoring=spearman", "--calculate_ab", "--calculate_pearson")
    rows = savefile_rows()
    assert list(rows[0]) == ["relative_path", "score", "model_score", "split", "weight", "note"]
    found = np.array([float(row["model_score"]) for row in rows])
    scores = np.array([float(row["score"]) for row in rows])
    expected = plain_scores(
        scored_pictures / "model.safetensors", colours(scored_pictures, [r["relative_path"] for r in rows])
    )
    np.testing.assert_allclose(found, expected, atol=1e-4)
    assert json.loads((scored_pictures / "split.json").read_text()) == {r["relative_path"]: r["split"] for r in rows}

    storage = open_storage("sqlite:///db.sqlite")
    study = optuna.load_study(study_name="aesthetic", storage=storage)
    held_out = np.array([row["split"] == "eval" for row in rows])
    attributes = study.best_trial.user_attrs
    assert study.best_value == pytest.approx(stats.spearmanr(scores[held_out], found[held_out]).statistic)
    assert attributes["eval_spearman"] == pytest.approx(study.best_value, rel=1e-3)
    assert attributes["full_pearson"] == pytest.approx(stats.pearsonr(scores, found).statistic, rel=1e-3)
    assert attributes["train_mse"] == pytest.approx(np.mean((scores - found)[~held_out] ** 2), rel=1e-3)
    assert all(f"{kind}_ab" in attributes for kind in ("train", "eval", "full"))
    assert "--trials=3" in str(study.user_attrs)
    with safetensors.safe_open(scored_pictures / "model.safetensors", "pt") as opened:
        assert opened.metadata()["seed"] == str(attributes["seed"])
        assert not {"process", "seconds"} & set(opened.metadata()), "nothing about the machine is in the file"
    close_storage(storage)

    assert statistics_names(caplog) == [
        *("Train", "Eval", "Full"),
        *(f"Eval, {name}" for name in ("ridge", "SVR", "kernel ridge")),
    ]
    assert any(line.startswith("Eval 95 % intervals: spearman ") for line in caplog.messages)


def test_the_metadata_of_an_ensemble_describe_the_ensemble(scored_pictures: Path) -> None:
    train("--metric_for_scoring=spearman", "--ensemble=3", "--savefile=out.csv", "--database=sqlite:///db.sqlite")
    rows = [row for row in savefile_rows() if row["split"] == "train"]
    scores, found = (np.array([float(row[name]) for row in rows]) for name in ("score", "model_score"))
    with safetensors.safe_open(scored_pictures / "model.safetensors", "pt") as opened:
        metadata = opened.metadata()
    assert len(metadata["trial"].split(",")) == 3
    assert float(metadata["train_mse"]) == pytest.approx(np.mean((scores - found) ** 2), abs=1e-4)
    storage = open_storage("sqlite:///db.sqlite")
    best = optuna.load_study(study_name="aesthetic", storage=storage).best_trial
    assert float(metadata["train_mse"]) != pytest.approx(best.user_attrs["train_mse"], abs=1e-4)
    close_storage(storage)


@pytest.mark.parametrize("content", [None, "not,a,log\n1,2,3\n"])
def test_the_choice_log_beside_the_pictures_gives_the_noise_ceiling(
    scored_pictures: Path, caplog: pytest.LogCaptureFixture, content: str | None
) -> None:
    file = scored_pictures / "comparisons.csv"
    if content is None:
        paths = [row.split(",")[0] for row in (scored_pictures / "scores.csv").read_text().splitlines()[1:]]
        paths.sort(key=lambda path: int(Path(path).stem))  # as the scores
        choices = [
            make_choice(winner, [loser], seconds=1, drawn="random", time=f"{first}-{second}")[0]
            for first, winner in enumerate(paths)
            for second, loser in enumerate(paths)
            if first > second
        ]
        ComparisonLog(file).append(choices)
    else:
        file.write_text(content)
    train()
    assert any("a perfect model would reach" in line for line in caplog.messages) == (content is None)
    assert any("is not a log of comparisons" in line for line in caplog.messages) == (content is not None)


def test_a_training_on_choices_is_judged_by_the_choices_everywhere(
    scored_pictures: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A few answers a picture: the written scores are noisy, but the answers show that red is liked."""
    monkeypatch.setattr(prediction, "build_extractors", lambda names, *_: [MeanColour(n) for n in names.split(",")])
    paths = [row.split(",")[0] for row in (scored_pictures / "scores.csv").read_text().splitlines()[1:]]
    generator = np.random.default_rng(0)
    pairs = np.concatenate([generator.permutation(len(paths)).reshape(-1, 2) for _ in range(3)])
    red = np.array([int(Path(path).stem) for path in paths])
    winners, losers = np.where(red[pairs[:, 0]] > red[pairs[:, 1]], pairs.T, pairs[:, ::-1].T)
    answers = [
        make_choice(paths[winner], [paths[loser]], seconds=1, drawn="random", time=f"{number:03}")[0]
        for number, (winner, loser) in enumerate(zip(winners, losers, strict=True))
    ]
    ComparisonLog(scored_pictures / "comparisons.csv").append(answers)
    scores = fit_scores(winners, losers, flat_prior(len(paths)))
    rows = [f"{path},{score},1" for path, score in zip(paths, scores, strict=True)]
    (scored_pictures / "scores.csv").write_text("\n".join(["relative_path,score,score_sigma", *rows]))

    train("--folds=3", "--report=report.html", "--group_duplicates=off", "--database=")
    words = re.compile(rf"(\d+) times in 100 \(95 % interval (\d+) to (\d+); .*?judged by your {len(answers)} answers")
    said = words.findall(caplog.text)
    assert len(said) == 1
    assert "your answer if you were asked once, so even a perfect model would reach" in caplog.text
    assert "raises AB by about" not in caplog.text, "what choosing trials adds to AB is not subtracted"
    assert words.findall(re.sub(r"</?strong>", "", Path("report.html").read_text(encoding="utf-8"))) == said
    figures = figures_from_text(load_model(scored_pictures / "model.safetensors").metadata[FIGURES])
    assert figures is not None and figures.right_pairs_bounds is not None
    assert tuple(f"{100 * end:.0f}" for end in (figures.right_pairs, *figures.right_pairs_bounds)) == said[0]
    caplog.clear()
    aesthetic_data_analysis.run(["-d=pictures", "-m=model.safetensors", "--save_scores_and_errors"])
    assert words.findall(caplog.text) == said
    caplog.clear()
    aesthetic_data_analysis.run(["-d=pictures", "--model_scores=model_scores.json"])
    assert len(words.findall(caplog.text)) == 1, "without features it is judged by the answers too"


def test_the_same_seed_gives_the_same_model_and_another_does_not(scored_pictures: Path) -> None:
    models = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        train(f"--model={name}.safetensors", "--database=", f"--model_seed={seed}")
        models.append(safetensors.torch.load_file(scored_pictures / f"{name}.safetensors"))
    first, again, other = models
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not all(first[name].shape == other[name].shape and torch.equal(first[name], other[name]) for name in first)


@pytest.mark.parametrize("loss_model", ["mse", "ab", "nll", "wmse"])
def test_every_loss_works_with_every_metric(scored_pictures: Path, loss_model: str) -> None:
    for metric in ("mse", "wmse", "nll", "ab", "spearman", "pearson", "accuracy"):
        train("--database=", f"--loss_model={loss_model}", f"--metric_for_scoring={metric}", "--trials=1")


def test_the_same_command_again_runs_no_trial_and_says_so(
    scored_pictures: Path, caplog: pytest.LogCaptureFixture
) -> None:
    train()
    model = (scored_pictures / "model.safetensors").read_bytes()
    caplog.clear()
    train()
    out = caplog.text
    assert "nothing to run" in out
    assert "Full :" in out
    assert (scored_pictures / "model.safetensors").read_bytes() == model


def test_no_trials_means_features_only(scored_pictures: Path) -> None:
    train("--trials=0")
    assert not (scored_pictures / "model.safetensors").exists()
    assert list(scored_pictures.rglob("*.safetensors")), "the cache"


@pytest.mark.parametrize("mode", ["join", "average", "weight"])
def test_every_mode_of_hidden_states_gives_a_plain_model(scored_pictures: Path, mode: str) -> None:
    train("--hidden_states_used=0,2", f"--hidden_states_mode={mode}", "--savefile=out.csv", "--database=")
    rows = savefile_rows()
    mean = colours(scored_pictures, [row["relative_path"] for row in rows])
    features = 2 * mean if mode == "average" else np.concatenate([mean, 3 * mean], axis=1)
    expected = plain_scores(scored_pictures / "model.safetensors", features)
    np.testing.assert_allclose([float(row["model_score"]) for row in rows], expected, atol=1e-4)


def test_fixed_weights_give_a_plain_model_of_joined_states(scored_pictures: Path) -> None:
    train("--hidden_states_used=0,2", "--fixed_hidden_state_weights=1,-0.5,0.1", "--savefile=out.csv", "--database=")
    rows = savefile_rows()
    mean = colours(scored_pictures, [row["relative_path"] for row in rows])
    expected = plain_scores(scored_pictures / "model.safetensors", np.concatenate([mean, 3 * mean], axis=1))
    np.testing.assert_allclose([float(row["model_score"]) for row in rows], expected, atol=1e-4)


def test_a_user_error_is_one_line_and_status_2(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(_: object) -> None:
        raise UserError("the score file\nis missing")

    assert run_script(fail) == 2
    assert capsys.readouterr().err == "error: the score file is missing\n"


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["-d=images", "--trails=5"], "did you mean --trials?"),
        (["-d=nowhere", "--trials=1"], "image directory nowhere does not exist"),
    ],
)
def test_the_script_ends_with_status_2_and_no_traceback(tmp_path: Path, argv: list[str], words: str) -> None:
    command = [sys.executable, str(ROOT / "aesthetic_predictor_training.py"), *argv]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert words in done.stderr
    assert done.stderr.count("\n") == 1


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys, aesthetic_predictor_training as s\ntry: s.run(['--help'])\nexcept SystemExit: print(*sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
    )
    assert "--metric_for_scoring" in done.stdout
    loaded = done.stdout.splitlines()[-1].split()
    assert not {"torch", "numpy", "optuna", "transformers", "scipy", "PIL"} & set(loaded)


def test_the_packaged_extractor_learns_the_demo(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "demo" / "images", tmp_path / "images")
    arguments = ["-d=images", "--feature_extractor_model=efficientnet-lite0", "--trials=1", "--model_seed=1"]
    command = [
        sys.executable,
        str(ROOT / "aesthetic_predictor_training.py"),
        *arguments,
        "--metric_for_scoring=spearman",
    ]
    one_thread = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        command, cwd=tmp_path, env=one_thread, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    line = next(line for line in done.stdout.splitlines() if line.startswith(("Out of fold :", "Eval :")))
    assert float(line.split("spearman")[1].split()[0]) > 0.5


@pytest.mark.parametrize("workers", ["1", "2"])
def test_folds_score_every_image_by_a_head_that_has_not_seen_it(
    scored_pictures: Path, caplog: pytest.LogCaptureFixture, workers: str
) -> None:
    train(
        "--folds=3", "--fraction_for_test=0.25", "--metric_for_scoring=spearman", "--ensemble=2", f"--workers={workers}"
    )
    assert statistics_names(caplog) == ["Out of fold", "Test", *(f"Out of fold, {name}" for name in SIMPLE)]
    storage = open_storage("sqlite:///db.sqlite")
    best = optuna.load_study(study_name="aesthetic", storage=storage).best_trial
    assert best.user_attrs["eval_spearman"] == pytest.approx(best.value, rel=1e-3)
    assert "train_spearman" in best.user_attrs
    close_storage(storage)


def test_a_report_of_a_folded_model_judges_it_by_what_it_has_not_seen(scored_pictures: Path) -> None:
    train(
        "--folds=3",
        "--fraction_for_test=0.25",
        "--report=report.html",
        "--group_duplicates=off",
        "--savefile=saved.csv",
    )
    text = Path("report.html").read_text(encoding="utf-8")
    assert "Out of fold" in text
    assert "judged on 24 pictures" in text
    assert "6 pictures that the model has not learnt from and 18 training pictures, scored by heads" in text
    saved = read_scores(Path("pictures") / "saved.csv")
    columns = {name: np.array(saved.columns[name], float) for name in ("score", "model_score", "out_of_fold_score")}
    learnt = np.array(saved.columns["split"]) != "test"
    assert np.isfinite(columns["out_of_fold_score"]).tolist() == learnt.tolist()
    believed = np.where(learnt, columns["out_of_fold_score"], columns["model_score"])
    row = re.search(r'<th scope="row">AB</th>(.*?)</tr>', text)
    assert row is not None
    told = re.findall(r"<td>([\d.]+) %", row[1])
    expected = [metrics.ab(columns["score"][rows], believed[rows]) for rows in (learnt | True, ~learnt, learnt)]
    assert [f"{100 * share:.1f}" for share in expected] == told


def test_training_report_and_analysis_give_the_same_corrected_verdict(
    scored_pictures: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prediction, "build_extractors", lambda names, *_: [MeanColour(n) for n in names.split(",")])
    monkeypatch.setattr(Model, "ab_flattery", 0.1)  # large enough to be visible after rounding
    train("--folds=3", "--report=report.html", "--group_duplicates=off")
    words = re.compile(r"\d+ times in 100 \(95 % interval \d+ to \d+")
    verdict = words.findall(caplog.text)
    assert len(verdict) == 1
    assert "raises AB by about 10.0 %" in caplog.text
    assert "images: 24 in 3 folds" in caplog.text
    page = re.sub(r"</?strong>", "", Path("report.html").read_text(encoding="utf-8"))
    assert words.findall(page) == verdict
    caplog.clear()
    aesthetic_data_analysis.run(["-d=pictures", "-m=model.safetensors"])
    assert words.findall(caplog.text) == verdict
    assert "raises AB by about 10.0 %" in caplog.text


def test_a_model_file_records_how_much_the_choice_of_trials_flatters_it(scored_pictures: Path) -> None:
    for ensemble in ("1", "2"):
        train("--folds=3", "--group_duplicates=off", f"--ensemble={ensemble}", "--trials=4")
        model = load_model(scored_pictures / "model.safetensors")
        assert FLATTERY in model.metadata
        assert 0 <= model.ab_flattery < 0.5
    assert [replace(model, metadata={FLATTERY: words}).ab_flattery for words in ("nan", "-1", "9", "x", "0.25")] == [
        *[0.0] * 4,
        0.25,
    ]


def test_folds_and_another_set_for_scoring_contradict_each_other(scored_pictures: Path) -> None:
    with pytest.raises(UserError, match=r"--folds=3 .* contradicts"):
        train("--folds=3", "--set_for_scoring=train")


@pytest.mark.parametrize(
    ("argument", "words"),
    [
        ("--model=cold", "--model=.*cold is a directory"),
        ("--savefile=cold", "--savefile=.*cold is a directory"),
        ("--report=pictures", "--report=pictures is a directory"),
        ("--workers=many", "--workers=many is not auto"),
        ("--server=on", "--server=on needs a saved study"),
    ],
)
def test_an_invalid_place_for_a_result_is_refused_before_any_work(
    scored_pictures: Path, argument: str, words: str
) -> None:
    with pytest.raises(UserError, match=words):
        train(argument, "--database=")
    assert not (scored_pictures / ".aesthetic_features").exists()


def contents(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()}


REFUSED = [
    ("--ignore_existing_split", "--eval_pick_seed=7", "--loss_model=ab"),
    ("--fraction_for_test=0.25",),
    ("--ignore_existing_split", "--folds=3", "--set_for_scoring=train"),
    ("--ignore_existing_split", "--workers=many"),
    ("--ignore_existing_split", "--model=cold"),
    ("--ignore_existing_split", "--report=pictures"),
    ("--ignore_existing_split", "--fraction_for_eval=1"),
    ("--ignore_existing_split", "--hidden_states_used=0,99", "--eval_pick_seed=7"),
    ("--scores=nowhere.csv",),
    ("--split=cold",),
]


def test_a_refused_command_writes_nothing(scored_pictures: Path) -> None:
    train("--folds=1")
    before = contents(scored_pictures.parent)
    assert "pictures/split.json" in before
    for arguments in REFUSED:
        with pytest.raises(UserError):
            train(*(["--folds=1"] if "--folds=3" not in arguments else []), *arguments)
        after = contents(scored_pictures.parent)
        changed = {name for name in before | after if before.get(name) != after.get(name)}
        assert not changed, arguments


PREDECESSOR = """\
# where everything is
-d = pictures
--scores = scores.csv
--savefile = saved_scores.csv

# features
--feature_extractor = mean-colour,
--hidden_states_used = 0,1,
--hidden_states_mode = join

# training
--loss_model = mse
--trials = 2
--fraction_for_eval = 0.25
--min_train_epochs = 5
--max_train_epochs = 8
--min_batch_size = 8
--max_first_layer_size = 20   # small pictures
--max_second_layer_size = 12
--calculate_ab
"""


def test_an_arguments_file_of_the_predecessor_works(scored_pictures: Path) -> None:
    Path("arguments.txt").write_text(PREDECESSOR)
    script.run(["@arguments.txt", "--workers=1"])
    assert (scored_pictures / "model.safetensors").is_file()


SCRIPTS = ("predictor_training", "data_analysis", "spotlight", "ab_scorer", "scorer")


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_wrong_folder_is_refused_before_heavy_imports(name: str, tmp_path: Path) -> None:
    code = (
        f"import sys, aesthetic_{name} as s\n"
        "from custom_aesthetic.base.errors import UserError\n"
        "try: s.run(['-d=nowhere', '-m=model.safetensors'])\n"
        "except UserError as error: print(error); print(*sys.modules)"
    )
    path = os.pathsep.join([str(ROOT), os.environ["PYTHONPATH"]])
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    message, modules = done.stdout.splitlines()
    assert "image directory nowhere does not exist" in message
    assert not {"torch", "numpy", "optuna", "transformers", "scipy", "PIL", "pandas"} & set(modules.split())
