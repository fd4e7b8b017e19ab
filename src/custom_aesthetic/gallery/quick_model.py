"""The quick model: what features say of every picture, learnt from the answers so far, and how often it is right.

It is the Bradley-Terry model whose prior knows features (`scores.bradley_terry`): a ridge regression on the pictures'
features, fitted together with the answers. Its own figures must not flatter it:

- Each picture is judged by a fit without any answer about it (out of fold, over pictures).
- The pairs that were asked are not like others, so its scores are compared with draws of the true scores on random
  pairs (`quality.answers`), as a trained model's are.
- The forecast repeats this with parts of the answers and follows the rise by share(n) = 1/2 + A sqrt(n / (n + c)): a
  correlation of a mean over n noisy answers grows like that.
"""

from typing import NamedTuple

import numpy as np
import scipy.linalg
from scipy.special import expit

from custom_aesthetic.quality.answers import FEWEST_PICTURES, taste_under
from custom_aesthetic.quality.confidence import Interval, interval_of
from custom_aesthetic.scores.bradley_terry import PRIOR_VARIANCE, Prior
from custom_aesthetic.scores.evidence import Evidence
from custom_aesthetic.scores.prior import FEATURE_SHARE

FEWEST_ANSWERS = 20
"""Number of answers needed before the share of pairs right is estimated."""

FEWEST_FOR_A_FORECAST = 60
SURE = 0.9
"""A forecast is given if the curve rises in at least this share of the draws."""

N_FOLDS = 10
SHARES = (0.25, 0.5)
"""Parts of the answers that the forecast learns from, besides all of them."""

N_REPEATS = 3
"""Random parts of each size."""

MOST_PICTURES = 200
"""Of more pictures with answers, this many are judged: time grows with the cube of their number."""

HALVES = np.geomspace(0.02, 20, 24)
"""Values tried for c, as multiples of the number of answers."""

NEWTON_STEPS = 15


class Worth(NamedTuple):
    """How good the quick model is on pairs of pictures about which it knows no answer."""

    right: Interval
    """Share of random pairs in which it would pick what the user picks, 0...1."""
    more: int
    """Number of further answers that the forecast is for."""
    forecast: Interval | None
    """The share expected then; None if it cannot be said yet."""


def out_of_fold(prior: Prior, found: Evidence, *, seed: int = 0) -> np.ndarray:
    """Return a score for each row, (n_rows,), from a fit without the answers about it; lines between stars get 0."""
    basis, is_line = _with_lines(prior, found)
    folds = np.random.default_rng(seed).permutation(len(is_line)) % N_FOLDS
    folds[is_line] = -1
    winner, loser = folds[found.winners], folds[found.losers]
    start = _fit(basis, prior.mean, found)
    scores = np.zeros(len(is_line))
    for fold in range(N_FOLDS):
        kept = (winner != fold) & (loser != fold)
        rows = folds == fold
        scores[rows] = prior.mean[rows] + basis[rows] @ _fit(basis, prior.mean, _part(found, kept), start)
    return scores


def error_axes(prior: Prior, found: Evidence) -> np.ndarray:
    """Return the part of the errors that comes from features, (n_rows, n_axes): the covariance is axes @ axes.T.

    Every picture's features count as equally strong, so that pairs are not drawn again and again from the few pictures
    that are unlike all others, which tell little of the rest.
    """
    basis, is_line = _with_lines(prior, found)
    if basis.shape[1] == 0:
        return basis  # older versions of scipy refuse to solve for nothing
    lengths = np.linalg.norm(basis, axis=1)
    wanted = np.sqrt(prior.variance * FEATURE_SHARE / (1 - FEATURE_SHARE))
    scales = np.divide(wanted, lengths, out=np.ones_like(lengths), where=(lengths > 0) & ~is_line)
    basis = basis * scales[:, None]
    design, offset = _design(basis, prior.mean, found)
    surprise = expit(-(design @ _fit(basis, prior.mean, found) + offset))
    root = np.linalg.cholesky(_hessian(design, found.weights * surprise * (1 - surprise)))
    axes: np.ndarray = scipy.linalg.solve_triangular(root, basis.T, lower=True).T
    return axes


