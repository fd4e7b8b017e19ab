"""Folds: a partition by path and seed that does not divide groups."""

import random

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from custom_aesthetic.scores.folds import fold_levels, make_folds

numbers = st.lists(st.integers(0, 40), min_size=2, max_size=60)


@settings(max_examples=40)
@given(numbers, st.integers(2, 7), st.integers(0, 99), st.data())
def test_each_row_is_left_out_once_and_used_for_training_in_the_other_folds(
    groups: list[int], n_folds: int, seed: int, data: st.DataObject
) -> None:
    paths = [f"{index}.png" for index in range(len(groups))]
    rows = np.array(sorted(data.draw(st.sets(st.integers(0, len(groups) - 1), min_size=2))))
    by_path = dict(zip(paths, map(str, groups), strict=True))
    folds = make_folds(paths, rows, n_folds, seed=seed, groups=by_path)
    assert len(folds) == min(n_folds, len({groups[row] for row in rows}))
    assert sorted(row for _, left_out in folds for row in left_out) == rows.tolist()
    for training, left_out in folds:
        assert sorted([*training, *left_out]) == rows.tolist()
        assert not {groups[row] for row in training} & {groups[row] for row in left_out}


@settings(max_examples=40)
@given(st.integers(2, 60), st.integers(2, 7))
def test_without_groups_fold_sizes_differ_by_at_most_one(n_images: int, n_folds: int) -> None:
    paths = [f"{index}.png" for index in range(n_images)]
    sizes = [len(left_out) for _, left_out in make_folds(paths, np.arange(n_images), n_folds, seed=0)]
    assert max(sizes) - min(sizes) <= 1


@settings(max_examples=40)
@given(st.integers(0, 99), st.randoms(use_true_random=False))
def test_folds_do_not_depend_on_the_order_of_the_images(seed: int, order: random.Random) -> None:
    paths = [f"{index}.png" for index in range(30)]
    shuffled = list(paths)
    order.shuffle(shuffled)
    rows = np.arange(30)
    first = [{paths[row] for row in left} for _, left in make_folds(paths, rows, 4, seed=seed)]
    assert [{shuffled[row] for row in left} for _, left in make_folds(shuffled, rows, 4, seed=seed)] == first
    groups = {path: path[0] for path in paths}
    together = [{paths[row] for row in left} for _, left in make_folds(paths, rows, 3, seed=seed, groups=groups)]
    found = make_folds(shuffled, rows, 3, seed=seed, groups=groups)
    assert [{shuffled[row] for row in left} for _, left in found] == together


def test_another_seed_gives_other_folds() -> None:
    paths, rows = [f"{index}.png" for index in range(30)], np.arange(30)
    first = make_folds(paths, rows, 3, seed=0)[0][1]
    assert make_folds(paths, rows, 3, seed=1)[0][1].tolist() != first.tolist()


def test_without_the_levels_of_the_folds_a_constant_model_is_constant_out_of_fold() -> None:
    scores = np.random.default_rng(2).normal(size=12)
    rows = np.arange(9)
    folds = [(np.setdiff1d(rows, part), part) for part in np.split(rows, 3)]
    unseen = np.full(12, scores[rows].mean())
    for learnt, left_out in folds:
        unseen[left_out] = scores[learnt].mean()
    assert np.ptp(unseen[rows]) > 0.1
    np.testing.assert_allclose(unseen - fold_levels(scores, folds), scores[rows].mean())
