"""The preparation of a search, from its files."""

import json
import logging
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch

from custom_aesthetic.base.errors import UserError
from custom_aesthetic.commands import preparation
from custom_aesthetic.commands.preparation import (
    load_head_input,
    load_scored_images,
    make_judge,
    make_problem,
    settings_identity,
)
from custom_aesthetic.features.precomputed import PrecomputedTable, read_table
from custom_aesthetic.scores.splits import read_split_file
from custom_aesthetic.search import succession
from custom_aesthetic.settings.training import FeatureSettings, ImageSettings, ObjectiveSettings, SplitSettings
from tests.mean_colour import MeanColour

CPU = torch.device("cpu")
ALONE = SplitSettings(group_duplicates="off")
"""Coloured pictures are near-duplicates of their neighbours."""


@pytest.fixture(autouse=True)
def mean_colour_for_every_extractor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preparation, "build_extractors", lambda names, *_: [MeanColour(n) for n in names.split(",")])


def picture_names(folder: Path) -> list[str]:
    return sorted(file.relative_to(folder).as_posix() for file in folder.rglob("*.png"))


def write_scores(folder: Path, header: str = "relative_path,score", last: str = "") -> None:
    rows = [f"{name},{number}{last}" for number, name in enumerate(picture_names(folder))]
    (folder / "scores.csv").write_text("\n".join([header, *rows]))


def load(folder: Path, **split: object) -> preparation.ScoredImages:
    return load_scored_images(ImageSettings(str(folder)), SplitSettings(**split))  # type: ignore[arg-type]


def test_a_new_split_is_written_and_then_kept(colour_pictures: Path) -> None:
    write_scores(colour_pictures)
    first = load(colour_pictures)
    assert list(first.table.columns["split"]).count("eval") == 6
    assert not (colour_pictures / "split.json").exists(), "the features settle the split"
    settled, _, _ = load_head_input(first, FeatureSettings(), ALONE, CPU)
    assert not (colour_pictures / "split.json").exists(), "later checks can still fail"
    settled.record_split()
    split = first.table.columns["split"]
    assert list(read_split_file(colour_pictures / "split.json").values()) == list(split)
    assert load(colour_pictures, eval_pick_seed=7).table.columns["split"] == split
    assert load(colour_pictures, eval_pick_seed=7, ignore_existing_split=True).table.columns["split"] != split


def table_of(folder: Path, features: np.ndarray) -> PrecomputedTable:
    np.savez(folder / "t.npz", paths=np.array([*picture_names(folder), "not scored.png"]), features=features)
    return read_table(folder / "t.npz", folder)


def test_another_table_is_another_study_and_rows_without_a_score_do_not_count(colour_pictures: Path) -> None:
    write_scores(colour_pictures)
    first = np.random.default_rng(0).standard_normal((25, 4)).astype(np.float32)
    other, unscored = first.copy(), first.copy()
    other[3, 2] += 1e-6
    unscored[24] = 7

    planned: list[str] = []

    def identity(features: np.ndarray) -> Mapping[str, str]:
        table = table_of(colour_pictures, features)
        scored = load_scored_images(ImageSettings(str(colour_pictures)), ALONE, table)
        scored, found, head_input = load_head_input(scored, FeatureSettings(), ALONE, CPU, table, check=planned.append)
        split = SplitSettings(folds=1, group_duplicates="off")
        return make_problem(scored.table, found, head_input, ObjectiveSettings(), split, CPU).identity

    known = identity(first)
    assert known["features"] == "features:t 0 centre; join; 4 columns"
    assert known["features"].startswith(f"{planned[0]}; "), "another study is refused before anything is read"
    assert identity(first) == known == identity(unscored)
    assert {key for key, value in identity(other).items() if value != known[key]} == {"table"}
    assert "table" in succession.DATA, "a changed table begins a new study, as changed pictures do"


