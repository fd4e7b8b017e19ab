"""Opening pictures."""

import contextlib
import io
import os
import struct
import subprocess
import sys
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from PIL import features as features_of_pillow

from custom_aesthetic.extractors import FeatureExtractor, build_extractor
from custom_aesthetic.pictures.folders import find_images
from custom_aesthetic.pictures.images import DRAFT_FACTOR, BadImage, count_pixels, open_image
from tests.conftest import ROOT
from tests.mutations import mutations

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)

TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def quarters() -> Image.Image:
    """A 40 x 20 picture: red top left, green top right, blue bottom left, white bottom right."""
    image = Image.new("RGB", (40, 20), WHITE)
    for colour, corner in ((RED, (0, 0)), (GREEN, (20, 0)), (BLUE, (0, 10))):
        image.paste(colour, (*corner, corner[0] + 20, corner[1] + 10))
    return image


def corners(image: Image.Image) -> list[object]:
    """Return the top left, top right, bottom left and bottom right pixels."""
    right, bottom = image.width - 1, image.height - 1
    return [image.getpixel(place) for place in ((0, 0), (right, 0), (0, bottom), (right, bottom))]


def reason(path: Path) -> str:
    with pytest.raises(BadImage) as caught:
        open_image(path)
    assert path.name in str(caught.value)
    return caught.value.reason


def test_tif_gif_and_avif_are_pictures_and_of_a_gif_the_first_frame_counts(tmp_path: Path) -> None:
    quarters().save(tmp_path / "a.tif")
    red, blue = (Image.new("RGB", (40, 20), colour) for colour in (RED, BLUE))
    red.save(tmp_path / "b.gif", save_all=True, append_images=[blue])
    if "avif" in features_of_pillow.get_supported():
        quarters().save(tmp_path / "c.avif", quality=100)

    found = find_images(tmp_path)

    assert found[:2] == ["a.tif", "b.gif"]
    assert all(open_image(tmp_path / name).size == (40, 20) for name in found)
    assert corners(open_image(tmp_path / "b.gif")) == [RED] * 4


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_exif_orientation_comes_out_upright(tmp_path: Path, orientation: int) -> None:
    stored = {
        1: lambda image: image,
        2: lambda image: image.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
        3: lambda image: image.transpose(Image.Transpose.ROTATE_180),
        4: lambda image: image.transpose(Image.Transpose.FLIP_TOP_BOTTOM),
        5: lambda image: image.transpose(Image.Transpose.TRANSPOSE),
        6: lambda image: image.transpose(Image.Transpose.ROTATE_90),
        7: lambda image: image.transpose(Image.Transpose.TRANSVERSE),
        8: lambda image: image.transpose(Image.Transpose.ROTATE_270),
    }[orientation](quarters())
    exif = Image.Exif()
    exif[0x0112] = orientation
    for name in ("x.png", "x.tiff", "x.webp"):
        stored.save(tmp_path / name, exif=exif, lossless=True)

        image = open_image(tmp_path / name)

        assert (image.mode, image.size) == ("RGB", (40, 20))
        assert corners(image) == [RED, GREEN, BLUE, WHITE]


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_a_picture_with_broken_exif_data_is_read(tmp_path: Path) -> None:
    quarters().save(tmp_path / "x.jpg", exif=b"Exif\0\0II*\0\xff\xff\xff\xff", quality=95)

    assert open_image(tmp_path / "x.jpg").size == (40, 20)


@pytest.mark.filterwarnings("ignore")
def test_broken_exif_data_rotate_a_picture_only_by_a_readable_tag(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112], exif[0x010F], exif[0x8769] = 6, "maker", {0x9003: "2020:01:01 00:00:00"}
    for damaged in mutations(exif.tobytes(), first=6):
        quarters().save(tmp_path / "x.webp", exif=damaged, lossless=True)
        with Image.open(tmp_path / "x.webp") as image:
            image.load()
            turn = None
            with contextlib.suppress(Exception):
                turn = TURNS.get(image.getexif().get(0x0112, 1))
            upright = image.convert("RGB") if turn is None else image.convert("RGB").transpose(turn)

        assert np.array_equal(np.asarray(open_image(tmp_path / "x.webp")), np.asarray(upright))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".bmp", ".tif", ".gif", ".avif"])
