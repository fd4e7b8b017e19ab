"""Scores from comparisons by the Bradley-Terry model with a Gaussian prior, and their standard errors.

A picture with score a is preferred to a picture with score b with probability 1 / (1 + exp(b - a)), so scores are in
logits: a lead of 1 wins 73 % of the comparisons, a lead of 3 wins 95 %. The prior on the scores is

    scores ~ Normal(mean, diag(variance) + basis @ basis.T)

where the optional `basis` is the influence of the pictures' features: a ridge regression on them, fitted jointly with
the comparisons (Bradley and Terry, Biometrika 1952; Rasmussen and Williams, Gaussian Processes, ch. 3).
"""

from dataclasses import dataclass

import numpy as np
import scipy.linalg
import scipy.sparse
from scipy.sparse.linalg import LinearOperator, cg
from scipy.special import expit, log_expit

EXACT_UP_TO = 1500
"""Up to this many pictures, standard errors are computed exactly, from dense matrices."""

MESSAGE_ROUNDS = 30
PRIOR_VARIANCE = 2.25
"""Variance of scores before any comparison, logits squared: the better of two pictures then wins in about 80 %."""


@dataclass(frozen=True)
class Prior:
    """The distribution of the scores before the first comparison.

    `mean` and `variance` are (n_pictures,), `basis` (n_pictures, n_components) or None; in logits or logits squared.
    """

    mean: np.ndarray
    variance: np.ndarray
    basis: np.ndarray | None = None

    def of_rows(self, rows: np.ndarray) -> "Prior":
        """Return the prior of some pictures."""
        return Prior(self.mean[rows], self.variance[rows], None if self.basis is None else self.basis[rows])


def flat_prior(n_pictures: int, variance: float = PRIOR_VARIANCE) -> Prior:
    """Return a prior that is the same for all pictures."""
    return Prior(np.zeros(n_pictures), np.full(n_pictures, variance))


def feature_basis(features: np.ndarray, variance: float, n_components: int = 64) -> np.ndarray:
    """Return the basis, (n_pictures, at most n_components), of a ridge prior on features (n_pictures, n_features).

    It consists of the standardised features along their principal axes, scaled so that the features contribute
    `variance` (logits squared) to the variance of a score on average.
    """
    spread = features.std(axis=0)
    usable = spread > 1e-8
    standardised = (features[:, usable] - features[:, usable].mean(axis=0)) / spread[usable]
    if standardised.shape[1] == 0:
        return np.zeros((len(features), 0))
    projected = _principal_components(standardised, n_components)
    return projected * np.sqrt(variance / (projected**2).sum(axis=1).mean())


def _principal_components(values: np.ndarray, n_components: int) -> np.ndarray:
    """Return centred values, (n_rows, n_columns), along their main axes, (n_rows, at most n_components).

    The axes come from the smaller one of the two matrices of products.
    """
    n_rows, n_columns = values.shape
    tall = n_rows > n_columns
    products = values.T @ values if tall else values @ values.T
    ends = (max(len(products) - n_components, 0), len(products) - 1)
    spreads, axes = scipy.linalg.eigh(products, subset_by_index=ends)
    found: np.ndarray = values @ axes if tall else axes * np.sqrt(np.maximum(spreads, 0))
    return found[:, ::-1]


def fit_scores(
    winners: np.ndarray,
    losers: np.ndarray,
    prior: Prior,
    *,
    weights: np.ndarray | None = None,
    start: np.ndarray | None = None,
    tolerance: float = 1e-6,
) -> np.ndarray:
    """Return the most probable scores, (n_pictures,), in logits, by Newton's method.

    `winners` and `losers` are (n_comparisons,) indices of pictures, and `weights` (n_comparisons,) how much each
    comparison counts; 1 without them. `start` are initial scores; earlier scores save steps. The objective is strictly
    convex, so the solution is unique.
    """
    share = np.ones(len(winners)) if weights is None else weights
    scores = prior.mean.copy() if start is None else start.copy()
    value = _objective(scores, winners, losers, prior, share)
    for _ in range(50):
        surprise = expit(scores[losers] - scores[winners])
        slope = _prior_product(prior, scores - prior.mean) - _signed_sum(share * surprise, winners, losers, len(scores))
        if np.abs(slope).max() < tolerance:
            break
        step = _solve(share * surprise * (1 - surprise), winners, losers, prior, slope)
        length = 1.0
        while length > 1e-4:
            candidate = scores - length * step
            new_value = _objective(candidate, winners, losers, prior, share)
            if new_value <= value:
                break
            length /= 2
        else:
            break
        scores, value = candidate, new_value
    return scores


