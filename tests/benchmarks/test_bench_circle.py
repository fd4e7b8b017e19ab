"""The simulated circle from choices to a taste: the session's answers, and what is learnt from them."""

import itertools
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from benchmarks.bench_circle import (
    SESSIONS,
    Person,
    Score,
    lines_of,
    make_people,
    moments_of_session,
    run_person,
    run_program,
)
from benchmarks.choice_methods import (
    Answers,
    answers_by_information,
    answers_by_trueskill,
    elo,
    heads_from_choices,
    information,
    linear_from_choices,
)

RANDOM = np.random.default_rng(6)
N_SHOWN, N_NEW, N_FEATURES = 40, 60, 12
FEATURES = RANDOM.normal(size=(N_SHOWN + N_NEW, N_FEATURES))
TASTE = FEATURES @ RANDOM.normal(size=N_FEATURES)
RATINGS = np.round(5 + 0.5 * TASTE)


@pytest.fixture
def person() -> Person:
    parts = [values[rows] for rows in (slice(N_SHOWN), slice(N_SHOWN, None)) for values in (FEATURES, RATINGS)]
    return Person("rater 0", *parts, TASTE[:N_SHOWN], TASTE[N_SHOWN:], 3, (20, 60))


@pytest.mark.parametrize("pairs", SESSIONS)
def test_the_session_is_answered_by_the_ratings(person: Person, pairs: str, tmp_path: Path) -> None:
    early, late = moments_of_session(person, pairs, tmp_path)
    assert (early.n_choices, late.n_choices) == (20, 60)
    assert len((tmp_path / "comparisons.csv").read_text().splitlines()) >= 61
    leads = person.ratings[late.answers.winners] - person.ratings[late.answers.losers]
    says_ties = pairs.endswith("ties")
    assert (leads > 0 if says_ties else leads >= 0).all()
    assert len(leads) < 60 if says_ties else len(leads) == 60
    drawn = {line.split(",")[-1] for line in (tmp_path / "comparisons.csv").read_text().splitlines()[1:]}
    assert ("model" in drawn) == pairs.startswith("model")
    assert np.corrcoef(late.scores[late.shown], person.ratings[late.shown])[0, 1] > 0.7


def test_every_method_learns_the_taste_and_the_table_shows_it(person: Person) -> None:
    scores = run_person(person)
    late = {(score.pairs, score.learning): score.spearman for score in scores if score.n_choices == 60}
    assert len(late) == 17
    assert min(late.values()) > 0.5
    lines = lines_of([*scores, *(score._replace(person="rater 1") for score in scores)], (20, 60))
    assert len(lines) == 1 + len(late)
    assert f"{late['adaptive', 'choices']:.3f}" in next(
        line for line in lines if line.startswith("adaptive     choices")
    )


def test_the_interval_of_a_difference_is_that_of_few_raters() -> None:
    gains = np.array([0.01, 0.02, 0.06, 0.03])
    scores = [Score(f"rater {row}", "random", "scores", 50, 0.3) for row in range(4)]
    scores += [Score(f"rater {row}", "adaptive", "scores", 50, 0.3 + gain) for row, gain in enumerate(gains)]
    low, high = stats.t.interval(0.95, 3, gains.mean(), stats.sem(gains))
    assert lines_of(scores, (50,))[-1].endswith(f"0.330 +0.030±{(high - low) / 2:.3f}")


def test_the_information_of_an_answer_is_that_of_many_draws() -> None:
    lead, variance = 0.7, 2.0
    draws = 1 / (1 + np.exp(-RANDOM.normal(lead, variance**0.5, 400_000)))
    entropy = lambda chance: -chance * np.log(chance) - (1 - chance) * np.log(1 - chance)  # noqa: E731
    expected = entropy(draws.mean()) - entropy(draws).mean()
    assert information(np.array([lead]), np.array([variance]))[0] == pytest.approx(expected, abs=2e-3)
    assert information(np.zeros(2), np.array([0.0, 1.0])).argmax() == 1


def test_pairs_by_information_are_never_asked_twice_in_a_row_and_order_the_pictures() -> None:
    truth = np.arange(12.0)
    answers = answers_by_information(12, 60, lambda a, b: (a, b) if truth[a] > truth[b] else (b, a))
    pairs = [frozenset(pair) for pair in zip(*answers, strict=True)]
    assert all(before != after for before, after in itertools.pairwise(pairs))
    assert np.corrcoef(elo(12, answers), truth)[0, 1] > 0.8


def test_trueskill_never_asks_a_pair_twice_in_a_row_and_orders_the_pictures() -> None:
    truth = np.arange(12.0)
    moments = answers_by_trueskill(12, (30, 60), lambda a, b: (a, b) if truth[a] > truth[b] else (b, a))
    scores, answers = moments[60]
    assert [len(moments[number][1].winners) for number in (30, 60)] == [30, 60]
    assert (answers.winners > answers.losers).all()
    pairs = [frozenset(pair) for pair in zip(*answers, strict=True)]
    assert all(before != after for before, after in itertools.pairwise(pairs))
    assert np.corrcoef(scores, truth)[0, 1] > 0.9


def test_heads_learn_a_linear_taste_from_choices_and_its_opposite_from_opposite_ones() -> None:
    first, second = RANDOM.integers(N_SHOWN, size=(2, 200))
    kept = TASTE[first] > TASTE[second]
    answers = Answers(first[kept], second[kept])
    turned = Answers(second[kept], first[kept])
    right, wrong = (
        heads_from_choices(FEATURES[:N_SHOWN], one, FEATURES[N_SHOWN:], seed=1) for one in (answers, turned)
    )
    assert np.corrcoef(right, TASTE[N_SHOWN:])[0, 1] > 0.7
    assert np.corrcoef(wrong, TASTE[N_SHOWN:])[0, 1] < -0.7


@pytest.mark.slow
def test_the_shortest_call_learns_from_what_the_session_wrote(person: Person) -> None:
    scores = run_program(person._replace(checkpoints=(60,)))
    assert {(score.pairs, score.learning) for score in scores} == {
        (pairs, "program") for pairs in ("random", "model", "model, ties")
    }
    assert min(score.spearman for score in scores) > 0.5


def test_choices_of_a_linear_taste_give_it_back() -> None:
    first, second = RANDOM.integers(N_SHOWN, size=(2, 150))
    kept = first != second
    first, second = first[kept], second[kept]
    wins = TASTE[first] > TASTE[second]
    answers = Answers(np.where(wins, first, second), np.where(wins, second, first))
    found = linear_from_choices(FEATURES[:N_SHOWN], answers, FEATURES[N_SHOWN:])
    assert np.corrcoef(found, TASTE[N_SHOWN:])[0, 1] > 0.9
    assert np.corrcoef(linear_from_choices(FEATURES[:N_SHOWN], Answers(*answers[::-1]), FEATURES[N_SHOWN:]), found)[
        0, 1
    ] == pytest.approx(-1)


def test_the_prior_of_a_rater_is_taught_by_the_others_on_other_pictures(data_folder: Path) -> None:
    people = make_people(data_folder / "raters", n_raters=4, n_draws=1, checkpoints=(50,))
    assert {len(person.ratings) for person in people} == {200}
    assert 0.1 < np.mean([np.corrcoef(person.new_prior, person.new_ratings)[0, 1] for person in people]) < 0.6
