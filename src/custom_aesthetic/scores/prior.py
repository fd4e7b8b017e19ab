"""Priors on the scores before the first comparison, from features, earlier scores or the scores of a model.

A prior that knows features is a ridge regression on them; `slope_of_answers` is its slope given answers.

All are in logits, the unit of `bradley_terry`: earlier scores on any scale are standardised and scaled to the assumed
spread of scores.
"""

import numpy as np

from custom_aesthetic.scores.bradley_terry import (
    PRIOR_VARIANCE,
    Prior,
    feature_basis,
    fit_scores,
    flat_prior,
    prior_precision,
)
from custom_aesthetic.scores.evidence import Evidence

FEATURE_SHARE = 2 / 3
"""Share of the scores' variance that features are assumed to explain."""

TRUSTED_SHARE = 0.7
"""Share of the scores' variance that earlier scores, or a model, are assumed to explain."""

SLOPE_VARIANCE = 1.0
"""Variance of what is linear in the features, logits squared, besides PRIOR_VARIANCE of each picture's own; see
docs/log.md."""

MOST_PICTURES = 500
"""With more pictures in all answers there is no slope: time grows with the cube of their number."""

MOST_ANSWERS = 1.5
"""With more comparisons for each picture in them, by weight, there is no slope: the scores tell as much or more."""


def feature_prior(features: np.ndarray) -> Prior:
    """Return a prior under which pictures with similar features, (n_pictures, n_features), have similar scores."""
    variance = np.full(len(features), PRIOR_VARIANCE * (1 - FEATURE_SHARE))
    return Prior(np.zeros(len(features)), variance, feature_basis(features, PRIOR_VARIANCE * FEATURE_SHARE))


def extended(prior: Prior, number: int, variance: float) -> Prior:
    """Return the prior with that many more rows, with mean 0 and this variance."""
    basis = prior.basis
    if basis is not None:
        basis = np.concatenate([basis, np.zeros((number, basis.shape[1]))])
    mean = np.concatenate([prior.mean, np.zeros(number)])
    return Prior(mean, np.concatenate([prior.variance, np.full(number, variance)]), basis)


def standardised(values: np.ndarray) -> np.ndarray:
    """Return values scaled to mean 0 and standard deviation 1; nan stays nan, and equal values all become nan."""
    known = values[np.isfinite(values)]
    if len(known) < 2 or np.ptp(known) == 0:
        return np.full(len(values), np.nan)
    return (values - known.mean()) / known.std()


def starting_prior(guesses: np.ndarray, features: np.ndarray | None = None) -> Prior:
    """Return a prior around guessed scores (n_pictures,), standardised, with nan for pictures without a guess.

    A guess leaves `1 - TRUSTED_SHARE` of the variance open, and a picture without a guess keeps all of it. With
    features, ridge regression predicts the missing guesses, and comparisons of one picture also inform the scores of
    similar pictures.
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
    """Return (scale, shift) that convert scores in logits to the units of the starting scores, which may contain nan.

    A starting score without comparisons is converted back to itself. Without starting scores the units are logits:
    (1, 0).
    """
    known = start[np.isfinite(start)]
    if len(known) < 2 or np.ptp(known) == 0:
        return 1.0, 0.0
    return float(known.std() / np.sqrt(PRIOR_VARIANCE * TRUSTED_SHARE)), float(known.mean())


def slope_of_answers(features: np.ndarray, rows: np.ndarray, answers: Evidence, *, n_images: int) -> np.ndarray | None:
    """Return the slope (n_features,), in logits, that the answers among some images give; None for none or too many.

    `features` (n_rows, n_features), centred, are those of the images `rows`. Rows of the answers from `n_images` on are
    the lines between stars.

    A true score is linear in the features plus something of the picture's own, and the answers follow the Bradley-Terry
    model: this is the most probable slope. From few answers it predicts new pictures better than ridge regression on
    the scores made from them, which do not say how sure they are. From many it does not: the scores then show how much
    the features explain, which is fixed here.
    """
    every = answers.rows
    found = answers.among(np.concatenate([rows, every[every >= n_images]]))
    seen = found.rows
    pictures = seen[seen < n_images]
    n_pictures = int((every < n_images).sum())
    if len(pictures) == 0 or n_pictures > MOST_PICTURES or answers.weights.sum() > MOST_ANSWERS * n_pictures:
        return None
    order = np.argsort(rows)
    given = features[order[np.searchsorted(rows, pictures, sorter=order)]]
    size = np.square(features).sum() / len(features) / SLOPE_VARIANCE
    values, vectors = np.linalg.eigh(given @ given.T / size)
    own = Prior(np.zeros(len(pictures)), np.full(len(pictures), PRIOR_VARIANCE), vectors * np.sqrt(values.clip(0)))
    prior = extended(own, len(seen) - len(pictures), PRIOR_VARIANCE)
    places = np.searchsorted(seen, found.winners), np.searchsorted(seen, found.losers)
    scores = fit_scores(*places, prior, weights=found.weights)[: len(pictures)]
    slope: np.ndarray = (prior_precision(own) @ scores) @ given / size
    return slope


def _ridge(prior: Prior, values: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Return predictions for every picture by ridge regression of the known values on the prior's basis."""
    assert prior.basis is not None
    rows = prior.basis[known] / prior.variance[known, None]
    inner = np.eye(prior.basis.shape[1]) + prior.basis[known].T @ rows
    return prior.basis @ np.linalg.solve(inner, rows.T @ values[known])