def standard_errors(
    scores: np.ndarray, winners: np.ndarray, losers: np.ndarray, prior: Prior, *, weights: np.ndarray | None = None
) -> np.ndarray:
    """Return the standard error of each score, (n_pictures,), in logits, from the curvature at `scores`.

    It is exact (from the diagonal of the inverse Hessian) for up to `EXACT_UP_TO` pictures. For more, it comes from
    Gaussian belief propagation along the comparisons, which is exact on trees and a little too small otherwise; the
    contribution of the features is added by the Woodbury identity.
    """
    if len(scores) <= EXACT_UP_TO:
        return np.sqrt(np.diag(covariance(scores, winners, losers, prior, weights=weights)))
    curvatures = curvature(scores, winners, losers, weights)
    variance = _variance_without_loops(curvatures, winners, losers, 1 / prior.variance)
    if prior.basis is not None and prior.basis.shape[1] > 0:
        sparse = _sparse_hessian(curvatures, winners, losers, 1 / prior.variance)
        inner, scaled = _woodbury(prior)
        # Hessian = sparse - scaled @ inner @ scaled.T
        solved = np.stack([_conjugate_gradient(sparse, column) for column in scaled.T], axis=1)
        middle = np.linalg.inv(np.linalg.inv(inner) - scaled.T @ solved)
        variance = variance + np.einsum("ij,jk,ik->i", solved, middle, solved)
    return np.sqrt(variance)


def covariance(
    scores: np.ndarray, winners: np.ndarray, losers: np.ndarray, prior: Prior, *, weights: np.ndarray | None = None
) -> np.ndarray:
    """Return the covariance of the scores given the comparisons, (n_pictures, n_pictures), dense, logits squared."""
    hessian = _dense_hessian(curvature(scores, winners, losers, weights), winners, losers, prior)
    return np.linalg.inv(hessian)


def prior_precision(prior: Prior) -> np.ndarray:
    """Return the inverse of the prior's covariance, (n_pictures, n_pictures), dense."""
    none = np.array([], dtype=int)
    return _dense_hessian(np.array([]), none, none, prior)


def weighted_laplacian(weights: np.ndarray, winners: np.ndarray, losers: np.ndarray, n_pictures: int) -> np.ndarray:
    """Return the precision that comparisons with these weights add, (n_pictures, n_pictures), dense."""
    return _sparse_hessian(weights, winners, losers, np.zeros(n_pictures)).toarray()


def curvature(
    scores: np.ndarray, winners: np.ndarray, losers: np.ndarray, weights: np.ndarray | None = None
) -> np.ndarray:
    """Return the information in each comparison at these scores, (n_comparisons,): its weight times p (1 - p)."""
    probability = expit(scores[winners] - scores[losers])
    information: np.ndarray = probability * (1 - probability)
    return information if weights is None else weights * information


def _objective(scores: np.ndarray, winners: np.ndarray, losers: np.ndarray, prior: Prior, weights: np.ndarray) -> float:
    deviation = scores - prior.mean
    misfit = -(weights * log_expit(scores[winners] - scores[losers])).sum()
    return float(misfit + 0.5 * deviation @ _prior_product(prior, deviation))


def _signed_sum(values: np.ndarray, winners: np.ndarray, losers: np.ndarray, n_pictures: int) -> np.ndarray:
    return np.bincount(winners, values, n_pictures) - np.bincount(losers, values, n_pictures)


