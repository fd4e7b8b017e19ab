"""The slope fitted to answers: the obvious one; it learns; a left-out image is predicted without answers about it."""

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import expit, log_expit

from custom_aesthetic.heads.linear_members import fit_linear_models, out_of_fold
from custom_aesthetic.scores import prior
from custom_aesthetic.scores.bradley_terry import PRIOR_VARIANCE, fit_scores, flat_prior
from custom_aesthetic.scores.evidence import Evidence
from custom_aesthetic.scores.prior import MOST_PICTURES, SLOPE_VARIANCE, slope_of_answers

N_IMAGES, N_FEATURES = 40, 60


class Taste:
    """A taste that is linear in the features, but for a part of each picture's own, and noisy answers about it."""

    def __init__(self, seed: int, n_answers: int = 30) -> None:
        generator = np.random.default_rng(seed)
        every = generator.normal(size=(400, N_FEATURES)) / np.sqrt(1 + np.arange(N_FEATURES))
        truth = 4 * every @ generator.normal(size=N_FEATURES) / np.sqrt(N_FEATURES) + generator.normal(size=400)
        self.features, self.new = every[:N_IMAGES], every[N_IMAGES:]
        self.new_truth = truth[N_IMAGES:]
        pairs = np.concatenate([generator.permutation(N_IMAGES) for _ in range(20)]).reshape(-1, 2)[:n_answers]
        first, second = pairs.T
        wins = generator.uniform(size=n_answers) < expit(truth[first] - truth[second])
        self.answers = made_of(np.where(wins, first, second), np.where(wins, second, first))

    @property
    def scores(self) -> np.ndarray:
        """The scores that the A/B page writes."""
        return fit_scores(self.answers.winners, self.answers.losers, flat_prior(N_IMAGES))

    @property
    def rows(self) -> np.ndarray:
        return self.answers.rows

    def likeness(self, answers: Evidence | None) -> float:
        """The correlation of a linear model with the taste on new pictures."""
        model = fit_linear_models(self.features, self.scores, self.rows, answers)["ridge"]
        return float(np.corrcoef(model.predict(self.new), self.new_truth)[0, 1])


def made_of(winners: np.ndarray, losers: np.ndarray, weights: np.ndarray | None = None) -> Evidence:
    n_answers = len(winners)
    weights = np.ones(n_answers) if weights is None else weights
    return Evidence(np.asarray(winners), np.asarray(losers), weights, np.arange(n_answers), np.ones(n_answers, bool))


def slope_of(taste: Taste, answers: Evidence) -> np.ndarray:
    centred = taste.features - taste.features.mean(0)
    slope = slope_of_answers(centred, np.arange(N_IMAGES), answers, n_images=N_IMAGES)
    assert slope is not None
    return slope


def obvious_slope(features: np.ndarray, answers: Evidence, *, n_lines: int = 0) -> np.ndarray:
    """The most probable slope, found together with each picture's own part and the lines by a general optimiser."""
    variance = SLOPE_VARIANCE / np.square(features).sum(1).mean()
    n_slope = features.shape[1]

    def surprise(values: np.ndarray) -> float:
        own = values[n_slope:]
        scores = own + np.concatenate([features @ values[:n_slope], np.zeros(n_lines)])
        fit = answers.weights @ log_expit(scores[answers.winners] - scores[answers.losers])
        return float(np.square(values[:n_slope]).sum() / variance + np.square(own).sum() / PRIOR_VARIANCE) / 2 - fit

    start = np.zeros(n_slope + len(features) + n_lines)
    return minimize(surprise, start, method="L-BFGS-B", options={"maxiter": 5000, "maxfun": 10**6}).x[:n_slope]


def test_it_is_the_most_probable_slope_and_answers_count_by_their_weights() -> None:
    taste = Taste(0)
    features = taste.features[:, :8] - taste.features[:, :8].mean(0)
    weights = np.random.default_rng(0).uniform(0.2, 2, len(taste.answers.winners))
    answers = taste.answers._replace(weights=weights)
    found = slope_of_answers(features, np.arange(N_IMAGES), answers, n_images=N_IMAGES)
    np.testing.assert_allclose(found, obvious_slope(features, answers), atol=2e-3)


def test_lines_between_stars_are_fitted_with_the_pictures() -> None:
    taste = Taste(1)
    features = taste.features[:, :4] - taste.features[:, :4].mean(0)
    line = np.full(10, N_IMAGES)
    answers = made_of(np.concatenate([np.arange(10), line]), np.concatenate([line, np.arange(10, 20)]))
    found = slope_of_answers(features, np.arange(N_IMAGES), answers, n_images=N_IMAGES)
    assert np.abs(found).max() > 0.01
    np.testing.assert_allclose(found, obvious_slope(features, answers, n_lines=1), atol=2e-3)


