"""Baselines: they learn a planted relation, use only the training images, and their fast formulas are exact."""

import numpy as np
import pytest
from scipy.linalg import solve
from sklearn.linear_model import RidgeCV
from sklearn.svm import SVR

from custom_aesthetic.heads.linear_members import PENALTIES, left_out_errors
from custom_aesthetic.quality import baselines, metrics
from custom_aesthetic.quality.baselines import advice, better_baseline, fit_baselines

TRAIN = np.arange(0, 150)
TEST = np.arange(150, 200)


def planted(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return features (200, 30) in various units, one constant, and scores that depend on two of them, with noise."""
    generator = np.random.default_rng(seed)
    features = generator.normal(size=(200, 30))
    scores = 50 + 10 * (features[:, 0] - features[:, 1] + 0.3 * generator.normal(size=200))
    features[:, 5] = 7
    return (features * np.logspace(-2, 3, 30) + 4).astype(np.float32), scores


def test_all_baselines_learn_a_planted_relation_in_the_units_of_the_scores() -> None:
    features, scores = planted()
    found = fit_baselines(features, scores, TRAIN)
    assert list(found) == ["ridge", "SVR", "kernel ridge"]
    for name in ("ridge", "SVR", "kernel ridge"):
        assert found[name].shape == (200,)
        assert metrics.spearman(scores[TEST], found[name][TEST]).statistic > 0.85
        assert metrics.mse(scores[TEST], found[name][TEST]) < 0.35 * np.var(scores[TEST])


def test_ridge_equals_that_of_scikit_learn() -> None:
    features, scores = planted()
    mean, scale = features[TRAIN].mean(0), features[TRAIN].std(0)
    scale[5] = np.inf
    standardised = (features - mean) / scale
    ridge = RidgeCV(alphas=PENALTIES * 29).fit(standardised[TRAIN], scores[TRAIN])
    found = fit_baselines(features, scores, TRAIN)["ridge"]
    np.testing.assert_allclose(found, ridge.predict(standardised), rtol=1e-3)


def test_ridge_with_more_features_than_images_chooses_the_same_penalty_as_scikit_learn() -> None:
    generator = np.random.default_rng(3)
    features = generator.normal(size=(60, 200))
    scores = features[:, :20].sum(1) + 3 * generator.normal(size=60) + 50
    train = np.arange(40)
    standardised = (features - features[train].mean(0)) / features[train].std(0)
    ridge = RidgeCV(alphas=PENALTIES * 200).fit(standardised[train], scores[train])
    found = fit_baselines(features, scores, train)["ridge"]
    np.testing.assert_allclose(found, ridge.predict(standardised), rtol=2e-3)


def test_left_out_errors_equal_those_of_refitting_without_each_image() -> None:
    generator = np.random.default_rng(1)
    rows, scores = generator.normal(size=(12, 20)), generator.normal(size=12)
    likeness, penalties = 100 + rows @ rows.T / 20, np.array([0.01, 0.3, 5.0])
    slow = []
    for penalty in penalties:
        errors = []
        for left in range(12):
            kept = np.delete(np.arange(12), left)
            known = likeness[np.ix_(kept, kept)] + penalty * np.eye(11)
            errors.append(scores[left] - likeness[left, kept] @ solve(known, scores[kept]))
        slow.append(np.square(errors).mean())
    np.testing.assert_allclose(left_out_errors(likeness, scores, penalties), slow)


@pytest.mark.parametrize(("noise", "n_images"), [(0.01, 60), (1.0, 83), (3.0, 4), (10.0, 101)])
def test_svr_has_the_penalty_chosen_by_cross_validation(noise: float, n_images: int) -> None:
    generator = np.random.default_rng(0)
    features = generator.normal(size=(n_images, 20))
    scores = features[:, 0] * 3 + noise * generator.normal(size=n_images)
    order = np.random.default_rng(0).permutation(n_images)
    standardised = ((features - features.mean(0)) / features.std(0))[order]
    wanted = (scores[order] - scores.mean()) / scores.std()

    def svr(penalty: float) -> SVR:
        return SVR(kernel="rbf", gamma=1 / 20, C=penalty, epsilon=baselines.SVR_EPSILON)

    errors = []
    for penalty in baselines.SVR_PENALTIES:
        squares = []
        for fold in np.array_split(np.arange(n_images), min(5, n_images)):
            rest = np.setdiff1d(np.arange(n_images), fold)
            found = svr(penalty).fit(standardised[rest], wanted[rest]).predict(standardised[fold])
            squares.append(np.square(found - wanted[fold]).mean())
        errors.append(np.mean(squares))
    best = svr(baselines.SVR_PENALTIES[int(np.argmin(errors))]).fit(standardised, wanted)
    expected = scores.mean() + scores.std() * best.predict(standardised)
    found = np.empty(n_images)
    found[order] = expected
    np.testing.assert_allclose(fit_baselines(features, scores, np.arange(n_images))["SVR"], found, rtol=1e-2, atol=0.02)


def test_baselines_learn_only_from_the_training_images() -> None:
    features, scores = planted()
    changed = scores.copy()
    changed[TEST] = -1e6
    for first, second in zip(
        fit_baselines(features, scores, TRAIN).values(), fit_baselines(features, changed, TRAIN).values(), strict=True
    ):
        np.testing.assert_array_equal(first, second)
    far = features.copy()
    far[TEST] += 1e3
    for name, found in fit_baselines(far, scores, TRAIN).items():
        np.testing.assert_allclose(found[TRAIN], fit_baselines(features, scores, TRAIN)[name][TRAIN])


def test_of_too_many_training_images_a_sample_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(baselines, "MOST_TRAINING_IMAGES", 100)
    monkeypatch.setattr(baselines, "MOST_SEARCHED_IMAGES", 60)
    monkeypatch.setattr(baselines, "ROWS_AT_ONCE", 64)
    features, scores = planted()
    found = fit_baselines(features, scores, TRAIN)
    for name in ("ridge", "SVR", "kernel ridge"):
        assert metrics.spearman(scores[TEST], found[name][TEST]).statistic > 0.8
    assert (fit_baselines(features, scores, TRAIN, seed=1)["SVR"] != found["SVR"]).any()


@pytest.mark.parametrize("train", [np.arange(3), np.arange(4)])
def test_there_are_no_baselines_if_nothing_can_be_learnt(train: np.ndarray) -> None:
    features = np.random.default_rng(0).normal(size=(6, 3))
    scores = np.array([1.0, 1, 1, 1, 2, 3])
    assert list(fit_baselines(features, scores, train)) == []
    assert list(fit_baselines(np.ones((6, 3)), np.arange(6.0), np.arange(5))) == []


def test_a_baseline_is_called_better_only_if_the_difference_is_significant() -> None:
    generator = np.random.default_rng(0)
    scores = generator.normal(size=100)
    model = scores + 1.5 * generator.normal(size=100)
    good, best = scores + 0.5 * generator.normal(size=100), scores + 0.2 * generator.normal(size=100)
    found = better_baseline(scores, model, {"good": good, "best": best, "constant": np.zeros(100)})
    assert found is not None
    assert found[0] == "best"
    assert found[1].low > 0
    rivals = [scores + 1.5 * generator.normal(size=100) for _ in range(20)]
    figures = [metrics.spearman(scores, rival).statistic for rival in rivals]
    middling, lucky = (rivals[index] for index in np.argsort(figures)[[9, 13]])
    assert better_baseline(scores, middling, {"by luck": lucky}) is None
    sentence = advice(scores, model, {"good": good, "best": best})
    assert sentence.startswith("best is better than the model: Spearman +0.")
    assert "--trials" in sentence
    assert better_baseline(scores, best, {"good": good, "same": best}) is None
    assert advice(scores, best, {"good": good}).startswith("no simple method is clearly better")