def _woodbury(prior: Prior) -> tuple[np.ndarray, np.ndarray]:
    """Return (inner, scaled): the prior's precision is diag(1 / variance) - scaled @ inner @ scaled.T."""
    assert prior.basis is not None
    scaled = prior.basis / prior.variance[:, None]
    return np.linalg.inv(np.eye(scaled.shape[1]) + prior.basis.T @ scaled), scaled


def _prior_product(prior: Prior, vector: np.ndarray) -> np.ndarray:
    """Return the prior's precision matrix times a vector."""
    product = vector / prior.variance
    if prior.basis is not None:
        inner, scaled = _woodbury(prior)
        product = product - scaled @ (inner @ (scaled.T @ vector))
    return product


def _sparse_hessian(
    weights: np.ndarray, winners: np.ndarray, losers: np.ndarray, precision: np.ndarray
) -> scipy.sparse.csr_array:
    n_pictures = len(precision)
    everyone = np.arange(n_pictures)
    diagonal = precision + np.bincount(winners, weights, n_pictures) + np.bincount(losers, weights, n_pictures)
    values = np.concatenate([diagonal, -weights, -weights])
    rows, columns = np.concatenate([everyone, winners, losers]), np.concatenate([everyone, losers, winners])
    return scipy.sparse.coo_array((values, (rows, columns)), shape=(n_pictures, n_pictures)).tocsr()


def _dense_hessian(weights: np.ndarray, winners: np.ndarray, losers: np.ndarray, prior: Prior) -> np.ndarray:
    hessian = _sparse_hessian(weights, winners, losers, 1 / prior.variance).toarray()
    if prior.basis is not None:
        inner, scaled = _woodbury(prior)
        hessian -= scaled @ inner @ scaled.T
    return hessian


def _conjugate_gradient(
    matrix: scipy.sparse.csr_array | LinearOperator, right: np.ndarray, diagonal: np.ndarray | None = None
) -> np.ndarray:
    diagonal = matrix.diagonal() if diagonal is None else diagonal
    jacobi = LinearOperator(matrix.shape, matvec=lambda vector: vector / diagonal, dtype=np.float64)
    solution, _ = cg(matrix, right, rtol=1e-5, maxiter=300, M=jacobi)
    return solution


def _solve(weights: np.ndarray, winners: np.ndarray, losers: np.ndarray, prior: Prior, right: np.ndarray) -> np.ndarray:
    """Return the Newton step: the inverse Hessian times `right`."""
    if len(right) <= EXACT_UP_TO // 5:
        return np.linalg.solve(_dense_hessian(weights, winners, losers, prior), right)
    sparse = _sparse_hessian(weights, winners, losers, 1 / prior.variance)
    if prior.basis is None:
        return _conjugate_gradient(sparse, right)
    inner, scaled = _woodbury(prior)
    whole = LinearOperator(
        sparse.shape, matvec=lambda vector: sparse @ vector - scaled @ (inner @ (scaled.T @ vector)), dtype=np.float64
    )
    return _conjugate_gradient(whole, right, sparse.diagonal())


def _variance_without_loops(
    weights: np.ndarray, winners: np.ndarray, losers: np.ndarray, precision: np.ndarray
) -> np.ndarray:
    """Return the diagonal of the inverse Hessian, (n_pictures,), by belief propagation, which ignores loops."""
    n_pictures, n_comparisons = len(precision), len(weights)
    pairs, first = np.unique(np.sort(np.stack([winners, losers], axis=1), axis=1), axis=0, return_inverse=True)
    if n_comparisons == 0:
        return 1 / precision
    joint = np.bincount(first.ravel(), weights)
    source, target = np.concatenate([pairs[:, 0], pairs[:, 1]]), np.concatenate([pairs[:, 1], pairs[:, 0]])
    weight, half = np.concatenate([joint, joint]), len(pairs)
    backwards = np.concatenate([np.arange(half, 2 * half), np.arange(half)])
    message = weight.copy()
    for _ in range(MESSAGE_ROUNDS):
        belief = precision + np.bincount(target, message, n_pictures)
        without = belief[source] - message[backwards]
        message = weight * without / (weight + without)
    return 1 / (precision + np.bincount(target, message, n_pictures))
