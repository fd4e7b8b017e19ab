"""Random draws of the true scores given the comparisons of a judge whose consistency is unknown.

`fit_scores` takes the spread of the true scores in logits, and thereby the consistency of the judge, from its prior.
Statements about the scores should not depend on that assumption. Here several spreads of the prior are tried and
weighted by the probability that they give to the comparisons, and true scores are drawn from the posterior for each.
Some judges err as often on pictures that are far apart as on others, so each spread is also tried with a lapse rate: a
share of answers that are the toss of a coin. Posteriors and probabilities come from expectation propagation (Minka,
2001; Rasmussen and Williams, Gaussian Processes, ch. 3.6), because Laplace's approximation underestimates the
probability of wide spreads for few comparisons.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import scipy.linalg
import scipy.sparse
from scipy.sparse.csgraph import breadth_first_order, connected_components
from scipy.special import expit, log_expit, logsumexp

from custom_aesthetic.scores.bradley_terry import (
    Prior,
    curvature,
    fit_scores,
    flat_prior,
    prior_precision,
    standard_errors,
    weighted_laplacian,
)

SPREADS = tuple(float(spread) for spread in np.geomspace(0.2, 8, 10))
"""Standard deviations tried, as multiples of the prior's: judges right in 57 % to 97 % of random pairs."""

SPREAD_DEVIATION = 1.5
"""Prior standard deviation of the logarithm of the spread, whose prior mean is 0."""

LAPSES = {0.0: 0.7, 0.08: 0.1, 0.2: 0.1, 0.4: 0.1}
"""Shares of answers that are a coin's toss -> how probable each is before any answer."""

LEAST_LAPSING_SPREAD = 0.9
"""With a smaller spread lapses are not tried: a judge who can hardly tell pictures apart errs anyway."""

EVIDENCE_PICTURES = 200
"""With more pictures, the spread is estimated from the comparisons among this many neighbours."""

JOINT_PICTURES = 300
"""With more pictures, the errors of scores are drawn independently of each other, and no lapses are tried."""

LEAST_WEIGHT = 0.02
"""Spreads with a smaller probability are left out."""

MOST_ROUNDS = 40
DAMPING = 0.2
"""Share of the previous values kept in each round of expectation propagation."""

_NODES, _NODE_WEIGHTS = np.polynomial.hermite_e.hermegauss(21)
_LOG_NODE_WEIGHTS = np.log(_NODE_WEIGHTS / _NODE_WEIGHTS.sum())


class Posterior(NamedTuple):
    """Normal approximation of the true scores' distribution given the comparisons, under one prior."""

    mean: np.ndarray
    """(n_pictures,), logits."""
    precision: np.ndarray
    """(n_pictures, n_pictures)"""
    log_evidence: float
    """Log probability of the comparisons under the prior."""

    def draws(self, normal: np.ndarray) -> np.ndarray:
        """Return draws of the true scores from standard normal numbers, both (n_draws, n_pictures)."""
        root = np.linalg.cholesky(self.precision)
        return self.mean + scipy.linalg.solve_triangular(root, normal.T, lower=True, trans="T").T


class _Comparisons(NamedTuple):
    """Rows of winners and losers, and how much each comparison counts, (n_comparisons,) each."""

    winners: np.ndarray
    losers: np.ndarray
    weights: np.ndarray


class _Sites(NamedTuple):
    """The factor exp(shift lead - precision lead^2 / 2) that approximates each comparison, (n_comparisons,)."""

    precision: np.ndarray
    shift: np.ndarray


class _Candidate(NamedTuple):
    """One way in which the answers may have come about."""

    prior: Prior
    lapse: float
    log_probability: float
    """Before any answer, but for a constant."""


class Draws(NamedTuple):
    """Draws from what is believed of a judge."""

    scores: np.ndarray
    """(n_draws, n_pictures): true scores, logits."""
    lapses: np.ndarray
    """(n_draws,): share of the judge's answers that are a coin's toss, 0...1."""


