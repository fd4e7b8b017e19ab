"""How often scores pick what a person picks, judged by that person's answers and not by scores made from them.

Scores made from one or two answers a picture are mostly noise: compared with them, even a perfect model looks poor. And
the pairs that were asked are not like others, because most were chosen for being close. So the true scores are drawn
from their posterior given the answers (`scores.posterior`), which the choice of the pairs does not bias, and a model is
compared with these draws on random pairs: would the person, asked once, pick the same?

What is known of the true scores before any answer is a ridge regression on the pictures' features or, less probably, on
what the model says of pictures that it has not learnt from: it may know more of the taste than answers can teach, from
a prior model or from earlier scores. How much of the taste they explain, and how consistent the person is, is estimated
from the answers too, by the probability that they have under each assumption.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import scipy.sparse
from numpy.typing import NDArray
from scipy.sparse.csgraph import breadth_first_order, connected_components
from scipy.special import expit

from custom_aesthetic.base.arrays import Array
from custom_aesthetic.quality import metrics
from custom_aesthetic.quality.confidence import CHOSE, Interval, ab_interval, draw_counts, interval_of, share_in_words
from custom_aesthetic.scores.bradley_terry import PRIOR_VARIANCE, Prior, fit_scores, flat_prior
from custom_aesthetic.scores.choice_log import Comparison
from custom_aesthetic.scores.evidence import LINES, Evidence, evidence
from custom_aesthetic.scores.posterior import SPREAD_DEVIATION, Posterior, posterior, probabilities
from custom_aesthetic.scores.prior import FEATURE_SHARE, extended, feature_prior
from custom_aesthetic.scores.score_files import ScoreTable

Rows = NDArray[np.int64]

FEATURE_SHARES = (0.1, 0.35, 0.65, 0.9)
"""Shares of the scores' variance that features may explain."""

SPREADS = tuple(float(spread) for spread in np.geomspace(0.25, 4, 6))
"""Standard deviations of the true scores that are tried, as multiples of the prior's."""

CHANCE_OF_PREDICTIONS = 0.1
"""Probability, before any answer, that the predictions explain the taste and not the features; see docs/log.md."""

MOST_WEIGHED = 200
"""Of more pictures with answers, this many tell how probable the assumptions are: time grows with the cube of their
number, and with that of the assumptions."""

MOST_PICTURES = 600
"""Of more pictures with answers, this many are drawn."""

LEAST_CHANCE = 0.02
"""Assumptions less probable than this are left out."""

N_DRAWS = 200
MOST_PAIRS = 6000

FEWEST_PICTURES = 3
SHARE_ANSWERED = 0.8
"""Scores come from answers if at least this share of their pictures is in one."""

LEAST_LIKENESS = 0.8
"""Scores of unknown origin come from the answers if they correlate this much with scores fitted to them."""


@dataclass(frozen=True)
class Taste:
    """True scores of pictures, as far as the answers about them tell. Shares are over random pairs, 0...1."""

    rows: Rows
    """(n_pictures,), sorted: row numbers of the pictures among all images."""
    draws: Array
    """(n_draws, n_pictures): draws of their true scores, logits."""
    n_answers: int

    def right(self, rows: Rows, predictions: Array) -> Array:
        """Return the share of pairs in which the predictions pick what the person picks, in each draw, (n_draws,).

        `predictions` (n_rows,) are of the images `rows`; images that the taste does not know are left out. Equal
        predictions count one half. nan with fewer than two pictures.
        """
        _, places, given = np.intersect1d(self.rows, rows, return_indices=True)
        first, second = _pairs(len(places))
        says = np.sign(predictions[given][first] - predictions[given][second])
        return self._mean(places, (first, second), lambda chances: (chances - 0.5) * says)

    def share(self, rows: Rows, predictions: Array) -> Interval:
        """Return the mean and the 95 % interval of `right`."""
        return interval_of(self.right(rows, predictions))

    def ahead(self, rows: Rows, first: Array, second: Array) -> Interval:
        """Return how much larger the share of the first predictions is than that of the second, and its interval."""
        return interval_of(self.right(rows, first) - self.right(rows, second))

    def perfect(self, rows: Rows) -> Interval:
        """Return the share of predictions that are the true scores: below 1, as nobody always answers the same."""
        places = np.flatnonzero(np.isin(self.rows, rows))
        return interval_of(self._mean(places, _pairs(len(places)), lambda chances: np.abs(chances - 0.5)))

    def n_known(self, rows: Rows) -> int:
        """Return how many of these images the taste knows."""
        return int(np.isin(self.rows, rows).sum())

    def _mean(self, places: Rows, pairs: tuple[Rows, Rows], above: Callable[[Array], Array]) -> Array:
        """Return one half plus the mean over pairs of these places, in each draw, (n_draws,).

        `above` maps the probabilities that the person picks the first, (n_draws, n_pairs), to what is averaged. Each
        draw has a resample of the pictures, because others might have been asked about.
        """
        first, second = pairs
        if len(first) == 0:
            return np.full(len(self.draws), np.nan)
        truths = self.draws[:, places]
        values = above(expit(truths[:, first] - truths[:, second]))
        counts = draw_counts(len(places), len(values), seed=0)
        weights = counts[:, first] * counts[:, second]
        weights[~weights.any(axis=1)] = 1
        return 0.5 + (weights * values).sum(axis=1) / weights.sum(axis=1)


