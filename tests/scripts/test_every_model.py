"""Every kind of model that training writes works in every script, with the same scores."""

import csv
import json
import logging
from pathlib import Path

import numpy as np
import pytest

import aesthetic_data_analysis
import aesthetic_predictor_training
import aesthetic_scorer
from custom_aesthetic import Scorer
from custom_aesthetic.commands import spotlight
from custom_aesthetic.commands.score_pairs import first_guesses
from custom_aesthetic.commands.view import view
from custom_aesthetic.scores.score_files import read_scores
from custom_aesthetic.settings.analysis import ViewerArguments
from custom_aesthetic.settings.arguments import parse_arguments
from custom_aesthetic.settings.scorers import ABArguments
from tests.tiny_checkpoints import make_picture, save_checkpoint

SMALL = ["--max_first_layer_size=20", "--max_second_layer_size=12", "--min_batch_size=8", "--max_train_epochs=8"]
N_PICTURES = 24

CASES = {
    "each has its own default states": ("packaged,clip,", [], "0,1,2,3,4,5,6__0", "join"),
    "each has its own default mode": ("clip,aim", [], "0__2,1", "join__average"),
    "two packaged ones": (
        "packaged,efficientnet-lite2",
        ["--hidden_states_used=0,1"],
        "0,1",
        "join",
    ),
    "states of each": (
        "clip,aim",
        ["--hidden_states_used=0,2__3", "--hidden_states_mode=average"],
        "0,2__3",
        "average",
    ),
    "one list for all": ("clip,aim", ["--hidden_states_used=0,2", "--hidden_states_mode=join"], "0,2", "join"),
    "weights": ("clip,aim", ["--hidden_states_used=0,2__0,1,3", "--weight_hidden_states"], "0,2__0,1,3", "join"),
    "weights of one": ("clip,aim", ["--hidden_states_mode=average__weight"], "0__2,1", "average__join"),
    "fixed weights": (
        "clip,aim",
        ["--hidden_states_used=0,1", "--fixed_hidden_state_weights=0.7,-0.2,0.1"],
        "0,1",
        "join",
    ),
    "views": ("clip,aim", ["--views=centre,mirror,whole"], "0__2,1", "join__average"),
    "nll": ("packaged,clip", ["--hidden_states_used=0", "--loss_model=nll"], "0", "join"),
    "folds and ensemble": ("clip,aim", ["--folds=3", "--ensemble=2"], "0__2,1", "join__average"),
    "half precision": ("clip,aim", ["--fp16_features"], "0__2,1", "join__average"),
    "everything": (
        "packaged,clip,aim",
        [
            *("--hidden_states_used=0,1__0,2__1,3", "--hidden_states_mode=join__weight__average", "--folds=3"),
            *("--ensemble=2", "--loss_model=nll", "--views=whole,corner_1"),
        ],
        "0,1__0,2__1,3",
        "join__join__average",
    ),
}
"""Extractors, options, and the hidden states and modes in the model file."""


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("checkpoints")
    made = {kind: str(save_checkpoint(kind, folder / kind)) for kind in ("clip", "aim")}
    return {**made, "packaged": "efficientnet-lite0"}


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    for number in range(N_PICTURES):
        make_picture(60 + number, 50, seed=number).save(folder / f"{number:02}.png")
    rows = [f"{number:02}.png,{number / 7}" for number in range(N_PICTURES)]
    (folder / "scores.csv").write_text("\n".join(["relative_path,score", *rows]))
    return folder


@pytest.mark.parametrize("case", CASES)
def test_every_script_gives_the_scores_of_the_training(
    case: str, checkpoints: dict[str, str], pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kinds, options, states, modes = CASES[case]
    names = ",".join(checkpoints.get(kind, "") for kind in kinds.split(","))
    model, savefile = tmp_path / "m.safetensors", tmp_path / "trained.csv"
    monkeypatch.chdir(tmp_path)
    aesthetic_predictor_training.run(
        [
            *(f"-d={pictures}", f"--model={model}", f"--savefile={savefile}", f"--feature_extractor_model={names}"),
            *("--trials=2", "--workers=1", "--model_seed=1", "--database=", "--folds=1", "--ensemble=1"),
            *(*SMALL, *options),
        ]
    )
    with savefile.open(encoding="utf-8") as file:
        trained = {row["relative_path"]: float(row["model_score"]) for row in csv.DictReader(file)}
    assert len(trained) == N_PICTURES
    paths, expected = list(trained), np.array(list(trained.values()))
    assert np.ptp(expected) > 1e-3

    scorer = Scorer.load(model, device="cpu", offline=True)
    assert (scorer.card["hidden_states_used"], scorer.card["hidden_states_mode"]) == (states, modes)
    # Features computed in other batches differ in the last bits, and a head fitted to noise amplifies this.
    np.testing.assert_allclose(scorer.score([pictures / path for path in paths]), expected, atol=5e-5)

    aesthetic_scorer.run(["-d", str(pictures), "-m", str(model), "-o", "folder.csv", "--offline"])
    table = read_scores(tmp_path / "folder.csv")
    assert dict(zip(table.paths, table.scores, strict=True)) == pytest.approx(trained, abs=1e-5)

    given = ["-d", str(pictures), "-m", str(model), "--offline"]
    aesthetic_data_analysis.run(
        [
            *(*given, "--save_scores_and_errors"),
            *(
                f"--save_model_scorefile={tmp_path / 'analysed.json'}",
                f"--save_error_scorefile={tmp_path / 'errors.json'}",
            ),
        ]
    )
    analysed = read_scores(tmp_path / "analysed.json")
    assert dict(zip(analysed.paths, analysed.scores, strict=True)) == pytest.approx(trained, abs=1e-5)

    monkeypatch.setattr(spotlight, "show", lambda *_, **__: None)
    shown_arguments, _ = parse_arguments(ViewerArguments, [*given, "--save=shown.csv"], description="")
    view(shown_arguments)
    with (tmp_path / "shown.csv").open(encoding="utf-8") as file:
        shown = {row["relative_path"]: float(row["model_score"]) for row in csv.DictReader(file)}
    assert shown == pytest.approx(trained, abs=1e-5)

    arguments, _ = parse_arguments(ABArguments, given, description="")
    guessed = first_guesses(pictures, paths, arguments).model_scores
    assert guessed is not None
    np.testing.assert_allclose(guessed, expected, atol=1e-5)
    logging.getLogger("custom_aesthetic").handlers.clear()
    assert json.loads(scorer.card["layers"]) == list(scorer.model.predictor.layers)
