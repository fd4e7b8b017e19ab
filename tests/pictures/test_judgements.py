"""Stars, pick flags and colour labels of photo programs, read from XMP and brought to one scale."""

import pytest
from PIL import Image

from custom_aesthetic.base.errors import UserError
from custom_aesthetic.pictures.judgements import PENDING, PICKED, REJECTED, Judgement, levels_of, read_judgement
from custom_aesthetic.pictures.xmp import with_stars
from tests.mutations import mutations

PACKET = """<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
<rdf:Description rdf:about="" xmlns:xmp="http://ns.adobe.com/xap/1.0/" xmlns:digiKam="http://www.digikam.org/ns/1.0/"
xmlns:photoshop="http://ns.adobe.com/photoshop/1.0/" xmlns:xmpDM="http://ns.adobe.com/xmp/1.0/DynamicMedia/"%s>%s
</rdf:Description></rdf:RDF></x:xmpmeta>"""


def with_properties(*, elements: bool = False, **properties: str) -> bytes:
    """A packet with these properties, as attributes or as elements."""
    if elements:
        return (PACKET % ("", "".join(f"<{name}>{value}</{name}>" for name, value in properties.items()))).encode()
    return (PACKET % ("".join(f' {name}="{value}"' for name, value in properties.items()), "")).encode()


@pytest.mark.parametrize("elements", [False, True])
@pytest.mark.parametrize(
    ("properties", "expected"),
    [
        ({}, Judgement()),
        ({"xmp:Rating": "0", "digiKam:PickLabel": "0", "digiKam:ColorLabel": "0"}, Judgement()),
        ({"xmp:Rating": "4"}, Judgement(stars=4)),
        ({"xmp:Rating": "-1"}, Judgement(flag=REJECTED)),
        ({"xmp:Rating": "3", "xmpDM:good": "False"}, Judgement(stars=3, flag=REJECTED)),
        ({"xmpDM:good": "True"}, Judgement(flag=PICKED)),
        ({"xmpDM:pick": "-1"}, Judgement(flag=REJECTED)),
        ({"xmpDM:pick": "1", "xmpDM:good": "true"}, Judgement(flag=PICKED)),
        ({"digiKam:PickLabel": "1"}, Judgement(flag=REJECTED)),
        ({"digiKam:PickLabel": "2"}, Judgement(flag=PENDING)),
        ({"digiKam:PickLabel": "3"}, Judgement(flag=PICKED)),
        ({"digiKam:ColorLabel": "4"}, Judgement(label="green")),
        ({"xmp:Label": "Red"}, Judgement(label="red")),
        ({"xmp:Label": "パープル", "photoshop:LabelColor": "purple"}, Judgement(label="purple")),
        ({"xmp:Label": "Grün &amp; gut"}, Judgement(label="grün & gut")),
        ({"xmp:Label": ""}, Judgement()),
        ({"xmpDM:good": "maybe", "digiKam:PickLabel": "9", "digiKam:ColorLabel": "12"}, Judgement()),
    ],
)
def test_each_program_s_properties_are_read(tmp_path, properties, elements, expected):
    (tmp_path / "a.jpg.xmp").write_bytes(with_properties(elements=elements, **properties))
    assert read_judgement(tmp_path / "a.jpg") == expected


def test_each_property_is_read_where_it_is_and_the_longer_sidecar_comes_first(tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "a.jpg", xmp=with_properties(**{"xmp:Rating": "5", "xmp:Label": "Blue"}))
    assert read_judgement(tmp_path / "a.jpg") == Judgement(stars=5, label="blue")
    (tmp_path / "a.xmp").write_bytes(with_properties(**{"xmp:Rating": "2", "xmpDM:good": "True"}))
    assert read_judgement(tmp_path / "a.jpg") == Judgement(stars=2, flag=PICKED, label="blue")
    (tmp_path / "a.jpg.xmp").write_bytes(with_properties(**{"xmp:Rating": "1"}))
    assert read_judgement(tmp_path / "a.jpg") == Judgement(stars=1, flag=PICKED, label="blue")


def test_stars_of_a_model_are_not_the_user_s(tmp_path):
    (tmp_path / "a.jpg.xmp").write_bytes(with_stars(with_properties(**{"xmp:Label": "Red"}), 4))
    assert read_judgement(tmp_path / "a.jpg") == Judgement(label="red", has_our_stars=True)
    changed = with_stars(None, 4).replace(b'xmp:Rating="4"', b'xmp:Rating="2"')
    (tmp_path / "a.jpg.xmp").write_bytes(changed)
    assert read_judgement(tmp_path / "a.jpg") == Judgement(stars=2)


def test_picked_is_above_pending_and_rejected_below_all_stars():
    flags = [Judgement(flag=flag) for flag in (REJECTED, PENDING, PICKED)]
    rejected, pending, picked = levels_of(flags).values
    assert rejected < 1 < pending < picked
    assert levels_of([Judgement(stars=5, flag=REJECTED), Judgement(stars=2, flag=PICKED)]).values == [0, 2]


@pytest.mark.parametrize("label", ["red", "rot", "赤"])
def test_a_label_means_what_its_pictures_with_stars_or_flags_mean_in_any_language(label):
    known = [Judgement(stars=stars, label=label) for stars in (1, 2, 1, 2)] + [Judgement(flag=REJECTED, label=label)]
    others = [Judgement(label=label), Judgement(stars=5), Judgement(label="green"), Judgement()]
    levels = levels_of([*known, *others])
    assert levels.values == [1, 2, 1, 2, 0, 1.2, 5, None, None]
    assert levels.label_levels == {label: 1.2}
    assert levels.silent_labels == {"green": 1}


def test_a_label_with_few_known_pictures_says_nothing():
    levels = levels_of([Judgement(stars=5, label="red")] * 4 + [Judgement(label="red")])
    assert levels.values == [5, 5, 5, 5, None]
    assert levels.silent_labels == {"red": 5}


def test_damaged_xmp_gives_a_judgement_or_none(tmp_path):
    whole = with_properties(**{"xmp:Rating": "3", "xmp:Label": "Red", "digiKam:PickLabel": "3", "xmpDM:good": "True"})
    for damaged in mutations(whole):
        (tmp_path / "a.jpg.xmp").write_bytes(damaged)
        found = read_judgement(tmp_path / "a.jpg")
        assert found.stars in {None, *range(1, 6)}
        assert found.flag in {None, REJECTED, PENDING, PICKED}
        assert found.label is None or 0 < len(found.label) <= 60 * 3


@pytest.mark.parametrize("part", [b'xmp:Label="', b"xmp:Label>", b"xmp:Label=\n", b'digiKam:PickLabel="'])
def test_a_file_of_openings_without_ends_gives_no_stars_and_no_flag(tmp_path, part):
    (tmp_path / "a.jpg.xmp").write_bytes(part * (2**18 // len(part)))
    found = read_judgement(tmp_path / "a.jpg")
    assert (found.stars, found.flag) == (None, None)


def test_a_sidecar_that_is_too_large_is_named(tmp_path):
    with (tmp_path / "a.jpg.xmp").open("wb") as stream:
        stream.truncate(2**30)
    with pytest.raises(UserError, match="MiB"):
        read_judgement(tmp_path / "a.jpg")
