"""Finding pictures below a directory."""

import os
from pathlib import Path

import pytest

from custom_aesthetic.base.errors import UserError
from custom_aesthetic.pictures.folders import CACHE_FOLDER_NAME, find_images


def test_pictures_are_found_in_subdirectories_by_suffix_in_any_case_and_sorted(tmp_path: Path) -> None:
    wanted = ["a.PNG", "b.Jpg", "c/d.jpeg", "c/e/f.webp", "c/e/g.BMP", "h.tiff", "with space/ü.png"]
    for name in [*wanted, "notes.txt", "png", "c/model.safetensors", f"{CACHE_FOLDER_NAME}/x.png"]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "folder.png").mkdir()

    assert find_images(tmp_path) == sorted(wanted)


def test_other_files_are_counted_by_kind_in_one_line(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    names = ["a.mp4", "sub/b.MP4", "c.txt", "README", "odd.\udcff", ".hidden", "x.png", f"{CACHE_FOLDER_NAME}/y.txt"]
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()

    with caplog.at_level("INFO"):
        assert find_images(tmp_path) == ["x.png"]

    (line,) = caplog.messages
    assert line.endswith(": 2 .mp4, 2 other, 1 .txt")


def test_links_to_directories_are_not_followed_and_named_in_one_line(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    inside, outside = tmp_path / "inside", tmp_path / "outside"
    (inside / "a").mkdir(parents=True)
    outside.mkdir()
    (inside / "a" / "1.png").touch()
    (outside / "2.png").touch()
    (inside / "a" / "up").symlink_to(inside)
    (inside / "b").symlink_to(inside / "a")
    (inside / "parent").symlink_to(tmp_path)
    (inside / "self").symlink_to(inside / "self")
    (inside / "other").symlink_to(outside)
    (inside / "linked.png").symlink_to(outside / "2.png")

    with caplog.at_level("INFO"):
        assert find_images(inside) == ["a/1.png", "linked.png"]

    (line,) = [message for message in caplog.messages if "links to" in message]
    assert "a/up, b, other and 1 more" in line


def test_a_picture_directory_that_is_a_link_is_read(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "1.png").touch()
    (tmp_path / "link").symlink_to(tmp_path / "real")

    assert find_images(tmp_path / "link") == ["1.png"]


def test_a_missing_directory_is_a_user_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nowhere.*--directory"):
        find_images(tmp_path / "nowhere")


def test_a_folder_that_cannot_be_read_is_left_out_and_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    scandir = os.scandir

    def fail(folder: str) -> object:
        if str(folder).endswith("closed"):
            raise PermissionError(13, "Permission denied")
        return scandir(folder)

    for path in ("a.png", "closed/b.png", "open/c.png"):
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).touch()
    monkeypatch.setattr("os.scandir", fail)
    assert find_images(tmp_path) == ["a.png", "open/c.png"]
    (line,) = caplog.messages
    assert line == f"the sub-directory {tmp_path / 'closed'} cannot be read (Permission denied) and is left out"
