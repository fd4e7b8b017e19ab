"""A table of features in place of an extractor, in every script: the same scores by each, and no picture needed."""

import csv
import logging
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

import aesthetic_ab_scorer
import aesthetic_data_analysis
import aesthetic_predictor_training
import aesthetic_scorer
from custom_aesthetic import Scorer
from custom_aesthetic.base.errors import UserError
from custom_aesthetic.commands import spotlight
from custom_aesthetic.commands.score_pairs import first_guesses
from custom_aesthetic.commands.view import view
from custom_aesthetic.extractors import build_extractors
from custom_aesthetic.features.parquet_parts import write_features
from custom_aesthetic.heads.model_file import save_model
from custom_aesthetic.heads.predictor import Predictor
from custom_aesthetic.scores.score_files import read_scores
from custom_aesthetic.settings.analysis import ViewerArguments
from custom_aesthetic.settings.arguments import parse_arguments
from custom_aesthetic.settings.scorers import ABArguments
from tests.mean_colour import MeanColour

N_ROWS, N_FEATURES = 40, 6
PATHS = [f"{'ab'[row % 2]}/{row:02}.jpg" for row in range(N_ROWS)]
FEATURES = np.random.default_rng(0).standard_normal((N_ROWS, N_FEATURES)).astype(np.float16)
SCORES = (FEATURES[:, 0].astype(float) + np.arange(N_ROWS) / 100).round(3).tolist()
SMALL = (
    *("--max_first_layer_size=20", "--max_second_layer_size=12", "--min_batch_size=8", "--max_train_epochs=8"),
    *("--trials=2", "--workers=1", "--model_seed=1", "--ensemble=1"),
)


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    yield
    logging.getLogger("custom_aesthetic").handlers.clear()


def score_rows() -> str:
    rows = [f"{path},{score}" for path, score in zip(PATHS, SCORES, strict=True)]
    return "\n".join(["relative_path,score", *rows])