def draw_true_scores(
    winners: np.ndarray,
    losers: np.ndarray,
    prior: Prior,
    *,
    weights: np.ndarray | None = None,
    n_draws: int = 200,
    seed: int = 0,
) -> Draws:
    """Return draws of the true scores, and of the lapse rate of the judge that goes with each.

    `weights` (n_comparisons,) says how much each comparison counts; 1 without them.

    If the prior is informative (features, earlier scores), a flat prior is tried too, so that an informative prior that
    contradicts the comparisons does not make the order look certain.
    """
    candidates = _candidates(prior)
    comparisons = _Comparisons(winners, losers, np.ones(len(winners)) if weights is None else weights)
    shares = _shares(comparisons, candidates)
    generator = np.random.default_rng(seed)
    counts = np.bincount(generator.choice(len(candidates), n_draws, p=shares), minlength=len(candidates))
    drawn = [
        _draw(comparisons, candidate, int(count), generator)
        for candidate, count in zip(candidates, counts, strict=True)
        if count
    ]
    return Draws(np.concatenate(drawn), np.repeat([one.lapse for one in candidates], counts))


def _candidates(prior: Prior) -> list[_Candidate]:
    """Return the prior at every spread and lapse rate and, if it is informative, a flat prior likewise."""
    flat = flat_prior(len(prior.mean))
    known = prior.basis is not None or np.ptp(prior.mean) > 0 or np.ptp(prior.variance) > 0
    lapses = LAPSES if len(prior.mean) <= JOINT_PICTURES else {0.0: 1.0}
    return [
        _Candidate(_at_spread(one, spread), lapse, np.log(share) - 0.5 * (np.log(spread) / SPREAD_DEVIATION) ** 2)
        for one in ([prior, flat] if known else [flat])
        for lapse, share in lapses.items()
        for spread in SPREADS
        if lapse == 0 or spread >= LEAST_LAPSING_SPREAD
    ]


def _at_spread(prior: Prior, spread: float) -> Prior:
    basis = None if prior.basis is None else prior.basis * spread
    return Prior(prior.mean * spread, prior.variance * spread**2, basis)


def _shares(comparisons: _Comparisons, candidates: Sequence[_Candidate]) -> np.ndarray:
    """Return the probability of each candidate given the comparisons; those below `LEAST_WEIGHT` are set to 0."""
    n_pictures = len(candidates[0].prior.mean)
    winners, losers, weights = comparisons
    rows, inside = _neighbours(winners, losers, n_pictures)
    place = np.zeros(n_pictures, dtype=int)
    place[rows] = np.arange(len(rows))
    kept = place[winners[inside]], place[losers[inside]]
    evidence = [
        one.log_probability
        + posterior(*kept, one.prior.of_rows(rows), weights=weights[inside], lapse=one.lapse).log_evidence
        for one in candidates
    ]
    return probabilities(evidence, least=LEAST_WEIGHT)


def probabilities(logs: Sequence[float], *, least: float) -> np.ndarray:
    """Return probabilities that add up to 1 from their logarithms but for a constant; those below `least` are 0."""
    found = np.exp(np.array(logs) - logsumexp(logs))
    found[found < least] = 0
    return found / found.sum()


def _neighbours(winners: np.ndarray, losers: np.ndarray, n_pictures: int) -> tuple[np.ndarray, np.ndarray]:
    """Return connected pictures, (n_neighbours,), and the mask of the comparisons among them, (n_comparisons,).

    Pictures without comparisons do not affect the spread, so leaving them out is exact.
    """
    seen = np.unique(np.concatenate([winners, losers]))
    if len(seen) > EVIDENCE_PICTURES:
        links = scipy.sparse.coo_array((np.ones(len(winners)), (winners, losers)), shape=(n_pictures, n_pictures))
        _, part = connected_components(links, directed=False)
        first = seen[np.argmax(np.bincount(part)[part[seen]])]
        seen = np.sort(breadth_first_order(links.tocsr(), first, directed=False)[0][:EVIDENCE_PICTURES])
    return seen, np.isin(winners, seen) & np.isin(losers, seen)


