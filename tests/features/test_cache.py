"""The shards on the disk: features are read back as written, even if files are damaged or removed."""

import errno
import logging
import os
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.numpy import save

import custom_aesthetic.features.cache
import custom_aesthetic.features.shards
from custom_aesthetic.base.errors import UserError
from custom_aesthetic.base.processes import aside_name
from custom_aesthetic.features.cache import SHARDS_TO_MERGE, FeatureSet, open_feature_set
from custom_aesthetic.features.cache_folders import cache_folders
from custom_aesthetic.features.picture_keys import PictureKeys, Pictures
from custom_aesthetic.features.shards import (
    DamagedShard,
    read_features,
    read_index,
    read_some,
    set_key_text,
    write_shard,
)
from custom_aesthetic.pictures.folders import CACHE_FOLDER_NAME
from tests.mutations import mutations

WIDTH = 3
KEY = "the set"


def make_files(directory: Path, n_pictures: int) -> list[str]:
    names = [f"{i:05d}.png" for i in range(n_pictures)]
    for name in names:
        (directory / name).write_text(name)
    return names


def features_of(rows: NDArray[np.int64] | range, n_times: int = 1) -> NDArray[np.float32]:
    """Row i holds i, i + 0.25, i + 0.5."""
    return n_times * (np.asarray(rows, np.float32)[:, None] + np.array([0, 0.25, 0.5], np.float32))


def a_set(directory: Path) -> FeatureSet:
    return FeatureSet([directory / CACHE_FOLDER_NAME / "set"], KEY)


def add(feature_set: FeatureSet, pictures: Pictures, rows: range, n_times: int = 1) -> None:
    feature_set.add(pictures.keys.take(list(rows)), features_of(rows, n_times))


def cached(feature_set: FeatureSet, pictures: Pictures) -> tuple[list[int], NDArray[np.float32]]:
    """Return the rows that are in the cache, and their features."""
    located = feature_set.locate(pictures)
    rows = np.flatnonzero(located.shard_of >= 0)
    values = np.full((len(rows), WIDTH), -1, np.float32)
    assert feature_set.read_rows(located, rows, values)
    return rows.tolist(), values


def shards(directory: Path) -> list[Path]:
    return sorted((directory / CACHE_FOLDER_NAME).rglob("*.safetensors"))


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.text(st.characters(exclude_characters="\0"), min_size=1), min_size=1, max_size=5, unique=True),
    st.sampled_from(["float16", "float32"]),
    st.integers(1, 4),
)
def test_a_shard_returns_the_written_features(tmp_path: Path, paths: list[str], precision: str, width: int) -> None:
    numbers = np.arange(len(paths), dtype=np.int64) * 10**12
    features = np.random.default_rng(0).normal(size=(len(paths), width)).astype(precision)

    shard = write_shard(tmp_path, KEY, PictureKeys(paths, numbers, -numbers), features)

    index, read_width = read_index(shard, KEY)
    assert list(index.paths) == paths and read_width == width
    assert np.array_equal(index.sizes, numbers) and np.array_equal(index.mtimes_ns, -numbers)
    assert np.array_equal(read_features(shard, KEY), features)
    assert read_features(shard, KEY).dtype == features.dtype


def test_a_shard_can_be_read_with_safetensors_alone(tmp_path: Path) -> None:
    write_shard(tmp_path, KEY, PictureKeys(["a/ü.png", "b"], np.array([1, 2]), np.array([3, 4])), features_of(range(2)))

    with safe_open(next(tmp_path.iterdir()), framework="numpy") as file:
        assert file.get_tensor("paths").tobytes().decode().split("\0") == ["a/ü.png", "b"]
        assert file.get_tensor("features").tolist() == [[0, 0.25, 0.5], [1, 1.25, 1.5]]
        assert file.metadata()["set"] == KEY


