"""Linear models beside the heads: what they are, how they are weighted, and that one plain network holds the blend."""

import numpy as np
import pytest
import torch
from scipy.optimize import minimize_scalar
from sklearn.linear_model import Ridge

from custom_aesthetic.heads.linear_members import (
    HEADS,
    PENALTIES,
    Blend,
    LinearModel,
    add_linear,
    blended_out_of_fold,
    fit_blend,
    fit_linear_models,
    out_of_fold,
    share_explained,
    share_of_all,
)
from custom_aesthetic.heads.predictor import Predictor, predict
from custom_aesthetic.heads.training_data import DEGREE

RANDOM = np.random.default_rng(3)
N_IMAGES, N_FEATURES = 60, 90
FEATURES = (RANDOM.normal(size=(N_IMAGES, N_FEATURES)) * RANDOM.uniform(0.1, 4, N_FEATURES) + 2).astype(np.float32)
SCORES = 5 + FEATURES[:, :3] @ [0.5, -0.3, 0.2] + 0.2 * RANDOM.normal(size=N_IMAGES)
ROWS = np.arange(N_IMAGES)
FOLDS = [(np.setdiff1d(ROWS, part), part) for part in np.split(RANDOM.permutation(N_IMAGES), 4)]


def test_ridge_is_that_of_scikit_learn_on_partly_standardised_features() -> None:
    mean, deviation = FEATURES.mean(0, dtype=np.float64), FEATURES.std(0, dtype=np.float64)
    given = (FEATURES - mean) / deviation**DEGREE
    found = fit_linear_models(FEATURES, SCORES, ROWS)["ridge"].predict(FEATURES)

    def gap(log_penalty: float) -> float:
        return float(np.abs(Ridge(np.exp(log_penalty)).fit(given, SCORES).predict(given) - found).max())

    size = np.log(np.square(given).sum(1).mean())
    bounds = (size + np.log(PENALTIES[0]), size + np.log(PENALTIES[-1]))
    assert gap(minimize_scalar(gap, bounds=bounds, options={"xatol": 1e-9}).x) < 1e-5


def test_scores_without_meaning_move_the_predictions_less_than_those_with() -> None:
    spreads = []
    for scores in (SCORES, RANDOM.permutation(SCORES)):
        spreads.append(np.std(fit_linear_models(FEATURES, scores, ROWS)["ridge"].predict(FEATURES)))
    assert spreads[1] < 0.8 * spreads[0]


@pytest.mark.parametrize(
    ("features", "scores"),
    [(np.ones_like(FEATURES), SCORES), (FEATURES, np.ones(N_IMAGES)), (FEATURES[:2], SCORES[:2])],
)
def test_there_are_no_linear_models_where_nothing_can_be_learnt(features: np.ndarray, scores: np.ndarray) -> None:
    assert fit_linear_models(features, scores, np.arange(len(features))) == {}


def test_a_constant_feature_has_no_weight() -> None:
    features = np.concatenate([FEATURES, np.full((N_IMAGES, 1), 7, np.float32)], axis=1)
    for model in fit_linear_models(features, SCORES, ROWS).values():
        assert model.weight[-1] == 0
        assert np.isfinite(model.predict(features)).all()


def test_an_image_is_predicted_by_models_that_have_not_seen_its_score() -> None:
    before = out_of_fold(FEATURES, SCORES, FOLDS)
    changed = SCORES.copy()
    _, left_out = FOLDS[0]
    changed[left_out] += RANDOM.normal(size=len(left_out)) * 3
    after = out_of_fold(FEATURES, changed, FOLDS)
    for name, values in before.items():
        np.testing.assert_array_equal(after[name][left_out], values[left_out])
        assert np.abs(after[name] - values).max() > 0.1


def test_the_better_member_gets_the_weight() -> None:
    noise = RANDOM.normal(size=(3, 400))
    truth = RANDOM.normal(size=400)
    members = {HEADS: truth + 0.1 * noise[0], "a": truth + 3 * noise[1], "b": truth + 3 * noise[2]}
    blend = fit_blend(members, truth)
    assert blend is not None
    assert blend.weights[HEADS] > 0.7
    assert all(weight >= 0 for weight in blend.weights.values())
    assert np.corrcoef(blend.of(members), truth)[0, 1] > 0.96


def test_a_blend_in_other_units_of_the_scores_is_the_same_blend() -> None:
    members = {HEADS: FEATURES[:, 0].astype(float), **out_of_fold(FEATURES, SCORES, FOLDS)}
    plain = fit_blend(members, SCORES)
    scaled = fit_blend({name: 10 * values - 3 for name, values in members.items()}, 10 * SCORES - 3)
    assert plain is not None and scaled is not None
    assert scaled.weights == pytest.approx(plain.weights, rel=1e-6)


