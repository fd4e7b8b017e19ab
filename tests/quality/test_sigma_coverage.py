"""Coverage of predicted sigmas, compared with that of the normal distribution."""

import math

import numpy as np
import pytest

from custom_aesthetic.quality.diagnostics import EXPECTED_WITHIN_ONE, EXPECTED_WITHIN_TWO, coverage


def test_the_expected_shares_are_those_of_the_normal_distribution() -> None:
    assert pytest.approx(0.6827, abs=1e-4) == EXPECTED_WITHIN_ONE
    assert pytest.approx(0.9545, abs=1e-4) == EXPECTED_WITHIN_TWO


def test_four_images_are_counted_as_by_eye() -> None:
    found = coverage(np.array([0.0, 1, 2, 3]), np.zeros(4), np.ones(4))
    assert found == (0.5, 0.75, 4)
    assert "50.0% of 4 scores" in str(found)


@pytest.mark.parametrize(("factor", "verdict"), [(0.7, "too small"), (1.0, "honest"), (1.5, "too large")])
def test_too_small_and_too_large_sigmas_are_recognised(factor: float, verdict: str) -> None:
    generator = np.random.default_rng(0)
    sigmas = generator.uniform(0.5, 2, size=2000)
    found = coverage(sigmas * generator.normal(size=2000), np.zeros(2000), factor * sigmas)
    assert found.verdict == verdict


def test_a_few_images_or_none_give_no_reason_to_doubt_sigma() -> None:
    assert coverage(np.zeros(5), np.array([0.0, 0.5, 0.5, 1.5, 0.1]), np.ones(5)).verdict == "honest"
    none = np.array([])
    assert math.isnan(coverage(none, none, none).within_one)
    assert coverage(none, none, none).verdict == "honest"
