"""Copies, links and moves: nothing is overwritten, and moves can be taken back."""

import os
from datetime import datetime
from pathlib import Path

import pytest

from custom_aesthetic.base.errors import UserError
from custom_aesthetic.pictures import transfers
from custom_aesthetic.pictures.transfers import copy, link, move, plan_transfers, undo, undo_file_in


@pytest.fixture
def folder(tmp_path) -> Path:
    """Pictures a/1.png, b/1.png and c.png, and a sidecar of the first; what they hold is their path."""
    for name in ("a/1.png", "b/1.png", "c.png", "a/1.png.xmp"):
        file = tmp_path / "photos" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(name)
    return tmp_path / "photos"


PATHS = ["a/1.png", "b/1.png", "c.png"]


def contents(folder: Path) -> dict[str, str]:
    files = [file for file in folder.rglob("*") if file.is_file() and not file.name.startswith("undo")]
    return {file.relative_to(folder).as_posix(): file.read_text() for file in files}


def test_copies_keep_their_sub_directories_times_and_sidecars(folder, tmp_path):
    os.utime(folder / "c.png", (1000, 1000))
    before = contents(folder)
    planned, in_the_way = plan_transfers(folder, PATHS, tmp_path / "best")
    copy(planned)
    assert in_the_way == []
    assert contents(tmp_path / "best") == before == contents(folder)
    assert (tmp_path / "best" / "c.png").stat().st_mtime == 1000


def test_links_lead_to_the_pictures(folder, tmp_path):
    link(plan_transfers(folder, PATHS, tmp_path / "best", with_sidecars=False)[0])
    assert (tmp_path / "best" / "a" / "1.png").is_symlink()
    assert (tmp_path / "best" / "a" / "1.png").read_text() == "a/1.png"


def test_moves_can_be_taken_back(folder, tmp_path):
    before = contents(folder)
    undo_file = undo_file_in(tmp_path / "best", datetime(2026, 1, 2, 3, 4, 5))
    move(plan_transfers(folder, PATHS, tmp_path / "best")[0], undo_file)
    assert contents(folder) == {}
    assert contents(tmp_path / "best") == before
    assert undo_file.name == "undo-20260102-030405.jsonl"
    assert undo(undo_file) == (4, [])
    assert contents(folder) == before
    assert contents(tmp_path / "best") == {}
    assert undo(undo_file) == (0, [])


@pytest.mark.parametrize("action", ["copy", "link", "move"])
def test_nothing_is_overwritten(folder, tmp_path, action):
    (tmp_path / "best").mkdir()
    (tmp_path / "best" / "c.png").write_text("mine")
    planned, in_the_way = plan_transfers(folder, PATHS, tmp_path / "best")
    assert in_the_way == ["c.png"]
    (tmp_path / "best" / "b").mkdir()
    (tmp_path / "best" / "b" / "1.png").write_text("came meanwhile")
    with pytest.raises(UserError, match=r"b/1\.png"):
        if action == "move":
            move(planned, tmp_path / "undo.jsonl")
        else:
            getattr(transfers, action)(planned)
    assert (tmp_path / "best" / "c.png").read_text() == "mine"
    assert (tmp_path / "best" / "b" / "1.png").read_text() == "came meanwhile"
    assert (folder / "b" / "1.png").read_text() == "b/1.png"
    assert [file.name for file in (tmp_path / "best").rglob(".*")] == []


def test_an_undo_overwrites_nothing_either(folder, tmp_path):
    move(plan_transfers(folder, ["c.png"], tmp_path / "best")[0], tmp_path / "undo.jsonl")
    (folder / "c.png").write_text("new")
    assert undo(tmp_path / "undo.jsonl") == (0, [str(folder / "c.png")])
    assert (folder / "c.png").read_text() == "new"
    assert (tmp_path / "best" / "c.png").read_text() == "c.png"


def test_a_crash_in_the_middle_of_moving_can_be_taken_back(folder, tmp_path, monkeypatch):
    real, calls = transfers._move_one, []

    def fails_at_the_second(source: Path, target: Path) -> None:
        calls.append(source)
        if len(calls) == 2:
            raise OSError(28, "the disk is full")
        real(source, target)

    before = contents(folder)
    monkeypatch.setattr(transfers, "_move_one", fails_at_the_second)
    with pytest.raises(UserError, match="disk is full"):
        move(plan_transfers(folder, PATHS, tmp_path / "best")[0], tmp_path / "undo.jsonl")
    monkeypatch.setattr(transfers, "_move_one", real)
    with (tmp_path / "undo.jsonl").open("a") as stream:
        stream.write('{"from": "torn')
    assert undo(tmp_path / "undo.jsonl") == (1, [])
    assert contents(folder) == before


def test_a_move_to_another_disk_copies_and_then_removes(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(os, "link", lambda *_: (_ for _ in ()).throw(OSError(18, "another disk")))
    before = contents(folder)
    move(plan_transfers(folder, PATHS, tmp_path / "best")[0], tmp_path / "undo.jsonl")
    assert contents(tmp_path / "best") == before
    assert contents(folder) == {}


@pytest.mark.parametrize("inside", [".", "best", "a/deeper"])
def test_a_target_inside_the_folder_is_refused(folder, inside):
    with pytest.raises(UserError, match="lies inside"):
        plan_transfers(folder, PATHS, folder / inside)


def test_a_target_that_is_a_file_is_refused(folder, tmp_path):
    (tmp_path / "best").write_text("a file")
    with pytest.raises(UserError, match="no directory"):
        plan_transfers(folder, PATHS, tmp_path / "best")


@pytest.mark.parametrize("content", ["hello\n", '{"a": 1}\n', "[1]\n"])
def test_what_is_no_undo_file_is_refused(tmp_path, content):
    (tmp_path / "undo.jsonl").write_text(content)
    with pytest.raises(UserError, match="--undo"):
        undo(tmp_path / "undo.jsonl")
    with pytest.raises(UserError, match="--undo"):
        undo(tmp_path / "missing.jsonl")
