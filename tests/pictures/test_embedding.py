"""Ratings inside pictures: only the rating changes, and it can be undone."""

import errno
import os
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms, PngImagePlugin

from custom_aesthetic.base.errors import UserError
from custom_aesthetic.pictures import embedding
from custom_aesthetic.pictures.embedding import NotEmbedded, difference_between, replace_content, sha256_of, with_packet
from custom_aesthetic.pictures.rating_undo import UndoFile, is_rating_undo, undo_file_of_ratings, undo_ratings
from custom_aesthetic.pictures.ratings import plan_ratings, write_rating
from custom_aesthetic.pictures.xmp import embedded_packet, rating_in, read_stars, with_stars
from tests.mutations import mutations
from tests.pictures.test_xmp import ATTRIBUTE

exiv2 = pytest.importorskip("exiv2")

PIXELS = np.random.default_rng(0).integers(0, 255, (40, 30, 3), dtype=np.uint8)
PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
UNRATED = ATTRIBUTE.replace(b' xmp:Rating="%d"', b"")


def noise() -> Image.Image:
    return Image.fromarray(PIXELS)


def exif_data() -> Image.Exif:
    """EXIF with a turned picture, a maker, a date in a sub-directory, and a maker note."""
    exif = noise().getexif()
    exif[274], exif[271] = 6, "Maker"
    exif.get_ifd(34665).update({36867: "2026:01:02 03:04:05", 37500: b"maker's note" * 9})
    return exif


def picture(folder: Path, kind: str) -> Path:
    """Write a picture of a kind, with ICC profile and EXIF data where the format has them."""
    file = folder / f"{kind}.{kind.split('-')[0]}"
    text = PngImagePlugin.PngInfo()
    text.add_text("parameters", "a prompt, Seed: 1")
    all_of_it = {"icc_profile": PROFILE, "exif": exif_data()}
    pages = {"save_all": True, "append_images": [Image.fromarray(255 - PIXELS)]}
    match kind:
        case "jpg":
            noise().save(file, dpi=(300, 300), **all_of_it)
        case "jpg-commented":
            noise().save(file, comment="hello")
        case "jpg-progressive":
            noise().save(file, progressive=True, xmp=UNRATED)
        case "jpg-cmyk":
            noise().convert("CMYK").save(file)
        case "jpg-with_video":
            noise().save(file, **all_of_it)
            file.write_bytes(file.read_bytes() + b"ftypmp42" * 999)
        case "jpg-two_pictures":
            noise().save(file, format="MPO", **pages)
        case "png":
            noise().save(file, pnginfo=text, dpi=(72, 72), **all_of_it)
        case "png-palette":
            noise().quantize(16).save(file, transparency=3)
        case "png-deep":
            Image.fromarray(PIXELS[:, :, 0].astype(np.uint16) * 250).save(file)
        case "png-animated":
            noise().save(file, **pages, duration=100, loop=3)
        case "webp":
            noise().save(file, **all_of_it)
        case "webp-lossless":
            noise().convert("RGBA").save(file, lossless=True, xmp=UNRATED)
        case "webp-animated":
            noise().save(file, **pages, duration=100)
        case "tif":
            noise().save(file, **all_of_it)
        case "tif-lzw":
            noise().save(file, compression="tiff_lzw", tiffinfo={700: UNRATED})
        case "tif-pages":
            noise().save(file, **pages)
    os.utime(file, (1000, 1000))
    return file


KINDS = [
    *(
        "jpg",
        "jpg-commented",
        "jpg-progressive",
        "jpg-cmyk",
        "jpg-with_video",
        "jpg-two_pictures",
        "png",
        "png-palette",
        "png-deep",
    ),
    *("png-animated", "webp", "webp-lossless", "webp-animated", "tif", "tif-lzw", "tif-pages"),
]


def rate(file: Path, stars: int, undo_file: UndoFile | None = None) -> bool:
    (rating,) = plan_ratings(file.parent, {file.name: stars}, program="lightroom", embed=True).ratings
    return write_rating(rating, undo_file)


def rating_by_exiv2(file: Path) -> str:
    """The rating as the XMP toolkit of Adobe reads it, which exiv2 contains."""
    content = file.read_bytes()
    image = exiv2.ImageFactory.open(content)
    image.readMetadata()
    return image.xmpData()["Xmp.xmp.Rating"].toString()


