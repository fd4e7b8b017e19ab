"""What a training finds out about its model: how good it is, how sure that is, what else would do, what to do next."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from custom_aesthetic.base.arrays import Array
from custom_aesthetic.quality.baselines import advice, fit_baselines, out_of_fold_baselines
from custom_aesthetic.quality.confidence import Interval, ab_interval, spearman_interval
from custom_aesthetic.quality.learning_curve import LearningCurve, learning_curve
from custom_aesthetic.quality.noise_ceiling import Ceiling, ceiling_of_comparisons, noise_ceiling, rating_sigmas
from custom_aesthetic.quality.sigma_coverage import coverage
from custom_aesthetic.quality.statistics_line import statistics_line
from custom_aesthetic.scores.choice_log import Comparison
from custom_aesthetic.scores.score_files import ScoreTable

Rows = NDArray[np.int64]

FEWEST_TEST_IMAGES = 20
"""With fewer images in the test set, out-of-fold predictions of all the others say more."""

FEW_IMAGES = 2000
"""Up to so many, matrices are so small that several threads only wait for each other."""


class Believed(NamedTuple):
    """Images to judge a model by, and what it says of them without having learnt from them."""

    name: str
    rows: Rows
    predictions: Array
    """(n_rows,)"""


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
    out_of_fold: Array | None = None
    """(n_images,): what heads that never saw an image say of it; nan where there is no such prediction."""
    folds: Sequence[tuple[Rows, Rows]] = ()
    """The rows that train and those left out, by which `out_of_fold` came about."""

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
    def believed(self) -> Believed | None:
        """The images to believe: the test set if it is large enough, else out of fold, else eval without folds."""
        test = self.rows("test")
        if len(test) >= FEWEST_TEST_IMAGES:
            return Believed("Test", test, self.predictions[test])
        unseen = self._out_of_fold() if self.folded else self._eval()
        if unseen is not None:
            return unseen
        return Believed("Test", test, self.predictions[test]) if len(test) >= 2 else None

    def _out_of_fold(self) -> Believed | None:
        if self.out_of_fold is None:
            return None
        rows = np.intersect1d(self.learnt, np.flatnonzero(np.isfinite(self.out_of_fold)))
        return Believed("Out of fold", rows, self.out_of_fold[rows]) if len(rows) >= 2 else None

    def _eval(self) -> Believed | None:
        rows = self.rows("eval")
        return Believed("Eval", rows, self.predictions[rows]) if len(rows) >= 2 else None


@dataclass(frozen=True)
class Findings:
    """All that the closing lines and the verdict say."""

    judged: Judged
    believed: Believed | None
    ab: Interval | None
    """Share of pairs in the right order on the images to believe."""
    spearman: Interval | None
    flattery: float
    """What choosing among trials adds to that share, 0...1."""
    ceiling: Ceiling | None
    curve: LearningCurve
    baselines: Mapping[str, Array] = field(default_factory=dict)
    """Name -> predictions (n_rows,) for the images to believe, by methods that did not learn from them either."""

    @property
    def share(self) -> Interval | None:
        """Share of pairs in the right order on new images: less what choosing among trials adds."""
        return None if self.ab is None else Interval(*(end - self.flattery for end in self.ab))


def find_out(judged: Judged, *, flattery: float = 0.0) -> Findings:
    """Return the findings; takes seconds.

    `flattery` (0...1) is how much choosing among trials adds to the share of pairs in the right order on the images
    that chose; it does not touch a test set.
    """
    with threadpool_limits(limits=1 if len(judged.table) <= FEW_IMAGES else None):
        return _find_out(judged, judged.believed, flattery)


def _find_out(judged: Judged, believed: Believed | None, flattery: float) -> Findings:
    ab = spearman = None
    if believed is None or believed.name == "Test":
        flattery = 0.0
    if believed is not None:
        scores = judged.scores[believed.rows]
        ab = ab_interval(scores, believed.predictions)
        spearman = spearman_interval(scores, believed.predictions)
    return Findings(
        judged,
        believed,
        ab,
        spearman,
        flattery,
        find_ceiling(judged.table, judged.comparisons),
        learning_curve(judged.features, judged.scores, judged.rows("train", "eval")),
        _baselines(judged, believed),
    )


def _baselines(judged: Judged, believed: Believed | None) -> dict[str, Array]:
    """Return the baselines' predictions for the images to believe; out of fold they learn by the same folds."""
    if believed is None:
        return {}
    if believed.name == "Out of fold":
        found = out_of_fold_baselines(judged.features, judged.scores, judged.folds)
    else:
        found = fit_baselines(judged.features, judged.scores, judged.learnt)
    return {name: own[believed.rows] for name, own in found.items() if np.isfinite(own[believed.rows]).all()}