def test_only_unchanged_pictures_are_found(tmp_path: Path) -> None:
    names = make_files(tmp_path, 5)
    add(a_set(tmp_path), Pictures(tmp_path, names), range(4))
    before = (tmp_path / names[0]).stat()
    (tmp_path / names[0]).write_text("longer than it was before")
    os.utime(tmp_path / names[0], ns=(before.st_atime_ns, before.st_mtime_ns))
    os.utime(tmp_path / names[1], ns=(0, 12345))
    (tmp_path / names[2]).unlink()

    rows, values = cached(a_set(tmp_path), Pictures(tmp_path, names))

    assert rows == [3]
    assert np.array_equal(values, features_of(range(3, 4)))


def test_pictures_are_found_by_path_in_whatever_order_and_selection(tmp_path: Path) -> None:
    names = make_files(tmp_path, 6)
    for start in (0, 3):
        add(a_set(tmp_path), Pictures(tmp_path, names), range(start, start + 3))

    rows, values = cached(a_set(tmp_path), Pictures(tmp_path, [names[5], names[0], names[2]]))

    assert rows == [0, 1, 2]
    assert np.array_equal(values, features_of(np.array([5, 0, 2])))


def test_many_batches_end_in_few_shards_and_nothing_is_lost(tmp_path: Path) -> None:
    n_batches = SHARDS_TO_MERGE * SHARDS_TO_MERGE + SHARDS_TO_MERGE + 1
    pictures = Pictures(tmp_path, make_files(tmp_path, n_batches))
    feature_set = a_set(tmp_path)
    for row in range(n_batches):
        add(feature_set, pictures, range(row, row + 1))
    assert len(shards(tmp_path)) == 3

    rows, values = cached(a_set(tmp_path), pictures)

    assert rows == list(range(n_batches))
    assert np.array_equal(values, features_of(range(n_batches)))


def test_full_shards_are_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(custom_aesthetic.features.cache, "FULL_SHARD_BYTES", 4000)
    pictures = Pictures(tmp_path, make_files(tmp_path, 3000))
    feature_set = a_set(tmp_path)
    for start in range(0, 3000, 3):
        add(feature_set, pictures, range(start, start + 3))
    feature_set.compact(pictures)

    sizes = [shard.stat().st_size for shard in shards(tmp_path)]

    assert max(sizes) < 3 * 4000
    assert len(sizes) > 5
    assert cached(feature_set, pictures)[0] == list(range(3000))


def test_compaction_drops_removed_and_changed_pictures_and_keeps_all_others(tmp_path: Path) -> None:
    names = make_files(tmp_path, 40)
    for row in range(40):
        add(a_set(tmp_path), Pictures(tmp_path, names), range(row, row + 1))
    (tmp_path / names[0]).unlink()
    (tmp_path / names[1]).write_text("changed")

    a_set(tmp_path).compact(Pictures(tmp_path, names[:10]))

    paths = [path for shard in shards(tmp_path) for path in read_index(shard, KEY)[0].paths]
    assert sorted(paths) == names[2:]
    assert len(shards(tmp_path)) == 1
    assert cached(a_set(tmp_path), Pictures(tmp_path, names))[0] == list(range(2, 40))


def test_compaction_removes_duplicates_that_two_processes_have_computed(tmp_path: Path) -> None:
    pictures = Pictures(tmp_path, make_files(tmp_path, 20))
    for _ in range(2):
        one_of_two = a_set(tmp_path)
        for row in range(20):
            add(one_of_two, pictures, range(row, row + 1))

    a_set(tmp_path).compact(pictures)

    paths = [path for shard in shards(tmp_path) for path in read_index(shard, KEY)[0].paths]
    assert sorted(paths) == sorted(pictures.keys.paths)
    assert np.array_equal(cached(a_set(tmp_path), pictures)[1], features_of(range(20)))


def test_a_few_small_shards_are_not_compacted(tmp_path: Path) -> None:
    pictures = Pictures(tmp_path, make_files(tmp_path, 3))
    for row in range(3):
        add(a_set(tmp_path), pictures, range(row, row + 1))
    before = shards(tmp_path)

    a_set(tmp_path).compact(pictures)

    assert shards(tmp_path) == before


def flip(content: bytes, place: int) -> bytes:
    return content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]


