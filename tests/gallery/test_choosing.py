"""Choosing in the gallery: what is chosen, the dry run, and that exactly this is done and taken back."""

import logging
from pathlib import Path

import numpy as np
import pytest

from custom_aesthetic.commands.page_gallery import do_order, make_gallery, take_back_order
from custom_aesthetic.commands.score_pairs import open_session
from custom_aesthetic.gallery.choosing import Choosing
from custom_aesthetic.labelling.plan import BadRequest
from custom_aesthetic.scores.choice_log import ComparisonLog
from custom_aesthetic.scores.score_files import read_scores
from custom_aesthetic.settings.arguments import parse_arguments
from custom_aesthetic.settings.scorers import ABArguments

REDDEST = [f"{'warm' if number % 2 else 'cold'}/{number:02}.png" for number in range(23, -1, -1)]


@pytest.fixture(autouse=True)
def say_what_is_done():
    logger = logging.getLogger("custom_aesthetic")
    before = logger.level
    logger.setLevel(logging.INFO)
    yield
    logger.setLevel(before)


@pytest.fixture
def parts(colour_pictures):
    """The gallery of 24 colours, where a trained model likes red; no background work is begun."""
    arguments, _ = parse_arguments(ABArguments, ["-d", str(colour_pictures)], description="")
    made = make_gallery(open_session(arguments), arguments)
    paths = made.gallery.session.plan.paths[:24]
    made.gallery.use_trained(np.array([float(Path(path).stem) for path in paths]))
    yield made
    made.stop()


def chosen(parts, **asked) -> list[str]:
    paths, _, rows = parts.choosing.chosen(asked)
    return [paths[row] for row in rows]


def there(folder: Path) -> set[str]:
    return {file.relative_to(folder).as_posix() for file in folder.rglob("*.png")}


def test_the_slider_chooses_the_best_by_number_or_by_score(parts):
    assert chosen(parts, top=3) == REDDEST[:3]
    assert chosen(parts, above=20.5) == REDDEST[:3]
    assert chosen(parts, top=0) == []
    assert parts.choosing.count({"top": 5}) | {"suggested": "", "undo": None} == {
        **{"chosen": 5, "of": 24, "low": 0.0, "high": 23.0},
        **{"suggested": "", "undo": None},
    }


def test_kept_pictures_are_always_chosen_and_rejected_ones_never(parts):
    parts.gallery.mark(REDDEST[-1], "keep", None)
    parts.gallery.mark(REDDEST[0], "reject", None)
    assert chosen(parts, top=2) == [*REDDEST[1:3], REDDEST[-1]]
    parts.gallery.mark(REDDEST[0], None, None)
    assert chosen(parts, top=2) == [*REDDEST[:2], REDDEST[-1]]


