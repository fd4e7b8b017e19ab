"""Ways from choices to a taste, for `bench_circle`: pairs by ASAP and TrueSkill, Elo, and models of the choices."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import expit, log_expit
from scipy.stats import norm
from torch import Tensor, nn

from custom_aesthetic.base.arrays import Array
from custom_aesthetic.heads.linear_members import fit_linear_models
from custom_aesthetic.heads.training_data import scales_of
from custom_aesthetic.priors.difference import fit_difference
from custom_aesthetic.scores.bradley_terry import covariance, fit_scores, flat_prior

Rows = NDArray[np.int64]
Ask = Callable[[int, int], tuple[int, int]]
"""(first, second) -> (winner, loser)"""

ELO_K = 0.7
REFIT_AFTER = 10
MOST_PAIRS = 5000
"""Of more pairs a random part is looked at before each choice."""

TRUESKILL_SIGMA, TRUESKILL_BETA = 25 / 3, 25 / 6
"""Spread of skills, and of a performance about the skill, by TrueSkill's authors."""

N_HEADS, LAYERS, DROPOUT = 4, (64, 16), 0.5
HEAD_STEPS, LEARNING_RATE, WEIGHT_DECAY = 80, 3e-3, 0.1

NODES, NODE_WEIGHTS = np.polynomial.hermite_e.hermegauss(15)

SLOPE_VARIANCES, OWN_VARIANCES = (0.1, 0.3, 1.0, 3.0), (1.5, 5.0, 15.0)
"""Tried by the model of choices: variance of what is linear in the features, and of what is each picture's own."""


class Answers(NamedTuple):
    """Choices among pictures: row numbers of winners and losers, (n_choices,), in order of time."""

    winners: Rows
    losers: Rows

    def first(self, n_choices: int) -> "Answers":
        return Answers(self.winners[:n_choices], self.losers[:n_choices])

    @property
    def seen(self) -> Rows:
        """The pictures in at least one choice."""
        return np.unique(np.concatenate([self.winners, self.losers]))


def answers_by_information(n_pictures: int, n_choices: int, ask: Ask) -> Answers:
    """Return choices on the pairs whose answer is expected to tell most about the order.

    The gain is that of ASAP (Mikhailiuk, Wilmot, Perez-Ortiz, Yue, Mantiuk, 2020): the entropy of the answer less the
    mean entropy given the scores. The scores have a normal posterior, by Laplace's approximation, which is fitted
    anew after every tenth choice and changed by each answer in between.
    """
    prior = flat_prior(n_pictures)
    found: list[tuple[int, int]] = []
    mean, spread = np.zeros(n_pictures), np.diag(prior.variance)
    pairs, generator = np.stack(np.triu_indices(n_pictures, 1)), np.random.default_rng(0)
    while len(found) < n_choices:
        first, second = pairs[:, generator.permutation(pairs.shape[1])[:MOST_PAIRS]]
        if found and len(found) % REFIT_AFTER == 0:
            winners, losers = np.array(found).T
            mean = fit_scores(winners, losers, prior, start=mean, tolerance=1e-3)
            spread = covariance(mean, winners, losers, prior)
        variances = np.diag(spread)
        gain = information(mean[first] - mean[second], variances[first] + variances[second] - 2 * spread[first, second])
        best = int(np.argmax(gain))
        winner, loser = ask(int(first[best]), int(second[best]))
        found.append((winner, loser))
        mean, spread = _after(mean, spread, winner, loser)
    winners, losers = np.array(found).T
    return Answers(winners, losers)


def information(leads: Array, variances: Array) -> Array:
    """Return the expected information of answers about leads with these means and variances, (n_pairs,), in nats."""
    draws = expit(leads[:, None] + np.sqrt(np.maximum(variances, 0))[:, None] * NODES)
    shares = NODE_WEIGHTS / NODE_WEIGHTS.sum()
    return _entropy(draws @ shares) - _entropy(draws) @ shares