def test_near_duplicates_of_a_table_stay_on_one_side_of_a_new_split(colour_pictures: Path) -> None:
    write_scores(colour_pictures)
    features = np.random.default_rng(0).standard_normal((25, 4)).astype(np.float16)
    features[5:9] = features[4]
    table = table_of(colour_pictures, features)
    scored = load_scored_images(ImageSettings(str(colour_pictures)), SplitSettings(), table)
    scored, _, _ = load_head_input(scored, FeatureSettings(), SplitSettings(), CPU, table)
    splits = scored.table.columns["split"]
    rows = [scored.table.paths.index(path) for path in picture_names(colour_pictures)[4:9]]
    assert len({splits[row] for row in rows}) == 1


def test_near_duplicates_stay_on_one_side_of_a_new_split(colour_pictures: Path) -> None:
    copied = colour_pictures / "cold" / "00.png"
    for number in range(8):
        (colour_pictures / "cold" / f"copy_{number}.png").write_bytes(copied.read_bytes())
    write_scores(colour_pictures)
    settings = SplitSettings()
    before = load(colour_pictures)
    alike = [path for path in before.table.paths if "copy" in path or path == "cold/00.png"]
    by_path = dict(zip(before.table.paths, before.table.columns["split"], strict=True))
    assert len({by_path[path] for path in alike}) == 2, "a split by path alone separates them"
    scored, _, _ = load_head_input(before, FeatureSettings(), settings, CPU)
    by_group = dict(zip(scored.table.paths, scored.table.columns["split"], strict=True))
    assert len({by_group[path] for path in alike}) == 1
    scored.record_split()
    assert read_split_file(colour_pictures / "split.json") == by_group


