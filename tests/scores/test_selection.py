"""Which pictures are selected by their scores, and how many stars they get."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as some

from custom_aesthetic.base.errors import UserError
from custom_aesthetic.scores.selection import check_selected, select, stars

SCORES = np.array([0.5, 3.0, -1.0, 2.0, 3.0])


def test_without_a_condition_all_come_best_first_and_ties_in_their_order():
    assert select(SCORES).tolist() == [1, 4, 3, 0, 2]


@pytest.mark.parametrize(
    "conditions, rows",
    [
        ({"top": 2}, [1, 4]),
        ({"top": 99}, [1, 4, 3, 0, 2]),
        ({"above": 2.0}, [1, 4]),
        ({"above": 1.9}, [1, 4, 3]),
        ({"percentile": 50}, [1, 4]),
        ({"percentile": 0}, [1, 4, 3, 0]),
        ({"percentile": 100}, []),
        ({"above": 0, "top": 3, "percentile": 10}, [1, 4, 3]),
    ],
)
def test_conditions_hold_together(conditions, rows):
    assert select(SCORES, **conditions).tolist() == rows


@given(some.lists(some.floats(-10, 10), min_size=1, max_size=50), some.floats(0, 100))
def test_a_percentile_keeps_at_most_its_share(scores, percentile):
    kept = select(np.array(scores), percentile=percentile)
    assert len(kept) <= (1 - percentile / 100) * len(scores) + 1


@given(some.lists(some.integers(-5, 5), min_size=1, max_size=60))
def test_stars_follow_the_scores_and_are_equal_for_equal_ones(scores):
    given_stars = stars(np.array(scores, dtype=float))
    for one, other, a, b in zip(scores, scores[1:], given_stars, given_stars[1:], strict=False):
        assert (a <= b) if one < other else (a >= b) if one > other else (a == b)
    assert given_stars.min() >= 1
    assert given_stars.max() <= 5


def test_a_hundred_different_scores_give_twenty_pictures_each_star():
    assert np.bincount(stars(np.random.default_rng(0).permutation(100).astype(float))).tolist() == [
        0,
        20,
        20,
        20,
        20,
        20,
    ]


def test_nothing_selected_is_an_error_that_names_the_options():
    with pytest.raises(UserError, match="--above"):
        check_selected(0, 10)