def answers_by_trueskill(n_pictures: int, checkpoints: Sequence[int], ask: Ask) -> dict[int, tuple[Array, Answers]]:
    """Return TrueSkill's scores (n_pictures,) and the choices so far, by the number of choices.

    Shown is the picture with the largest uncertainty, with the partner of the best match quality (Herbrich, Minka and
    Graepel, TrueSkill: A Bayesian skill rating system, 2006). Their updates, without draws.
    """
    generator = np.random.default_rng(0)
    means, variances = np.zeros(n_pictures), np.full(n_pictures, TRUESKILL_SIGMA**2)
    found: list[tuple[int, int]] = []
    moments = {}
    for number in range(1, max(checkpoints) + 1):
        first = int(np.argmax(variances + 1e-6 * generator.uniform(size=n_pictures)))
        width = 2 * TRUESKILL_BETA**2 + variances[first] + variances
        quality = np.sqrt(2 * TRUESKILL_BETA**2 / width) * np.exp(-np.square(means[first] - means) / (2 * width))
        quality *= 1 + 1e-6 * generator.uniform(size=n_pictures)
        quality[[first, *(found[-1] if found else ())]] = 0
        winner, loser = ask(first, int(np.argmax(quality)))
        found.append((winner, loser))
        deviation = np.sqrt(2 * TRUESKILL_BETA**2 + variances[winner] + variances[loser])
        lead = (means[winner] - means[loser]) / deviation
        push = np.exp(norm.logpdf(lead) - norm.logcdf(lead))
        narrowing = push * (push + lead)
        for picture, sign in ((winner, 1), (loser, -1)):
            means[picture] += sign * variances[picture] / deviation * push
            variances[picture] *= max(1 - variances[picture] / deviation**2 * narrowing, 1e-4)
        if number in checkpoints:
            winners, losers = np.array(found).T
            moments[number] = means.copy(), Answers(winners, losers)
    return moments


def elo(n_pictures: int, answers: Answers) -> Array:
    """Return Elo scores, (n_pictures,)."""
    scores = np.zeros(n_pictures)
    for winner, loser in zip(*answers, strict=True):
        change = ELO_K * expit(scores[loser] - scores[winner])
        scores[winner] += change
        scores[loser] -= change
    return scores


def linear_from_scores(features: Array, scores: Array, rows: Rows, new: Array) -> Array:
    """Return what the mean of the model file's linear members, fitted to `rows`, says of new features."""
    models = fit_linear_models(features, scores, rows)
    return np.mean([model.predict(new) for model in models.values()], axis=0) if models else np.zeros(len(new))


def difference_from_scores(
    features: Array, scores: Array, rows: Rows, new: Array, prior: Array, new_prior: Array
) -> Array:
    """Return what the difference from a prior model's scores, fitted to `rows`, says of new features."""
    model = fit_difference(features, scores, prior, rows)
    return np.zeros(len(new)) if model is None else model.predict(new, new_prior)


def linear_from_choices(features: Array, answers: Answers, new: Array) -> Array:
    """Return what a linear model fitted to the choices themselves says of new features, (n_new,).

    A Gaussian process classifier of the choices (Bradley-Terry likelihood): a score is linear in the features plus
    something of the picture's own. Laplace's approximation, by Newton's method, at each pair of variances; the results
    are averaged by their evidence.
    """
    mean = features.mean(0)
    given = features - mean
    power = np.square(given).sum() / len(given)
    likeness, to_new = given @ given.T / power, (new - mean) @ given.T / power
    design = np.zeros((len(answers.winners), len(features)))
    rows = np.arange(len(design))
    design[rows, answers.winners], design[rows, answers.losers] = 1, -1
    found, evidence = [], []
    for slope in SLOPE_VARIANCES:
        for own in OWN_VARIANCES:
            duals, log_evidence = _classify(design @ (slope * likeness + own * np.eye(len(features))) @ design.T)
            found.append(slope * (to_new @ (design.T @ duals)))
            evidence.append(log_evidence)
    shares = np.exp(np.array(evidence) - max(evidence))
    return np.tensordot(shares / shares.sum(), np.array(found), axes=1)


