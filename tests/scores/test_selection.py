"""Selection of pictures by their scores, and conversion of scores to stars."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as some

from custom_aesthetic.base.errors import UserError
from custom_aesthetic.scores.selection import check_conditions, check_selected, score_tags, select, stars

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
        ({"worst": 2}, [2, 0]),
        ({"worst": 99}, [2, 0, 3, 1, 4]),
        ({"below": 3.0}, [3, 0, 2]),
        ({"below": 2.9, "above": -1}, [3, 0]),
        ({"below": 3, "worst": 1}, [2]),
        ({"per_group": 1, "groups": "aabba"}, [1, 3]),
        ({"per_group": 2, "groups": "aabba"}, [1, 4, 3, 2]),
        ({"per_group": 1, "groups": "aabba", "top": 1}, [1]),
        ({"per_group": 1, "groups": "aabba", "top": 2}, [1, 3]),
        ({"per_group": 1, "groups": "aabba", "worst": 2}, [2, 0]),
        ({"per_group": 1, "groups": "aabba", "below": 3}, [3, 0]),
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
    with pytest.raises(UserError, match=r"none of the 10 .* --above"):
        check_selected(0, 10, "--above")


@pytest.mark.parametrize(
    ("conditions", "message"),
    [
        ({"top": 3, "worst": 2}, "--top=3 and --worst=2 cannot"),
        ({"above": 5.0, "below": 5.0}, "above 5 and below 5"),
        ({"above": 6.0, "below": 5.0}, "smaller"),
    ],
)
def test_conditions_that_contradict_each_other_are_refused(conditions, message):
    with pytest.raises(UserError, match=message):
        check_conditions(**conditions)


def test_conditions_that_some_score_can_meet_are_accepted():
    check_conditions(top=3, above=-1.0, below=1.0)
    check_conditions(worst=3, below=0.0)


PICTURES = some.lists(some.tuples(some.integers(-4, 4), some.integers(0, 5)), max_size=60)
"""(score, group) of each picture, with many ties."""


@given(PICTURES, some.integers(1, 4), some.booleans())
def test_of_each_group_the_first_in_order_are_kept_and_no_more(pictures, most, worst_first):
    scores = np.array([score for score, _ in pictures], dtype=float)
    groups = [group for _, group in pictures]
    conditions = {"worst": len(pictures) + 1} if worst_first else {}
    rows = select(scores, per_group=most, groups=groups, **conditions).tolist()
    everyone = select(scores, **conditions).tolist()
    assert rows == [row for row in everyone if row in rows]
    for group in set(groups):
        members = [row for row in everyone if groups[row] == group]
        assert [row for row in rows if groups[row] == group] == members[:most]


@given(PICTURES, some.floats(-5, 5), some.integers(1, 70))
def test_a_limit_parts_the_pictures_and_top_and_worst_meet_in_the_middle(pictures, limit, n_best):
    scores = np.array([score for score, _ in pictures], dtype=float)
    above, below = select(scores, above=limit).tolist(), select(scores, below=limit).tolist()
    at = [row for row, score in enumerate(scores) if score == limit]
    assert sorted([*above, *below, *at]) == list(range(len(scores)))
    best, rest = select(scores, top=n_best), select(scores, worst=max(len(scores) - n_best, 0))
    assert len(best) + len(rest) == max(len(scores), len(best))
    assert all(scores[best].min() >= score for score in scores[rest])
    for order, sign in ((best, -1), (rest, 1)):
        assert (np.diff(sign * scores[order]) >= 0).all()


def test_many_pictures_are_selected_in_one_pass():
    scores = np.random.default_rng(0).normal(size=100_000)
    rows = select(scores, per_group=1, groups=range(100_000), worst=3)
    assert rows.tolist() == np.argsort(scores)[:3].tolist()


def test_a_hundred_different_scores_give_ten_pictures_each_tag_and_forty_none():
    scores = np.random.default_rng(0).permutation(100).astype(float)
    tags = score_tags(scores)
    assert [tags.count(f"score_{k}{'_up' * (k < 9)}") for k in range(9, 3, -1)] == [10] * 6
    assert tags.count(None) == 40
    assert tags[int(scores.argmax())] == "score_9"


@pytest.mark.parametrize(
    ("scores", "tags"),
    [
        ([], []),
        ([7.0], ["score_5_up"]),
        ([1.0, 2.0], [None, "score_7_up"]),
        ([3.0, 3.0, 3.0], ["score_5_up"] * 3),
        ([5.0, 4.0, 3.0, 2.0, 1.0], ["score_9", "score_7_up", "score_5_up", None, None]),
    ],
)
def test_a_few_scores_have_tags_by_their_place(scores, tags):
    assert score_tags(np.array(scores)) == tags


@given(some.lists(some.integers(-5, 5), min_size=1, max_size=60))
def test_tags_follow_the_scores_and_are_equal_for_equal_ones(scores):
    rank = {None: 0} | {f"score_{k}{'_up' * (k < 9)}": k for k in range(4, 10)}
    found = [rank[tag] for tag in score_tags(np.array(scores, dtype=float))]
    for one, a in zip(scores, found, strict=True):
        for other, b in zip(scores, found, strict=True):
            assert (a <= b) if one < other else (a >= b) if one > other else (a == b)