def test_a_damaged_picture_is_read_or_refused_with_a_reason_in_one_line(tmp_path: Path, suffix: str) -> None:
    if suffix == ".avif" and "avif" not in features_of_pillow.get_supported():
        pytest.skip("this Pillow reads no AVIF")
    whole, file = tmp_path / f"whole{suffix}", tmp_path / f"x{suffix}"
    quarters().save(whole)
    n_refused = 0
    for damaged in mutations(whole.read_bytes()):
        file.write_bytes(damaged)
        try:
            assert open_image(file).mode == "RGB"
        except BadImage as error:
            n_refused += 1
            assert error.reason and "\n" not in error.reason
    assert n_refused > 30


@pytest.mark.parametrize("error", [RuntimeError("decoder"), AttributeError(), ZeroDivisionError(), MemoryError()])
def test_any_error_of_a_decoder_becomes_a_bad_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    quarters().save(tmp_path / "x.png")

    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr("PIL.PngImagePlugin.PngImageFile.load", fail)
    assert reason(tmp_path / "x.png")


@pytest.mark.parametrize("mode", ["RGBA", "LA", "PA", "P"])
def test_transparent_parts_are_white(tmp_path: Path, mode: str) -> None:
    image = Image.new("RGBA", (40, 20), (0, 0, 0, 255))
    image.paste((0, 0, 0, 0), (20, 0, 40, 20))
    image = image.quantize() if mode in ("P", "PA") else image.convert(mode)
    image.save(tmp_path / "x.png")

    assert corners(open_image(tmp_path / "x.png")) == [(0, 0, 0), WHITE, (0, 0, 0), WHITE]


def test_half_transparent_pixels_are_mixed_with_white(tmp_path: Path) -> None:
    Image.new("RGBA", (4, 4), (0, 0, 0, 128)).save(tmp_path / "x.png")

    assert open_image(tmp_path / "x.png").getpixel((0, 0)) == (127, 127, 127)


def test_a_transparent_colour_of_a_picture_without_alpha_is_white(tmp_path: Path) -> None:
    quarters().save(tmp_path / "x.png", transparency=RED)

    assert corners(open_image(tmp_path / "x.png")) == [WHITE, GREEN, BLUE, WHITE]


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tiff", ".webp"])
def test_formats_without_loss_keep_every_pixel(tmp_path: Path, suffix: str) -> None:
    quarters().save(tmp_path / f"x{suffix}", lossless=True)

    assert np.array_equal(np.asarray(open_image(tmp_path / f"x{suffix}")), np.asarray(quarters()))


def test_palette_cmyk_grey_and_black_and_white_pictures_become_rgb(tmp_path: Path) -> None:
    quarters().quantize(16).save(tmp_path / "palette.png")
    quarters().convert("CMYK").save(tmp_path / "cmyk.tiff")
    quarters().convert("CMYK").save(tmp_path / "cmyk.jpg", quality=100)
    quarters().convert("L").save(tmp_path / "grey.png")
    quarters().convert("1").save(tmp_path / "bits.png")

    assert corners(open_image(tmp_path / "palette.png")) == [RED, GREEN, BLUE, WHITE]
    assert corners(open_image(tmp_path / "cmyk.tiff")) == [RED, GREEN, BLUE, WHITE]
    close = np.abs(np.asarray(corners(open_image(tmp_path / "cmyk.jpg"))) - np.asarray([RED, GREEN, BLUE, WHITE]))
    assert close.max() <= 3
    assert corners(open_image(tmp_path / "grey.png"))[0] == (76, 76, 76)
    assert corners(open_image(tmp_path / "bits.png"))[3] == WHITE


@pytest.mark.parametrize("suffix", [".png", ".tiff"])
def test_16_bit_greys_are_scaled(tmp_path: Path, suffix: str) -> None:
    levels = np.array([[0, 257, 32896, 65535]], np.uint16)
    Image.fromarray(levels).save(tmp_path / f"x{suffix}")

    assert np.asarray(open_image(tmp_path / f"x{suffix}"))[0, :, 0].tolist() == [0, 1, 128, 255]


def test_16_bit_colours_are_scaled(tmp_path: Path) -> None:
    pixels = struct.pack(">6H", 65535, 0, 32896, 257, 65535, 0)
    (tmp_path / "x.png").write_bytes(png_bytes(width=2, height=1, bits=16, colour_type=2, rows=b"\0" + pixels))

    assert np.asarray(open_image(tmp_path / "x.png")).tolist() == [[[255, 0, 128], [1, 255, 0]]]


