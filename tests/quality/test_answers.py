"""A model judged by a person's answers: the share of pairs is the true one; only scores from answers are so judged."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from scipy.special import expit

from custom_aesthetic.base.arrays import Array
from custom_aesthetic.quality import answers as module
from custom_aesthetic.quality import metrics
from custom_aesthetic.quality.answers import Taste, answers_behind, find_taste, how_often
from custom_aesthetic.quality.baselines import advice
from custom_aesthetic.quality.closing import Judged, closing_lines, find_out
from custom_aesthetic.quality.confidence import ab_interval
from custom_aesthetic.quality.verdict import verdict
from custom_aesthetic.scores.bradley_terry import fit_scores, flat_prior
from custom_aesthetic.scores.choice_log import Comparison, make_choice, make_stars
from custom_aesthetic.scores.score_files import SIGMA, ScoreTable

SPREAD = 1.5


class Person:
    """A person with a known taste, of which features explain a part, and whose answers are noisy."""

    def __init__(self, seed: int, *, n_images: int = 80, share: float = 0.6) -> None:
        self.generator = np.random.default_rng(seed)
        self.features = self.generator.normal(size=(n_images, 10))
        self.known = self.features @ self.generator.normal(size=10) / np.sqrt(10)
        rest = self.generator.normal(size=n_images)
        self.truth = SPREAD * (np.sqrt(share) * self.known + np.sqrt(1 - share) * rest)
        self.paths = tuple(f"{row}.jpg" for row in range(n_images))

    def answer(self, n_answers: int) -> list[Comparison]:
        """Answer random pairs; the first ones show every picture once."""
        order = np.concatenate([self.generator.permutation(len(self.paths)) for _ in range(20)])
        pairs = order[: 2 * n_answers].reshape(-1, 2)
        return [row for number, (first, second) in enumerate(pairs) for row in self._choose(number, first, second)]

    def _choose(self, number: int, first: int, second: int) -> list[Comparison]:
        if first == second:
            return []
        if self.generator.uniform() > expit(self.truth[first] - self.truth[second]):
            first, second = second, first
        return make_choice(self.paths[first], [self.paths[second]], seconds=1, drawn="random", time=f"{number:05}")

    def written(self, answers: Sequence[Comparison]) -> Array:
        """The scores that the A/B page writes."""
        row_of = {path: row for row, path in enumerate(self.paths)}
        winners, losers = np.array([(row_of[row.winner], row_of[row.loser]) for row in answers]).T
        return fit_scores(winners, losers, flat_prior(len(self.paths)))

    def table(self, scores: Array, *, is_made: bool) -> ScoreTable:
        columns = {"score": scores.tolist()} | ({SIGMA: np.ones(len(scores)).tolist()} if is_made else {})
        return ScoreTable(self.paths, columns)

    def taste(self, answers: Sequence[Comparison], predictions: Array | None = None) -> Taste:
        says = self.known if predictions is None else predictions
        found = find_taste(answers, self.table(np.zeros(len(self.paths)), is_made=True), self.features, says)
        assert found is not None
        return found

    def share_right(self, predictions: Array) -> float:
        """The share of all pairs in which the predictions pick what the person would pick if asked once."""
        first, second = np.triu_indices(len(self.truth), 1)
        says = np.sign(predictions[first] - predictions[second])
        return float(expit(says * (self.truth[first] - self.truth[second])).mean())

    @property
    def perfect(self) -> float:
        return self.share_right(self.truth)


def rows_of(person: Person) -> np.ndarray:
    return np.arange(len(person.paths))


@pytest.mark.slow
@pytest.mark.parametrize("n_answers", [80, 160])
def test_the_share_is_the_true_one_however_noisy_the_written_scores_are(n_answers: int) -> None:
    covered, perfect, off, by_scores = [], [], [], []
    for seed in range(12):
        person = Person(seed, share=(0.3, 0.6, 0.9)[seed % 3])
        model = person.known + person.generator.normal(scale=0.3, size=len(person.known))
        answers = person.answer(n_answers)
        taste, truth = person.taste(answers, model), person.share_right(model)
        said, best = taste.share(rows_of(person), model), taste.perfect(rows_of(person))
        covered.append(said.low <= truth <= said.high)
        perfect.append(best.low <= person.perfect <= best.high)
        off.append(said.value - truth)
        by_scores.append(metrics.ab(person.written(answers), model) - truth)
    assert sum(covered) >= 10
    assert sum(perfect) >= 10
    assert abs(np.mean(off)) < 0.03
    assert n_answers > 80 or np.mean(by_scores) < np.mean(off) - 0.01, "what the written scores say is too low"


def test_predictions_that_say_nothing_are_right_in_half_of_the_pairs_and_the_truth_is_best() -> None:
    person = Person(0)
    taste = person.taste(person.answer(200))
    rows = rows_of(person)
    assert taste.share(rows, np.ones(len(rows))).value == pytest.approx(0.5)
    right = taste.share(rows, person.known)
    assert taste.share(rows, -person.known).value == pytest.approx(1 - right.value)
    assert 0.5 < right.value < taste.perfect(rows).value < 1
    assert taste.ahead(rows, person.known, person.known) == (0, 0, 0)
    assert taste.ahead(rows, person.known, -person.known).low > 0


def test_images_are_found_by_their_rows_and_unknown_ones_are_left_out() -> None:
    person = Person(1)
    answers = [row for row in person.answer(80) if "7.jpg" not in (row.winner, row.loser)]
    taste = person.taste(answers)
    rows = rows_of(person)
    assert taste.n_known(rows) == len(rows) - 1
    order = np.random.default_rng(0).permutation(rows)
    assert taste.share(order, person.known[order]) == taste.share(rows, person.known)
    changed = np.where(rows == 7, 99.0, person.known)
    assert taste.share(rows, changed) == taste.share(rows, person.known)
    assert np.isnan(taste.share(rows[:1], person.known[:1]).value)
    assert np.isfinite(taste.share(rows[:2], person.known[:2])).all()


def test_only_scores_that_come_from_the_answers_are_judged_by_them() -> None:
    person = Person(2)
    answers = person.answer(200)
    written = person.written(answers)
    ratings = np.random.default_rng(3).permutation(written)

    def found(answers: Sequence[Comparison], scores: Array, *, is_made: bool = False) -> bool:
        table = person.table(scores, is_made=is_made)
        return find_taste(answers, table, person.features, person.known) is not None

    assert found(answers, 5 + 2 * written)
    assert not found(answers, ratings), "scores of another origin"
    assert found(answers, ratings, is_made=True)
    assert not found(answers, np.ones(len(written))), "equal scores"
    assert not found(answers[:20], written, is_made=True), "most pictures are in no answer"
    few = answers[:20]
    in_few = np.isin(rows_of(person), [person.paths.index(name) for row in few for name in (row.winner, row.loser)])
    assert found(few, np.where(in_few, person.written(few), np.nan)), "others have no score"
    assert not found([], written, is_made=True)


def test_what_the_answers_say_has_the_rows_of_the_images_with_a_score() -> None:
    person = Person(6, n_images=20)
    answers = person.answer(60)
    scores = np.where(rows_of(person) == 3, np.nan, person.written(answers))
    table = person.table(scores, is_made=False)
    found = answers_behind(answers, table, is_made=False)
    assert found is not None
    kept = [row for row in answers if "3.jpg" not in (row.winner, row.loser)]
    assert [person.paths[row] for row in found.winners] == [row.winner for row in kept]
    assert [person.paths[row] for row in found.losers] == [row.loser for row in kept]
    others = [replace(row, winner="x" + row.winner, loser="x" + row.loser) for row in answers]
    assert answers_behind(others, table, is_made=True) is None, "a log of other pictures"


def test_stars_are_answers_too() -> None:
    person = Person(4)
    stars = 1 + np.searchsorted(np.quantile(person.truth, (0.2, 0.4, 0.6, 0.8)), person.truth)
    answers = [
        row
        for number, (path, count) in enumerate(zip(person.paths, stars, strict=True))
        for row in make_stars(path, int(count), seconds=1, drawn="random", time=f"{number:05}")
    ]
    taste = person.taste(answers)
    assert taste.n_known(rows_of(person)) == len(person.paths)
    assert min(taste.share(rows_of(person), found).low for found in (person.truth, person.known)) > 0.6


def test_equal_features_are_no_error() -> None:
    person = Person(5)
    person.features = np.ones((len(person.paths), 3))
    share = person.taste(person.answer(100)).share(rows_of(person), person.known)
    assert share.low < share.value < share.high


def test_of_many_pictures_a_part_is_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    person = Person(6)
    answers = person.answer(160)
    whole = person.taste(answers).share(rows_of(person), person.known)
    monkeypatch.setattr(module, "MOST_WEIGHED", 30)
    weighed = person.taste(answers)
    assert len(weighed.rows) == len(person.paths)
    assert weighed.share(rows_of(person), person.known).value == pytest.approx(whole.value, abs=0.05)
    monkeypatch.setattr(module, "MOST_PICTURES", 40)
    assert len(person.taste(answers).rows) <= len(person.paths)


def test_the_sentence_says_what_it_rests_on() -> None:
    person = Person(7)
    answers = person.answer(60)
    rows, scores = rows_of(person), person.written(answers)
    said = how_often(scores, person.known, taste=person.taste(answers), rows=rows, flattery=0.3, out_of_fold=True)
    assert "judged by your 60 answers about 80 pictures." in said
    share = person.taste(answers).share(rows, person.known)
    assert (
        f"{100 * share.value:.0f} times in 100 (95 % interval {100 * share.low:.0f} to {100 * share.high:.0f}" in said
    )
    assert "judged on 80 pictures." in how_often(scores, person.known)
    assert f"{100 * ab_interval(scores, person.known).value:.0f} times" in how_often(scores, person.known)


def test_model_and_simple_methods_are_judged_by_the_same_answers() -> None:
    person = Person(8, n_images=60)
    answers = person.answer(150)
    scores, rows = person.written(answers), np.arange(60)
    split = ["train"] * 60
    folds = [(rows[rows % 4 != fold], rows[rows % 4 == fold]) for fold in range(4)]
    table = ScoreTable(person.paths, {"score": scores.tolist(), "split": split, "score_sigma": [1.0] * 60})
    judged = Judged(
        table, scores, person.features, folded=True, comparisons=answers, out_of_fold=person.known, folds=folds
    )
    taste = person.taste(answers)
    by_scores, by_answers = find_out(judged, flattery=0.1), find_out(replace(judged, taste=taste), flattery=0.1)
    assert by_answers.share == taste.share(rows, person.known), "nothing is subtracted"
    assert by_answers.share != by_scores.share
    assert by_answers.perfect == taste.perfect(rows)
    said = verdict(by_answers, richer="do more")
    assert "judged by your 150 answers about 60 pictures" in said
    reached = max(taste.share(rows, found).value for found in by_answers.baselines.values())
    assert f"reaches {100 * reached:.0f}" in said
    assert "150 answers are few" in said
    assert any("written scores" in line for line in closing_lines(by_answers))
    assert not any("written scores" in line or "judged by your" in line for line in closing_lines(by_scores))

    poor = replace(judged, taste=taste, out_of_fold=-person.known)
    assert "more --trials" in verdict(find_out(poor), richer="do more")
    worse = advice(scores, -person.known, {"good": person.known}, taste=taste, rows=rows)
    assert worse.startswith("good is better than the model: share of pairs")
    assert advice(scores, person.known, {"poor": -person.known}, taste=taste, rows=rows).startswith("no simple")


def test_a_model_that_knows_more_than_the_answers_teach_is_believed() -> None:
    """As one that starts from a prior model: the features alone could not explain its success."""
    off = []
    for seed in range(4):
        person = Person(20 + seed, share=0.9)
        answers = person.answer(80)
        said = person.taste(answers).share(rows_of(person), person.known)
        off.append(said.value - person.share_right(person.known))
    assert abs(np.mean(off)) < 0.03
