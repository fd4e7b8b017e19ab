"""Stars in XMP, read from pictures and sidecars, written to sidecars."""

from pathlib import Path

import pytest
from PIL import Image, PngImagePlugin, TiffImagePlugin

from custom_aesthetic.base.errors import UserError
from custom_aesthetic.pictures.ratings import plan_ratings, write_rating
from custom_aesthetic.pictures.xmp import is_rated_by_user, read_stars, sidecar_of, stars_in, with_stars
from tests.mutations import mutations

ATTRIBUTE = b"""<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
<rdf:Description rdf:about="" xmlns:xmp="http://ns.adobe.com/xap/1.0/" xmp:Label="Red" xmp:Rating="%d"/>
</rdf:RDF></x:xmpmeta>"""
ELEMENT = b"""<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
<rdf:Description rdf:about="" xmlns:xmp="http://ns.adobe.com/xap/1.0/"><xmp:Rating>%d</xmp:Rating>
</rdf:Description></rdf:RDF></x:xmpmeta>"""


def write_stars(picture: Path, stars: int) -> Path | None:
    """Write the stars of one picture, and return the sidecar; None if the user has rated it."""
    plan = plan_ratings(picture.parent, {picture.name: stars})
    if plan.failures:
        raise UserError(plan.failures[0])
    for rating in plan.ratings:
        write_rating(rating)
        return rating.sidecars[0]
    return None


@pytest.mark.parametrize("packet", [ATTRIBUTE, ELEMENT])
@pytest.mark.parametrize("written, read", [(0, 0), (3, 3), (5, 5), (-1, 0), (9, 5)])
def test_both_ways_of_writing_a_rating_are_read(packet, written, read):
    assert stars_in(packet % written) == read


def test_a_missing_rating_is_none():
    assert stars_in(ATTRIBUTE.replace(b'xmp:Rating="%d"', b"")) is None
    assert stars_in(b"") is None


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tiff"])
def test_stars_embedded_in_a_picture_are_read(tmp_path, suffix):
    file, image = tmp_path / f"photo.{suffix}", Image.new("RGB", (8, 8))
    if suffix == "png":
        info = PngImagePlugin.PngInfo()
        info.add_itxt("XML:com.adobe.xmp", (ATTRIBUTE % 4).decode())
        image.save(file, pnginfo=info)
    elif suffix == "tiff":
        image.save(file, tiffinfo={700: ATTRIBUTE % 4})
    else:
        image.save(file, xmp=ATTRIBUTE % 4)
    assert read_stars(file) == 4


def test_a_sidecar_wins_over_the_picture_and_the_longer_name_over_the_shorter(tmp_path):
    file = tmp_path / "photo.jpg"
    Image.new("RGB", (8, 8)).save(file, xmp=ATTRIBUTE % 1)
    (tmp_path / "photo.xmp").write_bytes(ELEMENT % 2)
    assert read_stars(file) == 2
    (tmp_path / "photo.jpg.xmp").write_bytes(ELEMENT % 3)
    assert read_stars(file) == 3


def test_a_picture_without_stars_or_that_cannot_be_read_has_none(tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "plain.jpg")
    (tmp_path / "broken.jpg").write_bytes(b"nothing")
    assert read_stars(tmp_path / "plain.jpg") is None
    assert read_stars(tmp_path / "broken.jpg") is None
    assert read_stars(tmp_path / "missing.jpg") is None


@pytest.mark.parametrize("stars", range(6))
def test_written_stars_read_back_and_the_picture_is_not_touched(tmp_path, stars):
    file = tmp_path / "photo.jpg"
    Image.new("RGB", (8, 8)).save(file)
    before = file.read_bytes()
    assert write_stars(file, stars) == sidecar_of(file) == tmp_path / "photo.jpg.xmp"
    assert read_stars(file) == stars
    assert file.read_bytes() == before


@pytest.mark.parametrize("packet", [ATTRIBUTE % 1, ELEMENT % 1])
def test_stars_that_the_user_gave_are_never_replaced(tmp_path, packet):
    (tmp_path / "photo.jpg.xmp").write_bytes(packet)
    assert write_stars(tmp_path / "photo.jpg", 5) is None
    assert (tmp_path / "photo.jpg.xmp").read_bytes() == packet
    Image.new("RGB", (8, 8)).save(tmp_path / "embedded.jpg", xmp=packet)
    assert write_stars(tmp_path / "embedded.jpg", 5) is None
    assert not (tmp_path / "embedded.jpg.xmp").exists()


def test_stars_written_here_are_renewed_until_the_user_changes_them(tmp_path):
    file, sidecar = tmp_path / "photo.jpg", tmp_path / "photo.jpg.xmp"
    for stars in (2, 5, 1):
        assert write_stars(file, stars) == sidecar
        assert read_stars(file) == stars
    sidecar.write_bytes(sidecar.read_bytes().replace(b'xmp:Rating="1"', b'xmp:Rating="4"'))
    assert write_stars(file, 2) is None
    assert read_stars(file) == 4


def test_everything_else_in_a_sidecar_is_kept(tmp_path):
    other = ATTRIBUTE.replace(b' xmp:Rating="%d"', b"")
    (tmp_path / "photo.jpg.xmp").write_bytes(other)
    write_stars(tmp_path / "photo.jpg", 5)
    after = (tmp_path / "photo.jpg.xmp").read_bytes()
    assert read_stars(tmp_path / "photo.jpg") == 5
    assert b'xmp:Label="Red"' in after
    assert len(after) > len(other)
    for word in other.split():
        assert word in after


