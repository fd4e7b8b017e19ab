"""What a training says at its end of its figures: how sure they are, what simpler methods and more pictures bring."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from custom_aesthetic.base.arrays import Array
from custom_aesthetic.quality.baselines import advice, fit_baselines
from custom_aesthetic.quality.confidence import Interval, ab_interval, spearman_interval
from custom_aesthetic.quality.learning_curve import learning_curve
from custom_aesthetic.quality.noise_ceiling import (
    Ceiling,
    ceiling_of_comparisons,
    noise_ceiling,
    rating_sigmas,
)
from custom_aesthetic.quality.sigma_coverage import coverage
from custom_aesthetic.quality.statistics_line import statistics_line
from custom_aesthetic.scores.choice_log import Comparison
from custom_aesthetic.scores.score_files import ScoreTable

Rows = NDArray[np.int64]


@dataclass(frozen=True)
class Judged:
    """A model's scores of scored images, and what is needed to compare them. All arrays are by image."""

    table: ScoreTable
    predictions: Array
    """(n_images,), in the units of the scores."""
    features: Array
    """(n_images, n_features): what the model saw."""
    sigmas: Array | None = None
    """(n_images,), positive; None where the model gives none."""
    folded: bool = False
    """Whether the model learnt from the eval images too, as with folds."""
    comparisons: Sequence[Comparison] = ()
    """The choices that the scores come from, where they are known."""

    @property
    def scores(self) -> Array:
        return np.asarray(self.table.scores, dtype=np.float64)

    def rows(self, *names: str) -> Rows:
        return np.flatnonzero(np.isin(np.asarray(self.table.columns["split"]), names))

    @property
    def learnt(self) -> Rows:
        """The images that the model learnt from."""
        return self.rows("train", "eval") if self.folded else self.rows("train")

    @property
    def believed(self) -> tuple[str, Rows] | None:
        """The images to believe and their name: those of the test set, else of eval if the model has not seen it."""
        for name in ("test",) if self.folded else ("test", "eval"):
            rows = self.rows(name)
            if len(rows) >= 2:
                return name.capitalize(), rows
        return None


def closing_lines(judged: Judged) -> Iterator[str]:
    """Yield the lines, those that take longest last."""
    if judged.believed is not None:
        name, rows = judged.believed
        yield from confidence_lines(name, judged.scores[rows], judged.predictions[rows])
        if judged.sigmas is not None:
            found = coverage(judged.scores[rows], judged.predictions[rows], judged.sigmas[rows])
            yield f"{name} sigma: {found}: {found.verdict}"
        yield from baseline_lines(judged)
    ceiling = ceiling_line(judged.table, judged.comparisons)
    if ceiling:
        yield ceiling
    yield str(learning_curve(judged.features, judged.scores, judged.rows("train", "eval")))


def confidence_lines(name: str, scores: Array, predictions: Array) -> Iterator[str]:
    """Yield the 95 % bootstrap intervals of Spearman and AB on these images."""
    spearman, pairs = spearman_interval(scores, predictions), ab_interval(scores, predictions)
    yield (
        f"{name} 95 % intervals: spearman {_interval(spearman)}, "
        f"AB {100 * pairs.low:.1f} % ... {100 * pairs.high:.1f} %"
    )


def _interval(interval: Interval) -> str:
    return f"{interval.low:.3f} ... {interval.high:.3f}"


def baseline_lines(judged: Judged) -> Iterator[str]:
    """Yield a statistics line for each baseline, and whether the model earns its keep, on the images to believe."""
    if judged.believed is None:
        yield "baselines: every image has taught the model something; keep some apart by --fraction_for_test"
        return
    name, rows = judged.believed
    baselines = fit_baselines(judged.features, judged.scores, judged.learnt)
    for method, predictions in baselines.items():
        yield statistics_line(f"{name}, {method}", judged.scores[rows], predictions[rows])
    found: Mapping[str, Array] = {method: predictions[rows] for method, predictions in baselines.items()}
    yield advice(judged.scores[rows], judged.predictions[rows], found)


def ceiling_line(table: ScoreTable, comparisons: Sequence[Comparison] = ()) -> str:
    """Return what even a perfect model would reach on these scores, or nothing where that is not known.

    It is known from `score_sd` with `comparisons`, the number of ratings; from the choices themselves; or from a column
    `score_sigma`. The number of comparisons alone says nothing of how consistent the judge was.
    """
    scores = np.asarray(table.scores, dtype=np.float64)
    columns = {
        name: np.asarray([_number(value) for value in table.columns[name]])
        for name in ("score_sigma", "score_sd", "comparisons")
        if name in table.columns
    }
    if {"score_sd", "comparisons"} <= columns.keys():
        sigmas = rating_sigmas(columns["score_sd"], columns["comparisons"])
        ceiling = noise_ceiling(scores, sigmas, posterior=False)
    elif comparisons:
        ceiling = _ceiling_of_choices(table, comparisons)
    elif "score_sigma" in columns:
        ceiling = noise_ceiling(scores, columns["score_sigma"], posterior=True)
    else:
        return ""
    if ceiling is None:
        return ""
    return (
        f"noise ceiling: the scores are uncertain themselves; a perfect model would reach about spearman "
        f"{ceiling.spearman.value:.3f}, AB {100 * ceiling.ab.value:.1f} % on them"
    )


def _ceiling_of_choices(table: ScoreTable, comparisons: Sequence[Comparison]) -> Ceiling | None:
    row_of = {path: row for row, path in enumerate(table.paths)}
    known = [own for own in comparisons if own.winner in row_of and own.loser in row_of]
    winners, losers = (np.array([row_of[path] for path in side], dtype=np.int64) for side in _sides(known))
    return ceiling_of_comparisons(np.asarray(table.scores, dtype=np.float64), winners, losers) if known else None


def _sides(comparisons: Sequence[Comparison]) -> tuple[list[str], list[str]]:
    return [own.winner for own in comparisons], [own.loser for own in comparisons]


def _number(value: object) -> float:
    try:
        return float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return float("nan")
