"""Which pictures belong together: variations of one by their features, and bursts by features and time."""

from pathlib import Path

import pytest
import torch
from PIL import Image, ImageEnhance
from PIL.ExifTags import IFD, Base

from custom_aesthetic.extractors import build_extractors
from custom_aesthetic.features.picture_groups import picture_groups
from custom_aesthetic.features.table import FeatureTable, load_features

PARTS = {"shift": (0.08, 0.08, 0.78, 0.78), "start": (0, 0, 0.7, 0.7)}


def shot(picture: Image.Image, part: str, brightness: float = 1.0) -> Image.Image:
    """A part of the picture, as a camera that moved or zoomed sees it."""
    width, height = picture.size
    left, top, right, bottom = PARTS[part]
    area = (int(left * width), int(top * height), int(right * width), int(bottom * height))
    return ImageEnhance.Brightness(picture.crop(area)).enhance(brightness)


def save(picture: Image.Image, file: Path, seconds: int | None) -> None:
    exif = Image.Exif()
    if seconds is not None:
        exif[Base.Model] = "A"
        exif[IFD.Exif] = {Base.DateTimeOriginal: f"2024:05:17 10:{seconds // 60:02}:{seconds % 60:02}"}
    picture.save(file, quality=92, exif=exif)


@pytest.fixture(scope="module")
def bursts(data_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, FeatureTable]:
    """12 photographs a minute apart; a hand moves on three of them within seconds, on three others without a time."""
    folder = tmp_path_factory.mktemp("bursts")
    names = sorted((data_folder / "photos").rglob("*.jpg"))[5::20]
    for number, name in enumerate(names):
        picture = Image.open(name).convert("RGB")
        time = None if number in (3, 4, 5) else 60 * number
        save(shot(picture, "start"), folder / f"{number:02}.jpg", time)
        if number < 6:
            save(shot(picture, "shift", 1.2), folder / f"{number:02} b.jpg", None if time is None else time + 2)
    paths = sorted(file.name for file in folder.glob("*.jpg"))
    extractors = build_extractors("efficientnet-lite0", torch.device("cpu"))
    return folder, load_features(folder, paths, extractors, hidden_states=[(0,)], show_progress=False)


def test_shots_of_a_burst_are_grouped_by_time_where_features_alone_do_not_tell(bursts):
    folder, table = bursts
    groups = dict(zip(table.paths, picture_groups(folder, table.paths, table.values.numpy()), strict=True))
    for number in (0, 1, 2):
        assert groups[f"{number:02}.jpg"] == groups[f"{number:02} b.jpg"] == f"{number:02} b.jpg"
    assert {groups[f"{number:02}.jpg"] for number in range(6, 12)} == {f"{number:02}.jpg" for number in range(6, 12)}
    assert any(groups[f"{number:02}.jpg"] != groups[f"{number:02} b.jpg"] for number in (3, 4, 5))


def test_pictures_that_are_not_there_are_grouped_by_features_alone(tmp_path):
    table = FeatureTable(("a.jpg", "b.jpg", "c.jpg"), torch.tensor([[1.0, 2], [1, 2], [3, 4]]), (), {})
    assert picture_groups(tmp_path, table.paths, table.values.numpy()) == ["a.jpg", "a.jpg", "c.jpg"]


@pytest.mark.parametrize("n_pictures", [1, 2])
def test_one_or_two_pictures_are_grouped_too(tmp_path, n_pictures):
    table = FeatureTable(tuple("ab"[:n_pictures]), torch.eye(2)[:n_pictures], (), {})
    assert picture_groups(tmp_path, table.paths, table.values.numpy()) == list("ab"[:n_pictures])
