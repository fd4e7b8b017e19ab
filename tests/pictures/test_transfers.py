"""Copies, links and moves: nothing is overwritten, and moves can be undone."""

import os
from datetime import datetime
from pathlib import Path

import pytest

from custom_aesthetic.base.errors import UserError
from custom_aesthetic.base.processes import aside_name
from custom_aesthetic.pictures import transfers
from custom_aesthetic.pictures.transfers import copy, link, move, plan_transfers, undo, undo_file_in


@pytest.fixture
def folder(tmp_path) -> Path:
    """Pictures a/1.png, b/1.png and c.png, and a sidecar of the first; the content of each file is its path."""
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


def test_links_point_to_the_pictures(folder, tmp_path):
    link(plan_transfers(folder, PATHS, tmp_path / "best", kind="link")[0])
    assert (tmp_path / "best" / "a" / "1.png").is_symlink()
    assert (tmp_path / "best" / "a" / "1.png").read_text() == "a/1.png"


def test_moves_can_be_undone(folder, tmp_path):
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


def full_disk_at(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Simulate a full disk once a file with this name is written outside `photos`."""
    real = transfers._take_name

    def take_name(file: Path, target: Path) -> None:
        if target.name == name and "photos" not in target.parts:
            raise OSError(28, "No space left on device")
        real(file, target)

    monkeypatch.setattr(transfers, "_take_name", take_name)


def test_a_failed_move_names_its_undo_file_and_can_be_undone(folder, tmp_path, monkeypatch):
    before = contents(folder)
    with monkeypatch.context() as patched:
        full_disk_at(patched, "c.png")
        with pytest.raises(UserError, match=r"No space left.*3 files were moved before, --undo=.*undo\.jsonl"):
            move(plan_transfers(folder, PATHS, tmp_path / "best")[0], tmp_path / "undo.jsonl")
    assert sorted(contents(folder)) == ["c.png"]
    with (tmp_path / "undo.jsonl").open("a") as stream:
        stream.write('{"from": "torn')
    assert undo(tmp_path / "undo.jsonl") == (3, [])
    assert contents(folder) == before


@pytest.mark.parametrize("other_disk", [False, True])
@pytest.mark.parametrize("action", ["move", "copy"])
def test_a_full_disk_leaves_a_picture_and_its_sidecars_together(folder, tmp_path, monkeypatch, action, other_disk):
    before = contents(folder)
    if other_disk:
        monkeypatch.setattr(os, "link", lambda *_: (_ for _ in ()).throw(OSError(18, "another disk")))
    full_disk_at(monkeypatch, "1.png.xmp")
    planned = plan_transfers(folder, ["c.png", "a/1.png"], tmp_path / "best")[0]
    with pytest.raises(UserError, match="No space"):
        move(planned, tmp_path / "undo.jsonl") if action == "move" else copy(planned)
    assert contents(tmp_path / "best") == {"c.png": "c.png"}
    assert contents(folder) == ({name: text for name, text in before.items() if name != "c.png"}) or action == "copy"


def test_an_old_name_that_cannot_be_removed_leaves_picture_and_sidecar_at_their_old_places(
    folder, tmp_path, monkeypatch
):
    before, real = contents(folder), Path.unlink

    def unlink(file: Path, missing_ok: bool = False) -> None:
        if file == folder / "a" / "1.png.xmp":
            raise PermissionError(13, "Permission denied")
        real(file, missing_ok=missing_ok)

    monkeypatch.setattr(Path, "unlink", unlink)
    with pytest.raises(UserError, match="Permission denied"):
        move(plan_transfers(folder, ["a/1.png"], tmp_path / "best")[0], tmp_path / "undo.jsonl")
    assert contents(folder) == before
    assert contents(tmp_path / "best") == {}


@pytest.mark.parametrize("n_done", range(5))
def test_a_move_that_is_killed_at_any_step_can_be_undone(folder, tmp_path, monkeypatch, n_done):
    before, steps = contents(folder), []

    class Killed(BaseException):
        pass

    def counting(real):
        def step(*arguments, **options):
            if steps:
                if len(steps) > n_done:
                    raise Killed
                steps.append(1)
            return real(*arguments, **options)

        return step

    with monkeypatch.context() as patched:
        patched.setattr(transfers, "_take_name", counting(transfers._take_name))
        patched.setattr(Path, "unlink", counting(Path.unlink))
        steps.append(1)
        with pytest.raises(Killed):
            move(plan_transfers(folder, PATHS, tmp_path / "best")[0], tmp_path / "undo.jsonl")
        steps.clear()
    _, in_the_way = undo(tmp_path / "undo.jsonl")
    assert in_the_way == []
    assert contents(folder) == before
    assert contents(tmp_path / "best") == {}


def test_a_shared_sidecar_moves_only_with_all_files_that_share_it(folder, tmp_path):
    for name in ("a/1.xmp", "c.xmp", "c.CR2", "d.jpg", "d.png", "d.xmp"):
        (folder / name).write_text(name)
    planned, _ = plan_transfers(folder, [*PATHS, "d.jpg", "d.png"], tmp_path / "best", kind="move")
    move(planned, tmp_path / "undo.jsonl")
    assert sorted(contents(folder)) == ["c.CR2", "c.xmp"]
    assert sorted(contents(tmp_path / "best")) == [
        *("a/1.png", "a/1.png.xmp", "a/1.xmp", "b/1.png", "c.png", "d.jpg", "d.png", "d.xmp")
    ]
    undo(tmp_path / "undo.jsonl")
    copy(plan_transfers(folder, ["c.png", "d.jpg"], tmp_path / "copies")[0])
    assert sorted(contents(tmp_path / "copies")) == ["c.png", "c.xmp", "d.jpg", "d.xmp"]


def test_an_undo_restores_links_as_links(folder, tmp_path):
    (tmp_path / "elsewhere.png").write_text("elsewhere")
    links = {"near.png": "c.png", "far.png": str(tmp_path / "elsewhere.png"), "up.png": "../elsewhere.png"}
    for name, to in links.items():
        (folder / name).symlink_to(to)
    move(plan_transfers(folder, [*links, *PATHS], tmp_path / "best", kind="move")[0], tmp_path / "undo.jsonl")
    assert contents(tmp_path / "best")["near.png"] == "c.png"
    assert not (tmp_path / "best" / "near.png").is_symlink()
    (tmp_path / "best" / "far.png").write_text("edited")
    assert undo(tmp_path / "undo.jsonl")[1] == []
    assert {name: str((folder / name).readlink()) for name in links if (folder / name).is_symlink()} == {
        name: to for name, to in links.items() if name != "far.png"
    }
    assert (folder / "far.png").read_text() == "edited"
    assert (tmp_path / "elsewhere.png").read_text() == "elsewhere"


def test_half_written_copies_of_ended_processes_are_removed_and_others_kept(folder, tmp_path):
    (tmp_path / "best").mkdir()
    mine = tmp_path / "best" / aside_name("c.png")
    gone = mine.with_name(mine.name.replace(f"-{os.getpid()}-", "-999999999-"))
    for file in (mine, gone):
        file.touch()
    copy(plan_transfers(folder, ["c.png"], tmp_path / "best")[0])
    assert mine.exists() and not gone.exists()


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
    with pytest.raises(UserError, match="not a directory"):
        plan_transfers(folder, PATHS, tmp_path / "best")


@pytest.mark.parametrize("content", ["hello\n", '{"a": 1}\n', "[1]\n"])
def test_a_file_that_is_not_an_undo_file_is_refused(tmp_path, content):
    (tmp_path / "undo.jsonl").write_text(content)
    with pytest.raises(UserError, match="--undo"):
        undo(tmp_path / "undo.jsonl")
    with pytest.raises(UserError, match="--undo"):
        undo(tmp_path / "missing.jsonl")


def test_a_caption_goes_with_its_picture_and_stays_with_another_of_that_name(folder, tmp_path):
    (folder / "c.txt").write_text("of c")
    for name in ("d.jpg", "d.png", "d.txt"):
        (folder / name).write_text(name)
    undo_file = tmp_path / "undo.jsonl"
    before = contents(folder)
    groups, _ = plan_transfers(folder, ["c.png", "d.jpg"], tmp_path / "best", kind="move")
    move(groups, undo_file)
    assert sorted(contents(tmp_path / "best")) == ["c.png", "c.txt", "d.jpg"]
    undo(undo_file)
    assert contents(folder) == before


@pytest.mark.parametrize("kind", ["copy", "link", "move"])
def test_ranks_before_the_names_keep_the_order_and_moves_are_undone(folder: Path, tmp_path: Path, kind: str) -> None:
    before = contents(folder)
    planned, _ = plan_transfers(folder, ["c.png", "a/1.png"], tmp_path / "best", kind=kind, ranked=True)
    undo_file = tmp_path / "best" / "undo.jsonl"
    {"copy": copy, "link": link, "move": lambda groups: move(groups, undo_file)}[kind](planned)
    there = {"001_c.png": "c.png", "a/002_1.png": "a/1.png", "a/002_1.png.xmp": "a/1.png.xmp"}
    assert contents(tmp_path / "best") == {name: there[name] for name in there if kind != "link" or "xmp" not in name}
    if kind == "move":
        assert undo(undo_file) == (3, [])
    assert contents(folder) == before


def test_ranks_of_many_pictures_sort_as_names(folder: Path, tmp_path: Path) -> None:
    paths = [f"{i}.png" for i in range(1200)]
    for path in paths:
        (folder / path).touch()
    planned, _ = plan_transfers(folder, paths, tmp_path / "best", ranked=True)
    names = [group[0].target.name for group in planned]
    assert names == sorted(names)
    assert names[0] == "0001_0.png"
