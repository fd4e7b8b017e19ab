"""HEIC and RAW files: opened, listed, shown and moved like other pictures, and counted where a package is missing."""

import io
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from PIL.ExifTags import IFD, Base

from custom_aesthetic.labelling.pictures import PictureCache
from custom_aesthetic.pictures import camera, images
from custom_aesthetic.pictures.capture_times import read_shot
from custom_aesthetic.pictures.decoding import BytesInFlight
from custom_aesthetic.pictures.folders import find_images
from custom_aesthetic.pictures.images import BadImage, count_pixels, open_image
from custom_aesthetic.pictures.transfers import copy, link, move, plan_transfers, undo
from custom_aesthetic.report.thumbnails import thumbnail_uri
from tests.camera_files import dng_bytes, heic_bytes, jpeg_bytes
from tests.mutations import mutations

RED, GREEN = (250, 20, 20), (20, 200, 30)


def halves(width: int = 60, height: int = 40) -> Image.Image:
    """A picture with red on top and green below."""
    image = Image.new("RGB", (width, height), GREEN)
    image.paste(RED, (0, 0, width, height // 2))
    return image


def is_close(found: object, wanted: tuple[int, int, int], by: int = 12) -> bool:
    return bool(np.abs(np.subtract(found, wanted)).max() <= by)


def is_upright(image: Image.Image) -> bool:
    return is_close(image.getpixel((3, 3)), RED) and is_close(image.getpixel((3, image.height - 4)), GREEN)


@pytest.fixture
def rawpy() -> object:
    return pytest.importorskip("rawpy", reason="rawpy is not installed")


@pytest.fixture
def nothing_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(camera, "is_installed", lambda _: False)


# --- HEIC -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["IMG_1.HEIC", "a.heif", "named.jpg"])
def test_heic_is_read_under_any_name_and_pillow_stays_as_it_is(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(heic_bytes(halves()))

    image = open_image(tmp_path / name)

    assert (image.mode, image.size, is_upright(image)) == ("RGB", (60, 40), True)
    assert is_upright(open_image("x.heic", content=(tmp_path / name).read_bytes()))
    assert count_pixels(tmp_path / name) == 2400
    assert find_images(tmp_path) == [name]
    assert "HEIF" not in Image.OPEN


def test_a_jpeg_that_is_called_heic_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.heic").write_bytes(jpeg_bytes(halves()))

    assert is_upright(open_image(tmp_path / "a.heic"))


def test_a_heic_file_is_not_decoded_from_its_thumbnail(tmp_path: Path) -> None:
    (tmp_path / "a.heic").write_bytes(heic_bytes(halves(400, 300), thumbnails=[200]))

    assert open_image(tmp_path / "a.heic", target_size=10).size == (400, 300)


def test_a_turned_heic_file_comes_out_upright_once(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[Base.Orientation] = 6
    (tmp_path / "a.heic").write_bytes(heic_bytes(halves().transpose(Image.Transpose.ROTATE_90), exif.tobytes()))

    image = open_image(tmp_path / "a.heic")

    assert (image.size, is_upright(image)) == ((60, 40), True)


def test_the_time_and_the_stars_in_a_heic_file_are_found(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[Base.Make], exif[IFD.Exif] = "maker", {Base.DateTimeOriginal: "2020:01:02 03:04:05"}
    (tmp_path / "a.heic").write_bytes(heic_bytes(halves(), exif.tobytes()))

    shot = read_shot(tmp_path / "a.heic")

    assert shot is not None
    assert shot.camera.strip() == "maker"


# --- RAW --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("orientation", "stored"),
    [
        (1, halves()),
        (3, halves().transpose(Image.Transpose.ROTATE_180)),
        (6, halves().transpose(Image.Transpose.ROTATE_90)),
        (8, halves().transpose(Image.Transpose.ROTATE_270)),
    ],
)
@pytest.mark.usefixtures("rawpy")
def test_the_preview_of_a_raw_file_comes_out_upright(tmp_path: Path, orientation: int, stored: Image.Image) -> None:
    size = (64, 48) if stored.width > stored.height else (48, 64)
    content = dng_bytes(stored, size=size, orientation=orientation)
    (tmp_path / "a.DNG").write_bytes(content)

    for image in (open_image(tmp_path / "a.DNG"), open_image("a.dng", content=content)):
        assert (image.size, is_upright(image)) == ((60, 40), True)


@pytest.mark.usefixtures("rawpy")
def test_a_raw_file_without_a_large_preview_is_developed_at_half_its_size(tmp_path: Path) -> None:
    for name, preview in (("none.dng", None), ("small.dng", halves(30, 20))):
        (tmp_path / name).write_bytes(dng_bytes(preview, (200, 60, 40), orientation=6))

        image = open_image(tmp_path / name)

        assert image.size == (24, 32)
        red, green, blue = np.asarray(image).mean(axis=(0, 1))
        assert red > 180 and red > 2 * green > green > blue


@pytest.mark.usefixtures("rawpy")
def test_raw_data_are_developed_within_the_memory_for_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    taken = []

    class Room(BytesInFlight):
        def taking(self, n_bytes: int) -> AbstractContextManager[None]:
            taken.append(n_bytes)
            return super().taking(n_bytes)

    monkeypatch.setattr(camera, "IN_FLIGHT", Room(10**9))
    (tmp_path / "a.dng").write_bytes(dng_bytes(None))
    (tmp_path / "b.dng").write_bytes(dng_bytes(halves()))
    assert [open_image(tmp_path / name).size for name in ("a.dng", "b.dng")] == [(32, 24), (60, 40)]
    assert taken == [7 * 64 * 48]


def test_a_preview_that_does_not_say_how_it_is_turned_is_turned_like_the_sensor(rawpy: SimpleNamespace) -> None:
    bitmap, jpeg = rawpy.ThumbFormat.BITMAP, rawpy.ThumbFormat.JPEG
    for kind, size, flip, shown in (
        (bitmap, (60, 40), 6, (40, 60)),
        (bitmap, (40, 60), 6, (40, 60)),  # the camera has turned it
        (jpeg, (60, 40), 0, (60, 40)),
        (jpeg, (60, 40), 5, (40, 60)),
    ):
        data = jpeg_bytes(halves(*size)) if kind == jpeg else np.asarray(halves(*size))
        thumb = SimpleNamespace(format=kind, data=data)
        sizes = SimpleNamespace(iwidth=640, iheight=480, flip=flip)
        found = camera._preview(SimpleNamespace(extract_thumb=lambda thumb=thumb: thumb, sizes=sizes))
        assert found is not None
        assert images._upright(found).size == shown


@pytest.mark.usefixtures("rawpy")
def test_a_raw_file_that_is_too_large_or_no_raw_file_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "large.dng").write_bytes(dng_bytes(None))
    (tmp_path / "text.cr2").write_text("no picture")
    monkeypatch.setattr(images, "MAX_PIXELS", 3000)

    with pytest.raises(BadImage, match="decompression bomb"):
        open_image(tmp_path / "large.dng")
    with pytest.raises(BadImage, match=r"text\.cr2: "):
        open_image(tmp_path / "text.cr2")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("make", [lambda: dng_bytes(halves()), lambda: heic_bytes(halves())], ids=["dng", "heic"])
@pytest.mark.usefixtures("rawpy")
def test_a_damaged_file_is_read_or_refused_with_a_reason_in_one_line(make: Callable[[], bytes]) -> None:
    n_refused = 0
    whole = make()
    for damaged in mutations(whole, first=300):
        try:
            assert open_image("x.dng" if whole[:2] == b"II" else "x.heic", content=damaged).mode == "RGB"
        except BadImage as error:
            n_refused += 1
            assert error.reason and "\n" not in error.reason and "b'" not in error.reason
    assert n_refused > 10


# --- listed, shown and moved ----------------------------------------------------------------------------------------


@pytest.mark.usefixtures("rawpy")
def test_a_camera_folder_is_listed_without_noise_and_pairs_count_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pytest.importorskip("pillow_heif", reason="pillow-heif is not installed")
    wanted = ["100/IMG_1.JPG", "100/IMG_2.HEIC", "100/IMG_3.NEF", "100/IMG_4.tif", "100/IMG_4.CR2", "101/IMG_1.CR2"]
    raws = ["100/IMG_1.CR2", "100/IMG_2.DNG"]
    noise = [
        *(".DS_Store", "100/._IMG_1.JPG", "100/.hidden.png", "100/Thumbs.db", "desktop.ini"),
        *("100/IMG_1.xmp", "100/IMG_1.JPG.xmp", "100/IMG_2.AAE", "100/IMG_3.THM"),
    ]
    for name in [*wanted, *raws, *noise, "100/clip.mov"]:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()

    with caplog.at_level("INFO"):
        assert find_images(tmp_path) == sorted(wanted)

    assert [message.rpartition(": ")[2] for message in caplog.messages] == ["1 .mov", "2"]


@pytest.mark.usefixtures("nothing_installed")
def test_where_the_packages_are_missing_files_are_counted_and_the_message_says_what_to_install(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("1.jpg", "1.cr2", "2.HEIC", "3.heic", "4.nef"):
        (tmp_path / name).write_bytes(b"\0\0\0\x1cftypheic\0\0\0\0mif1heic")

    with caplog.at_level("INFO"):
        assert find_images(tmp_path) == ["1.jpg"]

    (line, _) = caplog.messages
    assert "2 .heic, 1 .nef" in line and "pillow-heif and rawpy" in line and "[camera]" in line
    for name, package in (("2.HEIC", "pillow-heif"), ("4.nef", "rawpy"), ("1.jpg", "pillow-heif")):
        with pytest.raises(BadImage, match=f"{name}: the package {package} is not installed; run: pip install"):
            open_image(tmp_path / name)


@pytest.mark.usefixtures("rawpy")
@pytest.mark.parametrize("name", ["a.heic", "a.dng"])
def test_pages_show_jpeg_in_place_of_what_browsers_cannot_show(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(dng_bytes(halves()) if name == "a.dng" else heic_bytes(halves()))

    content, kind = PictureCache(tmp_path).get(name, 320)

    assert kind == "image/jpeg"
    assert is_upright(Image.open(io.BytesIO(content)))
    assert str(thumbnail_uri(tmp_path / name)).startswith("data:image/jpeg")


PAIR = ["a/1.JPG", "a/1.CR2", "a/1.xmp", "a/1.CR2.xmp", "a/1.JPG.xmp"]
REST = ["a/2.JPG", "a/2.NEF", "a/10.CR2"]


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    (tmp_path / "in" / "a").mkdir(parents=True)
    for name in (*PAIR, *REST):
        (tmp_path / "in" / name).write_text(name)
    return tmp_path / "in"


def files_in(folder: Path) -> list[str]:
    return sorted(file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file())


def test_the_raw_file_and_its_sidecars_move_with_the_picture_and_come_back(pairs: Path, tmp_path: Path) -> None:
    groups, in_the_way = plan_transfers(pairs, ["a/1.JPG"], tmp_path / "out", kind="move")
    assert (in_the_way, groups[0][0].source.name) == ([], "1.JPG")

    move(groups, tmp_path / "undo.jsonl")

    assert files_in(tmp_path / "out") == sorted(PAIR)
    assert files_in(pairs) == sorted(REST)
    assert undo(tmp_path / "undo.jsonl") == (5, [])
    assert files_in(pairs) == sorted([*PAIR, *REST])


def test_a_pair_is_copied_whole_but_linked_to_by_its_picture_alone(pairs: Path, tmp_path: Path) -> None:
    copy(plan_transfers(pairs, ["a/1.JPG", "a/2.JPG"], tmp_path / "copies", kind="copy")[0])
    link(plan_transfers(pairs, ["a/1.JPG"], tmp_path / "links", kind="link")[0])

    assert files_in(tmp_path / "copies") == sorted([*PAIR, "a/2.JPG", "a/2.NEF"])
    assert files_in(tmp_path / "links") == ["a/1.JPG"]


def test_a_pair_whose_raw_file_is_at_the_target_already_stays(pairs: Path, tmp_path: Path) -> None:
    (tmp_path / "out" / "a").mkdir(parents=True)
    (tmp_path / "out" / "a" / "1.CR2").write_text("another")

    assert plan_transfers(pairs, ["a/1.JPG"], tmp_path / "out", kind="move") == ([], ["a/1.JPG"])
