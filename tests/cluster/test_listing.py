"""What is found in a folder, tar files and parquet, here and in a store of objects in memory."""

from pathlib import Path

import fsspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from custom_aesthetic.base.errors import UserError
from custom_aesthetic.cluster.items import MISTAKE, NOTE, PARQUET, TAR, Item, picture_items
from custom_aesthetic.cluster.listing import (
    check_target,
    expand_braces,
    input_folder,
    is_pattern,
    list_items,
    row_group_ranges,
)
from custom_aesthetic.cluster.places import FileInfo, open_place, scheme_of, shown_place
from custom_aesthetic.pictures.folders import find_images
from tests.cluster.red import files_of, png, tar_of, write_files, write_table


def pictures_of(items: list[Item]) -> list[str]:
    return [name for item in items if item.kind == "pictures" for name in item.names]


def files(n_files: int) -> list[FileInfo]:
    return [FileInfo(f"folder/{number:06}.jpg", 1000 + number, 5) for number in range(n_files)]


@given(n_files=st.integers(0, 300), n_pictures=st.integers(1, 50))
def test_items_hold_every_picture_once_in_order_and_are_never_huge(n_files: int, n_pictures: int) -> None:
    items = list(picture_items(files(n_files), n_pictures))
    assert [name for item in items for name in item.names] == [file.name for file in files(n_files)]
    assert all(1 <= len(item.names) <= 4 * n_pictures for item in items)
    assert len({item.part for item in items}) == len(items)


def test_items_have_about_the_number_of_pictures_asked_for() -> None:
    items = list(picture_items(files(20_000), 100))
    assert 140 < len(items) < 280


def test_a_new_picture_changes_few_items() -> None:
    old = files(5000)
    new = sorted([*old, FileInfo("folder/002500b.jpg", 1, 1)])
    changed = {item.part for item in picture_items(new, 100)} - {item.part for item in picture_items(old, 100)}
    assert 1 <= len(changed) <= 3


def test_a_picture_of_another_size_or_time_is_another_item() -> None:
    (item,) = picture_items([FileInfo("a.jpg", 10, 20)], 5)
    for other in (FileInfo("a.jpg", 11, 20), FileInfo("a.jpg", 10, 21), FileInfo("b.jpg", 10, 20)):
        assert next(picture_items([other], 5)).part != item.part


def test_a_folder_gives_the_pictures_that_the_scorer_finds_and_says_what_it_leaves_out(tmp_path: Path) -> None:
    write_files(tmp_path, files_of(40) | {"notes.txt": b"words", ".hidden.png": png(1), "1/deep/er/x.PNG": png(3)})
    (tmp_path / ".aesthetic_features").mkdir()
    write_files(tmp_path, {".aesthetic_features/a.png": png(1)})
    items = list(list_items(str(tmp_path), 10))
    assert sorted(pictures_of(items)) == find_images(tmp_path)
    assert items[-1] == Item(NOTE, (f"ignored in {tmp_path}: 1 .txt",))
    assert list(list_items(str(tmp_path), 10)) == items


def test_a_store_of_objects_gives_the_same_pictures(tmp_path: Path) -> None:
    there = files_of(40) | {"notes.txt": b"words", ".hidden.png": png(1)}
    write_files(tmp_path, there)
    store = fsspec.filesystem("memory")
    for path, content in there.items():
        store.pipe_file(f"/listing/{path}", content)
    items = list(list_items("memory://listing", 10))
    assert sorted(pictures_of(items)) == find_images(tmp_path)
    assert items[-1] == Item(NOTE, ("ignored in memory://listing: 1 .txt",))


def test_tar_files_are_named_by_braces_and_by_stars(tmp_path: Path) -> None:
    write_files(tmp_path, {f"shard-{number:05}.tar": tar_of(files_of(2)) for number in range(12)})
    for where, n_files in (("shard-*.tar", 12), ("shard-{00003..00011}.tar", 9), ("shard-{00001,00002}.tar", 2)):
        items = list(list_items(f"{tmp_path}/{where}", 10))
        assert [item.kind for item in items] == [TAR] * n_files
    assert [item.names for item in list_items(f"{tmp_path}/shard-00004.tar", 10)] == [("shard-00004.tar",)]


def test_a_large_parquet_file_is_several_items(tmp_path: Path) -> None:
    write_table(tmp_path / "tables" / "a.parquet", files_of(35))
    write_table(tmp_path / "tables" / "b.parquet", files_of(5))
    for where in ("tables", "tables/a.parquet", "tables/*.parquet"):
        items = list(list_items(str(tmp_path / where), 20))
        assert [(item.kind, item.row_groups) for item in items][:2] == [(PARQUET, (0, 2)), (PARQUET, (2, 4))]
        assert len(items) == (2 if where.endswith("a.parquet") else 3)


