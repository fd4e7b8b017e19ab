"""What answers of every kind say about the scores."""

import numpy as np
import pytest

from custom_aesthetic.scores.bradley_terry import fit_scores, flat_prior, standard_errors
from custom_aesthetic.scores.choice_log import make_choice, make_mark, make_pick, make_stars, make_tie
from custom_aesthetic.scores.evidence import LINES, PICK_WEIGHT, STAR_WEIGHT, consistency, evidence, times_shown

ROWS = {name: row for row, name in enumerate([*"abcdef", *LINES])}
HOW = {"seconds": 1.0, "drawn": "random"}


def said(answer) -> list[tuple[str, str, float]]:
    names = list(ROWS)
    found = evidence(answer, ROWS)
    return sorted(
        (names[winner].strip("\0"), names[loser].strip("\0"), round(float(weight), 3))
        for winner, loser, weight in zip(found.winners, found.losers, found.weights, strict=True)
    )


def test_a_choice_among_three_is_two_comparisons():
    assert said(make_choice("a", ["b", "c"], **HOW)) == [("a", "b", 1), ("a", "c", 1)]


def test_a_tie_is_half_a_win_for_each_side():
    assert said(make_tie(["a", "b"], **HOW)) == [("a", "b", 0.5), ("b", "a", 0.5)]


def test_a_pick_weighs_as_much_as_its_pictures_not_as_its_pairs():
    found = evidence(make_pick(["a", "b"], ["c", "d", "e", "f"], **HOW), ROWS)
    assert len(found.weights) == 8
    assert found.weights.sum() == pytest.approx(6 * PICK_WEIGHT)


def test_stars_lie_above_the_lines_below_them_and_below_the_others():
    above = [("a", f"above {stars} stars", STAR_WEIGHT) for stars in (1, 2, 3)]
    assert said(make_stars("a", 4, **HOW)) == sorted([*above, ("above 4 stars", "a", STAR_WEIGHT)])
    assert len(said(make_stars("a", 1, **HOW))) == len(said(make_stars("a", 5, **HOW))) == 4


def test_a_mark_lies_on_one_side_of_a_line():
    assert said([*make_mark("a", keep=True), *make_mark("b", keep=False)]) == [("a", "kept", 1), ("kept", "b", 1)]


def test_the_comparisons_of_an_answer_share_its_number_and_pictures_that_are_not_asked_about_are_left_out():
    rows = [
        *make_choice("a", ["b", "gone"], time="1", **HOW),
        *make_tie(["c", "d"], time="2", **HOW),
        *make_choice("e", ["f"], time="3", **HOW),
    ]
    found = evidence(rows[::-1], ROWS)
    assert found.answers.tolist() == [0, 1, 1, 2]
    assert found.is_choice.tolist() == [True, False, False, True]
    assert len(evidence([], ROWS).winners) == 0


def test_every_answer_counts_as_showing_its_pictures():
    rows = [
        *make_choice("a", ["b"], time="1", **HOW),
        *make_tie(["a", "c"], time="2", **HOW),
        *make_pick(["a", "b"], ["c", "d"], time="3", **HOW),
        *make_stars("e", 3, time="4", **HOW),
    ]
    assert times_shown(rows, ROWS)[:6].tolist() == [3, 2, 2, 1, 1, 0]


def test_a_comparison_with_weight_two_is_like_two_comparisons():
    winners, losers, weights = np.array([0, 1, 0]), np.array([1, 2, 2]), np.array([2.0, 1.0, 1.0])
    prior = flat_prior(3)
    doubled = np.append(winners, 0), np.append(losers, 1)
    scores = fit_scores(winners, losers, prior, weights=weights)
    np.testing.assert_allclose(scores, fit_scores(*doubled, prior), atol=1e-5)
    np.testing.assert_allclose(
        standard_errors(scores, winners, losers, prior, weights=weights),
        standard_errors(scores, *doubled, prior),
    )


def test_equal_pictures_come_closer_and_nothing_else_moves():
    rows = [*make_choice("a", ["b"], time="1", **HOW), *make_choice("c", ["d"], time="1b", **HOW)]
    tied = [*rows, *(row for i in range(3) for row in make_tie(["a", "b"], time=f"2{i}", **HOW))]
    without, with_ties = (
        fit_scores(*found[:2], flat_prior(len(ROWS)), weights=found[2]) for found in map(both, (rows, tied))
    )
    assert with_ties[0] - with_ties[1] < 0.6 * (without[0] - without[1])
    assert without[2] == pytest.approx(with_ties[2])


def both(rows):
    return evidence(rows, ROWS)


def test_stars_alone_order_the_pictures_and_the_lines_stand_between_them():
    generator, n_pictures = np.random.default_rng(0), 200
    names = {f"{number}.png": number for number in range(n_pictures)}
    truth = 1.5 * generator.normal(size=n_pictures)
    lines = np.array([-2.0, -0.7, 0.4, 1.8])
    rows = [
        row
        for name, number in names.items()
        for again in range(3)
        for row in make_stars(
            name, 1 + int((truth[number] + generator.logistic() > lines).sum()), time=f"{number}-{again}", **HOW
        )
    ]
    rows_of = {**names, **{line: n_pictures + place for place, line in enumerate(LINES)}}
    found = evidence(rows, rows_of)
    scores = fit_scores(*found[:2], flat_prior(len(rows_of)), weights=found.weights)
    assert np.corrcoef(scores[:n_pictures], truth)[0, 1] > 0.75, "at most 0.82, by the noise of three answers"
    np.testing.assert_allclose(scores[n_pictures : n_pictures + 4], lines, atol=0.5)


def test_pairs_shown_again_tell_how_consistent_the_answers_are():
    again = {"seconds": 1.0, "drawn": "repeat"}
    rows = []
    for number in range(10):
        rows += make_choice("a", [f"{number}"], time=f"1{number}", **HOW)
        if number < 8:
            rows += make_choice("a", [f"{number}"], time=f"2{number}", **again)
        elif number == 8:
            rows += make_tie(["a", f"{number}"], time=f"2{number}", **again)
        else:
            rows += make_choice(f"{number}", ["a"], time=f"2{number}", **again)
    found = consistency(rows[::-1])
    assert (found.repeats, found.same) == (10, 8.5)
    assert 0.4 < found.low < 0.8 < found.high < 1
    q = found.ceiling
    assert q**2 + (1 - q) ** 2 == pytest.approx(0.85)
    assert consistency(rows[:1]) is None
    assert consistency(rows[:2]).ceiling is None, "one pair says nothing"


def test_inconsistent_answers_have_no_ceiling_above_chance():
    rows = [
        row
        for number in range(6)
        for row in (
            *make_choice("a", [f"{number}"], time=f"1{number}", **HOW),
            *make_choice(f"{number}", ["a"], time=f"2{number}", seconds=1, drawn="repeat"),
        )
    ]
    assert consistency(rows).same == 0
    assert consistency(rows).ceiling is None
