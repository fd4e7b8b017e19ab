"""Check of a head's predicted sigma: how many scores lie within one and two sigma of their prediction."""

import math
from typing import NamedTuple

import numpy as np

from custom_aesthetic.base.arrays import Array

EXPECTED_WITHIN_ONE = math.erf(1 / math.sqrt(2))
EXPECTED_WITHIN_TWO = math.erf(2 / math.sqrt(2))
"""The shares of a normal distribution within one and two standard deviations: 0.683 and 0.954."""


class Coverage(NamedTuple):
    """Shares of images, 0...1, whose score lies within one and two sigma; nan without images."""

    within_one: float
    within_two: float
    n_images: int

    @property
    def verdict(self) -> str:
        """`too small`, `too large`, or `honest` if the shares are within two standard errors of the expected ones."""
        for share, expected in ((self.within_one, EXPECTED_WITHIN_ONE), (self.within_two, EXPECTED_WITHIN_TWO)):
            tolerance = 2 * math.sqrt(expected * (1 - expected) / self.n_images) if self.n_images else math.inf
            if abs(share - expected) > tolerance:
                return "too small" if share < expected else "too large"
        return "honest"

    def __str__(self) -> str:
        return (
            f"{self.within_one:.1%} of {self.n_images} scores lie within one sigma, {self.within_two:.1%} within two "
            f"(expected {EXPECTED_WITHIN_ONE:.1%} and {EXPECTED_WITHIN_TWO:.1%})"
        )


def coverage(scores: Array, predictions: Array, sigmas: Array) -> Coverage:
    """Return the shares of scores within one and two sigma of their prediction; all arrays are (n_images,)."""
    if len(scores) == 0:
        return Coverage(math.nan, math.nan, 0)
    errors = np.abs(scores - predictions)
    return Coverage(float(np.mean(errors <= sigmas)), float(np.mean(errors <= 2 * sigmas)), len(scores))