def test_a_rating_is_put_into_a_sidecar_without_one_and_it_stays_xml(tmp_path):
    from xml.etree import ElementTree

    plain = b"""<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
<rdf:Description rdf:about="" xmlns:dc="http://purl.org/dc/elements/1.1/" dc:title="A"/></rdf:RDF></x:xmpmeta>"""
    for name, packet in (("old.jpg", plain), ("new.jpg", None)):
        if packet is not None:
            (tmp_path / f"{name}.xmp").write_bytes(packet)
        write_stars(tmp_path / name, 2)
        tree = ElementTree.parse(tmp_path / f"{name}.xmp")
        values = [element.get("{http://ns.adobe.com/xap/1.0/}Rating") for element in tree.iter()]
        assert "2" in values
    assert b'dc:title="A"' in (tmp_path / "old.jpg.xmp").read_bytes()


def test_a_sidecar_that_is_not_xmp_is_reported_and_not_changed(tmp_path):
    (tmp_path / "photo.jpg.xmp").write_bytes(b"not xmp")
    with pytest.raises(UserError, match="not XMP"):
        write_stars(tmp_path / "photo.jpg", 2)
    assert (tmp_path / "photo.jpg.xmp").read_bytes() == b"not xmp"


@pytest.mark.parametrize("digits", ["9" * 400, "9" * 400 + ".5", "0" * 400 + "5"])
def test_a_rating_of_any_length_is_at_most_five_stars(digits):
    assert stars_in(b'xmp:Rating="%s"' % digits.encode()) == 5
    assert stars_in(b'xmp:Rating="-%s"' % digits.encode()) == 0


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind, value", [(4, 3_000_000_000), (3, (1, 700)), (12, 1e300), (5, (1, 2)), (2, "text")])
def test_a_tiff_whose_xmp_is_of_another_type_has_no_stars(tmp_path, kind, value):
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags.tagtype[700] = kind
    tags[700] = value
    Image.new("RGB", (8, 8)).save(tmp_path / "x.tiff", tiffinfo=tags)
    assert read_stars(tmp_path / "x.tiff") is None


@pytest.mark.parametrize("packet", [ATTRIBUTE % 1, ELEMENT % 1])
def test_damaged_xmp_gives_stars_or_none_and_is_rewritten_whole_or_left_alone(tmp_path, packet):
    from xml.etree import ElementTree

    file, sidecar = tmp_path / "photo.jpg", tmp_path / "photo.jpg.xmp"
    for damaged in mutations(packet):
        assert stars_in(damaged) in {None, *range(6)}
        sidecar.write_bytes(damaged)
        try:
            written = write_stars(file, 2)
        except UserError as error:
            assert "photo.jpg.xmp" in str(error)
            written = None
        if written is None:
            assert sidecar.read_bytes() == damaged
        else:
            assert read_stars(file) == 2
            ElementTree.fromstring(sidecar.read_bytes())


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("suffix", ["jpg", "webp", "tiff"])
def test_a_damaged_picture_with_xmp_gives_stars_or_none(tmp_path, suffix):
    whole, file = tmp_path / f"whole.{suffix}", tmp_path / f"x.{suffix}"
    given = {"tiffinfo": {700: ATTRIBUTE % 4}} if suffix == "tiff" else {"xmp": ATTRIBUTE % 4}
    Image.new("RGB", (8, 8)).save(whole, **given)
    for damaged in mutations(whole.read_bytes()):
        file.write_bytes(damaged)
        assert read_stars(file) in {None, *range(6)}


def test_a_huge_sidecar_is_named_and_not_read(tmp_path):
    with (tmp_path / "photo.jpg.xmp").open("wb") as stream:
        stream.truncate(2**30)
    with pytest.raises(UserError, match="MiB"):
        read_stars(tmp_path / "photo.jpg")


@pytest.mark.parametrize("packet", [ATTRIBUTE, ELEMENT])
@pytest.mark.parametrize("rating, by_user", [(-1, True), (0, False), (3, True)])
def test_a_rating_of_zero_is_no_rating_and_a_rejection_is_one(packet, rating, by_user):
    assert is_rated_by_user(packet % rating) == by_user
    after = with_stars(packet % rating, 5)
    assert stars_in(after) == 5
    assert after.count(b"xmp:Rating") == packet.count(b"xmp:Rating")


def test_our_stars_that_the_user_cleared_are_the_users():
    ours = with_stars(None, 3)
    assert not is_rated_by_user(ours)
    assert is_rated_by_user(ours.replace(b'xmp:Rating="3"', b'xmp:Rating="0"'))


def test_the_prefix_of_older_adobe_programs_is_read():
    assert stars_in((ATTRIBUTE % 3).replace(b"xmp:", b"xap:")) == 3


def test_stars_go_into_the_first_description_where_only_a_later_one_declares_the_prefix():
    packet = b"""<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
<rdf:Description rdf:about=""/><rdf:Description rdf:about="" xmlns:xmp="http://ns.adobe.com/xap/1.0/" xmp:Label="Red"/>
</rdf:RDF></x:xmpmeta>"""
    assert stars_in(with_stars(packet, 4)) == 4
