"""Quality tags in caption files: where they go, what stays as it is, and that undoing restores every byte."""

import re
from datetime import datetime
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some

from custom_aesthetic.base.errors import UserError
from custom_aesthetic.pictures.captions import NotACaption, caption_of, plan_captions, tagged, with_tag, write_tag
from custom_aesthetic.pictures.rating_undo import UndoFile, undo_file_of_captions, undo_ratings


@pytest.mark.parametrize(
    ("before", "tag", "after"),
    [
        ("cat, sitting", "score_9", "score_9, cat, sitting"),
        ("a photo of a cat.\n", "score_9", "score_9, a photo of a cat.\n"),
        ("score_9, cat", "score_4_up", "score_4_up, cat"),
        ("cat, score_4_up , dog\r\nmore\r\n", "score_8_up", "cat, score_8_up , dog\r\nmore\r\n"),
        ("score_9, score_8_up, score_7_up, cat", "score_6_up", "score_6_up, cat"),
        ("score_9,score_8_up,cat", None, "cat"),
        ("cat, score_9", None, "cat"),
        ("score_9", None, ""),
        ("score_9\n", None, "\n"),
        ("cat", None, "cat"),
        ("", "score_9", "score_9"),
        ("\n", "score_9", "score_9\n"),
        ("  \r\ncat", "score_9", "score_9  \r\ncat"),
        ("\ufeffcat\r\n", "score_9", "\ufeffscore_9, cat\r\n"),
        ("\ufeff", "score_9", "\ufeffscore_9"),
        ("\ufeffscore_9, cat", "score_8_up", "\ufeffscore_8_up, cat"),
        ("underscore_90, my_score_9, score_9s, the score_9 of", "score_7_up", None),
        ("cat\nscore_9, dog", "score_7_up", "score_7_up, cat\nscore_9, dog"),
        ("ein Bär, 猫, score_5_up", "score_9", "ein Bär, 猫, score_9"),
    ],
)
def test_the_tag_is_put_in_front_or_in_the_place_of_the_one_that_is_there(before, tag, after):
    assert with_tag(before, tag) == (f"{tag}, {before}" if after is None else after)


TAGS = some.sampled_from(["score_9", "score_8_up", "score_4_up"]) | some.none()
TEXTS = some.lists(
    some.sampled_from([" ", ",", ", ", "\n", "\r\n", "\ufeff", "score_9", "score_4_up", "score_", "cat", "\u00a0", "é"])
    | some.text(max_size=5),
    max_size=15,
).map("".join)


@given(TEXTS, TAGS)
def test_twice_is_once(text, tag):
    once = with_tag(text, tag)
    assert with_tag(once, tag) == once


@given(TEXTS, TAGS)
def test_the_first_line_has_this_tag_alone_and_everything_else_stays(text, tag):
    def parts(caption: str) -> list[str]:
        return [part.strip() for part in re.split(r"[\r\n]", caption.removeprefix("\ufeff"), maxsplit=1)[0].split(",")]

    def is_tag(part: str) -> bool:
        return re.fullmatch(r"score_\d(_up)?", part) is not None

    before, after = parts(text), parts(with_tag(text, tag))
    assert [part for part in after if is_tag(part)] == ([] if tag is None else [tag])
    assert [part for part in after if part and not is_tag(part)] == [
        part for part in before if part and not is_tag(part)
    ]
    first_line = len(re.match(r"[^\r\n]*", text)[0])
    assert with_tag(text, tag).endswith(text[first_line:])
    assert with_tag(text, tag).startswith("\ufeff") == text.startswith("\ufeff")


@given(
    contents=some.lists(
        some.none() | some.binary(max_size=12) | TEXTS.map(lambda text: text.encode("utf-8", "ignore")),
        min_size=1,
        max_size=4,
    ),
    tags=some.lists(TAGS, min_size=1, max_size=3),
)
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_undoing_restores_every_byte_and_removes_what_was_not_there(tmp_path_factory, contents, tags):
    folder = tmp_path_factory.mktemp("captions")
    files = [folder / f"{number}.txt" for number in range(len(contents))]
    for file, content in zip(files, contents, strict=True):
        if content is not None:
            file.write_bytes(content)
    undo_files = []
    for number, tag in enumerate(tags):
        undo_files.append(UndoFile(folder / f"undo-{number}.jsonl"))
        for file in files:
            try:
                write_tag(file, tag, undo_files[-1])
            except NotACaption:
                assert file.read_bytes() == contents[files.index(file)]
    for undo_file in reversed(undo_files):
        if undo_file.n_changes:
            assert undo_ratings(undo_file.file).left == []
    assert [file.read_bytes() if file.exists() else None for file in files] == contents


def test_a_new_caption_is_the_tag_on_a_line_and_none_is_made_for_no_tag(tmp_path):
    undo_file = UndoFile(undo_file_of_captions(tmp_path, datetime(2026, 1, 1)))
    assert write_tag(tmp_path / "a.txt", "score_9", undo_file)
    assert (tmp_path / "a.txt").read_bytes() == b"score_9\n"
    assert not write_tag(tmp_path / "a.txt", "score_9", undo_file)
    assert not write_tag(tmp_path / "b.txt", None, undo_file)
    assert not (tmp_path / "b.txt").exists()
    assert undo_file.n_changes == 1


@pytest.mark.parametrize("content", ["cat\xe9".encode("latin-1"), "cat".encode("utf-16"), b"x" * (2**20 + 1)])
def test_what_is_no_caption_is_left_as_it_is(tmp_path, content):
    (tmp_path / "a.txt").write_bytes(content)
    with pytest.raises(NotACaption, match=r"a\.txt"):
        write_tag(tmp_path / "a.txt", "score_9", UndoFile(tmp_path / "undo.jsonl"))
    assert (tmp_path / "a.txt").read_bytes() == content
    assert not (tmp_path / "undo.jsonl").exists()


def test_a_caption_that_cannot_be_read_is_an_error(tmp_path):
    (tmp_path / "a.txt").mkdir()
    with pytest.raises(UserError, match="cannot be read"):
        tagged(tmp_path / "a.txt", "score_9")


def test_a_link_stays_a_link_and_its_file_gets_the_tag(tmp_path):
    (tmp_path / "kept.txt").write_text("cat")
    try:
        (tmp_path / "a.txt").symlink_to("kept.txt")
    except OSError:
        pytest.skip("this system makes no symbolic links")
    write_tag(tmp_path / "a.txt", "score_9", UndoFile(tmp_path / "undo.jsonl"))
    assert (tmp_path / "a.txt").is_symlink()
    assert (tmp_path / "kept.txt").read_text() == "score_9, cat"
    undo_ratings(tmp_path / "undo.jsonl")
    assert (tmp_path / "kept.txt").read_text() == "cat"


def test_a_caption_of_two_pictures_gets_a_tag_only_if_they_agree(tmp_path):
    tags = {
        "a.jpg": "score_9",
        "a.png": "score_8_up",
        "b.jpg": None,
        "b.png": None,
        "sub/a.jpg": "score_9",
        "c.x.jpg": "x",
    }
    plan = plan_captions(tmp_path, tags, ["a.png", "b.jpg", "b.png", "sub/a.jpg", "c.x.jpg"])
    assert plan.shared == ["a.png"]
    assert plan.tags == {
        tmp_path / "b.txt": None,
        tmp_path / "sub" / "a.txt": "score_9",
        tmp_path / "c.x.txt": "x",
    }


def test_the_caption_has_the_name_of_the_picture():
    assert caption_of(Path("sub/photo.one.JPG")) == Path("sub/photo.one.txt")
