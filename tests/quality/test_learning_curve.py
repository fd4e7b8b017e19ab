"""The learning curve: it recovers a known law, its estimates come true, and it gives none if it cannot."""

import numpy as np
import pytest

from custom_aesthetic.quality import metrics
from custom_aesthetic.quality.baselines import fit_ridge
from custom_aesthetic.quality.learning_curve import FEWEST_IMAGES, fit_law, learning_curve

SIZES = (30, 45, 65, 90, 130)


def world(n_images: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return features (n_images, 120) and scores that depend a little on each of them, with some noise."""
    generator = np.random.default_rng(seed)
    features = generator.normal(size=(n_images, 120))
    weights = np.random.default_rng(99).normal(size=120)
    return features, features @ weights + 5 * generator.normal(size=n_images)


@pytest.mark.parametrize(("ceiling", "drop", "exponent"), [(0.8, 2.0, 0.7), (1.0, 1.5, 0.3), (0.6, 0.0, 0.5)])
def test_a_law_is_recovered_from_points_on_it(ceiling: float, drop: float, exponent: float) -> None:
    spearmans = ceiling - drop * np.array(SIZES, dtype=float) ** -exponent
    found = fit_law(SIZES, spearmans)
    further = 500.0
    assert found[0] - found[1] * further ** -found[2] == pytest.approx(ceiling - drop * further**-exponent, abs=1e-3)


def test_a_falling_curve_has_no_drop_and_no_ceiling_exceeds_one() -> None:
    assert fit_law(SIZES, np.array([0.8, 0.79, 0.78, 0.77, 0.76]))[1] == 0
    assert fit_law(SIZES, np.array([0.1, 0.3, 0.5, 0.7, 0.95]))[0] <= 1


def test_the_estimated_gain_comes_true() -> None:
    features, scores = world(2600)
    rows, fresh = np.arange(200), np.arange(600, 2600)
    reached = {
        n: metrics.spearman(scores[fresh], fit_ridge(features, scores, np.arange(n))(features[fresh])).statistic
        for n in (200, 300, 400, 600)
    }
    found = learning_curve(features, scores, rows, seed=1)
    assert found.sizes == (38, 52, 75, 105, 150)
    assert found.spearmans[-1] > found.spearmans[0]
    for extra, gain in found.gains.items():
        assert gain is not None
        assert gain.low <= gain.value <= gain.high
        assert gain.value == pytest.approx(reached[200 + extra] - reached[200], abs=0.08)
    gain = found.gain_in_ab(400, 0.5)
    assert gain is not None
    assert 0 < gain.value < found.gains[400].value, "pairs in order rise more slowly than Spearman"  # type: ignore[union-attr]
    assert "simpler model" in str(found)


def test_only_the_given_rows_are_used_and_a_seed_makes_it_reproducible() -> None:
    features, scores = world(120)
    rows = np.arange(0, 120, 2)
    changed = scores.copy()
    changed[1::2] = 1e9
    first = learning_curve(features, scores, rows, n_repeats=3)
    assert learning_curve(features, changed, rows, n_repeats=3) == first
    assert learning_curve(features, scores, rows, n_repeats=3, seed=1) != first


def test_without_a_relation_there_is_no_estimate() -> None:
    generator = np.random.default_rng(0)
    found = learning_curve(generator.normal(size=(150, 20)), generator.normal(size=150), np.arange(150))
    assert set(found.gains.values()) == {None}
    assert found.gain_in_ab(100, 0.5) is None


def test_too_few_pictures_or_too_many_more_give_no_estimate() -> None:
    features, scores = world(120)
    few = learning_curve(features, scores, np.arange(FEWEST_IMAGES - 1))
    assert few.sizes == ()
    assert "too few" in str(few)
    far = learning_curve(features, scores, np.arange(100), extras=(100, 301), n_repeats=6)
    assert far.gains[100] is not None
    assert far.gains[301] is None
