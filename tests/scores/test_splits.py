"""The split: seeded, by path, and existing assignments do not change."""

import hashlib
import logging
import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from custom_aesthetic.base.errors import UserError
from custom_aesthetic.scores.splits import (
    assign_splits,
    cut_groups,
    read_split_file,
    warn_of_cut_groups,
    write_split_file,
)

paths = st.lists(st.text("abcdefg/", min_size=1, max_size=8), unique=True, max_size=60)


@given(paths, st.floats(0, 1), st.integers(0, 99))
def test_every_image_is_in_one_set_and_eval_has_its_fraction(names: list[str], fraction: float, seed: int) -> None:
    splits = assign_splits(names, {}, fraction_for_eval=fraction, seed=seed)
    assert list(splits) == names
    n_eval = list(splits.values()).count("eval")
    assert n_eval + list(splits.values()).count("train") == len(names)
    assert abs(n_eval - fraction * len(names)) <= 1


@given(paths, st.integers(0, 99), st.randoms(use_true_random=False))
def test_the_order_of_the_images_does_not_matter(names: list[str], seed: int, order: random.Random) -> None:
    shuffled = list(names)
    order.shuffle(shuffled)
    first = assign_splits(names, {}, fraction_for_eval=0.25, seed=seed)
    assert assign_splits(shuffled, {}, fraction_for_eval=0.25, seed=seed) == first


@given(paths, paths, st.integers(0, 99))
def test_new_images_do_not_change_assignments_and_keep_the_fraction(old: list[str], new: list[str], seed: int) -> None:
    before = assign_splits(old, {}, fraction_for_eval=0.25, seed=seed)
    everything = list(dict.fromkeys(old + new))
    after = assign_splits(everything, before, fraction_for_eval=0.25, seed=seed)
    assert {path: after[path] for path in old} == before
    if len(everything) > len(old) and len(old) >= 2:
        assert abs(list(after.values()).count("eval") - 0.25 * len(everything)) <= 1


def test_names_that_are_not_utf_8_can_be_split() -> None:
    names = [f"{number}\udcff.png" for number in range(8)]
    assert list(assign_splits(names, {}, fraction_for_eval=0.25, seed=1).values()).count("eval") == 2


def test_another_seed_gives_another_split() -> None:
    names = [f"{number}.png" for number in range(40)]
    first = assign_splits(names, {}, fraction_for_eval=0.25, seed=1)
    assert assign_splits(names, {}, fraction_for_eval=0.25, seed=2) != first


def test_two_images_are_split_into_one_of_each_set() -> None:
    assert sorted(assign_splits(["a", "b"], {}, fraction_for_eval=0.01, seed=0).values()) == ["eval", "train"]


def test_a_split_file_round_trips(tmp_path: Path) -> None:
    splits = {"sub/ü.png": "train", "b.png": "eval", "c.png": "test", "odd\udcff\n\r.png": "train"}
    write_split_file(tmp_path / "split.json", splits)
    assert read_split_file(tmp_path / "split.json") == splits


def test_a_split_file_may_list_the_images_of_each_set(tmp_path: Path) -> None:
    (tmp_path / "split.json").write_text('{"train": ["sub\\\\a.png"], "eval": ["b.png"]}')
    assert read_split_file(tmp_path / "split.json") == {"sub/a.png": "train", "b.png": "eval"}


@pytest.mark.parametrize(
    "content",
    [
        *("{", "[1]", '{"a.png": "training"}', '{"a.png": 3}', '{"a.png": NaN}', '{"a.png": {"x": "train"}}', "NaN"),
        *('{"train": [["a.png"]]}', '{"train": [{}]}', '{"train": [NaN]}', '{"a.png": [], "b.png": "train"}'),
        *('{"train": ' + "[" * 100_000, '{"train": ' + "[" * 400 + "]" * 400 + "}", '{"a.png": ' + "9" * 5000 + "}"),
    ],
)
def test_a_damaged_split_file_is_an_error_that_names_it(tmp_path: Path, content: str) -> None:
    (tmp_path / "split.json").write_text(content)
    with pytest.raises(UserError, match=r"split\.json"):
        read_split_file(tmp_path / "split.json")


def first_assignment(names: list[str], known: dict[str, str], fraction: float, seed: int) -> dict[str, str]:
    """Return the split into two sets without groups by the plain rule: the first by hash fill eval."""
    new = sorted(set(names) - set(known), key=lambda path: hashlib.sha256(f"{seed}:{path}".encode()).digest())
    wanted = round(fraction * len(names))
    if len(names) >= 2 and 0 < fraction < 1:
        wanted = min(max(wanted, 1), len(names) - 1)
    n_new = min(max(wanted - list(known.values()).count("eval"), 0), len(new))
    found = known | dict.fromkeys(new[:n_new], "eval") | dict.fromkeys(new[n_new:], "train")
    return {path: found[path] for path in names}


@given(paths, st.data(), st.floats(0, 1), st.integers(0, 99))
def test_without_test_set_and_groups_the_split_follows_the_plain_rule(
    names: list[str], data: st.DataObject, fraction: float, seed: int
) -> None:
    known = data.draw(st.dictionaries(st.sampled_from(names), st.sampled_from(("train", "eval")))) if names else {}
    found = assign_splits(names, known, fraction_for_eval=fraction, seed=seed)
    assert found == first_assignment(names, known, fraction, seed)
    assert assign_splits(names, known, fraction_for_eval=fraction, seed=seed, groups={}) == found


