"""What is believed of the scores before the first answer: from features, from earlier scores, from a model.

Everything is brought to logits, the unit of `bradley_terry`: earlier scores of whatever scale are standardised, and
spread as wide as scores are believed to be.
"""

import numpy as np

from custom_aesthetic.scores.bradley_terry import PRIOR_VARIANCE, Prior, feature_basis, flat_prior

FEATURE_SHARE = 2 / 3
"""Share of the scores' variance that the features are given to explain."""

TRUSTED_SHARE = 0.7
"""Share of the scores' variance that earlier scores, or a model, are believed to explain."""


def feature_prior(features: np.ndarray) -> Prior:
    """A prior under which pictures with similar features, (n_pictures, n_features), have similar scores."""
    variance = np.full(len(features), PRIOR_VARIANCE * (1 - FEATURE_SHARE))
    return Prior(np.zeros(len(features)), variance, feature_basis(features, PRIOR_VARIANCE * FEATURE_SHARE))


def standardised(values: np.ndarray) -> np.ndarray:
    """The values with mean 0 and standard deviation 1; nan where there is none, and everywhere if all are equal."""
    known = values[np.isfinite(values)]
    if len(known) < 2 or np.ptp(known) == 0:
        return np.full(len(values), np.nan)
    return (values - known.mean()) / known.std()


def starting_prior(guesses: np.ndarray, features: np.ndarray | None = None) -> Prior:
    """A prior round guessed scores, (n_pictures,), standardised, with nan where there is none.

    A guess leaves `1 - TRUSTED_SHARE` of the variance open, a picture without one all of it. With features, those
    without a guess get one by ridge regression, and features also carry what the answers teach from one picture to
    the next.
    """
    base = flat_prior(len(guesses)) if features is None else feature_prior(features)
    known = np.isfinite(guesses)
    if not known.any():
        return base
    mean = np.where(known, guesses, 0.0) * np.sqrt(PRIOR_VARIANCE * TRUSTED_SHARE)
    if base.basis is not None:
        mean[~known] = _ridge(base, mean, known)[~known]
    open_share = np.where(known, 1 - TRUSTED_SHARE, 1.0)
    basis = None if base.basis is None else base.basis * np.sqrt(open_share)[:, None]
    return Prior(mean, base.variance * open_share, basis)


def to_units(start: np.ndarray) -> tuple[float, float]:
    """Scale and shift that bring scores in logits to the units of the scores they started from, nan where none.

    They bring a starting score with no answer to itself. (1, 0) where there were no scores: logits are the units.
    """
    known = start[np.isfinite(start)]
    if len(known) < 2 or np.ptp(known) == 0:
        return 1.0, 0.0
    return float(known.std() / np.sqrt(PRIOR_VARIANCE * TRUSTED_SHARE)), float(known.mean())


def _ridge(prior: Prior, values: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Ridge regression of the known values on the prior's basis, for every picture."""
    assert prior.basis is not None
    rows = prior.basis[known] / prior.variance[known, None]
    inner = np.eye(prior.basis.shape[1]) + prior.basis[known].T @ rows
    return prior.basis @ np.linalg.solve(inner, rows.T @ values[known])
