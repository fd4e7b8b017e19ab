"""The table, the layout and the suspect scores for Spotlight."""

import csv
import math
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from custom_aesthetic.base.errors import UserError
from custom_aesthetic.commands import spotlight, view
from custom_aesthetic.commands.spotlight import (
    EXPECTED,
    MAP,
    add_expected_scores,
    for_the_page,
    make_frame,
    make_layout,
    save_frame,
    show,
    worst_first,
)
from custom_aesthetic.features.table import FeatureBlock, FeatureTable
from custom_aesthetic.quality.suspects import find_suspects
from custom_aesthetic.report.judged_pictures import JudgedPictures
from custom_aesthetic.scores.score_files import ScoreTable
from custom_aesthetic.settings.analysis import ModelScoreSettings, ViewerArguments, ViewerSettings
from custom_aesthetic.settings.training import DeviceSettings, FeatureSettings, ImageSettings
from tests.mean_colour import MeanColour

COLUMNS = ["image", "path", "split", "score", "model_score", "judged_by", "error", "rank", "model_rank", "rank_error"]
COLUMNS += ["features"]


def three_pictures(folder: Path) -> JudgedPictures:
    given = ScoreTable(("a.png", "b.png", "c.png"), {"score": [1.0, math.nan, 3.0]})
    model_scores = np.array([0.5, 2.0, 2.0])
    learnt, unknown = np.array([True, False, False]), np.full(3, math.nan)
    splits = ("train", "eval", "eval")
    return JudgedPictures(folder, given, model_scores, splits, learnt, unknown)


def feature_table(paths: tuple[str, ...], values: np.ndarray) -> FeatureTable:
    return FeatureTable(paths, torch.from_numpy(values), (FeatureBlock("fake", 0, "centre", 0, values.shape[1]),), {})


def planted(n_images: int, n_wrong: int) -> tuple[np.ndarray, np.ndarray]:
    """Return features and scores that follow them, except for the first few, which have the wrong sign."""
    generator = np.random.default_rng(0)
    features = generator.normal(size=(n_images, 8))
    scores = features[:, 0] + 0.1 * generator.normal(size=n_images)
    scores[:n_wrong] = -3 * np.sign(features[:n_wrong, 0])
    return features.astype(np.float32), scores


def test_the_table_has_the_columns_of_the_interface_in_order(tmp_path: Path) -> None:
    features = feature_table(("c.png", "a.png", "b.png"), np.array([[3.0], [1.0], [2.0]]))
    frame = make_frame(three_pictures(tmp_path), features)
    assert list(frame.columns) == COLUMNS
    assert frame["image"][0] == str(tmp_path.resolve() / "a.png")
    assert [value.item() for value in frame["features"]] == [1.0, 2.0, 3.0], "joined by path"


def test_a_picture_learnt_from_is_judged_by_its_out_of_fold_score(tmp_path: Path) -> None:
    pictures = replace(three_pictures(tmp_path), out_of_fold=np.array([4.0, math.nan, math.nan]))
    frame = make_frame(pictures, None)
    assert list(frame["judged_by"]) == ["out of fold", "unseen", "unseen"]
    np.testing.assert_equal(frame["model_score"].to_numpy(), [0.5, 2, 2])
    np.testing.assert_equal(frame["out_of_fold_score"].to_numpy(), [4, math.nan, math.nan])
    np.testing.assert_equal(frame["error"].to_numpy(), [-3, math.nan, 1])
    np.testing.assert_equal(frame["model_rank"].to_numpy(), [1, 2, 2])
    assert list(make_frame(three_pictures(tmp_path), None)["judged_by"]) == ["learnt from", "unseen", "unseen"]
    shown = make_layout(list(frame.columns), 3).model_dump_json()
    assert "out_of_fold_score against score" in shown


