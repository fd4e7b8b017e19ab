"""Which sidecars get the stars of which picture, for each photo program."""

from pathlib import Path

import pytest
from PIL import Image

from custom_aesthetic.base.errors import UserError
from custom_aesthetic.pictures.ratings import RatingPlan, plan_ratings, write_rating
from custom_aesthetic.pictures.xmp import stars_in, with_stars
from tests.pictures.test_xmp import ATTRIBUTE, ELEMENT

UNRATED = ATTRIBUTE.replace(b' xmp:Rating="%d"', b"")


def folder_of(folder: Path, *names: str) -> Path:
    """Make files in a folder: small JPEG pictures, raw files of a few bytes, and sidecars without a rating."""
    for name in names:
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        if file.suffix == ".xmp":
            file.write_bytes(UNRATED)
        elif file.suffix == ".jpg":
            Image.new("RGB", (8, 8)).save(file)
        else:
            file.write_bytes(b"raw")
    return folder


def rate(folder: Path, program: str | None = None, **stars: int) -> RatingPlan:
    """Write the stars of pictures, given as `name__suffix=stars`."""
    plan = plan_ratings(folder, {name.replace("__", "."): n for name, n in stars.items()}, program=program)
    assert all(write_rating(rating) for rating in plan.ratings)
    return plan


def sidecars(folder: Path) -> dict[str, int | None]:
    return {file.name: stars_in(file.read_bytes()) for file in folder.glob("*.xmp")}


@pytest.mark.parametrize(
    ("program", "existing", "written"),
    [
        (None, [], ["1.jpg.xmp"]),
        (None, ["1.xmp"], ["1.xmp"]),
        (None, ["1.jpg.xmp"], ["1.jpg.xmp"]),
        (None, ["1.xmp", "1.jpg.xmp"], ["1.xmp", "1.jpg.xmp"]),
        ("immich", ["1.xmp"], ["1.xmp"]),
        ("darktable", ["1.xmp"], ["1.xmp"]),
        ("digikam", ["1.xmp"], ["1.xmp", "1.jpg.xmp"]),
        ("digikam", [], ["1.jpg.xmp"]),
        ("lightroom", [], []),
        ("lightroom", ["1.xmp", "1.jpg.xmp"], []),
    ],
)
def test_each_program_gets_the_sidecar_that_it_reads_and_an_existing_one_is_updated(
    tmp_path, program, existing, written
):
    folder_of(tmp_path, "1.jpg", *existing)
    plan = rate(tmp_path, program, **{"1__jpg": 4})
    assert {name: n for name, n in sidecars(tmp_path).items() if n} == dict.fromkeys(written, 4)
    assert plan.out_of_reach == ([] if written else ["1.jpg"])
    for name in existing:
        assert b'xmp:Label="Red"' in (tmp_path / name).read_bytes()


def test_lightroom_gets_the_sidecar_of_a_raw_file_and_none_of_a_dng(tmp_path):
    folder_of(tmp_path, "1.cr2", "2.dng", "3.NEF", "3.NEF.xmp")
    plan = rate(tmp_path, "lightroom", **{"1__cr2": 4, "2__dng": 3, "3__NEF": 2})
    assert sidecars(tmp_path) == {"1.xmp": 4, "3.xmp": 2, "3.NEF.xmp": 2}
    assert plan.out_of_reach == ["2.dng"]


@pytest.mark.parametrize("program", [None, "lightroom"])
def test_a_shared_sidecar_gets_the_stars_of_the_raw_file(tmp_path, program):
    folder_of(tmp_path, "1.cr2", "1.jpg", "1.xmp")
    rate(tmp_path, program, **{"1__jpg": 2, "1__cr2": 5})
    assert sidecars(tmp_path)["1.xmp"] == 5
    assert sidecars(tmp_path).get("1.jpg.xmp") == (None if program else 2)


@pytest.mark.parametrize("program", [None, "lightroom"])
def test_a_pair_of_which_only_the_jpeg_is_rated_gets_its_stars(tmp_path, program):
    folder_of(tmp_path, "1.cr2", "1.jpg", "1.xmp")
    rate(tmp_path, program, **{"1__jpg": 2})
    assert sidecars(tmp_path) == {"1.xmp": 2}