@pytest.mark.parametrize("kind", KINDS)
def test_the_rating_is_inside_and_nothing_else_changes_until_it_is_taken_back(tmp_path, kind):
    file, undo_file = picture(tmp_path, kind), UndoFile(tmp_path / "undo.jsonl")
    before = file.read_bytes()
    with Image.open(file) as image:
        shown, exif, profile = np.asarray(image), dict(image.getexif()), image.info.get("icc_profile")
    for stars in (4, 2):
        assert rate(file, stars, undo_file)
        assert read_stars(file) == stars
        assert rating_by_exiv2(file) == str(stars)
    assert file.stat().st_mtime > 1e9
    assert difference_between(before, file.read_bytes()) is None
    with Image.open(file) as image:
        assert np.array_equal(np.asarray(image), shown)
        assert image.info.get("icc_profile") == profile
        if not kind.startswith("tif"):
            assert dict(image.getexif()) == exif
    undone = undo_ratings(undo_file.file)
    assert (undone.n_restored, undone.left) == (2, [])
    assert read_stars(file) is None
    assert (UNRATED in file.read_bytes()) == (UNRATED in before)
    assert difference_between(before, file.read_bytes()) is None
    if kind.startswith("jpg") and kind != "jpg-commented":
        assert file.read_bytes() == before
        assert file.stat().st_mtime == 1000
    assert sorted(each.name for each in tmp_path.iterdir()) == sorted([file.name, "undo.jsonl"])


def test_the_same_stars_again_leave_the_file_alone(tmp_path):
    file = picture(tmp_path, "jpg")
    rate(file, 4)
    os.utime(file, (1000, 1000))
    assert rate(file, 4)
    assert file.stat().st_mtime == 1000


@pytest.mark.parametrize("rating", [-1, 3])
def test_a_rating_of_the_user_inside_is_kept_and_an_unrated_zero_is_not(tmp_path, rating):
    file = tmp_path / "1.jpg"
    noise().save(file, xmp=ATTRIBUTE % rating)
    before = file.read_bytes()
    assert plan_ratings(tmp_path, {"1.jpg": 5}, program="lightroom", embed=True).rated_by_user == ["1.jpg"]
    assert file.read_bytes() == before
    noise().save(file, xmp=ATTRIBUTE % 0)
    assert rate(file, 5)
    assert rating_in(embedded_packet(file)) == 5
    assert b'xmp:Label="Red"' in embedded_packet(file)


def test_a_rating_set_between_plan_and_writing_is_kept(tmp_path):
    file = picture(tmp_path, "jpg")
    (rating,) = plan_ratings(tmp_path, {"jpg.jpg": 5}, program="lightroom", embed=True).ratings
    noise().save(file, xmp=ATTRIBUTE % 2)
    assert write_rating(rating) is False


def test_a_file_of_the_wrong_suffix_is_written_as_what_it_is(tmp_path):
    file = picture(tmp_path, "png").rename(tmp_path / "1.jpg")
    assert rate(file, 4)
    with Image.open(file) as image:
        assert image.format == "PNG"
    assert read_stars(file) == 4


def test_a_link_stays_a_link(tmp_path):
    (tmp_path / "store").mkdir()
    file = picture(tmp_path / "store", "jpg")
    link = tmp_path / "1.jpg"
    link.symlink_to(file)
    assert rate(link, 4)
    assert link.is_symlink()
    assert read_stars(file) == 4


def gif(file: Path) -> None:
    noise().save(file, format="GIF")


def further_pictures(file: Path) -> None:
    noise().save(file, format="TIFF", tiffinfo={330: 8})


def dng(file: Path) -> None:
    noise().save(file, format="TIFF", tiffinfo={50706: b"\1\4\0\0"})


def cut(file: Path) -> None:
    noise().save(file)
    file.write_bytes(file.read_bytes()[:500])


def nothing(file: Path) -> None:
    file.write_bytes(b"")


def read_only(file: Path) -> None:
    noise().save(file)
    file.chmod(0o444)


def not_utf_8(file: Path) -> None:
    noise().save(file, xmp=ATTRIBUTE.replace(b' xmp:Rating="%d"', b"").replace(b"Red", b"R\xe9d"))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("make", [gif, further_pictures, dng, cut, nothing, read_only, not_utf_8])
def test_a_file_that_cannot_be_written_or_checked_is_named_and_left_as_it_is(tmp_path, make):
    file = tmp_path / "1.jpg"
    make(file)
    before = file.read_bytes()
    with pytest.raises(UserError, match=r"1\.jpg"):
        rate(file, 4)
    assert file.read_bytes() == before
    assert [each.name for each in tmp_path.iterdir()] == ["1.jpg"]