def statistics_lines(judged: Judged) -> Iterator[str]:
    """Yield the statistics of what is judged out of fold and of Test; without folds of Train, Eval, Full and Test."""
    scores = judged.scores
    if judged.folded and judged.out_of_fold is not None:
        unseen = judged._out_of_fold()
        if unseen is not None:
            yield statistics_line("Out of fold", scores[unseen.rows], unseen.predictions)
        sets: dict[str, tuple[str, ...]] = {}
    else:
        sets = {"Train": ("train",), "Eval": ("eval",), "Full": ("train", "eval")}
    for title, names in {**sets, "Test": ("test",)}.items():
        rows = judged.rows(*names)
        if len(rows):
            yield statistics_line(title, scores[rows], judged.predictions[rows])
    if not judged.folded:
        yield "the model has learnt from Train, and so from a part of Full: believe Eval, or Test where there is one"


def closing_lines(found: Findings) -> Iterator[str]:
    """Yield how sure the figures are, what simple methods reach, the noise ceiling, and what more scores bring."""
    judged, believed = found.judged, found.believed
    if believed is not None and found.spearman is not None and found.ab is not None:
        yield (
            f"{believed.name} 95 % intervals: spearman {found.spearman.low:.3f} ... {found.spearman.high:.3f}, "
            f"AB {100 * found.ab.low:.1f} % ... {100 * found.ab.high:.1f} %"
        )
        if found.flattery:
            yield flattery_line(found.flattery)
        if judged.sigmas is not None and believed.name != "Out of fold":
            covered = coverage(judged.scores[believed.rows], believed.predictions, judged.sigmas[believed.rows])
            yield f"{believed.name} sigma: {covered}: {covered.verdict}"
    yield from baseline_lines(found)
    if found.ceiling is not None:
        yield ceiling_line(found.ceiling)


def flattery_line(flattery: float) -> str:
    """Return what choosing among trials adds to AB (0...1), as a line."""
    return (
        f"these pictures also chose the best trials, which adds about {100 * flattery:.1f} % to AB; the verdict has "
        "taken it off"
    )


def baseline_lines(found: Findings) -> Iterator[str]:
    """Yield a statistics line for each baseline, and whether the model earns its keep, on the images to believe."""
    judged, believed = found.judged, found.believed
    if believed is None:
        yield (
            "simple methods cannot be compared: the model has learnt from every picture; train it again, which keeps "
            "out-of-fold predictions, or keep some pictures apart by --fraction_for_test"
        )
        return
    scores = judged.scores[believed.rows]
    for method, predictions in found.baselines.items():
        yield statistics_line(f"{believed.name}, {method}", scores, predictions)
    if found.baselines:
        yield advice(scores, believed.predictions, found.baselines)


def ceiling_line(ceiling: Ceiling) -> str:
    """Return what even a perfect model would reach, as a line."""
    return (
        f"noise ceiling: the scores are uncertain themselves; a perfect model would reach about spearman "
        f"{ceiling.spearman.value:.3f}, AB {100 * ceiling.ab.value:.1f} % on them"
    )


def find_ceiling(table: ScoreTable, comparisons: Sequence[Comparison] = ()) -> Ceiling | None:
    """Return what even a perfect model would reach on these scores; None where their uncertainty is not known.

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
        return noise_ceiling(scores, rating_sigmas(columns["score_sd"], columns["comparisons"]), posterior=False)
    if comparisons:
        return _ceiling_of_choices(table, comparisons)
    return noise_ceiling(scores, columns["score_sigma"], posterior=True) if "score_sigma" in columns else None


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