def test_a_sidecar_of_two_pictures_without_a_raw_file_is_left_alone(tmp_path):
    folder_of(tmp_path, "1.jpg", "1.png", "1.xmp")
    rate(tmp_path, **{"1__jpg": 2, "1__png": 5})
    assert sidecars(tmp_path) == {"1.xmp": None, "1.jpg.xmp": 2, "1.png.xmp": 5}
    assert plan_ratings(tmp_path, {"1.jpg": 3}).ratings[0].sidecars == (tmp_path / "1.jpg.xmp",)


@pytest.mark.parametrize("name", ["1.xmp", "1.cr2.xmp"])
@pytest.mark.parametrize("packet", [ATTRIBUTE % 1, ELEMENT % -1])
def test_a_rating_of_the_user_in_either_sidecar_is_kept_for_every_program(tmp_path, name, packet):
    folder_of(tmp_path, "1.cr2")
    (tmp_path / name).write_bytes(packet)
    for program in (None, "lightroom", "digikam"):
        assert rate(tmp_path, program, **{"1__cr2": 5}).rated_by_user == ["1.cr2"]
    assert {file.name: file.read_bytes() for file in tmp_path.glob("*.xmp")} == {name: packet}


def test_our_stars_are_renewed_in_both_sidecars_and_a_second_run_changes_nothing(tmp_path):
    folder_of(tmp_path, "1.cr2", "1.jpg")
    for stars in (2, 5, 5):
        rate(tmp_path, **{"1__cr2": stars, "1__jpg": 1})
        rate(tmp_path, "lightroom", **{"1__cr2": stars, "1__jpg": 1})
        assert sidecars(tmp_path) == {"1.cr2.xmp": stars, "1.xmp": stars, "1.jpg.xmp": 1}


def test_a_rating_set_between_plan_and_writing_is_kept(tmp_path):
    folder_of(tmp_path, "1.jpg")
    (rating,) = plan_ratings(tmp_path, {"1.jpg": 5}).ratings
    (tmp_path / "1.jpg.xmp").write_bytes(ATTRIBUTE % 2)
    assert write_rating(rating) is False
    assert sidecars(tmp_path) == {"1.jpg.xmp": 2}


def test_a_picture_with_one_sidecar_that_is_no_xmp_keeps_both_as_they_are(tmp_path):
    folder_of(tmp_path, "1.jpg", "1.xmp")
    (tmp_path / "1.jpg.xmp").write_bytes(b"no xmp")
    (rating,) = plan_ratings(tmp_path, {"1.jpg": 5}).ratings
    with pytest.raises(UserError, match=r"1\.jpg\.xmp is not XMP"):
        write_rating(rating)
    assert (tmp_path / "1.xmp").read_bytes() == UNRATED


def test_a_sidecar_that_cannot_be_read_is_named_and_the_others_are_rated(tmp_path):
    folder_of(tmp_path, "1.jpg", "2.jpg")
    with (tmp_path / "1.xmp").open("wb") as stream:
        stream.truncate(2**30)
    plan = rate(tmp_path, **{"1__jpg": 3, "2__jpg": 3})
    assert len(plan.failures) == 1
    assert "1.xmp" in plan.failures[0]
    assert stars_in((tmp_path / "2.jpg.xmp").read_bytes()) == 3


def test_pictures_in_sub_folders_share_sidecars_only_with_their_neighbours(tmp_path):
    folder_of(tmp_path, "a/1.cr2", "b/1.jpg", "1.jpg")
    plan = plan_ratings(tmp_path, {"a/1.cr2": 5, "b/1.jpg": 4, "1.jpg": 3}, program="lightroom")
    assert [rating.sidecars for rating in plan.ratings] == [(tmp_path / "a" / "1.xmp",)]
    assert plan.out_of_reach == ["b/1.jpg", "1.jpg"]


def test_with_the_rating_inside_existing_sidecars_do_not_contradict_it(tmp_path):
    folder_of(tmp_path, "1.jpg", "2.jpg", "1.xmp", "1.jpg.xmp")
    plan = plan_ratings(tmp_path, {"1.jpg": 4, "2.jpg": 3}, program="lightroom", embed=True)
    assert [(rating.inside, set(rating.sidecars)) for rating in plan.ratings] == [
        (tmp_path / "1.jpg", {tmp_path / "1.xmp", tmp_path / "1.jpg.xmp"}),
        (tmp_path / "2.jpg", set()),
    ]


def test_new_stars_differ_from_the_sidecar_only_in_the_number():
    assert with_stars(with_stars(UNRATED, 2), 4) == with_stars(UNRATED, 4)