@given(paths, st.floats(0, 0.5), st.floats(0, 0.4), st.integers(0, 99))
def test_a_test_set_has_its_fraction(names: list[str], for_eval: float, for_test: float, seed: int) -> None:
    splits = assign_splits(names, {}, fraction_for_eval=for_eval, seed=seed, fraction_for_test=for_test)
    counts = [list(splits.values()).count(name) for name in ("train", "eval", "test")]
    assert sum(counts) == len(names)
    assert abs(counts[1] - for_eval * len(names)) <= 1.5
    assert abs(counts[2] - for_test * len(names)) <= 1
    if len(names) >= 3:
        assert counts[0] >= 1
        assert (counts[1] > 0) == (for_eval > 0)
        assert (counts[2] > 0) == (for_test > 0)


@given(paths, st.integers(0, 99))
def test_a_test_set_does_not_change_the_eval_set(names: list[str], seed: int) -> None:
    two = assign_splits(names, {}, fraction_for_eval=0.25, seed=seed)
    three = assign_splits(names, {}, fraction_for_eval=0.25, seed=seed, fraction_for_test=0.2)
    if len(names) >= 4:
        assert {path for path in names if two[path] == "eval"} == {path for path in names if three[path] == "eval"}


def test_an_existing_split_gets_a_test_set_only_from_new_images() -> None:
    old = [f"{number}.png" for number in range(40)]
    before = assign_splits(old, {}, fraction_for_eval=0.25, seed=1)
    assert assign_splits(old, before, fraction_for_eval=0.25, seed=1, fraction_for_test=0.2) == before
    more = [*old, *(f"new {number}.png" for number in range(20))]
    after = assign_splits(more, before, fraction_for_eval=0.25, seed=1, fraction_for_test=0.2)
    assert {path: after[path] for path in old} == before
    assert list(after.values()).count("test") == 12
    assert list(after.values()).count("eval") == 15
    assert assign_splits(more, after, fraction_for_eval=0.25, seed=1, fraction_for_test=0.2) == after
    last = [*more, *(f"newer {number}.png" for number in range(20))]
    grown = assign_splits(last, after, fraction_for_eval=0.25, seed=1, fraction_for_test=0.2)
    assert list(grown.values()).count("test") == 16


grouped = st.lists(st.integers(0, 30), min_size=1, max_size=60)


@given(grouped, st.sampled_from((0.0, 0.2)), st.integers(0, 99))
def test_a_new_split_keeps_groups_together_and_meets_the_fractions_approximately(
    numbers: list[int], for_test: float, seed: int
) -> None:
    groups = {f"{index}.png": str(number) for index, number in enumerate(numbers)}
    splits = assign_splits(
        list(groups), {}, fraction_for_eval=0.25, seed=seed, fraction_for_test=for_test, groups=groups
    )
    assert cut_groups(splits, groups) == []
    largest = max(numbers.count(number) for number in numbers)
    assert abs(list(splits.values()).count("eval") - 0.25 * len(numbers)) <= largest + 1
    assert abs(list(splits.values()).count("test") - for_test * len(numbers)) <= largest + 1
    assert "train" in splits.values() or len(set(numbers)) < 3


@given(grouped, st.integers(0, 99))
def test_the_name_of_a_group_does_not_matter(numbers: list[int], seed: int) -> None:
    groups = {f"{index}.png": str(number) for index, number in enumerate(numbers)}
    renamed = {path: f"group {99 - int(name)}" for path, name in groups.items()}
    found = assign_splits(list(groups), {}, fraction_for_eval=0.25, seed=seed, groups=groups)
    assert assign_splits(list(groups), {}, fraction_for_eval=0.25, seed=seed, groups=renamed) == found


def test_new_members_join_their_group_and_assignments_do_not_change() -> None:
    known = {"a1": "eval", "b1": "train", "b2": "eval", "b3": "train", "c1": "test"}
    groups = {path: path[0] for path in (*known, "a2", "b4", "c2", "c3")}
    found = assign_splits(list(groups), known, fraction_for_eval=0.25, seed=3, groups=groups)
    assert found == known | {"a2": "eval", "b4": "train", "c2": "test", "c3": "test"}


def test_a_warning_names_groups_that_an_existing_split_divides(caplog: pytest.LogCaptureFixture) -> None:
    splits = {"a1": "eval", "a2": "train", "b1": "train", "b2": "train", "c": "eval"}
    groups = {"a1": "a1", "a2": "a1", "b1": "b1", "b2": "b1", "gone": "c"}
    assert cut_groups(splits, groups) == [("a1", "a2")]
    with caplog.at_level(logging.WARNING):
        warn_of_cut_groups(splits, {"b1": "b1", "b2": "b1"})
        assert not caplog.text
        warn_of_cut_groups(splits, groups)
    assert "1 groups of near-duplicate images" in caplog.text
    assert "a1 = a2" in caplog.text