def heads_from_choices(features: Array, answers: Answers, new: Array, *, seed: int) -> Array:
    """Return what heads fitted to the choices themselves say of new features, (n_new,).

    The mean of N_HEADS networks on the main axes of the given features. Each leaves a part of the choices out, by which
    the number of steps of AdamW is chosen; the loss is the negative Bradley-Terry log likelihood.
    """
    mean, scale = features.mean(0), scales_of(features.var(0))
    _, _, axes = np.linalg.svd((features - mean) / scale, full_matrices=False)
    given, wanted = (torch.from_numpy((values - mean) / scale @ axes.T).float() for values in (features, new))
    parts = np.random.default_rng(seed).permutation(len(answers.winners)) % N_HEADS
    found = [_head(given, answers, parts == part, wanted, seed=N_HEADS * seed + part) for part in range(N_HEADS)]
    return np.mean(found, axis=0)


def _head(given: Tensor, answers: Answers, left_out: NDArray[np.bool_], wanted: Tensor, *, seed: int) -> Array:
    """Return the scores of `wanted` by a head after the number of steps that predicts the left-out choices best."""
    first, second = LAYERS
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        head = nn.Sequential(
            *(nn.Dropout(DROPOUT), nn.Linear(given.shape[1], first), nn.ReLU()),
            *(nn.Dropout(DROPOUT), nn.Linear(first, second), nn.ReLU(), nn.Linear(second, 1)),
        )
        adamw = torch.optim.AdamW(head.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
        learnt, apart = (
            tuple(torch.from_numpy(rows[kept].astype(np.int64)) for rows in answers) for kept in (~left_out, left_out)
        )
        least, best = np.inf, np.zeros(len(wanted))
        for _ in range(HEAD_STEPS):
            head.train()
            adamw.zero_grad()
            _surprise(head(given)[:, 0], *learnt).backward()
            adamw.step()
            head.eval()
            with torch.no_grad():
                error = float(_surprise(head(given)[:, 0], *apart))
                if error < least:
                    least, best = error, head(wanted)[:, 0].double().numpy()
    return best


def _surprise(scores: Tensor, winners: Tensor, losers: Tensor) -> Tensor:
    return nn.functional.softplus(scores[losers] - scores[winners]).mean()


def _classify(kernel: Array) -> tuple[Array, float]:
    """Return the dual weights of leads with this covariance, all of which won, and the log evidence.

    Rasmussen and Williams, Gaussian Processes, 2006, algorithm 3.1.
    """
    leads, duals = np.zeros(len(kernel)), np.zeros(len(kernel))
    for _ in range(30):
        surprise = expit(-leads)
        root = np.sqrt(np.maximum(surprise * (1 - surprise), 1e-10))
        inner = np.linalg.cholesky(np.eye(len(kernel)) + root[:, None] * kernel * root)
        wanted = root**2 * leads + surprise
        duals = wanted - root * np.linalg.solve(inner.T, np.linalg.solve(inner, root * (kernel @ wanted)))
        before, leads = leads, kernel @ duals
        if np.abs(leads - before).max() < 1e-4:
            break
    evidence = log_expit(leads).sum() - 0.5 * duals @ leads - np.log(np.diag(inner)).sum()
    return duals, float(evidence)


def _after(mean: Array, spread: Array, winner: int, loser: int) -> tuple[Array, Array]:
    """Return mean and covariance after an answer, by one Newton step."""
    surprise = expit(mean[loser] - mean[winner])
    column = spread[:, winner] - spread[:, loser]
    weight = max(surprise * (1 - surprise), 1e-6)
    growth = 1 + weight * (column[winner] - column[loser])
    return mean + column * surprise / growth, spread - np.outer(column, column) * weight / growth


def _entropy(chances: Array) -> Array:
    inside = np.clip(chances, 1e-12, 1 - 1e-12)
    return -inside * np.log(inside) - (1 - inside) * np.log1p(-inside)