@pytest.mark.parametrize("kind", ["jpg", "png", "webp", "tif"])
def test_a_copy_with_other_pixels_or_metadata_does_not_replace_the_picture(tmp_path, monkeypatch, kind):
    file = picture(tmp_path, kind)
    before = file.read_bytes()
    others = {"exif": exif_data(), "icc_profile": PROFILE, "xmp": with_stars(None, 4)}
    changed = noise()
    changed.putpixel((0, 0), (1, 2, 3))
    for image, given in ((changed, others), (noise(), {**others, "icc_profile": None}), (noise(), {"xmp": UNRATED})):
        image.save(tmp_path / f"other.{kind}", **given)
        content = (tmp_path / f"other.{kind}").read_bytes()
        monkeypatch.setattr(embedding, "_put_in", lambda *_, content=content: content)
        with pytest.raises(NotEmbedded, match="would not have stayed the same"):
            rate(file, 4)
        assert file.read_bytes() == before
    assert not list(tmp_path.glob(".*"))


def test_a_kill_or_a_full_disk_leaves_the_picture_and_the_undo_file_finds_nothing_to_do(tmp_path, monkeypatch):
    file, undo_file = picture(tmp_path, "jpg"), UndoFile(tmp_path / "undo.jsonl")
    before = file.read_bytes()

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(UserError, match="No space left"):
            rate(file, 4)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            rate(file, 4, undo_file)
    assert file.read_bytes() == before
    assert undo_file.n_changes == 1
    undone = undo_ratings(undo_file.file)
    assert (undone.n_restored, undone.left) == (0, [])
    assert file.read_bytes() == before


def test_a_picture_that_another_program_writes_at_the_same_time_is_left(tmp_path):
    file = picture(tmp_path, "jpg")
    new = with_packet(file, with_stars(None, 4))
    noise().rotate(90).save(file)
    before = file.read_bytes()
    with pytest.raises(NotEmbedded, match="just changed"):
        replace_content(new)
    assert file.read_bytes() == before


def test_undo_leaves_what_has_changed_since_and_restores_the_rest(tmp_path):
    undo_file = UndoFile(undo_file_of_ratings(tmp_path, datetime(2026, 1, 2, 3, 4, 5)))
    assert undo_file.file.name == "undo-stars-20260102-030405.jsonl"
    files = [picture(tmp_path, kind) for kind in ("jpg", "png", "webp")]
    for file in files:
        rate(file, 4, undo_file)
    changed = files[0].read_bytes().replace(b'xmp:Rating="4"', b'xmp:Rating="1"')
    files[0].write_bytes(changed)
    files[1].unlink()
    undone = undo_ratings(undo_file.file)
    assert undone.n_restored == 1
    assert [("jpg.jpg has changed" in text, "png.png no longer exists" in text) for text in undone.left] == [
        (False, True),
        (True, False),
    ]
    assert files[0].read_bytes() == changed
    assert read_stars(files[2]) is None
    assert undo_ratings(undo_file.file).n_restored == 0


def test_sidecars_are_taken_back_with_the_pictures(tmp_path):
    file, undo_file = picture(tmp_path, "jpg"), UndoFile(tmp_path / "undo.jsonl")
    (tmp_path / "jpg.jpg.xmp").write_bytes(UNRATED)
    (tmp_path / "jpg.cr2").write_bytes(b"raw")
    rate(file, 4, undo_file)
    assert [read_stars(tmp_path / name) for name in ("jpg.jpg", "jpg.cr2")] == [4, 4]
    assert undo_ratings(undo_file.file).n_restored == 3
    assert (tmp_path / "jpg.jpg.xmp").read_bytes() == UNRATED
    assert not (tmp_path / "jpg.xmp").exists()


def test_only_an_undo_file_of_ratings_is_taken_for_one(tmp_path):
    for name, content in (
        ("move", b'{"from": "a", "to": "b"}\n'),
        ("text", b"[[[["),
        ("empty", b""),
        ("bytes", b"\xff"),
    ):
        (tmp_path / name).write_bytes(content)
        assert not is_rating_undo(tmp_path / name)
    assert not is_rating_undo(tmp_path / "missing")
    whole = tmp_path / "undo.jsonl"
    rate(picture(tmp_path, "jpg"), 4, UndoFile(whole))
    assert is_rating_undo(whole)
    for damaged in mutations(whole.read_bytes(), 60):
        whole.write_bytes(damaged)
        try:
            undo_ratings(whole)
        except UserError as error:
            assert "undo.jsonl" in str(error)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["jpg", "png", "webp", "tif"])
def test_a_damaged_picture_is_left_as_it_is_or_shows_the_same(tmp_path, kind):
    whole = picture(tmp_path, kind).read_bytes()
    file = tmp_path / f"x.{kind}"
    for damaged in mutations(whole, 60):
        file.write_bytes(damaged)
        try:
            written = rate(file, 4)
        except UserError:
            written = False
        if written:
            assert read_stars(file) == 4
            assert difference_between(damaged, file.read_bytes()) is None
        else:
            assert sha256_of(file.read_bytes()) == sha256_of(damaged)