def _pairs(n_pictures: int) -> tuple[Rows, Rows]:
    """Return random pairs, the same at every call."""
    first, second = np.triu_indices(n_pictures, 1)
    kept = np.random.default_rng(0).permutation(len(first))[:MOST_PAIRS]
    return first[kept], second[kept]


def how_often(
    scores: Array,
    model_scores: Array,
    *,
    taste: Taste | None = None,
    rows: Rows | None = None,
    flattery: float = 0.0,
    chose: bool = False,
    out_of_fold: bool = False,
) -> str:
    """Return a sentence on how often the model picks what the user picks; both arrays are (n_images,).

    The model must not have learnt from the pictures, unless `model_scores` are out of fold. It is judged by the `taste`
    of which these pictures are the `rows`, else by the scores: then `flattery` (0...1), by which choosing the best
    trials raises the share of right pairs, is subtracted. `chose` says that the pictures also chose the best epoch,
    which raises it further by an unknown amount. `out_of_fold` is that of `ab_interval`.
    """
    if len(scores) == 0:
        return "It is unknown how good the model is: it has learnt from every picture that has a score."
    if taste is None or rows is None:
        share = Interval(*(end - flattery for end in ab_interval(scores, model_scores, out_of_fold=out_of_fold)))
        by = f", judged on {_counted(len(scores), 'picture')}"
    else:
        share, by = taste.share(rows, model_scores), judged_by(taste, rows)
    if not math.isfinite(share.value):
        pictures = _counted(len(scores), "picture")
        return f"Too few different scores to say how good the model is: it is judged by {pictures}."
    return f"{share_in_words(share)}{by}{CHOSE * chose}."


def judged_by(taste: Taste, rows: Rows) -> str:
    """Return what a figure on these images rests on, to be put behind it."""
    return f", judged by your {_counted(taste.n_answers, 'answer')} about {_counted(taste.n_known(rows), 'picture')}"


def _counted(number: int, name: str) -> str:
    return f"{number:,} {name}{'' if number == 1 else 's'}"


def find_taste(
    answers: Sequence[Comparison], table: ScoreTable, features: Array | None, predictions: Array
) -> Taste | None:
    """Return the taste of the person who gave these answers; None unless the scores come from the answers.

    The table has a row for each image, whose score may be nan. `predictions` (n_images,) are nan for an image that the
    model has learnt from. `features` are (n_images, n_features), or None where they are not known. Scores come from the
    answers if at least SHARE_ANSWERED of the images with a score are in an answer and, unless the table says that they
    are made so, if they are like those that the answers give.
    """
    found = answers_behind(answers, table, is_made=table.is_made)
    if found is None:
        return None
    seen = found.rows
    rows = seen[seen < len(table)]
    explain = {CHANCE_OF_PREDICTIONS: _filled(predictions[rows])}
    if features is not None:
        explain[1 - CHANCE_OF_PREDICTIONS] = np.asarray(features[rows], dtype=np.float64)
    n_lines = len(seen) - len(rows)
    priors = {chance: extended(feature_prior(given), n_lines, PRIOR_VARIANCE) for chance, given in explain.items()}
    here = found._replace(winners=np.searchsorted(seen, found.winners), losers=np.searchsorted(seen, found.losers))
    taste = taste_under(priors, here, np.arange(len(seen)) < len(rows))
    return replace(taste, rows=rows[taste.rows])