def scores_in(file: Path, column: str = "score") -> dict[str, float]:
    with file.open(encoding="utf-8") as stream:
        return {row["relative_path"]: float(row[column]) for row in csv.DictReader(stream)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Scores, a table and the model of a training, without a single picture."""
    made = tmp_path_factory.mktemp("tables")
    (made / "scores.csv").write_text(score_rows())
    np.savez(made / "my clip.npz", paths=np.array(PATHS[::-1]), features=FEATURES[::-1])
    aesthetic_predictor_training.run(
        [
            *(f"-d={made}", "--features=my clip.npz", "--savefile=trained.csv", f"--report={made / 'report.html'}"),
            *("--folds=3", "--database=", "--views=centre,mirror", *SMALL),
        ]
    )
    return made


def test_the_model_file_names_the_table_and_is_judged_as_others_are(folder: Path) -> None:
    card = Scorer.load(folder / "model.safetensors").card
    assert card["feature_extractor_model"] == "features:my_clip"
    assert (card["hidden_states_used"], card["hidden_states_mode"], card["views"]) == ("0", "join", "centre")
    assert card["number_of_features"] == str(N_FEATURES)
    assert set(scores_in(folder / "trained.csv", "out_of_fold_score")) == set(PATHS)
    assert "features:my_clip" in (folder / "report.html").read_text(encoding="utf-8")


def test_every_script_gives_the_scores_of_the_training(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    trained = scores_in(folder / "trained.csv", "model_score")
    expected = np.array([trained[path] for path in PATHS])
    assert np.ptp(expected) > 1e-3
    scorer = Scorer.load(folder / "model.safetensors", device="cpu")
    np.testing.assert_allclose(scorer.score_features(FEATURES), expected, atol=1e-6)

    given = ["-d", str(folder), "-m", "model.safetensors", "--features=my clip.npz"]
    aesthetic_scorer.run([*given, "-o", "folder.csv"])
    assert scores_in(tmp_path / "folder.csv") == pytest.approx(trained, abs=1e-6)

    analysed = tmp_path / "analysed.csv"
    aesthetic_data_analysis.run(
        [*given, "--baselines", "--save_scores_and_errors", f"--save_model_scorefile={analysed}", "--report=page.html"]
    )
    assert scores_in(analysed) == pytest.approx(trained, abs=1e-6)
    assert scores_in(analysed, "out_of_fold_score") == pytest.approx(
        scores_in(folder / "trained.csv", "out_of_fold_score"), abs=1e-6
    )

    monkeypatch.setattr(spotlight, "show", lambda *_, **__: None)
    for more in ([], ["--model_scores=trained.csv"]):
        options = given if not more else [*given[:2], *given[4:], *more]
        view(parse_arguments(ViewerArguments, [*options, "--save=shown.csv"], description="")[0])
        assert scores_in(tmp_path / "shown.csv", "model_score") == pytest.approx(trained, abs=1e-6)

    pictures = tmp_path / "pictures"
    for path in PATHS[:10]:
        (pictures / path).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (3, 3)).save(pictures / path)
    here = ["-d", str(pictures), f"--features={folder / 'my clip.npz'}"]
    for model in ([], [f"-m={folder / 'model.safetensors'}"]):
        guesses = first_guesses(pictures, PATHS[:10], parse_arguments(ABArguments, [*here, *model], description="")[0])
        assert guesses.features is not None
        np.testing.assert_allclose(guesses.features, FEATURES[:10])
    assert guesses.model_scores is not None
    np.testing.assert_allclose(guesses.model_scores, expected[:10], atol=1e-6)


def test_every_script_says_in_one_line_that_a_table_is_needed_or_another_one(folder: Path, tmp_path: Path) -> None:
    picture = tmp_path / "a.png"
    Image.new("RGB", (3, 3)).save(picture)
    Image.new("RGB", (3, 3)).save(tmp_path / "b.png")
    (tmp_path / "scores.csv").write_text("relative_path,score\na.png,1\nb.png,2\n")
    np.savez(tmp_path / "narrow.npz", paths=["a.png", "b.png"], features=np.ones((2, 5)))
    np.savez(tmp_path / "right.npz", paths=["a.png", "b.png"], features=np.ones((2, N_FEATURES)))
    given = ["-d", str(tmp_path), "-m", str(folder / "model.safetensors")]

    def see(argv: list[str]) -> None:
        view(parse_arguments(ViewerArguments, argv, description="")[0])

    scripts: list[Callable[[list[str]], None]] = [
        *(aesthetic_scorer.run, aesthetic_data_analysis.run, see, aesthetic_ab_scorer.run)
    ]
    for run in scripts:
        with pytest.raises(UserError, match=r"the 6 features of a table .features:my_clip.*name a table") as error:
            run(given)
        assert "\n" not in str(error.value)
        with pytest.raises(UserError, match=r"takes 6 features, of features:my_clip, but the table .* has 5"):
            run([*given, "--features=narrow.npz"])
    for run in scripts[1:3]:
        with pytest.raises(UserError, match=r"features are features:other, but model file .* trained on features:my_c"):
            run([*given, "--features=right.npz", "--features_name=other"])
    with pytest.raises(UserError, match="features:my_clip is a table of features, which no extractor computes"):
        build_extractors("efficientnet-lite0,features:my_clip", torch.device("cpu"))
    with pytest.raises(UserError, match="has none of the 2 pictures"):
        aesthetic_data_analysis.run([*given, f"--features={folder / 'my clip.npz'}"])
    with pytest.raises(UserError, match=r"use Scorer\.score_features"):
        Scorer.load(folder / "model.safetensors").score(picture)


def test_without_a_directory_the_table_gives_the_scores_and_the_files_go_here(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="custom_aesthetic")
    monkeypatch.chdir(tmp_path)
    splits = np.array(["eval" if row % 4 == 0 else "train" for row in range(N_ROWS)])
    np.savez("t.npz", paths=PATHS, features=FEATURES, score=SCORES, split=splits)
    aesthetic_predictor_training.run(
        ["--features=t.npz", "--features_name=mine", "--savefile=s.csv", "--database=", *SMALL]
    )
    assert "--folds=auto is 1 here, because the score file has a column split" in caplog.text
    assert Scorer.load("model.safetensors").card["feature_extractor_model"] == "features:mine"
    with Path("s.csv").open() as file:
        assert [row["split"] for row in csv.DictReader(file)] == splits.tolist()
    aesthetic_scorer.run(["--features=t.npz", "-m=model.safetensors", "-o=folder.csv"])
    assert scores_in(Path("folder.csv")) == pytest.approx(scores_in(Path("s.csv"), "model_score"), abs=1e-6)
    caplog.clear()
    aesthetic_data_analysis.run(["--features=t.npz", "-m=model.safetensors"])
    assert f"All :    {N_ROWS // 4} images" in caplog.text


def head(file: Path, n_features: int, **metadata: str) -> Path:
    predictor = Predictor(n_features, (8, 4), 2, generator=torch.Generator().manual_seed(0))
    save_model(file, predictor, {"feature_extractor_model": "mean-colour", **metadata})
    return file


@pytest.mark.parametrize(
    ("n_features", "metadata"),
    [
        (3, {"hidden_states_used": "0"}),
        (6, {"hidden_states_used": "0,2", "hidden_states_mode": "join", "views": "centre,mirror"}),
        (3, {"hidden_states_used": "0,2", "hidden_states_mode": "average", "fp16_features": "True"}),
    ],
)
def test_exported_features_give_the_same_scores(
    n_features: int,
    metadata: dict[str, str],
    colour_pictures: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("custom_aesthetic.heads.prediction.build_extractors", lambda *_: [MeanColour()])
    monkeypatch.setattr("custom_aesthetic.features.precomputed.BLOCK_BYTES", 10 * n_features * 4)
    model, table = head(tmp_path / "m.safetensors", n_features, **metadata), tmp_path / "sub" / "t.parquet"
    given = ["-d", str(colour_pictures), "-m", str(model)]
    aesthetic_scorer.run([*given, f"-o={tmp_path / 'first.csv'}", f"--export_features={table}", "--top=5"])
    written = pq.ParquetFile(table)
    assert written.metadata.num_rows == 24, "all that was computed, not what was selected"
    assert written.metadata.num_row_groups > 1
    half = metadata.get("fp16_features") == "True"
    assert str(written.schema_arrow.field("features").type.value_type) == ("halffloat" if half else "float")
    again = tmp_path / "again.parquet"
    aesthetic_scorer.run(
        [*given, f"-o={tmp_path / 'second.csv'}", f"--features={table}", f"--export_features={again}", "--top=5"]
    )
    assert scores_in(tmp_path / "second.csv") == pytest.approx(scores_in(tmp_path / "first.csv"), abs=1e-6)
    assert pq.read_table(again).equals(pq.read_table(table))


def test_actions_leave_out_rows_without_a_picture(
    colour_pictures: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model, table = head(tmp_path / "m.safetensors", 2), tmp_path / "t.parquet"
    paths = ["cold/00.png", "warm/01.png", "gone.png"]
    write_features(table, [(paths, np.array([[0, 1], [2, 3], [9, 9]], np.float32))])
    options = ["-m", str(model), f"--features={table}", "--top=3"]
    aesthetic_scorer.run(["-d", str(colour_pictures), *options, f"--copy_to={tmp_path / 'best'}"])
    assert sorted(file.name for file in (tmp_path / "best").rglob("*.png")) == ["00.png", "01.png"]
    assert "left out 1 pictures that are not in" in caplog.text and "gone.png" in caplog.text
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="none of the 3 pictures in the table is in"):
        aesthetic_scorer.run(["-d", str(tmp_path / "empty"), *options, f"--copy_to={tmp_path / 'other'}"])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--export_features=t.csv"], "--export_features=t.csv: features are written as parquet"),
        (["--features=none.parquet"], "--features=none.parquet does not exist"),
        (["--features=scores.csv"], "ends in .csv; a table is"),
    ],
)
def test_a_wrong_option_of_the_folder_scorer_is_refused_before_any_work(
    options: list[str], words: str, folder: Path
) -> None:
    with pytest.raises(UserError, match=words):
        aesthetic_scorer.run(["-d", str(folder), "-m", "model.safetensors", *options])


def test_names_that_are_not_utf_8_are_exported_as_json_shows_them(tmp_path: Path) -> None:
    write_features(tmp_path / "t.parquet", [(["a\udcff.png"], np.zeros((1, 2), np.float32))])
    assert pq.read_table(tmp_path / "t.parquet")["relative_path"].to_pylist() == ["a\\udcff.png"]


def test_a_rater_of_the_test_data_is_learnt_and_scored_by_the_scripts(
    data_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    table = f"--features={data_folder / 'raters' / 'features.npz'}"
    with (data_folder / "raters" / "ratings.csv").open() as file:
        rated = {row["relative_path"]: row["rater_00"] for row in csv.DictReader(file) if row["rater_00"]}
    some = list(rated)[:150]
    Path("rater_00.csv").write_text("\n".join(["relative_path,score", *(f"{path},{rated[path]}" for path in some)]))
    aesthetic_predictor_training.run(
        ["--scores=rater_00.csv", table, "--folds=1", "--savefile=s.csv", "--database=", *SMALL]
    )
    aesthetic_scorer.run([table, "-m=model.safetensors", "-o=all.csv"])
    everyone = scores_in(Path("all.csv"))
    assert len(everyone) == 2383
    assert {path: everyone[path] for path in some} == pytest.approx(scores_in(Path("s.csv"), "model_score"), abs=1e-5)
    assert len(read_scores(Path("all.csv"))) == 2383


def test_near_duplicates_are_grouped_by_the_features_of_the_table(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="custom_aesthetic")
    copies = np.concatenate([FEATURES, FEATURES[:3]])
    np.savez(tmp_path / "t.npz", paths=[*PATHS, "c/0.jpg", "c/1.jpg", "c/2.jpg"], features=copies)
    given = ["-d", str(folder), "-m=model.safetensors", f"--features={tmp_path / 't.npz'}"]
    aesthetic_scorer.run([*given, f"-o={tmp_path / 'best.csv'}", "--per_group=1"])
    kept = set(scores_in(tmp_path / "best.csv"))
    assert not any({PATHS[row], f"c/{row}.jpg"} <= kept for row in range(3)) and len(kept) <= N_ROWS
    monkeypatch.setattr("custom_aesthetic.commands.score_folder.MOST_TO_GROUP", 42)
    aesthetic_scorer.run([*given, f"-o={tmp_path / 'all.csv'}"])
    assert "more than 42 pictures: near-duplicates are grouped for --per_group only" in caplog.text
    assert len(scores_in(tmp_path / "all.csv")) == N_ROWS + 3
