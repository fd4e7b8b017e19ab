"""Suspicious scores: pictures whose score contradicts the score expected from the other pictures."""

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
"""Scores this many robust standard deviations from their prediction are suspects: 1 in 80 if errors are normal."""
MAD_TO_DEVIATION = 1.4826
"""Ratio of standard deviation to median absolute deviation in a normal distribution."""


@dataclass(frozen=True)
class Suspects:
    """Out-of-fold predictions of scores, and the scores that contradict them."""

    predictions: Array
    """(n_images,): the score of each picture, predicted from features and the scores of other pictures."""
    rows: NDArray[np.int64]
    """Rows of the suspects, strongest contradiction first."""


def find_suspects(features: Array, scores: Array, *, seed: int = 0) -> Suspects | None:
    """Return the scores (n_images,) that contradict their predictions from features (n_images, n_features).

    Predictions come from five-fold cross-validation, so a wrong score does not affect its own prediction. Returns None
    if there are too few pictures or all scores are equal.
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
    """Return support-vector regression; for many pictures, where that would take minutes, ridge regression."""
    return SVR() if n_images <= MOST_IMAGES_FOR_SVR else RidgeCV(np.logspace(0, 5, 6))


def _components(features: Array, seed: int) -> Array:
    """Return at most N_COMPONENTS principal components of the features, scaled to a mean variance of 1.

    They do not depend on the scores, so all folds can share them.
    """
    n_components = min(N_COMPONENTS, *features.shape)
    standardised = StandardScaler().fit_transform(features.astype(np.float32))
    components = PCA(n_components, svd_solver="randomized", random_state=seed).fit_transform(standardised)
    return components / np.sqrt((components**2).mean())