def test_floating_point_greys_are_scaled(tmp_path: Path) -> None:
    Image.fromarray(np.array([[0.0, 0.5, 1.0]], np.float32)).save(tmp_path / "x.tiff")

    assert np.asarray(open_image(tmp_path / "x.tiff"))[0, :, 0].tolist() == [0, 128, 255]


@pytest.mark.parametrize("suffix", [".webp", ".png", ".tiff"])
def test_the_first_frame_of_an_animation_counts(tmp_path: Path, suffix: str) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in (RED, GREEN, BLUE)]
    options = {"lossless": True} if suffix == ".webp" else {}
    frames[0].save(tmp_path / f"x{suffix}", save_all=True, append_images=frames[1:], **options)

    assert open_image(tmp_path / f"x{suffix}").getpixel((0, 0)) == RED


@pytest.mark.parametrize("size", [(1, 1), (1, 500), (500, 1), (20_000, 300), (300, 20_000)])
@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_very_narrow_and_very_wide_pictures_work(tmp_path: Path, size: tuple[int, int], suffix: str) -> None:
    Image.new("RGB", size, WHITE).save(tmp_path / f"x{suffix}")

    image = open_image(tmp_path / f"x{suffix}", target_size=64)

    assert image.getpixel((0, 0)) == WHITE
    assert image.size == size


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".bmp", ".tiff"])
def test_a_truncated_picture_is_refused(tmp_path: Path, suffix: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    whole = io.BytesIO()
    Image.fromarray(noise).save(whole, {".jpg": "JPEG"}.get(suffix, suffix[1:].upper()))
    (tmp_path / f"x{suffix}").write_bytes(whole.getvalue()[: len(whole.getvalue()) // 2])

    assert reason(tmp_path / f"x{suffix}")


def test_empty_foreign_and_missing_files_are_refused_with_the_reason(tmp_path: Path) -> None:
    (tmp_path / "empty.png").touch()
    (tmp_path / "text.jpg").write_text("no picture at all")
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "drawing.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\n")

    assert reason(tmp_path / "empty.png") == "empty file (0 bytes)"
    assert reason(tmp_path / "text.jpg") == "not an image in a known format"
    assert reason(tmp_path / "drawing.png") == "not an image in a known format"
    assert reason(tmp_path / "missing.png") == "file not found"
    assert reason(tmp_path / "folder.png") == "not a regular file"


def test_a_file_in_memory_is_read_like_one_on_the_disk(tmp_path: Path) -> None:
    for name in ("a.jpg", "b.png", "c.tif"):
        quarters().resize((400, 200)).save(tmp_path / name)
        content = (tmp_path / name).read_bytes()

        on_disk, in_memory = open_image(tmp_path / name, 10), open_image(name, 10, content=content)

        assert np.array_equal(np.asarray(on_disk), np.asarray(in_memory))
        assert count_pixels(name, content=content) == count_pixels(tmp_path / name) == 80_000
    for damaged, words in ((b"", "empty"), (b"text", "not an image"), (content[:300], "")):
        with pytest.raises(BadImage, match=f"d.tif: .*{words}"):
            open_image("d.tif", content=damaged)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_does_not_hang_the_run(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "x.png")

    assert reason(tmp_path / "x.png") == "not a regular file"


@pytest.mark.parametrize("side", [13_400, 50_000])
def test_a_decompression_bomb_is_refused(tmp_path: Path, side: int) -> None:
    rows = b"\0" * 1000
    (tmp_path / "x.png").write_bytes(png_bytes(width=side, height=side, bits=8, colour_type=0, rows=rows))

    assert "decompression bomb" in reason(tmp_path / "x.png")


def test_a_lower_limit_of_the_process_is_respected_and_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    quarters().save(tmp_path / "x.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 300)

    assert "limit of 600 pixels" in reason(tmp_path / "x.png")


def test_the_limit_holds_in_a_process_without_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "x.png").write_bytes(png_bytes(width=13_400, height=13_400, bits=8, colour_type=0, rows=b"\0" * 1000))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)

    assert "the limit is 179 million" in reason(tmp_path / "x.png")


PROCESS = """
import sys, warnings
import numpy
from PIL import Image, ImageFile

def settings():
    return Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES, list(warnings.filters)

before = settings()
from custom_aesthetic.pictures import arrays, folders, images, xmp
images.open_image(sys.argv[1])
assert settings() == before, settings()
"""


def test_importing_and_opening_leave_the_settings_of_pillow_and_the_warnings_as_they_were(tmp_path: Path) -> None:
    quarters().save(tmp_path / "x.png")
    command = [sys.executable, "-c", PROCESS, str(tmp_path / "x.png")]
    done = subprocess.run(command, cwd=ROOT / "src", capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("size", [(1600, 1200), (1201, 2001)])
def test_a_jpeg_is_decoded_at_half_its_size_only_while_that_is_well_above_the_target(
    tmp_path: Path, size: tuple[int, int]
) -> None:
    Image.new("RGB", size).save(tmp_path / "x.jpg")
    half = ((size[0] + 1) // 2, (size[1] + 1) // 2)

    assert open_image(tmp_path / "x.jpg").size == size
    assert open_image(tmp_path / "x.jpg", target_size=10).size == half
    assert open_image(tmp_path / "x.jpg", target_size=600 // DRAFT_FACTOR).size == half
    assert open_image(tmp_path / "x.jpg", target_size=600 // DRAFT_FACTOR + 1).size == size


def test_decoding_at_half_the_size_moves_features_about_as_much_as_rounding_to_8_bits(
    tmp_path: Path, data_folder: Path
) -> None:
    extractor = build_extractor("efficientnet-lite0", torch.device("cpu"))
    photos = [data_folder / "photos" / path for path in find_images(data_folder / "photos")[::30]]
    spread = features(extractor, pixels(extractor, [open_image(photo) for photo in photos])).std(dim=0).mean()
    files = [tmp_path / f"{i}.jpg" for i in range(3)]
    for photo, file in zip(photos, files, strict=False):
        image = open_image(photo)
        scale = 2 * DRAFT_FACTOR * extractor.target_size / min(image.size)
        image.resize((round(scale * image.width), round(scale * image.height))).save(file, quality=92)

    whole = [open_image(file) for file in files]
    drafts = [open_image(file, extractor.target_size) for file in files]

    assert [image.width // 2 for image in whole] == [draft.width for draft in drafts]
    exact, drafted = pixels(extractor, whole), pixels(extractor, drafts)
    half_a_level = (torch.rand(exact.shape, generator=torch.Generator().manual_seed(0)) - 0.5) / 128
    by_draft, by_rounding = (
        (features(extractor, exact) - features(extractor, other)).abs().mean() / spread
        for other in (drafted, exact + half_a_level)
    )
    assert 0 < by_draft < 1.5 * by_rounding
    assert by_draft < 0.02


def pixels(extractor: FeatureExtractor, images: Sequence[Image.Image]) -> torch.Tensor:
    return torch.stack([extractor.transform(image) for image in images])


def features(extractor: FeatureExtractor, batch: torch.Tensor) -> torch.Tensor:
    return extractor.features(batch, [0])[0]


def png_bytes(*, width: int, height: int, bits: int, colour_type: int, rows: bytes) -> bytes:
    """Return a PNG file; `rows` are a filter byte and the pixels of each row."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = struct.pack(">IIBBBBB", width, height, bits, colour_type, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(name, content) for name, content in chunks)


def test_a_jpeg_to_look_at_is_decoded_no_smaller_than_it_is_shown(tmp_path: Path) -> None:
    file = tmp_path / "wide.jpg"
    Image.linear_gradient("L").resize((800, 400)).convert("RGB").save(file)
    assert [open_image(file, shown_size=size).width for size in (50, 100, 101, 400, 401, 900)] == [
        *(100, 100, 200, 400, 800, 800)
    ]
    Image.open(file).save(tmp_path / "wide.png")
    assert open_image(tmp_path / "wide.png", shown_size=100).width == 800


@pytest.mark.parametrize("mode", ["RGB", "CMYK", "L"])
@pytest.mark.parametrize("size", [(900, 3), (3, 900), (900, 1)])
def test_a_jpeg_thinner_than_it_is_to_be_shrunk_can_be_looked_at(
    tmp_path: Path, mode: str, size: tuple[int, int]
) -> None:
    turned = Image.Exif()
    turned[0x0112] = 6
    Image.new(mode, size).save(tmp_path / "thin.jpg", exif=turned)
    image = open_image(tmp_path / "thin.jpg", shown_size=100)
    assert image.mode == "RGB" and max(image.size) >= 100
    assert (image.width > image.height) == (size[0] < size[1])