def answers_behind(answers: Sequence[Comparison], table: ScoreTable, *, is_made: bool) -> Evidence | None:
    """Return what the answers say of the images with a score; None unless the scores come from them.

    See `find_taste`. With `is_made`, it does not matter whether they are like those that the answers give. The rows are
    those of the table, and behind them those of the lines between stars.
    """
    scores = np.asarray(table.scores, dtype=np.float64)
    known = np.flatnonzero(np.isfinite(scores))
    lines = {line: len(table) + number for number, line in enumerate(LINES)}
    found = evidence(answers, {**{table.paths[row]: row for row in known.tolist()}, **lines})
    pictures = found.rows[found.rows < len(table)]
    if len(pictures) < max(FEWEST_PICTURES, SHARE_ANSWERED * len(known)):
        return None
    if not is_made:
        fitted = fit_scores(found.winners, found.losers, flat_prior(len(table) + len(lines)), weights=found.weights)
        if not metrics.pearson(scores[pictures], fitted[pictures]).statistic >= LEAST_LIKENESS:
            return None
    return found


def _filled(predictions: Array) -> Array:
    """Return predictions (n_images,) as a feature, (n_images, 1), with the mean in place of nan."""
    known = np.isfinite(predictions)
    return np.where(known, predictions, predictions[known].mean() if known.any() else 0.0)[:, None]


def taste_under(
    priors: Mapping[float, Prior],
    found: Evidence,
    is_picture: NDArray[np.bool_],
    *,
    most_pictures: int = MOST_PICTURES,
    seed: int = 0,
) -> Taste:
    """Return the taste given answers about the rows of priors, each of which has a basis; by their probabilities.

    `is_picture` (n_rows,) is False for the lines between stars, which are not part of the taste.
    """
    rows = _neighbours(found, most_pictures)
    draws = _draw(priors, found, rows, np.random.default_rng(seed))
    shown = is_picture[rows]
    return Taste(rows[shown], draws[:, shown], len(np.unique(found.answers)))


def _neighbours(found: Evidence, most: int) -> Rows:
    """Return up to `most` rows with answers, sorted: neighbours, because answers about other rows are left out."""
    seen = found.rows
    if len(seen) <= most:
        return seen
    winners, losers = np.searchsorted(seen, found.winners), np.searchsorted(seen, found.losers)
    links = scipy.sparse.coo_array((np.ones(len(winners)), (winners, losers)), (len(seen), len(seen))).tocsr()
    _, part = connected_components(links, directed=False)
    places: list[int] = []
    for group in np.argsort(-np.bincount(part), kind="stable"):
        if len(places) >= most:
            break
        places += breadth_first_order(links, int(np.argmax(part == group)), directed=False)[0].tolist()
    return seen[np.sort(places[:most])]


def _draw(priors: Mapping[float, Prior], found: Evidence, rows: Rows, generator: np.random.Generator) -> Array:
    """Return draws of the true scores of these rows given the answers among them, (n_draws, n_rows)."""
    close = rows if len(rows) <= MOST_WEIGHED else _neighbours(found.among(rows), MOST_WEIGHED)
    assumed = [
        (_assuming(prior, share, spread), np.log(chance) - 0.5 * (np.log(spread) / SPREAD_DEVIATION) ** 2)
        for chance, prior in priors.items()
        for share in FEATURE_SHARES
        for spread in SPREADS
    ]
    weighed = [_given(found, close, prior) for prior, _ in assumed]
    evidences = [one.log_evidence + before for one, (_, before) in zip(weighed, assumed, strict=True)]
    chances = probabilities(evidences, least=LEAST_CHANCE)
    counts = np.bincount(generator.choice(len(assumed), N_DRAWS, p=chances), minlength=len(assumed))
    drawn = []
    for number in np.flatnonzero(counts):
        one = weighed[number] if close is rows else _given(found, rows, assumed[number][0])
        drawn.append(one.draws(generator.normal(size=(len(rows), counts[number])).T))
    return np.concatenate(drawn)


def _assuming(prior: Prior, share: float, spread: float) -> Prior:
    """Return the prior if its basis explains this share of the variance, and scores have this spread."""
    assert prior.basis is not None
    open_share = np.where(prior.basis.any(axis=1), (1 - share) / (1 - FEATURE_SHARE), 1.0)
    basis = prior.basis * np.sqrt(share / FEATURE_SHARE) * spread
    return Prior(prior.mean * spread, prior.variance * open_share * spread**2, basis)


def _given(found: Evidence, rows: Rows, prior: Prior) -> Posterior:
    """Return the posterior of these rows given the answers among them."""
    inside = found.among(rows)
    places = np.searchsorted(rows, inside.winners), np.searchsorted(rows, inside.losers)
    return posterior(*places, prior.of_rows(rows), weights=inside.weights)
