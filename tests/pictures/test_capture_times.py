"""When photographs were taken, and which were taken within seconds by one camera."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as some
from PIL import Image
from PIL.ExifTags import IFD, Base

from custom_aesthetic.pictures.capture_times import BURST_SECONDS, NEXT_SHOTS, Shot, close_in_time, read_shot


def photograph(file: Path, taken: str | None, fraction: str = "", camera: str = "A", **options) -> Path:
    """A small picture with EXIF data as a camera writes them."""
    exif = Image.Exif()
    exif[Base.Make], exif[Base.Model] = "Maker\0\0", camera
    if taken is not None:
        exif[IFD.Exif] = {Base.DateTimeOriginal: taken, Base.SubsecTimeOriginal: fraction}
    Image.new("RGB", (8, 8), "teal").save(file, exif=exif, **options)
    return file


def test_time_and_camera_are_read_to_the_fraction_of_a_second(tmp_path):
    first = read_shot(photograph(tmp_path / "photo.jpg", "2024:05:17 10:30:59", "250"))
    second = read_shot(photograph(tmp_path / "photo.jpg", "2024:05:17 10:31:00", "5 "))
    assert first is not None and second is not None
    assert second.seconds - first.seconds == pytest.approx(1.25)
    assert first.camera == second.camera
    assert first.camera.split() == ["Maker", "A"]


@pytest.mark.parametrize("taken", [None, "0000:00:00 00:00:00", "    :  :     :  :  ", "yesterday"])
def test_a_photograph_without_a_time_has_none(tmp_path, taken):
    assert read_shot(photograph(tmp_path / "photo.jpg", taken)) is None


def test_what_is_no_photograph_has_no_time(tmp_path):
    (tmp_path / "torn.jpg").write_bytes(photograph(tmp_path / "a.jpg", "2024:05:17 10:30:59").read_bytes()[:60])
    Image.new("RGB", (8, 8)).save(tmp_path / "plain.png")
    for name in ("torn.jpg", "plain.png", "missing.jpg"):
        assert read_shot(tmp_path / name) is None


def test_only_shots_of_one_camera_within_seconds_are_paired():
    shots = [Shot("A", 103.5), Shot("A", 100.0), None, Shot("B", 100.5), Shot("A", 102.0), Shot("A", 200.0)]
    assert sorted(map(tuple, close_in_time(shots).tolist())) == [(1, 4), (4, 0)]


@given(some.lists(some.none() | some.tuples(some.sampled_from("AB"), some.floats(0, 30)), max_size=30))
def test_pairs_are_those_of_comparing_every_shot_with_every_other(entries):
    shots = [None if entry is None else Shot(*entry) for entry in entries]
    found = {frozenset(pair) for pair in close_in_time(shots).tolist()}
    close = {
        frozenset((i, j))
        for i, one in enumerate(shots)
        for j, other in enumerate(shots[:i])
        if one and other and one.camera == other.camera and abs(one.seconds - other.seconds) <= BURST_SECONDS
    }
    assert found <= close
    in_order = sorted((shot, row) for row, shot in enumerate(shots) if shot is not None)
    neighbours = {frozenset((a[1], b[1])) for a, b in pairwise(in_order)}
    assert close & neighbours <= found
    if len(shots) <= NEXT_SHOTS:
        assert found == close


def test_many_shots_of_one_time_make_few_pairs():
    pairs = close_in_time([Shot("A", 5.0)] * 20_000)
    assert len(pairs) < NEXT_SHOTS * 20_000
    assert np.unique(pairs).size == 20_000


def test_no_shots_and_one_shot_make_no_pairs():
    assert close_in_time([]).shape == (0, 2)
    assert close_in_time([None, Shot("A", 5.0)]).shape == (0, 2)