def test_members_that_hardly_differ_share_the_weight_however_many_images_there_are() -> None:
    truth = RANDOM.normal(size=3000)
    members = {HEADS: truth + 1e-3 * RANDOM.normal(size=3000), "a": truth, "b": truth.copy()}
    blend = fit_blend(members, truth)
    assert blend is not None
    assert sum(blend.weights.values()) == pytest.approx(1, abs=1e-2)


def test_heads_count_for_more_the_more_is_known_of_the_scores() -> None:
    truth, noise = RANDOM.normal(size=(2, 100))

    def share_of_heads(said: np.ndarray, scores: np.ndarray) -> float:
        blend = fit_blend({HEADS: said, "ridge": said.copy()}, scores)
        assert blend is not None
        return blend.weights[HEADS] / sum(blend.weights.values())

    smooth, noisy = share_of_heads(truth, truth + 0.3 * noise), share_of_heads(truth, truth + 2 * noise)
    few = share_of_heads(truth[:20], truth[:20] + 0.3 * noise[:20])
    assert smooth > few > 0.5
    assert smooth > noisy > 0.5
    assert share_of_heads(noise, truth) < 0.5


def test_sixty_smooth_scores_overcome_the_prior_weights() -> None:
    truth, error, noise = RANDOM.normal(size=(3, 60))
    blend = fit_blend({HEADS: truth + error, "ridge": truth}, truth + 0.1 * noise)
    assert blend is not None
    assert blend.weights["ridge"] > 3 * blend.weights[HEADS]  # beforehand, the heads have more than 0.9


def test_the_share_explained_lacks_what_chance_adds() -> None:
    truth, noise = RANDOM.normal(size=(2, 20_000))
    assert share_explained(truth, truth + noise) == pytest.approx(0.5, abs=0.02)
    by_chance = [share_explained(*RANDOM.normal(size=(2, 10))) for _ in range(2000)]
    raw = [max(0.0, np.corrcoef(*RANDOM.normal(size=(2, 10)))[0, 1]) ** 2 for _ in range(2000)]
    assert np.mean(by_chance) < 0.95 * np.mean(raw)
    assert share_explained(-truth, truth) == share_explained(np.ones(5), np.arange(5.0)) == 0.02
    assert share_explained(truth, truth) == 0.98


def test_equal_predictions_have_no_blend() -> None:
    assert fit_blend({HEADS: np.ones(5), "a": np.ones(5)}, np.arange(5.0)) is None


def test_scores_that_speak_against_all_members_leave_them_some_weight() -> None:
    truth = RANDOM.normal(size=20)
    blend = fit_blend({HEADS: -truth, "a": -2 * truth}, truth)
    assert blend is not None
    assert all(weight > 0 for weight in blend.weights.values())


def test_a_score_does_not_change_what_is_said_of_its_image_out_of_fold_but_for_a_constant() -> None:
    members = {HEADS: SCORES + RANDOM.normal(size=N_IMAGES), **out_of_fold(FEATURES, SCORES, FOLDS)}
    before = blended_out_of_fold(members, SCORES, FOLDS)
    _, left_out = FOLDS[2]
    changed = SCORES.copy()
    changed[left_out] = changed[left_out][::-1] * 5
    after = blended_out_of_fold(members, changed, FOLDS)
    assert before is not None and after is not None
    np.testing.assert_allclose(np.diff(after[left_out]), np.diff(before[left_out]), atol=1e-12)
    assert np.isfinite(before).all()


def test_one_plain_network_holds_the_heads_and_the_linear_models() -> None:
    heads = Predictor(N_FEATURES, (7, 4), generator=torch.Generator().manual_seed(1))
    models = {
        "a": LinearModel(RANDOM.normal(size=N_FEATURES), 0.3),
        "b": LinearModel(RANDOM.normal(size=N_FEATURES), -2.0),
    }
    blend = Blend({HEADS: 0.6, "a": 0.5, "b": 0.0}, bias=1.5)
    joined = add_linear(heads, blend, models)
    assert joined.layers == (9, 6)
    members = {HEADS: predict(heads, torch.from_numpy(FEATURES))[:, 0].double().numpy()}
    members |= {name: model.predict(FEATURES) for name, model in models.items()}
    found = predict(joined, torch.from_numpy(FEATURES))[:, 0].double().numpy()
    np.testing.assert_allclose(found, blend.of(members), atol=1e-4)


@pytest.mark.parametrize(("explained", "share"), [(0.02, 0.0), (0.15, 0.0), (0.35, 0.4), (0.55, 0.8), (0.98, 0.8)])
def test_heads_of_all_images_count_where_scores_can_be_predicted(explained: float, share: float) -> None:
    assert share_of_all(explained) == pytest.approx(share)
