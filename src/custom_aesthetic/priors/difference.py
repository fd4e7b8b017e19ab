"""The difference between a person's taste and a prior model: a linear model of the scores beside the prior's scores.

score = bias + slope x prior's score + weight . features + noise, as a Gaussian process with a linear kernel. How far
the prior is believed, and how far the features, is averaged over a grid, each point with its evidence: the probability
of the given scores under it (Rasmussen and Williams, Gaussian Processes, 2006, chapter 5). A useless prior thus gets a
slope near 0, an opposite one a negative slope, and with few scores a slope near what priors usually deserve.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve

from custom_aesthetic.base.arrays import Array
from custom_aesthetic.heads.linear_members import MEAN_VARIANCE, LinearModel
from custom_aesthetic.heads.training_data import scales_of

Rows = NDArray[np.int64]

MOST_ROWS = 1500
"""Training images beyond which a random part of them serves: time grows with the cube of their number."""

FEATURE_VARIANCES = (0.0, 0.03, 0.1, 0.3, 1.0, 3.0)
"""Variances of the part of a score that is linear in the features, relative to the noise; equally probable."""


class Trust(NamedTuple):
    """A belief about the slope of the prior's scores before any score is known."""

    mean: float
    """In standard deviations of the scores, of a prior scaled to standard deviation 1."""
    variance: float
    """Of the slope, relative to the noise."""
    probability: float


TRUSTS = (Trust(0, 0, 0.7), Trust(0, 0.05, 0.08), Trust(0.35, 0.02, 0.22))
"""The prior says nothing, or something in either direction, or about as much as the mean taste of other people says
of one person's. Chosen on single raters with good, shuffled and opposite priors; see docs/log.md."""


class Difference(NamedTuple):
    """score = slope x prior's score + rest, in the units of the scores."""

    slope: float
    rest: LinearModel

    def predict(self, features: Array, prior_scores: Array) -> Array:
        """Return the scores (n_images,) of features (n_images, n_features) with the prior's scores (n_images,)."""
        return self.slope * prior_scores + self.rest.predict(features)


def fit_difference(features: Array, scores: Array, prior_scores: Array, rows: Rows) -> Difference | None:
    """Return the model of the images `rows`; None where nothing can be learnt, or where the prior says nothing.

    `features` are (n_images, n_features); `scores` and `prior_scores`, in any units, are (n_images,).
    """
    rows = np.random.default_rng(0).permutation(rows)[:MOST_ROWS]
    given, wanted, prior = features[rows].astype(np.float64), scores[rows], prior_scores[rows]
    middle, spread = float(wanted.mean()), float(wanted.std())
    prior_middle, prior_spread = float(prior.mean()), float(prior.std())
    mean = given.mean(0)
    scale = scales_of(given.var(0))
    given = (given - mean) / scale
    power = float(np.square(given).sum()) / max(len(rows), 1)
    if len(rows) < 3 or not min(power, spread) > 0 or not prior_spread > 1e-9 * max(abs(prior_middle), 1e-9):
        return None
    found = _averaged(given @ given.T / power, (prior - prior_middle) / prior_spread, (wanted - middle) / spread)
    weight = spread * (given.T @ found.duals) / power / scale
    slope = spread * found.slope / prior_spread
    bias = middle + spread * found.bias - float(mean @ weight) - slope * prior_middle
    return Difference(slope, LinearModel(weight, bias))


def out_of_fold(
    features: Array, scores: Array, prior_scores: Array, folds: Sequence[tuple[Rows, Rows]]
) -> Array | None:
    """Return what the model says of the images that each fold leaves out, (n_images,); nan for other images.

    `folds` are (rows that train, rows left out). None if a fold has no model.
    """
    found = np.full(len(scores), np.nan)
    for learnt, left_out in folds:
        model = fit_difference(features, scores, prior_scores, learnt)
        if model is None:
            return None
        found[left_out] = model.predict(features[left_out], prior_scores[left_out])
    return found


class _Fit(NamedTuple):
    duals: Array
    """(n_images,): the weight of the features is features.T @ duals."""
    slope: float
    bias: float


def _averaged(likeness: Array, prior: Array, scores: Array) -> _Fit:
    """Return the mean over the grid, weighted by evidence; prior and scores have mean 0 and standard deviation 1."""
    fits, evidence = [], []
    for variance in FEATURE_VARIANCES:
        for fit, log_probability in _at_variance(variance, likeness, prior, scores):
            fits.append(fit)
            evidence.append(log_probability)
    shares = np.exp(np.array(evidence) - max(evidence))
    shares /= shares.sum()
    duals = sum((share * fit.duals for share, fit in zip(shares, fits, strict=True)), np.zeros(len(scores)))
    slope, bias = (float(shares @ [fit[place] for fit in fits]) for place in (1, 2))
    return _Fit(duals, slope, bias)


def _at_variance(variance: float, likeness: Array, prior: Array, scores: Array) -> list[tuple[_Fit, float]]:
    """Return the fit and its log evidence, up to a constant, for each of the TRUSTS.

    The prior's scores add one direction to the covariance, whose inverse follows by the Sherman-Morrison formula. The
    noise variance is at its most probable value.
    """
    n_images = len(scores)
    factor = cho_factor(variance * likeness + MEAN_VARIANCE + np.eye(n_images), lower=True)
    for_prior, for_scores = cho_solve(factor, np.stack([prior, scores], axis=1)).T
    log_determinant = 2 * float(np.log(np.diag(factor[0])).sum())
    own = float(prior @ for_prior)
    found = []
    for trust in TRUSTS:
        rest, for_rest = scores - trust.mean * prior, for_scores - trust.mean * for_prior
        growth = 1 + trust.variance * own
        added = trust.variance * float(prior @ for_rest) / growth
        solved = for_rest - added * for_prior
        noise = float(rest @ solved) / (n_images - 1)
        log_probability = (
            np.log(trust.probability)
            - (n_images - 1) / 2 * np.log(max(noise, np.finfo(float).tiny))
            - (log_determinant + np.log(growth)) / 2
        )
        bias = MEAN_VARIANCE * float(solved.sum())
        found.append((_Fit(variance * solved, trust.mean + added, bias), float(log_probability)))
    return found