def test_near_duplicates_that_an_existing_split_separates_are_reported_and_left(
    colour_pictures: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (colour_pictures / "cold" / "copy.png").write_bytes((colour_pictures / "cold" / "00.png").read_bytes())
    write_scores(colour_pictures)
    names = picture_names(colour_pictures)
    parted = {name: "eval" if name == "cold/copy.png" else "train" for name in names}
    (colour_pictures / "split.json").write_text(json.dumps(parted))
    scored, _, _ = load_head_input(load(colour_pictures), FeatureSettings(), SplitSettings(), CPU)
    assert list(scored.table.columns["split"]) == list(parted.values())
    assert "near-duplicate images are divided between sets" in caplog.text


def test_the_split_column_goes_before_the_split_file(colour_pictures: Path) -> None:
    names = picture_names(colour_pictures)
    (colour_pictures / "split.json").write_text(json.dumps(dict.fromkeys(names, "train")))
    rows = [f"{name},{number},{'eval' if number < 3 else ''}" for number, name in enumerate(names)]
    (colour_pictures / "scores.csv").write_text("\n".join(["relative_path,score,split", *rows]))
    assert list(load(colour_pictures).table.columns["split"]) == ["eval"] * 3 + ["train"] * 21


def test_scored_images_that_do_not_exist_are_left_out_and_named(
    colour_pictures: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_scores(colour_pictures)
    (colour_pictures / "cold" / "00.png").unlink()
    with caplog.at_level(logging.WARNING):
        assert len(load(colour_pictures).table) == 23
    assert "left out 1 scored images that do not exist: cold/00.png" in caplog.text


def test_a_path_too_long_for_the_disk_counts_as_a_missing_image(colour_pictures: Path) -> None:
    write_scores(colour_pictures)
    with (colour_pictures / "scores.csv").open("a") as file:
        file.write(f"\n{'a' * 5000}.png,1\n")
    assert len(load(colour_pictures).table) == 24


def test_fewer_than_four_images_are_an_error(colour_pictures: Path) -> None:
    write_scores(colour_pictures)
    for name in picture_names(colour_pictures)[3:]:
        (colour_pictures / name).unlink()
    with pytest.raises(UserError, match="only 3 scored images"):
        load(colour_pictures)


@pytest.mark.parametrize(("fraction", "empty"), [(0.0, "eval"), (1.0, "train")])
def test_an_empty_set_is_an_error_and_writes_nothing(colour_pictures: Path, fraction: float, empty: str) -> None:
    write_scores(colour_pictures)
    with pytest.raises(UserError, match=f"the {empty} set is empty"):
        load(colour_pictures, fraction_for_eval=fraction)
    assert not (colour_pictures / "split.json").exists()


def test_a_picture_that_cannot_be_read_leaves_the_rest_aligned(colour_pictures: Path) -> None:
    write_scores(colour_pictures)
    (colour_pictures / "warm" / "05.png").write_bytes(b"no picture")
    scored, features, head_input = load_head_input(load(colour_pictures), FeatureSettings(), ALONE, CPU)
    assert "warm/05.png" not in scored.table.paths
    assert scored.table.paths == features.paths
    red = {int(Path(path).stem): float(row[0]) for path, row in zip(features.paths, head_input.values, strict=True)}
    assert red == {number: 10 * number for number in red}


def test_several_extractors_lie_side_by_side(colour_pictures: Path) -> None:
    write_scores(colour_pictures)
    settings = FeatureSettings("first,second", hidden_states_used=((0, 2),))
    _, features, head_input = load_head_input(load(colour_pictures), settings, ALONE, CPU)
    assert head_input.values.shape == (24, 12)
    assert [(block.extractor, block.hidden_state) for block in features.blocks] == [
        ("first", 0),
        ("first", 2),
        ("second", 0),
        ("second", 2),
    ]


def test_the_problem_has_the_training_images_standardised(colour_pictures: Path) -> None:
    write_scores(colour_pictures)
    scored, features, head_input = load_head_input(load(colour_pictures), FeatureSettings(), ALONE, CPU)
    problem = make_problem(scored.table, features, head_input, ObjectiveSettings(), SplitSettings(folds=1), CPU)
    train = problem.data.train_rows
    assert torch.allclose(problem.data.features[train].mean(0), torch.zeros(3), atol=1e-6)
    assert float(problem.data.scores[train].std(correction=0)) == pytest.approx(1, abs=1e-5)
    assert problem.judge.divider == np.median(scored.table.scores)
    assert sorted([*problem.judge.rows["train"], *problem.judge.rows["eval"]]) == list(range(24))


def test_weights_are_scaled_to_mean_one_on_request(colour_pictures: Path) -> None:
    write_scores(colour_pictures, "relative_path,score,weight", ",4")
    table = load(colour_pictures).table
    judge = make_judge(table, ObjectiveSettings(loss_model="wmse"))
    normalised = make_judge(table, ObjectiveSettings(loss_model="wmse", normalise_weights=True))
    assert (judge.weights == 4).all()
    assert normalised.weights is not None
    assert (normalised.weights == 1).all()


@pytest.mark.parametrize("weight", ["", "-1"])
def test_a_missing_or_negative_weight_is_named(colour_pictures: Path, weight: str) -> None:
    write_scores(colour_pictures, "relative_path,score,weight", f",{weight}")
    table = load(colour_pictures).table
    with pytest.raises(UserError, match=r"not above 0 for cold/00\.png"):
        make_judge(table, ObjectiveSettings(loss_model="wmse"))


def test_the_test_set_is_not_used_for_any_choice(colour_pictures: Path) -> None:
    write_scores(colour_pictures)
    scored = load(colour_pictures, fraction_for_test=0.25)
    split = list(scored.table.columns["split"])
    assert [split.count(name) for name in ("train", "eval", "test")] == [12, 6, 6]
    judge = make_judge(scored.table, ObjectiveSettings())
    apart = {row for row, name in enumerate(split) if name == "test"}
    assert not any(apart & set(rows.tolist()) for rows in judge.rows.values())
    assert len(judge.rows["full"]) == 18


def test_a_test_set_that_an_existing_split_has_no_room_for_is_refused(
    colour_pictures: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_scores(colour_pictures)
    names = picture_names(colour_pictures)
    split = {name: "eval" if number % 4 == 0 else "train" for number, name in enumerate(names)}
    (colour_pictures / "split.json").write_text(json.dumps(split))
    with pytest.raises(UserError, match=r"--fraction_for_test=0\.25 asks .* assigns 24 of 24 .* --ignore_existing"):
        load(colour_pictures, fraction_for_test=0.25)
    for name in names[:2]:
        del split[name]
    (colour_pictures / "split.json").write_text(json.dumps(split))
    settings = SplitSettings(fraction_for_test=0.25, group_duplicates="off")
    scored, _, _ = load_head_input(load(colour_pictures, fraction_for_test=0.25), FeatureSettings(), settings, CPU)
    found = dict(zip(scored.table.paths, scored.table.columns["split"], strict=True))
    assert {path: name for path, name in found.items() if path in split} == split
    assert list(found.values()).count("test") == 1
    assert "1 test images, not the 6 of --fraction_for_test=0.25" in caplog.text
    again = load(colour_pictures, fraction_for_test=0.25, ignore_existing_split=True)
    assert list(again.table.columns["split"]).count("test") == 6


def test_the_views_asked_for_are_averaged(colour_pictures: Path) -> None:
    write_scores(colour_pictures)
    settings = FeatureSettings("colour", views=("centre", "mirror"), hidden_states_used=((0, 1),))
    _, features, head_input = load_head_input(load(colour_pictures), settings, ALONE, CPU)
    assert head_input.values.shape == (24, 6)
    assert {block.view for block in features.blocks} == {"centre+mirror"}


def test_near_duplicates_are_left_out_together_by_the_folds(
    colour_pictures: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    write_scores(colour_pictures)
    split = SplitSettings(folds=4)
    scored, features, head_input = load_head_input(load(colour_pictures), FeatureSettings(), split, CPU)
    problem = make_problem(scored.table, features, head_input, ObjectiveSettings(), split, CPU)
    assert len(problem.folds) == 4
    assert "near-duplicates are not kept together" in caplog.text, "pictures with similar colours are near-duplicates"

    alike = dict.fromkeys(scored.table.paths[:5], scored.table.paths[0])
    monkeypatch.setattr(preparation, "near_duplicates", lambda *_: alike)
    problem = make_problem(scored.table, features, head_input, ObjectiveSettings(), split, CPU)
    assert sorted(len(set(range(5)) & set(fold.left_out.tolist())) for fold in problem.folds) == [0, 0, 0, 5]


def test_unused_pictures_are_counted_once(colour_pictures: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="custom_aesthetic")
    write_scores(colour_pictures)
    for name in ("new.png", "film.mp4", "warm/film.MP4", "notes.txt"):
        (colour_pictures / name).write_bytes(b"")
    load(colour_pictures)
    counted = [line for line in caplog.messages if line.startswith("ignored in ")]
    assert len(counted) == 1
    assert counted[0].endswith(": 2 .mp4, 1 .csv, 1 .txt")
    assert f"1 pictures in {colour_pictures} have no score and are not used" in caplog.messages


@pytest.mark.parametrize(
    "settings",
    [
        FeatureSettings(),
        FeatureSettings("a,b", hidden_states_used=((0, 2), (1,)), views=("centre", "mirror")),
        FeatureSettings("a,b", hidden_states_used=((0, 2),), hidden_states_mode="join__average"),
        FeatureSettings("a", hidden_states_used=((0, 2),), weight_hidden_states=True),
        FeatureSettings("a,b", hidden_states_used=((0, 2),), fixed_hidden_state_weights=(1.0, 0.1, -3.0)),
    ],
)
def test_what_a_study_says_of_its_features_is_known_before_they_are_computed(
    colour_pictures: Path, settings: FeatureSettings
) -> None:
    write_scores(colour_pictures)
    planned: list[str] = []
    objective = ObjectiveSettings()
    for folds in (1, 2):
        split = SplitSettings(group_duplicates="off", folds=folds)
        loaded = load_head_input(load(colour_pictures), settings, split, CPU, check=planned.append)
        scored, features, head_input = loaded
        identity = make_problem(scored.table, features, head_input, objective, split, CPU).identity
        assert planned[-1] == identity["features"].rpartition("; ")[0]
        known = settings_identity(identity["features"], objective, split)
        assert known == {key: identity[key] for key in identity if key not in ("images", "scores", "split")}
