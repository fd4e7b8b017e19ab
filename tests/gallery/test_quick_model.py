"""The quick model: its figures are honest, and it says when they cannot be said."""

import numpy as np
import pytest
from scipy.special import expit

from custom_aesthetic.gallery.model_work import fit, standing_of
from custom_aesthetic.gallery.quick_model import (
    FEWEST_ANSWERS,
    FEWEST_FOR_A_FORECAST,
    error_axes,
    out_of_fold,
    worth,
)
from custom_aesthetic.scores.bradley_terry import PRIOR_VARIANCE, Prior, feature_basis
from custom_aesthetic.scores.evidence import Evidence
from custom_aesthetic.scores.pairing import Standing, draw_group
from custom_aesthetic.scores.prior import FEATURE_SHARE, feature_prior


class Judge:
    """A person whose taste is half a direction of the features, and answers to pairs."""

    def __init__(self, n_pictures: int, seed: int, *, share: float = 0.6) -> None:
        self.generator = np.random.default_rng(seed)
        features = self.generator.normal(size=(n_pictures, 12))
        direction = self.generator.normal(size=12)
        known = features @ direction / np.linalg.norm(direction)
        self.truth = 1.5 * (np.sqrt(share) * known + np.sqrt(1 - share) * self.generator.normal(size=n_pictures))
        self.prior = feature_prior(features)

    def answers(self, n_answers: int, *, strategy: str) -> Evidence:
        n_pictures = len(self.truth)
        standing = Standing(np.zeros(n_pictures), np.ones(n_pictures), np.zeros(n_pictures))
        if strategy == "model":
            standing = standing_of(fit(self.prior, evidence_of([])), standing.shown)
        pairs = []
        while len(pairs) < n_answers:
            (first, second), _ = draw_group(standing, self.generator, strategy=strategy)
            first_wins = self.generator.uniform() < expit(self.truth[first] - self.truth[second])
            pairs.append((first, second) if first_wins else (second, first))
            standing.shown[[first, second]] += 1
            if len(pairs) % 30 == 0 and strategy != "random":
                learnt = fit(self.prior, evidence_of(pairs))
                standing = standing_of(learnt, standing.shown)
        return evidence_of(pairs)

    def share_right(self, scores: np.ndarray) -> float:
        """The share of all pairs in which these scores pick what the judge picks."""
        first, second = np.triu_indices(len(self.truth), 1)
        says = np.sign(scores[first] - scores[second])
        return float(expit(says * (self.truth[first] - self.truth[second])).mean())


def evidence_of(pairs) -> Evidence:
    winners, losers = np.array(pairs, dtype=int).reshape(-1, 2).T
    n_pairs = len(winners)
    return Evidence(winners, losers, np.ones(n_pairs), np.arange(n_pairs), np.ones(n_pairs, dtype=bool))


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["random", "model"])
def test_the_interval_covers_the_true_share_of_pairs_right_however_pairs_are_drawn(strategy):
    covered = []
    for seed in range(8):
        judge = Judge(90, seed, share=(0.2, 0.6)[seed % 2])
        found = judge.answers(100, strategy=strategy)
        told = worth(judge.prior, found)
        assert told is not None
        covered.append(told.right.low <= judge.share_right(out_of_fold(judge.prior, found)) <= told.right.high)
    assert sum(covered) >= 7


def test_a_picture_is_judged_without_the_answers_about_it():
    judge = Judge(30, 0)
    found = judge.answers(60, strategy="random")
    before = out_of_fold(judge.prior, found)
    picture = int(found.winners[0])
    about = (found.winners == picture) | (found.losers == picture)
    turned = found._replace(
        winners=np.where(about, found.losers, found.winners), losers=np.where(about, found.winners, found.losers)
    )
    after = out_of_fold(judge.prior, turned)
    assert after[picture] == pytest.approx(before[picture], abs=1e-3)
    assert np.abs(after - before).max() > 0.1


def test_it_learns_a_planted_taste_and_scores_pictures_without_answers():
    judge = Judge(200, 1, share=0.95)
    found = judge.answers(300, strategy="random")
    kept = (found.winners < 100) & (found.losers < 100)
    learnt = fit(judge.prior, Evidence(*(column[kept] for column in found)))
    assert np.corrcoef(learnt.scores[100:], judge.truth[100:])[0, 1] > 0.6
    assert learnt.sigmas[100:].mean() > learnt.sigmas[:100].mean()