def test_a_table_beside_pictures_is_not_taken_for_the_pictures(tmp_path: Path) -> None:
    write_files(tmp_path, files_of(3))
    write_table(tmp_path / "features.parquet", {"a": b"1"}, picture="features")
    assert len(pictures_of(list(list_items(str(tmp_path), 10)))) == 3


@given(st.lists(st.integers(0, 30), max_size=30), st.integers(1, 50))
def test_ranges_of_row_groups_cover_all_rows_once(lengths: list[int], n_rows: int) -> None:
    ranges = list(row_group_ranges(lengths, n_rows))
    found = [sum(lengths[first:last]) for first, last in ranges]
    assert sum(found) == sum(lengths) and all(found)
    assert all(one >= n_rows for one in found[:-1])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a.tar", ["a.tar"]),
        ("{08..11}.tar", ["08.tar", "09.tar", "10.tar", "11.tar"]),
        ("{a,b}{1..2}", ["a1", "a2", "b1", "b2"]),
    ],
)
def test_braces_stand_for_numbers_and_choices(text: str, expected: list[str]) -> None:
    assert expand_braces(text) == expected


@pytest.mark.parametrize(
    ("where", "words"),
    [
        ("missing", "does not exist"),
        ("*.tar", "no file in"),
        ("{0..1}.tar", "0.tar does not exist"),
        ("*.png", "names .tar or .parquet files"),
        ("bad.parquet", "bad.parquet cannot be read"),
        ("other.parquet", "has no column bytes or image; its columns are key, picture"),
        ("only_tars", "no pictures in {folder}/only_tars, but 2 tar files; name them by -d={folder}/only_tars/*.tar"),
    ],
)
def test_a_wrong_input_is_one_line_that_says_what_to_do(tmp_path: Path, where: str, words: str) -> None:
    (tmp_path / "bad.parquet").write_bytes(b"no table")
    write_table(tmp_path / "other.parquet", {"a": b"1"}, picture="picture")
    write_files(tmp_path / "only_tars", {"1.tar": b"", "2.tar": b""})
    item = list(list_items(str(tmp_path / where), 10))[-1]
    assert item.kind == MISTAKE
    assert words.format(folder=tmp_path) in item.names[0]


def test_an_address_that_nothing_opens_is_a_mistake() -> None:
    (item,) = list_items("nowhere://bucket/folder", 10)
    assert item.kind == MISTAKE and "nowhere://bucket/folder cannot be opened" in item.names[0]


def test_keys_in_an_address_are_not_shown() -> None:
    assert shown_place("s3://me:secret@bucket/a?endpoint_override=x") == "s3://bucket/a"
    assert shown_place("photos") == "photos"


def test_a_path_of_windows_is_no_address() -> None:
    assert scheme_of("C:\\photos") == "" and scheme_of("S3://bucket") == "s3"


def test_what_stands_behind_the_question_mark_stays_with_the_folder() -> None:
    assert input_folder("s3://bucket/a/*.tar?region=x") == "s3://bucket/a?region=x"
    assert input_folder("s3://bucket/a/1.TAR?region=x") == "s3://bucket/a?region=x"
    assert input_folder("*.tar") == "." and input_folder("photos") == "photos"


@pytest.mark.parametrize("name", ["{2023,2024}", "a{1..3}b"])
def test_a_folder_whose_name_has_braces_is_that_folder(tmp_path: Path, name: str) -> None:
    write_files(tmp_path / name, files_of(5))
    assert len(pictures_of(list(list_items(str(tmp_path / name), 10)))) == 5
    assert not is_pattern(str(tmp_path)) and is_pattern("{" + "a," * 3000 + "b}.tar")


def test_parts_are_not_written_into_the_tables_that_are_read(tmp_path: Path) -> None:
    write_table(tmp_path / "a.parquet", files_of(3))
    with pytest.raises(UserError, match="lies in the tables"):
        check_target(str(tmp_path), str(tmp_path / "scores"))
    check_target(str(tmp_path), f"{tmp_path}-scores")


def test_a_place_is_the_same_however_often_it_is_opened(tmp_path: Path) -> None:
    assert open_place(str(tmp_path)) == open_place(str(tmp_path))
    assert open_place(tmp_path.as_uri()).path == tmp_path.as_posix()
