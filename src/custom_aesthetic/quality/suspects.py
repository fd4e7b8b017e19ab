"""Scores that do not fit: pictures whose score contradicts what the other pictures lead to expect."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator
from sklearn.decomposition import PCA
from sklearn.linear_model import RidgeCV
from sklearn.model_selection import KFold, cross_val_predict
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVR

from custom_aesthetic.base.arrays import Array

N_FOLDS = 5
FEWEST_IMAGES = 20
MOST_IMAGES_FOR_SVR = 2000
N_COMPONENTS = 128
SUSPECT_DEVIATIONS = 2.5
"""A score is suspect this many robust standard deviations from its prediction: 1 in 80 if errors are normal."""
MAD_TO_DEVIATION = 1.4826
"""What turns a median absolute deviation into the standard deviation of a normal distribution."""


@dataclass(frozen=True)
class Suspects:
    """Scores that contradict predictions made without them."""

    predictions: Array
    """What each score (n_images,) should be by the other pictures' scores and features."""
    rows: NDArray[np.int64]
    """The suspects, the strongest contradiction first."""


def find_suspects(features: Array, scores: Array, *, seed: int = 0) -> Suspects | None:
    """Return the scores (n_images,) that contradict the features (n_images, n_features), judged out of fold.

    Five folds: each picture is judged by a regression that never saw its score, so an error in the score cannot
    excuse itself. None where there are too few pictures, or all scores are equal.
    """
    if len(scores) < FEWEST_IMAGES or np.ptp(scores) == 0:
        return None
    folds = KFold(N_FOLDS, shuffle=True, random_state=seed)
    deviation = float(np.std(scores))
    scaled = (scores - np.mean(scores)) / deviation
    predicted = cross_val_predict(_regression(len(scores)), _components(features, seed), scaled, cv=folds)
    residuals = scaled - predicted
    spread = MAD_TO_DEVIATION * float(np.median(np.abs(residuals - np.median(residuals))))
    strongest = np.argsort(-np.abs(residuals), kind="stable")
    suspect = np.abs(residuals[strongest]) > SUSPECT_DEVIATIONS * spread
    return Suspects(np.mean(scores) + deviation * predicted, strongest[suspect])


def _regression(n_images: int) -> BaseEstimator:
    """Return support-vector regression; for many pictures, where that takes minutes, ridge regression."""
    return SVR() if n_images <= MOST_IMAGES_FOR_SVR else RidgeCV(np.logspace(0, 5, 6))


def _components(features: Array, seed: int) -> Array:
    """Return the features as at most N_COMPONENTS principal components, scaled to a mean variance of 1.

    No score goes into them, so they may be shared by the folds.
    """
    n_components = min(N_COMPONENTS, *features.shape)
    standardised = StandardScaler().fit_transform(features.astype(np.float32))
    components = PCA(n_components, svd_solver="randomized", random_state=seed).fit_transform(standardised)
    return components / np.sqrt((components**2).mean())