def test_no_figure_is_told_from_few_answers_and_no_forecast_before_it_can_be_said():
    judge = Judge(60, 2)
    assert worth(judge.prior, judge.answers(FEWEST_ANSWERS - 1, strategy="random")) is None
    told = worth(judge.prior, judge.answers(FEWEST_FOR_A_FORECAST - 1, strategy="random"))
    assert told is not None and told.forecast is None


def test_nothing_is_forecast_for_answers_by_chance():
    generator = np.random.default_rng(3)
    judge = Judge(60, 3)
    pairs = [generator.permutation(60)[:2] for _ in range(120)]
    told = worth(judge.prior, evidence_of(pairs))
    assert told is not None
    assert told.right.low < 0.5 < told.right.high
    assert told.forecast is None or told.forecast.low < 0.55


def test_lines_between_stars_are_learnt_and_not_judged():
    judge = Judge(40, 4)
    prior = Prior(
        np.zeros(41),
        np.append(judge.prior.variance, 4 * PRIOR_VARIANCE),
        np.concatenate([judge.prior.basis, np.zeros((1, judge.prior.basis.shape[1]))]),
    )
    above = judge.truth > 0
    pairs = [(picture, 40) if above[picture] else (40, picture) for picture in range(40)]
    found = evidence_of(pairs)
    scores = out_of_fold(prior, found)
    assert scores[40] == 0
    assert scores[:40][above].mean() > scores[:40][~above].mean() + 0.5
    assert worth(prior, found) is not None


def test_equal_features_give_chance_and_no_error():
    prior = Prior(
        np.zeros(20),
        np.full(20, PRIOR_VARIANCE * (1 - FEATURE_SHARE)),
        feature_basis(np.tile(np.arange(20.0)[:, None] % 2, (1, 3)), PRIOR_VARIANCE * FEATURE_SHARE),
    )
    generator = np.random.default_rng(5)
    told = worth(prior, evidence_of([generator.permutation(20)[:2] for _ in range(40)]))
    assert told is not None
    assert told.right.low <= 0.5


def test_before_any_answer_errors_from_features_are_those_of_the_prior_for_pictures_of_equal_strength():
    judge = Judge(40, 6)
    assert judge.prior.basis is not None
    lengths = np.linalg.norm(judge.prior.basis, axis=1)
    axes = error_axes(judge.prior, evidence_of([]))
    np.testing.assert_allclose(np.square(axes).sum(axis=1), PRIOR_VARIANCE * FEATURE_SHARE)
    likeness = judge.prior.basis @ judge.prior.basis.T / np.outer(lengths, lengths)
    np.testing.assert_allclose(axes @ axes.T, PRIOR_VARIANCE * FEATURE_SHARE * likeness, atol=1e-9)


def test_answers_make_the_errors_along_their_features_smaller_and_no_others():
    basis = np.sqrt(PRIOR_VARIANCE * FEATURE_SHARE) * np.repeat(np.eye(3), [2, 2, 2], axis=0)
    prior = Prior(np.zeros(6), np.full(6, PRIOR_VARIANCE * (1 - FEATURE_SHARE)), basis)
    axes = error_axes(prior, evidence_of([(0, 2), (3, 1), (0, 3)]))
    after = axes @ axes.T
    assert after[0, 0] < PRIOR_VARIANCE * FEATURE_SHARE
    assert after[0, 2] > 0
    np.testing.assert_allclose(after[4:, 4:], PRIOR_VARIANCE * FEATURE_SHARE)
    np.testing.assert_allclose(after[4:, :4], 0, atol=1e-9)


def test_errors_have_no_axes_where_features_do_not_vary():
    prior = Prior(np.zeros(4), np.full(4, PRIOR_VARIANCE), np.zeros((4, 0)))
    assert error_axes(prior, evidence_of([])).shape == (4, 0)


@pytest.mark.slow
def test_a_taste_is_learnt_from_fewer_answers_by_pairs_of_the_model():
    gains = []
    for seed in range(12):
        judge = Judge(300, 20 + seed, share=0.9)
        told = [fit(judge.prior, judge.answers(40, strategy=strategy)).left_out for strategy in ("model", "random")]
        gains.append(np.subtract(*(np.corrcoef(scores, judge.truth)[0, 1] for scores in told)))
    assert np.mean(gains) > 0