def test_one_per_group_keeps_the_best_of_each(parts):
    parts.learner.groups = {path: str(number // 4) for number, path in enumerate(REDDEST)}
    assert chosen(parts, top=3, per_group=True) == [REDDEST[0], REDDEST[4], REDDEST[8]]


def test_a_move_is_shown_first_then_done_as_shown_and_taken_back(parts, colour_pictures, tmp_path):
    before = there(colour_pictures)
    planned = parts.choosing.plan({"kind": "move", "target": str(tmp_path / "best"), "top": 2})
    assert planned["chosen"] == 2
    assert any("would move" in line and "23.png" in line for line in planned["lines"])
    assert there(colour_pictures) == before
    parts.gallery.use_trained(-parts.gallery.trained)  # the order changes, but not what was shown
    done = parts.choosing.carry_out(planned["name"])
    assert there(tmp_path / "best") == set(REDDEST[:2])
    assert there(colour_pictures) == before - set(REDDEST[:2])
    assert Path(done["undo"]).parent == tmp_path / "best"
    assert parts.gallery.page("best", 0, 50)["total"] == 22
    shown = [path for _ in range(40) for path in parts.gallery.session.group()["pictures"]]
    assert not set(shown) & set(REDDEST[:2])
    taken_back = parts.choosing.undo()
    assert taken_back["undo"] is None
    assert there(colour_pictures) == before
    assert parts.gallery.page("best", 0, 50)["total"] == 24


def test_only_the_dry_run_that_was_looked_at_last_can_be_carried_out_and_only_once(parts, tmp_path):
    first = parts.choosing.plan({"kind": "copy", "target": str(tmp_path / "one"), "top": 2})
    second = parts.choosing.plan({"kind": "copy", "target": str(tmp_path / "two"), "top": 1})
    with pytest.raises(BadRequest, match="another one has replaced it"):
        parts.choosing.carry_out(first["name"])
    parts.choosing.carry_out(second["name"])
    with pytest.raises(BadRequest, match="look at the dry run again"):
        parts.choosing.carry_out(second["name"])
    assert not (tmp_path / "one").exists()
    assert there(tmp_path / "two") == {REDDEST[0]}


@pytest.mark.parametrize(
    ("asked", "reason"),
    [
        ({"kind": "move", "target": "pictures/inside", "top": 2}, "lies inside"),
        ({"kind": "copy", "target": "pictures", "top": 2}, "lies inside"),
        ({"kind": "copy", "target": "", "top": 2}, "say where to"),
        ({"kind": "list", "target": "scores.txt", "top": 2}, "CSV, JSON or Parquet"),
        ({"kind": "list", "target": "pictures/cold/00.png", "top": 2}, "CSV, JSON or Parquet"),
        ({"kind": "burn", "target": "x", "top": 2}, "kind must be one of"),
        ({"kind": "copy", "target": "best", "top": 0}, "no picture is chosen"),
        ({"kind": "copy", "target": "best", "top": -1}, "must be a number of pictures"),
        ({"kind": "copy", "target": "best", "above": "x"}, "must be a number"),
        ({"kind": "copy", "target": "be\0st", "top": 2}, "null"),
        ({"kind": "move", "target": "~nobody-of-this-name/best", "top": 2}, "cannot be a place"),
        ({"kind": "list", "target": "a" * 300 + ".csv", "top": 2}, "cannot be a place"),
        ({"kind": "copy", "target": "be\ud800st", "top": 2}, "cannot be a place"),
    ],
)
def test_what_cannot_be_done_is_refused_before_anything_happens(parts, tmp_path, asked, reason):
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(BadRequest, match=reason):
        parts.choosing.plan(asked)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_list_is_written_once_and_never_over_another_file(parts, tmp_path):
    planned = parts.choosing.plan({"kind": "list", "target": "chosen.json", "top": 2})
    parts.choosing.carry_out(planned["name"])
    assert list(read_scores(tmp_path / "chosen.json").paths) == REDDEST[:2]
    with pytest.raises(BadRequest, match="exists already"):
        parts.choosing.plan({"kind": "list", "target": "chosen.json", "top": 2})


@pytest.mark.parametrize(("kind", "written"), [("stars", "{}.xmp"), ("captions", "{.stem}.txt")])
def test_stars_and_captions_are_written_and_taken_back(parts, colour_pictures, kind, written):
    picture = colour_pictures / REDDEST[0]
    file = picture.with_name(written.format(Path(picture.name)))
    before = sorted(colour_pictures.rglob("*"))
    planned = parts.choosing.plan({"kind": kind, "top": 1})
    assert sorted(colour_pictures.rglob("*")) == before, "a dry run"
    done = parts.choosing.carry_out(planned["name"])
    assert ('Rating="5"' if kind == "stars" else "score_9") in file.read_text()
    assert done["undo"] is not None
    parts.choosing.undo()
    assert set(colour_pictures.rglob("*")) - set(before) == {Path(done["undo"])}


def test_stars_that_were_there_from_a_model_come_back_and_those_changed_since_stay(parts, colour_pictures):
    done = parts.choosing.carry_out(parts.choosing.plan({"kind": "stars", "top": 2})["name"])
    sidecars = [colour_pictures / f"{path}.xmp" for path in REDDEST[:2]]
    earlier = sidecars[0].read_text()
    parts.choosing.undo()
    for sidecar in sidecars:
        sidecar.write_text(earlier.replace('Rating="5"', 'Rating="2"'))
    Path(done["undo"]).unlink()  # its name is that of the second
    parts.choosing.carry_out(parts.choosing.plan({"kind": "stars", "top": 2})["name"])
    sidecars[1].write_text("changed in a photo program")
    with pytest.raises(BadRequest, match="has changed since"):
        parts.choosing.undo()
    assert 'Rating="2"' in sidecars[0].read_text()
    assert sidecars[1].read_text() == "changed in a photo program"


def test_pictures_in_the_way_are_named_and_nothing_is_overwritten(parts, tmp_path):
    target = tmp_path / "best" / REDDEST[0]
    target.parent.mkdir(parents=True)
    target.write_text("mine")
    planned = parts.choosing.plan({"kind": "copy", "target": str(tmp_path / "best"), "top": 2})
    assert any("already exist" in line for line in planned["lines"])
    parts.choosing.carry_out(planned["name"])
    assert target.read_text() == "mine"
    assert there(tmp_path / "best") == set(REDDEST[:2])


def test_marks_are_answers_in_the_log(parts, colour_pictures):
    parts.gallery.mark(REDDEST[5], "keep", None)
    parts.gallery.mark(REDDEST[6], "reject", None)
    parts.gallery.mark(REDDEST[5], "reject", None)
    answers = ComparisonLog(colour_pictures / "comparisons.csv").answers()
    assert [(row.winner, row.kind) for row in answers] == [(REDDEST[6], "reject"), (REDDEST[5], "reject")]
    assert parts.gallery.marks() == {REDDEST[5]: "reject", REDDEST[6]: "reject"}


def test_an_interrupted_move_leaves_an_undo_file_that_moves_everything_back(
    parts, colour_pictures, tmp_path, monkeypatch
):
    before = there(colour_pictures)
    planned = parts.choosing.plan({"kind": "move", "target": str(tmp_path / "best"), "top": 6})
    from custom_aesthetic.pictures import transfers

    moved = []
    real = transfers._move_all

    def fail_at_the_fourth(group):
        moved.append(group)
        if len(moved) == 4:
            raise OSError(28, "No space left on device")
        real(group)

    monkeypatch.setattr(transfers, "_move_all", fail_at_the_fourth)
    with pytest.raises(BadRequest, match="3 files were moved before, --undo="):
        parts.choosing.carry_out(planned["name"])
    monkeypatch.undo()
    assert parts.gallery.page("best", 0, 50)["total"] == 21
    assert parts.choosing.count({"top": 1})["undo"] is not None
    parts.choosing.undo()
    assert there(colour_pictures) == before


def test_a_move_that_cannot_be_taken_back_now_can_be_later_and_its_pictures_are_shown_again(
    parts, colour_pictures, tmp_path
):
    before = there(colour_pictures)
    planned = parts.choosing.plan({"kind": "move", "target": str(tmp_path / "best"), "top": 2})
    parts.choosing.carry_out(planned["name"])
    session = parts.gallery.session
    session.leave_out(REDDEST[0], "no such file")  # a page that was open asked for it
    (colour_pictures / REDDEST[0]).write_bytes(b"in the way")
    with pytest.raises(BadRequest, match="move those away first"):
        parts.choosing.undo()
    (colour_pictures / REDDEST[0]).unlink()
    assert parts.choosing.count({"top": 1})["undo"] is not None
    parts.choosing.undo()
    assert there(colour_pictures) == before
    assert session.progress()["unusable"] == 0


def test_orders_are_those_of_the_folder_scorer(parts, tmp_path):
    choosing = Choosing(
        parts.gallery, lambda order, dry: do_order(parts.gallery.directory, order, dry), take_back_order
    )
    planned = choosing.plan({"kind": "link", "target": str(tmp_path / "links"), "top": 1})
    choosing.carry_out(planned["name"])
    assert (tmp_path / "links" / REDDEST[0]).is_symlink()