def posterior(
    winners: np.ndarray,
    losers: np.ndarray,
    prior: Prior,
    *,
    weights: np.ndarray | None = None,
    lapse: float = 0.0,
) -> Posterior:
    """Return the true scores' distribution given the comparisons, by expectation propagation with dense matrices.

    `lapse` (0...1) is the share of answers that are the toss of a coin.
    """
    base = prior_precision(prior)
    pull = base @ prior.mean
    weights = np.ones(len(winners)) if weights is None else weights
    sites = _at_the_mode(_Comparisons(winners, losers, weights), prior)
    for _ in range(MOST_ROUNDS):
        precision = base + weighted_laplacian(sites.precision, winners, losers, len(pull))
        covariance = np.linalg.inv(precision)
        mean = covariance @ (pull + _on_pictures(sites.shift, winners, losers, len(pull)))
        lead = mean[winners] - mean[losers]
        variance = covariance[winners, winners] + covariance[losers, losers] - 2 * covariance[winners, losers]
        cavity_variance = 1 / (1 / variance - sites.precision)
        cavity_mean = cavity_variance * (lead / variance - sites.shift)
        log_mass, new_mean, new_variance = _tilted(cavity_mean, cavity_variance, lapse, weights)
        evidence = _log_evidence(prior.mean, base, precision, mean, sites, cavity_mean, cavity_variance, log_mass)
        found = Posterior(mean, precision, evidence)
        new_precision = np.maximum(1 / new_variance - 1 / cavity_variance, 1e-10)
        new_shift = new_mean * (new_precision + 1 / cavity_variance) - cavity_mean / cavity_variance
        change = np.abs(new_precision - sites.precision).max(initial=0)
        sites = _Sites(
            *(DAMPING * old + (1 - DAMPING) * new for old, new in zip(sites, (new_precision, new_shift), strict=True))
        )
        if change < 1e-3:
            break
    return found


def _at_the_mode(comparisons: _Comparisons, prior: Prior) -> _Sites:
    """Return Laplace's approximation as the start, without which wide priors with many comparisons may diverge."""
    winners, losers, weights = comparisons
    scores = fit_scores(winners, losers, prior, weights=weights)
    lead, precision = scores[winners] - scores[losers], curvature(scores, winners, losers, weights)
    return _Sites(precision, weights * expit(-lead) + precision * lead)


def _tilted(
    mean: np.ndarray, variance: np.ndarray, lapse: float, weights: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return log mass, mean and variance, (n,) each, of normal(mean, variance) times the comparison's probability."""
    leads = mean[:, None] + np.sqrt(variance)[:, None] * _NODES
    answer = log_expit(leads) if lapse == 0 else np.log(lapse / 2 + (1 - lapse) * expit(leads))
    logs = weights[:, None] * answer + _LOG_NODE_WEIGHTS
    log_mass = logsumexp(logs, axis=1)
    share = np.exp(logs - log_mass[:, None])
    new_mean = (share * leads).sum(axis=1)
    return log_mass, new_mean, (share * (leads - new_mean[:, None]) ** 2).sum(axis=1)


def _log_evidence(
    prior_mean: np.ndarray,
    base: np.ndarray,
    precision: np.ndarray,
    mean: np.ndarray,
    sites: _Sites,
    cavity_mean: np.ndarray,
    cavity_variance: np.ndarray,
    log_mass: np.ndarray,
) -> float:
    """Return the log probability of the comparisons: the mass of all factors, corrected for each comparison."""
    cavity_precision = 1 / cavity_variance
    together = cavity_precision + sites.precision
    site_mass = 0.5 * np.log(cavity_precision / together) + 0.5 * (
        (cavity_precision * cavity_mean + sites.shift) ** 2 / together - cavity_precision * cavity_mean**2
    )
    whole = 0.5 * (np.linalg.slogdet(base)[1] - np.linalg.slogdet(precision)[1]) + 0.5 * (
        mean @ precision @ mean - prior_mean @ base @ prior_mean
    )
    return float((log_mass - site_mass).sum() + whole)


def _on_pictures(values: np.ndarray, winners: np.ndarray, losers: np.ndarray, n_pictures: int) -> np.ndarray:
    return np.bincount(winners, values, n_pictures) - np.bincount(losers, values, n_pictures)


def _draw(comparisons: _Comparisons, candidate: _Candidate, n_draws: int, generator: np.random.Generator) -> np.ndarray:
    """Return draws from the posterior for one candidate, (n_draws, n_pictures)."""
    prior, (winners, losers, weights) = candidate.prior, comparisons
    normal = generator.normal(size=(n_draws, len(prior.mean)))
    if len(prior.mean) > JOINT_PICTURES:
        scores = fit_scores(winners, losers, prior, weights=weights)
        return scores + normal * standard_errors(scores, winners, losers, prior, weights=weights)
    return posterior(winners, losers, prior, weights=weights, lapse=candidate.lapse).draws(normal)
