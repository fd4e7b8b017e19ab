"""Fits of simple methods that are kept as text: the same numbers, and never those of other pictures."""

import numpy as np
import pytest

from custom_aesthetic.quality.confidence import Interval
from custom_aesthetic.quality.learning_curve import LearningCurve
from custom_aesthetic.quality.simple_fits import KEY, SimpleFits, kept_fits

FEATURES = np.arange(12, dtype=np.float32).reshape(4, 3)
SCORES = np.array([0.1, 2.0, -3.0, 1 / 3])


def fits() -> SimpleFits:
    curve = LearningCurve((10, 20), (0.1, 1 / 3), {100: Interval(0.01, -0.02, 1 / 7), 400: None})
    return SimpleFits(curve, {"ridge": np.array([1 / 3, np.pi]), "SVR": np.zeros(0)})


def never() -> SimpleFits:
    raise AssertionError


def test_what_is_kept_comes_back_to_the_last_digit_and_is_not_made_again() -> None:
    kept: dict[str, str] = {}
    made = kept_fits(kept, [FEATURES, SCORES], fits)
    found = kept_fits(kept, [FEATURES, SCORES], never)
    assert found.curve == made.curve
    assert list(found.baselines) == ["ridge", "SVR"]
    for name, values in made.baselines.items():
        np.testing.assert_array_equal(found.baselines[name], values)


@pytest.mark.parametrize(
    "content",
    [
        [FEATURES, SCORES + 1e-12],
        [FEATURES[:, ::-1], SCORES],
        [FEATURES.astype(np.float64), SCORES],
        [FEATURES.reshape(3, 4), SCORES],
        [FEATURES, SCORES, SCORES],
    ],
)
def test_other_content_is_fitted_anew(content: list[np.ndarray]) -> None:
    kept: dict[str, str] = {}
    kept_fits(kept, [FEATURES, SCORES], fits)
    with pytest.raises(AssertionError):
        kept_fits(kept, content, never)


@pytest.mark.parametrize("damage", ["", "{", "[]", "[1, 2, 3, 4, 5]", "null", "[" * 10_000])
def test_what_is_damaged_is_made_again(damage: str) -> None:
    kept = {KEY: damage}
    assert kept_fits(kept, [FEATURES, SCORES], fits).curve == fits().curve
    assert kept_fits(kept, [FEATURES, SCORES], never).curve == fits().curve