def test_rank_1_is_the_best_and_ties_share_it(tmp_path: Path) -> None:
    frame = make_frame(three_pictures(tmp_path), None)
    np.testing.assert_equal(frame["rank"].to_numpy(), [2, math.nan, 1])
    np.testing.assert_equal(frame["model_rank"].to_numpy(), [math.nan, 1, 1])
    np.testing.assert_equal(frame["rank_error"].to_numpy(), [math.nan, math.nan, 0])
    np.testing.assert_equal(frame["error"].to_numpy(), [math.nan, math.nan, 1], "the first is learnt from")


@pytest.mark.parametrize("n_images", [100, 2500])
def test_scores_that_contradict_the_features_are_suspect(n_images: int) -> None:
    features, scores = planted(n_images, n_wrong=5)
    suspects = find_suspects(features, scores)
    assert suspects is not None
    assert set(range(5)) <= set(suspects.rows.tolist())
    assert len(suspects.rows) < 5 + 0.08 * n_images
    contradiction = np.abs(suspects.predictions - scores)[suspects.rows]
    assert (np.diff(contradiction) <= 1e-9).all()


def test_the_expected_score_of_a_picture_does_not_depend_on_its_own_score() -> None:
    features, scores = planted(60, n_wrong=0)
    before = find_suspects(features, scores)
    scores[7] += 50
    after = find_suspects(features, scores)
    assert before is not None
    assert after is not None
    assert after.rows[0] == 7
    assert after.predictions[7] == pytest.approx(before.predictions[7], abs=2)


@pytest.mark.parametrize(("n_images", "spread"), [(10, 1.0), (30, 0.0)])
def test_too_few_or_constant_scores_give_no_suspects(n_images: int, spread: float) -> None:
    features, scores = planted(n_images, n_wrong=0)
    assert find_suspects(features, scores * spread) is None


def test_suspects_are_issues_of_spotlight_that_name_the_strongest(tmp_path: Path) -> None:
    features, scores = planted(100, n_wrong=4)
    paths = tuple(f"{i:03}.png" for i in range(100))
    scores = np.append(scores, math.nan)
    nothing = np.zeros(101, bool), np.full(101, math.nan)
    given = ScoreTable((*paths, "new.png"), {"score": scores.tolist()})
    pictures = JudgedPictures(tmp_path, given, scores * 0 + 1, ("eval",) * 101, *nothing)
    frame = make_frame(pictures, feature_table(pictures.paths, np.vstack([features, np.zeros((1, 8), np.float32)])))
    issues = add_expected_scores(frame)
    assert {row for issue in issues for row in issue.rows} >= {0, 1, 2, 3}
    assert all(frame["score"][row] > frame[EXPECTED][row] for row in issues[0].rows)
    assert issues[0].columns == ["score", EXPECTED]
    assert f"{frame['path'][issues[0].rows[0]]}, score" in issues[0].description
    assert math.isnan(frame[EXPECTED][100])


def test_the_saved_table_has_no_features_and_an_empty_cell_for_what_is_unknown(tmp_path: Path) -> None:
    frame = make_frame(three_pictures(tmp_path), None)
    save_frame(frame, tmp_path / "table.csv")
    rows = list(csv.DictReader((tmp_path / "table.csv").read_text().splitlines()))
    assert list(rows[0]) == ["relative_path", *COLUMNS[2:-1]]
    assert (rows[1]["score"], rows[2]["error"]) == ("", "1")


def widgets(node: object) -> list[str]:
    children = getattr(node, "children", None)
    return [node.type] if children is None else [name for child in children for name in widgets(child)]  # type: ignore[attr-defined]


def test_the_layout_shows_only_what_the_table_contains() -> None:
    everything = widgets(make_layout([*COLUMNS, EXPECTED, *MAP], 10))
    assert everything == [
        "inspector",
        "table",
        "scatterplot",
        "histogram",
        "scatterplot",
        "similaritymap",
        "IssuesWidget",
        "histogram",
    ]
    assert "similaritymap" not in widgets(make_layout(COLUMNS[:-1], 10))


