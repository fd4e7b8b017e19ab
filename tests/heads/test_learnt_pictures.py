"""Marks of training pictures: copies are recognised, other pictures are not."""

import numpy as np
import pytest

from custom_aesthetic.heads import learnt_pictures
from custom_aesthetic.heads.learnt_pictures import LearntPictures, from_text, is_copy, mark_pictures, to_text


def features(n_images: int, seed: int = 0) -> np.ndarray:
    generator = np.random.default_rng(seed)
    return (generator.random((n_images, 200)) ** 3).astype(np.float32)


def test_copies_are_found_and_other_pictures_are_not() -> None:
    learnt, others = features(300), features(300, seed=1)
    marks = mark_pictures(learnt)
    assert is_copy(learnt[::3], marks).all()
    assert not is_copy(others, marks).any()


def test_a_copy_saved_again_with_small_losses_is_found() -> None:
    learnt = features(300)
    again = learnt * np.random.default_rng(2).normal(1, 0.03, learnt.shape).astype(np.float32)
    assert is_copy(again, mark_pictures(learnt)).mean() > 0.9


def test_copies_are_found_by_half_precision_features() -> None:
    learnt = features(100)
    assert is_copy(learnt.astype(np.float16), mark_pictures(learnt)).all()


def test_similar_training_pictures_are_not_mistaken_for_each_other() -> None:
    line = np.stack([np.arange(24) * 10.0, 128 - np.arange(24), 255 - np.arange(24) * 10.0], axis=1)
    learnt = np.arange(24) % 3 > 0
    np.testing.assert_array_equal(is_copy(line, mark_pictures(line[learnt])), learnt)


def test_the_text_restores_the_marks_and_takes_16_bytes_per_picture() -> None:
    marks = mark_pictures(features(500))
    text = to_text(marks)
    again = from_text(text)
    assert again is not None
    np.testing.assert_array_equal(again.marks, marks.marks)
    assert is_copy(features(500), again).all()
    assert again.is_complete
    assert len(text) < 500 * 16 * 4 / 3 + 1500


def test_of_many_pictures_a_sample_is_marked_and_recorded_as_incomplete(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(learnt_pictures, "MOST_PICTURES", 50)
    marks = mark_pictures(features(80))
    assert len(marks.marks) == 50
    assert not marks.is_complete
    assert is_copy(features(80), marks).sum() == 50


@pytest.mark.parametrize(
    "text",
    [
        *("", "null", "[]", "{}", "[" * 100_000, '{"marks": 3}', '{"marks": "AAAA"}'),
        '{"marks": "", "centre": [], "scale": [], "radius": 1}',
        f'{{"marks": "{"A" * 64}", "centre": [0], "scale": [1], "radius": 1}}',
        f'{{"marks": "{"A" * 64}", "centre": {[0] * 16}, "scale": {[0] * 16}, "radius": 1}}',
        f'{{"marks": "{"A" * 64}", "centre": {[0] * 16}, "scale": {[1] * 16}, "radius": NaN}}',
        f'{{"marks": "{"A" * 64}", "centre": [{"9" * 400}], "scale": {[1] * 16}, "radius": 1}}',
    ],
)
def test_a_damaged_text_gives_none(text: str) -> None:
    assert from_text(text) is None


@pytest.mark.parametrize("n_images", [1, 2])
def test_one_or_two_pictures_are_marked(n_images: int) -> None:
    few = features(n_images)
    marks = mark_pictures(few)
    assert isinstance(marks, LearntPictures)
    assert is_copy(few, marks).all()
