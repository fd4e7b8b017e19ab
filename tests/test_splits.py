"""The split: seeded, by path, and nothing assigned moves."""

import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from src.errors import UserError
from src.splits import assign_splits, read_split_file, write_split_file

paths = st.lists(st.text("abcdefg/", min_size=1, max_size=8), unique=True, max_size=60)


@given(paths, st.floats(0, 1), st.integers(0, 99))
def test_every_image_is_in_one_set_and_eval_has_its_share(names: list[str], fraction: float, seed: int) -> None:
    splits = assign_splits(names, {}, fraction_for_eval=fraction, seed=seed)
    assert list(splits) == names
    n_eval = list(splits.values()).count("eval")
    assert n_eval + list(splits.values()).count("train") == len(names)
    assert abs(n_eval - fraction * len(names)) <= 1


@given(paths, st.integers(0, 99), st.randoms(use_true_random=False))
def test_the_order_of_listing_does_not_matter(names: list[str], seed: int, order: random.Random) -> None:
    shuffled = list(names)
    order.shuffle(shuffled)
    first = assign_splits(names, {}, fraction_for_eval=0.25, seed=seed)
    assert assign_splits(shuffled, {}, fraction_for_eval=0.25, seed=seed) == first


@given(paths, paths, st.integers(0, 99))
def test_new_images_move_nothing_and_keep_the_share(old: list[str], new: list[str], seed: int) -> None:
    before = assign_splits(old, {}, fraction_for_eval=0.25, seed=seed)
    everything = list(dict.fromkeys(old + new))
    after = assign_splits(everything, before, fraction_for_eval=0.25, seed=seed)
    assert {path: after[path] for path in old} == before
    if len(everything) > len(old) and len(old) >= 2:
        assert abs(list(after.values()).count("eval") - 0.25 * len(everything)) <= 1


def test_another_seed_is_another_split() -> None:
    names = [f"{number}.png" for number in range(40)]
    first = assign_splits(names, {}, fraction_for_eval=0.25, seed=1)
    assert assign_splits(names, {}, fraction_for_eval=0.25, seed=2) != first


def test_two_images_are_one_of_each() -> None:
    assert sorted(assign_splits(["a", "b"], {}, fraction_for_eval=0.01, seed=0).values()) == ["eval", "train"]


def test_a_split_file_round_trips(tmp_path: Path) -> None:
    splits = {"sub/ü.png": "train", "b.png": "eval", "c.png": "test"}
    write_split_file(tmp_path / "split.json", splits)
    assert read_split_file(tmp_path / "split.json") == splits


def test_a_split_file_may_list_the_images_of_each_set(tmp_path: Path) -> None:
    (tmp_path / "split.json").write_text('{"train": ["sub\\\\a.png"], "eval": ["b.png"]}')
    assert read_split_file(tmp_path / "split.json") == {"sub/a.png": "train", "b.png": "eval"}


@pytest.mark.parametrize("content", ["{", "[1]", '{"a.png": "training"}', '{"a.png": 3}'])
def test_a_damaged_split_file_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "split.json").write_text(content)
    with pytest.raises(UserError, match=r"split\.json"):
        read_split_file(tmp_path / "split.json")