def worth(prior: Prior, found: Evidence, *, seed: int = 0) -> Worth | None:
    """Return how good the quick model is; None with fewer than FEWEST_ANSWERS answers.

    `found` are the answers about the rows of `prior`, whose basis is the features. Rows of the basis that are all 0 are
    the lines between stars.
    """
    _, is_line = _with_lines(prior, found)
    n_answers = len(np.unique(found.answers))
    if n_answers < FEWEST_ANSWERS:
        return None
    taste = taste_under({1.0: prior}, found, ~is_line, most_pictures=MOST_PICTURES, seed=seed)
    if len(taste.rows) < FEWEST_PICTURES:
        return None
    generator = np.random.default_rng(seed)

    def right(part: Evidence) -> np.ndarray:
        return taste.right(taste.rows, out_of_fold(prior, part, seed=seed)[taste.rows])

    whole = right(found)
    if n_answers < FEWEST_FOR_A_FORECAST:
        return Worth(interval_of(whole), n_answers, None)
    curve = [np.mean([right(_some(found, share, generator)) for _ in range(N_REPEATS)], axis=0) for share in SHARES]
    return Worth(interval_of(whole), n_answers, _forecast(np.stack([*curve, whole], axis=1)))


def _forecast(curves: np.ndarray) -> Interval | None:
    """Return the share right with twice the answers, from (n_draws, n_sizes) shares right; None if they hardly rise."""
    if np.mean(curves[:, -1] > curves[:, 0]) < SURE or curves[:, -1].mean() <= curves[:, :-1].mean(axis=0).max():
        return None
    sizes = np.array([*SHARES, 1.0])
    laws = np.sqrt(sizes / (sizes + HALVES[:, None]))
    above = curves - 0.5
    heights = np.minimum(above @ laws.T / np.square(laws).sum(axis=1), 0.5)
    errors = np.square(above[:, None, :] - heights[:, :, None] * laws).sum(axis=2)
    best = np.argmin(errors, axis=1)
    draws = np.arange(len(curves))
    half, height = HALVES[best], heights[draws, best]
    gain = height * (np.sqrt(2 / (2 + half)) - np.sqrt(1 / (1 + half)))
    return interval_of(np.minimum(curves[:, -1] + gain, 1.0))


def _with_lines(prior: Prior, found: Evidence) -> tuple[np.ndarray, np.ndarray]:
    """Return the basis with a component for each line that has answers, (n_rows, n_components), and which are lines."""
    assert prior.basis is not None
    is_line = np.asarray(~prior.basis.any(axis=1))
    answered = np.unique(np.concatenate([found.winners, found.losers]))
    places = answered[is_line[answered]]
    lines = np.zeros((len(is_line), len(places)))
    lines[places, np.arange(len(places))] = np.sqrt(prior.variance[places])
    return np.concatenate([prior.basis, lines], axis=1), is_line


def _fit(basis: np.ndarray, mean: np.ndarray, found: Evidence, start: np.ndarray | None = None) -> np.ndarray:
    """Return the most probable weights of the components, (n_components,), by Newton's method."""
    design, offset = _design(basis, mean, found)
    weights = np.zeros(basis.shape[1]) if start is None else start.copy()
    for _ in range(NEWTON_STEPS):
        surprise = expit(-(design @ weights + offset))
        slope = weights - design.T @ (found.weights * surprise)
        if np.abs(slope).max(initial=0) < 1e-5:
            break
        weights -= np.linalg.solve(_hessian(design, found.weights * surprise * (1 - surprise)), slope)
    return weights


def _design(basis: np.ndarray, mean: np.ndarray, found: Evidence) -> tuple[np.ndarray, np.ndarray]:
    """Return the leads as design (n_comparisons, n_components) @ weights + offset (n_comparisons,).

    What features do not explain makes the answers noisier: leads are shrunk for it (MacKay's approximation).
    """
    shrinkage = 1 / np.sqrt(1 + np.pi / 8 * 2 * _OWN_VARIANCE)
    design = (basis[found.winners] - basis[found.losers]) * shrinkage
    return design, (mean[found.winners] - mean[found.losers]) * shrinkage


def _hessian(design: np.ndarray, curvature: np.ndarray) -> np.ndarray:
    found: np.ndarray = np.eye(design.shape[1]) + design.T @ (design * curvature[:, None])
    return found


_OWN_VARIANCE = PRIOR_VARIANCE * (1 - FEATURE_SHARE)
"""Variance of the scores that features do not explain, logits squared."""


def _part(found: Evidence, kept: np.ndarray) -> Evidence:
    return Evidence(*(column[kept] for column in found))


def _some(found: Evidence, share: float, generator: np.random.Generator) -> Evidence:
    """Return a random share of the answers."""
    answers = np.unique(found.answers)
    chosen = generator.choice(answers, max(1, round(share * len(answers))), replace=False)
    return _part(found, np.isin(found.answers, chosen))
