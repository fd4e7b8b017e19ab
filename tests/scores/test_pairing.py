"""Choice of the pictures to show next."""

from dataclasses import replace

import numpy as np
import pytest

from custom_aesthetic.scores.pairing import (
    SHOWN_BEFORE_THE_TOP,
    Standing,
    draw_group,
    features_gain,
    may_be_the_best,
    pair_gain,
)


def standing(n_pictures: int = 20, seed: int = 0) -> Standing:
    generator = np.random.default_rng(seed)
    shown, axes = generator.integers(3, 6, size=n_pictures), generator.normal(size=(n_pictures, 4))
    return Standing(np.linspace(-3, 3, n_pictures), np.full(n_pictures, 0.5), shown, axes)


@pytest.mark.parametrize("strategy", ["adaptive", "random", "model"])
@pytest.mark.parametrize("number", [2, 3, 4])
def test_a_group_has_the_requested_number_of_different_pictures(strategy, number):
    generator = np.random.default_rng(0)
    for _ in range(50):
        group, drawn = draw_group(standing(), generator, number=number, strategy=strategy)
        assert len(set(group)) == number
        assert drawn in (strategy, "random")


def without_features(standing: Standing) -> Standing:
    return replace(standing, axes=None)


def test_adaptive_pairs_have_closer_scores_than_random_ones():
    generator = np.random.default_rng(1)

    def mean_distance(strategy: str) -> float:
        pairs = [draw_group(without_features(standing(100)), generator, strategy=strategy)[0] for _ in range(300)]
        return float(np.mean([abs(a - b) for a, b in pairs]))

    assert mean_distance("adaptive") < 0.6 * mean_distance("random")


def test_a_small_share_of_adaptive_pairs_is_random():
    generator = np.random.default_rng(2)
    drawn = [draw_group(without_features(standing()), generator)[1] for _ in range(1000)]
    assert 0.06 < drawn.count("random") / 1000 < 0.14


def test_a_seldom_shown_picture_is_drawn():
    state = without_features(standing())
    state.shown[7] = 0
    generator = np.random.default_rng(3)
    groups = [group for group, drawn in (draw_group(state, generator) for _ in range(50)) if drawn == "adaptive"]
    assert all(7 in group for group in groups)


def test_uncertain_and_close_partners_have_a_higher_gain():
    state = Standing(np.array([0.0, 0.1, 3.0, 0.1]), np.array([1.0, 1.0, 1.0, 2.0]), np.zeros(4))
    close, far, uncertain = pair_gain(state, 0, np.array([1, 2, 3]))
    assert uncertain > close > far


@pytest.mark.parametrize("strategy", ["adaptive", "random", "model"])
def test_the_same_pair_is_never_drawn_twice_in_a_row(strategy):
    generator = np.random.default_rng(4)
    state, last = standing(3), frozenset[int]()
    for _ in range(200):
        group = frozenset(draw_group(state, generator, strategy=strategy, avoid=[last])[0])
        assert group != last
        last = group


def test_two_pictures_are_shown_again_if_there_are_no_others():
    group, _ = draw_group(standing(2), np.random.default_rng(5), avoid=[frozenset({0, 1})])
    assert set(group) == {0, 1}


def test_the_better_picture_is_equally_often_on_both_sides():
    state, generator = without_features(standing()), np.random.default_rng(6)
    left = [group[0] > group[1] for group, _ in (draw_group(state, generator) for _ in range(600))]
    assert 0.42 < np.mean(left) < 0.58


def test_pictures_are_drawn_from_ten_thousand():
    state, generator = without_features(standing(10_000)), np.random.default_rng(7)
    assert len({picture for _ in range(50) for picture in draw_group(state, generator)[0]}) > 50


def test_a_model_that_knows_the_taste_draws_a_part_of_the_pairs_at_the_top():
    generator = np.random.default_rng(4)
    state = standing(400)
    top = set(may_be_the_best(state).tolist())
    assert top == set(range(360, 400))

    def share_at_the_top() -> float:
        groups = [draw_group(state, generator, strategy="model") for _ in range(600)]
        assert {drawn for _, drawn in groups} == {"model"}
        return sum(set(group) <= top for group, _ in groups) / 600

    assert 0.25 < share_at_the_top() < 0.42
    state.shown[:] = 0
    state.shown[: SHOWN_BEFORE_THE_TOP - 1] = 1
    assert share_at_the_top() < 0.1


def test_pictures_that_features_find_alike_tell_little_and_so_does_an_axis_that_is_known():
    axes = np.array([[1.2, 0, 0], [1.2, 0, 0], [0, 1.2, 0], [0, 0, 0.1]])
    gain = features_gain(np.zeros(4), axes, np.zeros(4))
    assert gain[0, 2] == gain[1, 2] > gain[0, 3] > gain[0, 1] > 0
    np.testing.assert_array_equal(gain, gain.T)


def test_pictures_seldom_shown_and_close_ones_tell_more_than_others_with_such_features():
    gain = features_gain(np.array([0, 0, 0, 3.0]), np.eye(4), np.array([0, 0, 9, 0]))
    assert gain[0, 1] > gain[0, 2]
    assert gain[0, 1] > gain[0, 3]


def test_a_model_draws_unlike_pictures_of_those_shown_least():
    generator = np.random.default_rng(8)
    kinds = np.arange(400) % 4
    state = Standing(np.zeros(400), np.ones(400), (np.arange(400) >= 240).astype(int), 2 * np.eye(4)[kinds])
    groups = [draw_group(state, generator, strategy="model", number=3)[0] for _ in range(100)]
    assert max(max(group) for group in groups) < 240
    unlike = sum(kinds[group[0]] != kinds[group[1]] for group in groups)
    assert unlike > 90
    assert len({picture for group in groups for picture in group}) > 60


def test_an_uncertain_picture_may_be_among_the_best():
    state = standing(400)
    state.sigmas[10] = 9.0
    assert 10 in may_be_the_best(state)


def test_a_model_of_two_pictures_draws_the_two():
    state = Standing(np.zeros(2), np.ones(2), np.zeros(2), np.eye(2))
    generator = np.random.default_rng(5)
    assert all(set(draw_group(state, generator, strategy="model")[0]) == {0, 1} for _ in range(20))
