"""The quick model: what features say of every picture, learnt from the answers so far, and how often it is right.

It is the Bradley-Terry model whose prior knows features (`scores.bradley_terry`): a ridge regression on the pictures'
features, fitted together with the answers. Its own figures must not flatter it:

- Each picture is judged by a fit without any answer about it (out of fold, over pictures).
- The pairs that were asked are not like others: most were chosen because they are close. So the share of pairs right is
  not counted on them. The true scores are drawn from their posterior given the answers (`scores.posterior`), which the
  choice of the pairs does not bias, and the out-of-fold scores are compared with them on random pairs. How much of the
  taste the features explain, and how consistent the answers are, is estimated from the answers too, by the probability
  that they have under each assumption.
- The forecast repeats this with parts of the answers and follows the rise by share(n) = 1/2 + A sqrt(n / (n + c)): a
  correlation of a mean over n noisy answers grows like that.
"""

from typing import NamedTuple

import numpy as np
import scipy.linalg
import scipy.sparse
from scipy.sparse.csgraph import breadth_first_order, connected_components
from scipy.special import expit, logsumexp

from custom_aesthetic.scores.bradley_terry import PRIOR_VARIANCE, Prior
from custom_aesthetic.scores.evidence import Evidence
from custom_aesthetic.scores.posterior import SPREAD_DEVIATION, posterior
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

FEATURE_SHARES = (0.1, 0.35, 0.65, 0.9)
"""Shares of the scores' variance that features may explain."""

SPREADS = tuple(float(spread) for spread in np.geomspace(0.25, 4, 6))
"""Standard deviations of the true scores that are tried, as multiples of the prior's."""

MOST_PICTURES = 200
"""Of more pictures with answers, this many are judged: time grows with the cube of their number."""

N_DRAWS = 200
MOST_PAIRS = 6000
HALVES = np.geomspace(0.02, 20, 24)
"""Values tried for c, as multiples of the number of answers."""

NEWTON_STEPS = 15


class Share(NamedTuple):
    """A share of pairs right, 0...1, and its 95 % interval."""

    value: float
    low: float
    high: float


class Worth(NamedTuple):
    """How good the quick model is on pairs of pictures about which it knows no answer."""

    right: Share
    """Share of random pairs in which it would pick what the user picks."""
    more: int
    """Number of further answers that the forecast is for."""
    forecast: Share | None
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
    n_answers = len(np.unique(found.answers))
    if n_answers < FEWEST_ANSWERS:
        return None
    generator = np.random.default_rng(seed)
    _, is_line = _with_lines(prior, found)
    rows = _judged_rows(found, len(prior.mean))
    inside = np.isin(found.winners, rows) & np.isin(found.losers, rows)
    pictures = np.flatnonzero(~is_line[rows])
    if len(pictures) < 3:
        return None
    truths = _true_scores(prior, _part(found, inside), rows, generator)
    first, second = _pairs(pictures, generator)
    chance = expit(truths[:, first] - truths[:, second])

    def shares_right(part: Evidence) -> np.ndarray:
        scores = out_of_fold(prior, part, seed=seed)[rows]
        says = np.sign(scores[first] - scores[second])
        right: np.ndarray = 0.5 + ((chance - 0.5) * says).mean(axis=1)
        return right

    whole = shares_right(found)
    if n_answers < FEWEST_FOR_A_FORECAST:
        return Worth(_share(whole), n_answers, None)
    curve = [
        np.mean([shares_right(_some(found, share, generator)) for _ in range(N_REPEATS)], axis=0) for share in SHARES
    ]
    return Worth(_share(whole), n_answers, _forecast(np.stack([*curve, whole], axis=1)))


def _forecast(curves: np.ndarray) -> Share | None:
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
    return _share(np.minimum(curves[:, -1] + gain, 1.0))


def _judged_rows(found: Evidence, n_rows: int) -> np.ndarray:
    """Return up to MOST_PICTURES rows with answers, sorted: neighbours, because answers about others are left out."""
    seen = np.unique(np.concatenate([found.winners, found.losers]))
    if len(seen) <= MOST_PICTURES:
        return seen
    links = scipy.sparse.coo_array(
        (np.ones(len(found.winners)), (found.winners, found.losers)), (n_rows, n_rows)
    ).tocsr()
    _, part = connected_components(links, directed=False)
    rows: list[int] = []
    for group in np.argsort(-np.bincount(part[seen]), kind="stable"):
        if len(rows) >= MOST_PICTURES:
            break
        first = seen[np.argmax(part[seen] == group)]
        rows += breadth_first_order(links, first, directed=False)[0].tolist()
    return np.sort(rows[:MOST_PICTURES])


def _true_scores(prior: Prior, found: Evidence, rows: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Return draws of the true scores of these rows given the answers among them, (n_draws, n_rows)."""
    place = np.zeros(len(prior.mean), dtype=int)
    place[rows] = np.arange(len(rows))
    winners, losers = place[found.winners], place[found.losers]
    assumed = [
        (share, spread, posterior(winners, losers, _assuming(prior, rows, share, spread), weights=found.weights))
        for share in FEATURE_SHARES
        for spread in SPREADS
    ]
    evidence = np.array(
        [one.log_evidence - 0.5 * (np.log(spread) / SPREAD_DEVIATION) ** 2 for _, spread, one in assumed]
    )
    chances = np.exp(evidence - logsumexp(evidence))
    counts = np.bincount(generator.choice(len(assumed), N_DRAWS, p=chances / chances.sum()), minlength=len(assumed))
    drawn = [
        one.mean
        + scipy.linalg.solve_triangular(
            np.linalg.cholesky(one.precision), generator.normal(size=(len(rows), count)), lower=True, trans="T"
        ).T
        for count, (_, _, one) in zip(counts, assumed, strict=True)
        if count
    ]
    return np.concatenate(drawn)


def _assuming(prior: Prior, rows: np.ndarray, share: float, spread: float) -> Prior:
    """Return the prior of these rows with another share of variance from features, and another spread."""
    assert prior.basis is not None
    basis = prior.basis[rows]
    is_line = ~basis.any(axis=1)
    open_share = np.where(is_line, 1.0, (1 - share) / (1 - FEATURE_SHARE))
    return Prior(
        prior.mean[rows] * spread,
        prior.variance[rows] * open_share * spread**2,
        basis * np.sqrt(share / FEATURE_SHARE) * spread,
    )


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


def _pairs(pictures: np.ndarray, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    first, second = np.triu_indices(len(pictures), 1)
    kept = generator.permutation(len(first))[:MOST_PAIRS]
    return pictures[first[kept]], pictures[second[kept]]


def _share(draws: np.ndarray) -> Share:
    low, high = np.quantile(draws, (0.025, 0.975))
    return Share(float(np.mean(draws)), float(low), float(high))