DAMAGES = {
    "truncated": lambda content: content[: len(content) // 2],
    "empty": lambda content: b"",
    "a byte short": lambda content: content[:-1],
    "no safetensors": lambda content: b"\xff" * len(content),
    "a changed feature": lambda content: flip(content, content.index(features_of(range(4)).tobytes()) + 5),
    "a changed path": lambda content: flip(content, content.index(b"00001.png")),
    "of another set": lambda content: content.replace(KEY.encode(), KEY[::-1].encode()),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_shard_is_named_and_set_aside(tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture) -> None:
    pictures = Pictures(tmp_path, make_files(tmp_path, 8))
    feature_set = a_set(tmp_path)
    add(feature_set, pictures, range(4))
    [damaged] = shards(tmp_path)
    add(feature_set, pictures, range(4, 8))
    damaged.write_bytes(DAMAGES[damage](damaged.read_bytes()))

    fresh = a_set(tmp_path)
    located = fresh.locate(pictures)
    rows = np.flatnonzero(located.shard_of >= 0)
    fresh.read_rows(located, rows, np.zeros((len(rows), WIDTH), np.float32))

    assert damaged.name in caplog.text
    assert damaged.with_suffix(".damaged").exists() and not damaged.exists()
    assert cached(fresh, pictures)[0] == [4, 5, 6, 7]


def test_damage_in_a_merge_costs_only_the_damaged_shard(tmp_path: Path) -> None:
    pictures = Pictures(tmp_path, make_files(tmp_path, SHARDS_TO_MERGE))
    feature_set = a_set(tmp_path)
    for row in range(SHARDS_TO_MERGE - 1):
        add(feature_set, pictures, range(row, row + 1))
    [first] = [shard for shard in shards(tmp_path) if read_index(shard, KEY)[0].paths == [pictures.keys.paths[0]]]
    first.write_bytes(first.read_bytes()[:-1])

    add(feature_set, pictures, range(SHARDS_TO_MERGE - 1, SHARDS_TO_MERGE))

    assert len(shards(tmp_path)) == 1
    assert cached(a_set(tmp_path), pictures)[0] == list(range(1, SHARDS_TO_MERGE))


def test_a_shard_that_another_process_has_merged_is_noticed_and_found_again(tmp_path: Path) -> None:
    pictures = Pictures(tmp_path, make_files(tmp_path, 20))
    reader, other = a_set(tmp_path), a_set(tmp_path)
    for row in range(20):
        add(other, pictures, range(row, row + 1))
    located = reader.locate(pictures)
    other.compact(pictures)

    assert not reader.read_rows(located, np.arange(20), np.zeros((20, WIDTH), np.float32))
    assert cached(reader, pictures)[0] == list(range(20))


@given(st.lists(st.integers(0, 299), min_size=1, max_size=40), st.integers(1, 400), st.integers(12, 400))
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_rows_in_any_order_are_read_back_as_written(
    tmp_path_factory: pytest.TempPathFactory, wanted: list[int], gap_bytes: int, piece_bytes: int
) -> None:
    directory = tmp_path_factory.mktemp("rows")
    pictures = Pictures(directory, [f"{row:03}" for row in range(300)])
    feature_set = a_set(directory)
    for start in (200, 0, 100):
        add(feature_set, pictures, range(start, start + 100))
    located, rows = feature_set.locate(pictures), np.array(wanted)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(custom_aesthetic.features.shards, "GAP_BYTES", gap_bytes)
        patch.setattr(custom_aesthetic.features.shards, "PIECE_BYTES", piece_bytes)
        for _ in range(2):  # the first time, shards are verified as a whole
            values = np.full((len(rows), WIDTH), -1, np.float32)
            assert feature_set.read_rows(located, rows, values)
            assert np.array_equal(values, features_of(rows))


def test_a_few_rows_of_a_verified_shard_are_read_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pictures = Pictures(tmp_path, [f"{row:05}" for row in range(10_000)])
    feature_set = a_set(tmp_path)
    add(feature_set, pictures, range(10_000))
    located = feature_set.locate(pictures)
    feature_set.read_rows(located, np.arange(3), np.zeros((3, WIDTH), np.float32))
    read: list[tuple[int, int]] = []
    runs = custom_aesthetic.features.shards._runs

    def noted(wanted: NDArray[np.int32], row_bytes: int) -> list[tuple[int, int]]:
        read.extend(runs(wanted, row_bytes))
        return read

    monkeypatch.setattr(custom_aesthetic.features.shards, "_runs", noted)
    values = np.zeros((3, WIDTH), np.float32)
    assert feature_set.read_rows(located, np.array([9000, 2, 3]), values)
    assert np.array_equal(values, features_of(np.array([9000, 2, 3]))) and read == [(2, 4), (9000, 9001)]


def test_locating_is_repeated_if_shards_vanish(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pictures = Pictures(tmp_path, make_files(tmp_path, 20))
    for row in range(20):
        add(a_set(tmp_path), pictures, range(row, row + 1))
    real = custom_aesthetic.features.cache.read_index

    def compact_first(shard: Path, key: str) -> tuple[PictureKeys, int]:
        monkeypatch.setattr(custom_aesthetic.features.cache, "read_index", real)
        a_set(tmp_path).compact(pictures)
        return real(shard, key)

    monkeypatch.setattr(custom_aesthetic.features.cache, "read_index", compact_first)

    assert (a_set(tmp_path).locate(pictures).shard_of >= 0).all()


def test_merging_what_another_process_has_merged_loses_nothing(tmp_path: Path) -> None:
    pictures = Pictures(tmp_path, make_files(tmp_path, 64))
    writer = a_set(tmp_path)
    for row in range(64):
        add(writer, pictures, range(row, row + 1))
        if row == 20:
            a_set(tmp_path).compact(pictures)

    assert cached(a_set(tmp_path), pictures)[0] == list(range(64))


def test_a_kill_between_writing_and_removing_leaves_everything_readable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pictures = Pictures(tmp_path, make_files(tmp_path, 20))
    for row in range(20):
        add(a_set(tmp_path), pictures, range(row, row + 1))
    monkeypatch.setattr(custom_aesthetic.features.cache, "remove_shard", lambda shard: None)

    a_set(tmp_path).compact(pictures)

    assert len(shards(tmp_path)) == 21
    assert np.array_equal(cached(a_set(tmp_path), pictures)[1], features_of(range(20)))


def test_half_written_shards_are_ignored_and_removed_once_their_writer_has_ended(tmp_path: Path) -> None:
    pictures = Pictures(tmp_path, make_files(tmp_path, 2))
    add(a_set(tmp_path), pictures, range(2))
    folder = shards(tmp_path)[0].parent
    ended = folder / aside_name("x").replace(f"-{os.getpid()}-", "-999999999-")
    old, young = folder / "old.part", folder / aside_name("x")
    for file in (ended, old, young):
        file.write_bytes(b"half")
    os.utime(old, (0, time.time() - 100_000))

    a_set(tmp_path).compact(pictures)

    assert cached(a_set(tmp_path), pictures)[0] == [0, 1]
    assert young.exists() and not old.exists() and not ended.exists()


def test_a_full_disk_is_reported_and_existing_shards_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pictures = Pictures(tmp_path, make_files(tmp_path, 4))
    feature_set = a_set(tmp_path)
    add(feature_set, pictures, range(2))

    def write_half(path: Path, content: bytes, *, durable: bool) -> None:
        path.write_bytes(content[: len(content) // 2])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(custom_aesthetic.features.shards, "_write_file", write_half)
    with pytest.raises(UserError, match=r"disk is full.*run the same command again"):
        add(feature_set, pictures, range(2, 4))

    assert cached(a_set(tmp_path), pictures)[0] == [0, 1]
    assert not list((tmp_path / CACHE_FOLDER_NAME).rglob("*.part"))


def test_sets_differ_by_everything_that_changes_the_numbers(tmp_path: Path) -> None:
    pictures = Pictures(tmp_path, make_files(tmp_path, 1))
    base = {"name": "a/b", "fingerprint": "1", "hidden_state": 0, "view": "centre", "precision": "float32"}
    changes = [{"fingerprint": "2"}, {"hidden_state": 1}, {"view": "whole"}, {"precision": "float16"}]
    sets = [open_feature_set([tmp_path / "cache"], **(base | change)) for change in [{}, *changes]]

    sets[0].add(pictures.keys, features_of(range(1)))

    assert [int((other.locate(pictures).shard_of >= 0).sum()) for other in sets] == [1, 0, 0, 0, 0]


def test_the_same_set_is_found_under_another_name_never_by_another_key(tmp_path: Path) -> None:
    pictures = Pictures(tmp_path, make_files(tmp_path, 1))
    shard = write_shard(tmp_path, "one", pictures.keys, features_of(range(1)))

    with pytest.raises(DamagedShard):
        read_index(shard, "another")


@pytest.fixture
def without_privileges(tmp_path: Path):  # type: ignore[no-untyped-def]
    """Run the test as a user with limited permissions, who owns the temporary folder."""
    if not hasattr(os, "geteuid"):
        pytest.skip("needs POSIX permissions")
    if os.geteuid() != 0:
        yield
        return
    nobody = 65534
    opened = [parent for parent in tmp_path.parents if parent.stat().st_uid == 0 and not parent.stat().st_mode & 1]
    modes = {parent: parent.stat().st_mode for parent in opened}
    for parent in opened:
        parent.chmod(modes[parent] | 0o011)
    os.chown(tmp_path, nobody, nobody)
    os.seteuid(nobody)
    yield
    os.seteuid(0)
    for parent, mode in modes.items():
        parent.chmod(mode)


@pytest.mark.usefixtures("without_privileges")
def test_a_read_only_folder_sends_the_cache_to_the_users_cache_folder_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    monkeypatch.setattr("sys.platform", "linux")
    directory = tmp_path / "pictures"
    directory.mkdir()
    pictures = Pictures(directory, make_files(directory, 4))
    beside = open_a_set(directory)
    add(beside, pictures, range(2))
    folders = [directory, *(folder for folder in directory.rglob("*") if folder.is_dir())]
    for folder in folders:
        folder.chmod(0o555)

    with caplog.at_level(logging.WARNING):
        elsewhere = open_a_set(directory)
    assert f"goes to {tmp_path / 'home'}" in caplog.text
    assert cached(elsewhere, pictures)[0] == [0, 1]
    add(elsewhere, pictures, range(2, 4))
    elsewhere.compact(pictures)

    assert len(shards(directory)) == 1
    assert cached(open_a_set(directory), pictures)[0] == [0, 1, 2, 3]
    for folder in folders:
        folder.chmod(0o755)
    assert cached(open_a_set(directory), pictures)[0] == [0, 1, 2, 3], "both places are read if both exist"


@pytest.mark.usefixtures("without_privileges")
def test_no_writable_place_is_a_user_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    monkeypatch.setattr("sys.platform", "linux")
    for name in ("pictures", "home"):
        (tmp_path / name).mkdir()
        (tmp_path / name).chmod(0o555)

    with pytest.raises(UserError, match="make one of the two writable"):
        cache_folders(tmp_path / "pictures")
    for name in ("pictures", "home"):
        (tmp_path / name).chmod(0o755)


@pytest.mark.usefixtures("without_privileges")
def test_an_inaccessible_home_folder_is_tolerated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    monkeypatch.setattr("sys.platform", "linux")
    for name in ("pictures", "home"):
        (tmp_path / name).mkdir()
    (tmp_path / "home").chmod(0)

    assert cache_folders(tmp_path / "pictures") == (tmp_path / "pictures" / CACHE_FOLDER_NAME,)
    (tmp_path / "home").chmod(0o755)


def test_a_missing_directory_is_not_created(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"the directory .*nowhere does not exist.*--directory"):
        cache_folders(tmp_path / "nowhere")
    assert not (tmp_path / "nowhere").exists()


def open_a_set(directory: Path) -> FeatureSet:
    return open_feature_set(
        cache_folders(directory), name="a", fingerprint="1", hidden_state=0, view="centre", precision="float32"
    )


def rewritten(shard: Path, *, key: str = KEY, lacking: tuple[str, ...] = (), **tensors: NDArray[np.generic]) -> None:
    """Write a shard again with some tensors and metadata changed."""
    with safe_open(shard, framework="numpy") as file:
        metadata = {name: text for name, text in file.metadata().items() if name not in lacking}
        held = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
    shard.write_bytes(save({**held, **tensors}, {**metadata, "set": key}))


@pytest.mark.parametrize("lacking", [(), ("layout_crc32",)])
@pytest.mark.parametrize("change", ["shape", "type", "rows", "flat"])
def test_type_and_shape_of_the_features_are_under_the_checksum(
    tmp_path: Path, change: str, lacking: tuple[str, ...]
) -> None:
    key = set_key_text(precision="float32")
    pictures = Pictures(tmp_path, make_files(tmp_path, 4))
    values = np.arange(16, dtype=np.float32).reshape(4, 4)
    shard = write_shard(tmp_path / "set", key, pictures.keys, values)
    changed = {
        "shape": values.reshape(2, 8),
        "type": values.view(np.float16),
        "rows": values.reshape(8, 2),
        "flat": values.reshape(-1),
    }[change]
    rewritten(shard, key=key, lacking=lacking, features=changed)

    with pytest.raises(DamagedShard):
        read_index(shard, key)
        read_features(shard, key)


def test_a_shard_of_an_earlier_version_without_the_newer_checksum_is_read(tmp_path: Path) -> None:
    pictures = Pictures(tmp_path, make_files(tmp_path, 4))
    add(a_set(tmp_path), pictures, range(4))
    rewritten(shards(tmp_path)[0], lacking=("layout_crc32",))

    assert np.array_equal(cached(a_set(tmp_path), pictures)[1], features_of(range(4)))


def test_a_shard_of_another_width_is_set_aside_and_the_others_are_read(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pictures = Pictures(tmp_path, make_files(tmp_path, 4))
    add(a_set(tmp_path), pictures, range(3))
    write_shard(tmp_path / CACHE_FOLDER_NAME / "set", KEY, pictures.keys.take([3]), np.zeros((1, 1), np.float32))

    rows, values = cached(a_set(tmp_path), pictures)

    assert rows == [0, 1, 2] and np.array_equal(values, features_of(range(3)))
    assert "is damaged (it has 1 features per picture and others have 3)" in caplog.text


@pytest.mark.parametrize("path", ["../out.png", "a/../../out.png", "..\\out.png"])
def test_a_shard_that_names_pictures_outside_the_directory_is_damaged(tmp_path: Path, path: str) -> None:
    ones = np.ones(1, np.int64)
    shard = write_shard(tmp_path / "set", KEY, PictureKeys([path], ones, ones), features_of(range(1)))

    with pytest.raises(DamagedShard, match="outside"):
        read_index(shard, KEY)


def test_directories_and_links_are_not_read_as_shards(tmp_path: Path) -> None:
    pictures = Pictures(tmp_path, make_files(tmp_path, 2))
    add(a_set(tmp_path), pictures, range(1))
    folder = shards(tmp_path)[0].parent
    (folder / "a.safetensors").mkdir()
    (folder / "b.safetensors").symlink_to(shards(tmp_path)[-1])
    if hasattr(os, "mkfifo"):
        os.mkfifo(folder / "c.safetensors")

    assert cached(a_set(tmp_path), pictures)[0] == [0]


def test_a_damaged_or_hostile_shard_is_read_correctly_or_refused(tmp_path: Path) -> None:
    pictures = Pictures(tmp_path, make_files(tmp_path, 4))
    shard = write_shard(tmp_path / "set", KEY, pictures.keys, features_of(range(4)))
    whole = shard.read_bytes()
    header = 8 + int.from_bytes(whole[:8], "little")
    n_read = 0
    for part in (whole, whole[:header]):
        for damaged in mutations(part):
            shard.write_bytes(damaged + whole[len(part) :])
            try:
                index, width = read_index(shard, KEY)
                values = read_features(shard, KEY)
                some = np.zeros((2, WIDTH), np.float32)
                assert read_some(shard, KEY, np.array([3, 1], np.int32), some, np.arange(2), verify=True)
            except DamagedShard:
                continue
            n_read += 1
            assert (list(index.paths), width) == (list(pictures.keys.paths), WIDTH)
            assert np.array_equal(index.sizes, pictures.keys.sizes)
            assert np.array_equal(values, features_of(range(4)))
            assert np.array_equal(some, values[[3, 1]])
    assert n_read < 300