def test_the_order_of_the_rows_does_not_matter() -> None:
    taste = Taste(2)
    order = np.random.default_rng(0).permutation(N_IMAGES)
    centred = taste.features - taste.features.mean(0)
    found = slope_of_answers(centred[order], order, taste.answers, n_images=N_IMAGES)
    np.testing.assert_allclose(found, slope_of(taste, taste.answers), atol=1e-6)


def test_few_answers_teach_more_than_the_scores_made_from_them() -> None:
    tastes = [Taste(seed) for seed in range(60)]
    gains = np.array([taste.likeness(taste.answers) - taste.likeness(None) for taste in tastes])
    assert gains.mean() > 2 * gains.std() / np.sqrt(len(gains))


def test_the_model_has_the_spread_and_the_mean_of_the_scores_model() -> None:
    taste = Taste(3)
    scores = 50 + 7 * taste.scores
    by_scores, by_answers = (
        fit_linear_models(taste.features, scores, taste.rows, answers)["ridge"].predict(taste.features[taste.rows])
        for answers in (None, taste.answers)
    )
    assert by_answers.std() == pytest.approx(by_scores.std())
    assert by_answers.mean() == pytest.approx(by_scores.mean())
    assert not np.allclose(by_answers, by_scores, atol=0.01 * by_scores.std())


def test_an_image_is_predicted_without_any_answer_about_it() -> None:
    taste = Taste(4, n_answers=50)
    answers, rows = taste.answers, np.arange(N_IMAGES)
    folds = [(np.setdiff1d(rows, part), part) for part in np.split(rows, 4)]
    _, left_out = folds[0]
    about = np.isin(answers.winners, left_out) | np.isin(answers.losers, left_out)
    assert 0 < about.sum() < len(about)
    swapped = np.where(about, (answers.losers, answers.winners), (answers.winners, answers.losers))
    turned = answers._replace(winners=swapped[0], losers=swapped[1])
    before, after = (out_of_fold(taste.features, taste.scores, folds, given)["ridge"] for given in (answers, turned))
    np.testing.assert_array_equal(after[left_out], before[left_out])
    assert (after[folds[1][1]] != before[folds[1][1]]).any()


def test_one_answer_points_from_the_loser_to_the_winner() -> None:
    taste = Taste(5)
    centred = taste.features - taste.features.mean(0)
    slope = slope_of(taste, made_of(np.array([3]), np.array([8])))
    assert (centred[3] - centred[8]) @ slope > 0
    assert np.corrcoef(slope, centred[3] - centred[8])[0, 1] == pytest.approx(1)


def test_ties_alone_say_nothing_and_the_scores_are_used() -> None:
    taste = Taste(6)
    winners, losers = taste.answers.winners, taste.answers.losers
    half = np.full(2 * len(winners), 0.5)
    ties = made_of(np.concatenate([winners, losers]), np.concatenate([losers, winners]), half)
    assert np.abs(slope_of(taste, ties)).max() < 1e-9
    assert taste.likeness(ties) == taste.likeness(None)


def test_the_same_answer_again_is_finite() -> None:
    taste = Taste(7)
    slope = slope_of(taste, made_of(np.full(3, 3), np.full(3, 8)))
    assert np.isfinite(slope).all()
    assert np.abs(slope).max() > 0


def test_with_many_answers_a_picture_the_scores_are_used() -> None:
    few, many = Taste(10, n_answers=60), Taste(10, n_answers=80)
    assert few.likeness(few.answers) != few.likeness(None)
    assert many.likeness(many.answers) == many.likeness(None)


def test_without_answers_among_the_images_the_scores_are_used() -> None:
    taste = Taste(8)
    rows = np.arange(10)
    apart = made_of(np.arange(10, 20), np.arange(20, 30))
    by_scores, by_answers = (
        fit_linear_models(taste.features, taste.scores, rows, answers)["ridge"] for answers in (None, apart)
    )
    np.testing.assert_array_equal(by_answers.weight, by_scores.weight)


def test_with_many_pictures_every_fold_uses_the_scores_because_the_whole_does(monkeypatch: pytest.MonkeyPatch) -> None:
    taste = Taste(9, n_answers=50)
    monkeypatch.setattr(prior, "MOST_PICTURES", N_IMAGES - 1)
    rows = np.arange(N_IMAGES)
    folds = [(np.setdiff1d(rows, part), part) for part in np.split(rows, 4)]
    by_scores, by_answers = (
        out_of_fold(taste.features, taste.scores, folds, answers)["ridge"] for answers in (None, taste.answers)
    )
    np.testing.assert_array_equal(by_answers, by_scores)
    assert MOST_PICTURES <= 1000, "time grows with the cube"