def test_another_similarity_map_of_many_pictures_uses_the_faster_method() -> None:
    assert '"pca"' in make_layout([*COLUMNS, *MAP], 10_000).model_dump_json()
    assert '"umap"' in make_layout([*COLUMNS, *MAP], 200).model_dump_json()


def some_frame(folder: Path, n_images: int) -> pd.DataFrame:
    """Return the table of pictures whose errors are 0, -1, 2, -3 ..., and none for the last."""
    paths = tuple(f"{i:04}.png" for i in range(n_images))
    errors = np.arange(n_images) * np.where(np.arange(n_images) % 2, -1.0, 1.0)
    errors[-1] = math.nan
    nothing = np.zeros(n_images, bool), np.full(n_images, math.nan)
    given = ScoreTable(paths, {"score": (errors + 5).tolist()})
    pictures = JudgedPictures(folder, given, np.full(n_images, 5.0), ("eval",) * n_images, *nothing)
    features = np.random.default_rng(0).normal(size=(n_images, 4)).astype(np.float32)
    return make_frame(pictures, feature_table(paths, features))


def test_the_worst_errors_come_first_and_pictures_without_one_last(tmp_path: Path) -> None:
    frame = some_frame(tmp_path, 6)
    assert [path[3] for path in worst_first(frame)["path"]] == ["4", "3", "2", "1", "0", "5"]
    pd.testing.assert_frame_equal(worst_first(frame).sort_index(), frame)


def test_the_page_shows_four_digits_and_a_map_and_the_saved_table_neither(tmp_path: Path) -> None:
    frame = some_frame(tmp_path, 40)
    frame["model_score"] = 2 / 3
    shown = for_the_page(worst_first(frame))
    assert (shown["model_score"] == 0.6667).all()
    assert shown["error"].iloc[0] == 38
    assert list(shown.index) == list(range(40))
    assert len(set(shown["map_x"])) == len(set(shown["map_y"])) == 40
    save_frame(frame, tmp_path / "table.csv")
    assert "0.666666667" in (tmp_path / "table.csv").read_text()


def test_the_plugin_lies_where_spotlight_looks_for_plugins() -> None:
    code = (
        "from renumics.spotlight.plugin_loader import load_plugins\n"
        "print([plugin.name for plugin in load_plugins() if plugin.frontend_entrypoint])"
    )
    environment = {**os.environ, "PYTHONPATH": str(spotlight.PLUGIN)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert "'custom_aesthetic'" in done.stdout


def test_a_port_in_use_is_a_user_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(98, "Address already in use")

    monkeypatch.setattr(spotlight.spotlight, "show", refuse)
    with pytest.raises(UserError, match="port 80: Address already in use; choose another --port"):
        show(make_frame(three_pictures(tmp_path), None), [], no_browser=True, port=80)


def test_without_a_model_the_features_come_from_the_given_extractor(
    colour_pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (colour_pictures / "out.csv").write_text(
        "relative_path,score,model_score,split\ncold/00.png,1,2,eval\nwarm/01.png,3,4,train\n"
    )
    monkeypatch.setattr(view, "build_extractors", lambda names, *_: [MeanColour(names)])
    shown = {}
    monkeypatch.setattr(spotlight, "show", lambda frame, issues, **options: shown.update(frame=frame, **options))
    arguments = ViewerArguments(
        ImageSettings(str(colour_pictures), scores="out.csv"),
        ModelScoreSettings(),
        ViewerSettings(no_browser=True, port=8000),
        FeatureSettings("mean-colour"),
        DeviceSettings("cpu"),
    )
    view.view(arguments)
    frame = shown["frame"]
    assert list(frame["path"]) == ["cold/00.png", "warm/01.png"]
    np.testing.assert_allclose(frame["features"][1], [10, 127, 245])
    assert (shown["no_browser"], shown["port"]) == (True, 8000)
