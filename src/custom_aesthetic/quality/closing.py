"""Evaluation of a model at the end of a training: its quality with intervals, baselines, noise ceiling, sigma."""

from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from custom_aesthetic.base.arrays import Array
from custom_aesthetic.base.machine import threads_for
from custom_aesthetic.quality.answers import Taste
from custom_aesthetic.quality.baselines import advice, fit_baselines, out_of_fold_baselines
from custom_aesthetic.quality.confidence import Interval, ab_interval, interval_line, spearman_interval
from custom_aesthetic.quality.diagnostics import coverage
from custom_aesthetic.quality.learning_curve import LearningCurve, learning_curve
from custom_aesthetic.quality.noise_ceiling import Ceiling, ceiling_of_draws, noise_ceiling, rating_sigmas
from custom_aesthetic.quality.simple_fits import SimpleFits, kept_fits
from custom_aesthetic.quality.statistics_line import statistics_line
from custom_aesthetic.scores.choice_log import Comparison
from custom_aesthetic.scores.evidence import Consistency, consistency
from custom_aesthetic.scores.score_files import SIGMA, ScoreTable

Rows = NDArray[np.int64]

FEWEST_TEST_IMAGES = 20
"""With fewer images in the test set, out-of-fold predictions of all other images are more reliable."""


class Believed(NamedTuple):
    """The images that a model is judged by, and predictions for them by heads that did not learn from them."""

    name: str
    rows: Rows
    predictions: Array
    """(n_rows,)"""
    sigmas: Array | None = None
    """(n_rows,), positive: the standard deviations that go with the predictions; None where there are none."""

    @property
    def is_out_of_fold(self) -> bool:
        return self.name == "Out of fold"


@dataclass(frozen=True)
class Judged:
    """A model's predictions for scored images, with all data needed to evaluate them. All arrays are by image."""

    table: ScoreTable
    predictions: Array
    """(n_images,), in the units of the scores."""
    features: Array
    """(n_images, n_features): the input of the model."""
    sigmas: Array | None = None
    """(n_images,), positive, in the units of the scores; None if the model has no sigma output."""
    folded: bool = False
    """Whether the model was trained by cross-validation, and so has learnt from the eval images too."""
    comparisons: Sequence[Comparison] = ()
    """The answers in the log beside the scores."""
    out_of_fold: Array | None = None
    """(n_images,): predictions by heads that did not learn from the image; nan where there is none."""
    folds: Sequence[tuple[Rows, Rows]] = ()
    """The folds of `out_of_fold`, each as (rows that train, rows left out)."""
    out_of_fold_sigmas: Array | None = None
    """(n_images,): as `out_of_fold`, of the sigmas."""
    eval_chose: bool = True
    """Whether, without folds, the eval set chose the best epoch and the best trial."""
    taste: Taste | None = None
    """What the answers tell of the true scores; None unless the scores come from them."""

    @property
    def scores(self) -> Array:
        return np.asarray(self.table.scores, dtype=np.float64)

    def rows(self, *names: str) -> Rows:
        """Return the rows of the images in these sets."""
        return np.flatnonzero(np.isin(np.asarray(self.table.columns["split"]), names))

    @property
    def learnt(self) -> Rows:
        """Rows of the images that the model learnt from."""
        return self.rows("train", "eval") if self.folded else self.rows("train")

    @property
    def believed(self) -> Believed | None:
        """The images to judge by: the test set if it is large enough, else out of fold, or eval without folds."""
        test = self.rows("test")
        if len(test) >= FEWEST_TEST_IMAGES:
            return self._of("Test", test)
        unseen = self._out_of_fold() if self.folded else self._of("Eval", self.rows("eval"))
        return self._of("Test", test) if unseen is None else unseen

    @property
    def unseen(self) -> Array:
        """Predictions by a model, or heads, that did not learn from the image, (n_images,); nan where there is none."""
        found = self.predictions.astype(np.float64)
        found[self.learnt] = np.nan if self.out_of_fold is None else self.out_of_fold[self.learnt]
        return found

    def _of(self, name: str, rows: Rows) -> Believed | None:
        """Return what the model file says of these images; None of fewer than two."""
        if len(rows) < 2:
            return None
        return Believed(name, rows, self.predictions[rows], None if self.sigmas is None else self.sigmas[rows])

    def _out_of_fold(self) -> Believed | None:
        if self.out_of_fold is None:
            return None
        rows = np.intersect1d(self.learnt, np.flatnonzero(np.isfinite(self.out_of_fold)))
        sigmas = self.out_of_fold_sigmas
        if sigmas is not None:
            sigmas = sigmas[rows] if np.isfinite(sigmas[rows]).all() else None
        return Believed("Out of fold", rows, self.out_of_fold[rows], sigmas) if len(rows) >= 2 else None


@dataclass(frozen=True)
class Findings:
    """The results that the closing lines and the verdict are made from."""

    judged: Judged
    believed: Believed | None
    ab: Interval | None
    """Share of pairs in the right order, 0...1, on the images of `believed`."""
    spearman: Interval | None
    """Spearman's correlation on the images of `believed`."""
    flattery: float
    """How much choosing the best trials raises that share, 0...1."""
    ceiling: Ceiling | None
    consistency: Consistency | None
    curve: LearningCurve
    baselines: Mapping[str, Array] = field(default_factory=dict)
    """Name -> predictions (n_rows,) for the images of `believed`, by baselines that did not learn from them."""

    @property
    def eval_chose(self) -> bool:
        """Whether the images to believe also chose the model, by more than `flattery` knows."""
        return self.believed is not None and self.believed.name == "Eval" and self.judged.eval_chose

    @property
    def share(self) -> Interval | None:
        """Expected share of pairs on new images in which the model picks what the user picks.

        It is that of the answers where the scores come from them, else `ab` minus `flattery`.
        """
        if self.believed is not None and self.judged.taste is not None:
            return self.judged.taste.share(self.believed.rows, self.believed.predictions)
        return None if self.ab is None else Interval(*(end - self.flattery for end in self.ab))

    @property
    def perfect(self) -> Interval | None:
        """The share that a perfect model would reach, with its interval; None if it is unknown."""
        if self.believed is not None and self.judged.taste is not None:
            return self.judged.taste.perfect(self.believed.rows)
        return None if self.ceiling is None else self.ceiling.ab


def find_out(judged: Judged, *, flattery: float = 0.0, kept: MutableMapping[str, str] | None = None) -> Findings:
    """Evaluate a model, which takes seconds, or minutes with thousands of images.

    `flattery` (0...1) is how much choosing the best trials raises the share of pairs in the right order on the images
    that they were chosen by; it does not apply to a test set. `kept` saves the fits of the baselines as text, so that
    the same images are not fitted again.
    """
    with threads_for(len(judged.table)):
        return _find_out(judged, judged.believed, flattery, {} if kept is None else kept)


def _find_out(judged: Judged, believed: Believed | None, flattery: float, kept: MutableMapping[str, str]) -> Findings:
    ab = spearman = None
    if believed is None or believed.name == "Test" or judged.taste is not None:
        flattery = 0.0
    if believed is not None:
        scores = judged.scores[believed.rows]
        ab = ab_interval(scores, believed.predictions, out_of_fold=believed.is_out_of_fold)
        spearman = spearman_interval(scores, believed.predictions, out_of_fold=believed.is_out_of_fold)
    simple = kept_fits(kept, _content(judged, believed), lambda: _fit(judged, believed))
    return Findings(
        judged,
        believed,
        ab,
        spearman,
        flattery,
        find_ceiling(judged.table, judged.taste),
        consistency(judged.comparisons),
        simple.curve,
        simple.baselines,
    )


def _content(judged: Judged, believed: Believed | None) -> list[Array]:
    """Return all that the fits of simple methods depend on."""
    folds = [rows for fold in judged.folds for rows in fold]
    rows = () if believed is None else (believed.rows, np.array([believed.is_out_of_fold]))
    return [judged.features, judged.scores, judged.rows("train"), judged.rows("eval"), judged.learnt, *folds, *rows]


def _fit(judged: Judged, believed: Believed | None) -> SimpleFits:
    curve = learning_curve(judged.features, judged.scores, judged.rows("train", "eval"))
    return SimpleFits(curve, _baselines(judged, believed))


def _baselines(judged: Judged, believed: Believed | None) -> dict[str, Array]:
    """Return the baselines' predictions for the images of `believed`; out-of-fold ones use the model's folds."""
    if believed is None:
        return {}
    if believed.is_out_of_fold:
        found = out_of_fold_baselines(judged.features, judged.scores, judged.folds)
    else:
        found = fit_baselines(judged.features, judged.scores, judged.learnt)
    chosen = {name: predictions[believed.rows] for name, predictions in found.items()}
    return {name: predictions for name, predictions in chosen.items() if np.isfinite(predictions).all()}


def statistics_lines(judged: Judged) -> Iterator[str]:
    """Yield the statistics line of each set: Out of fold and Test, or without folds Train, Eval, Full and Test."""
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
        chose = " (which chose the model, and so is a little too good)" * judged.eval_chose
        yield f"the model has learnt from Train, and so from a part of Full: believe Test, or else Eval{chose}"


def closing_lines(found: Findings) -> Iterator[str]:
    """Yield lines on the intervals of the figures, the flattery, the sigmas, the baselines and the noise ceiling."""
    judged, believed = found.judged, found.believed
    if believed is not None and found.spearman is not None and found.ab is not None:
        yield interval_line(believed.name, found.spearman, found.ab)
        if found.flattery:
            yield flattery_line(found.flattery, eval_chose=found.eval_chose)
        if believed.sigmas is not None:
            covered = coverage(judged.scores[believed.rows], believed.predictions, believed.sigmas)
            yield f"{believed.name} sigma: {covered}: {covered.verdict}"
    yield from baseline_lines(found)
    if found.ceiling is not None:
        yield ceiling_line(found.ceiling)
    if judged.taste is not None:
        yield BY_ANSWERS
    if found.consistency is not None:
        yield consistency_line(found.consistency)


BY_ANSWERS = (
    "these figures compare with the written scores, which few answers leave uncertain; the verdict is judged by the "
    "answers themselves"
)
"""The line on figures of scores that come from answers."""


def flattery_line(flattery: float, *, eval_chose: bool = False) -> str:
    """Return a line on how much choosing the best trials raises AB (0...1).

    `eval_chose` says that the pictures also chose the best epoch of each trial.
    """
    further = "; they also chose the best epoch of each trial, which raises AB further by an unknown amount"
    return (
        f"the best trials were chosen by these pictures, which raises AB by about {100 * flattery:.1f} %; the verdict "
        f"subtracts this{further * eval_chose}"
    )


def baseline_lines(found: Findings) -> Iterator[str]:
    """Yield a statistics line for each baseline, and a sentence on whether one is better than the model."""
    judged, believed = found.judged, found.believed
    if believed is None:
        yield (
            "the model cannot be compared with simple methods: it has learnt from every picture; train it again, which "
            "saves out-of-fold predictions, or set some pictures apart with --fraction_for_test"
        )
        return
    scores = judged.scores[believed.rows]
    for method, predictions in found.baselines.items():
        yield statistics_line(f"{believed.name}, {method}", scores, predictions)
    if found.baselines:
        yield advice(scores, believed.predictions, found.baselines, taste=judged.taste, rows=believed.rows)


def ceiling_line(ceiling: Ceiling) -> str:
    """Return a line on the figures that a perfect model would reach."""
    return (
        f"noise ceiling: because your scores are uncertain, even a perfect model would only reach about spearman "
        f"{ceiling.spearman.value:.3f}, AB {100 * ceiling.ab.value:.1f} %"
    )


def consistency_line(found: Consistency) -> str:
    """Return a line on the answers to pairs that the A/B page showed again."""
    line = (
        f"your consistency: {found.same:g} of {found.repeats} answers to pairs that were shown again were the same "
        f"({100 * found.low:.0f} to {100 * found.high:.0f} %)"
    )
    if found.ceiling is None:
        return line
    return f"{line}, so a perfect model would agree with about {100 * found.ceiling:.0f} % of such answers"


def find_ceiling(table: ScoreTable, taste: Taste | None = None) -> Ceiling | None:
    """Return the figures that a perfect model would reach on these scores; None if their uncertainty is unknown.

    The uncertainty comes from the columns `score_sd` and `comparisons` (the number of ratings), from the answers, or
    from the column `score_sigma`, in this order. The number of comparisons alone does not reveal it, because it does
    not show how consistent the judge is.
    """
    scores = np.asarray(table.scores, dtype=np.float64)
    columns = {
        name: np.asarray([_number(value) for value in table.columns[name]])
        for name in (SIGMA, "score_sd", "comparisons")
        if name in table.columns
    }
    if {"score_sd", "comparisons"} <= columns.keys():
        return noise_ceiling(scores, rating_sigmas(columns["score_sd"], columns["comparisons"]), posterior=False)
    if taste is not None:
        return ceiling_of_draws(scores[taste.rows], taste.draws)
    return noise_ceiling(scores, columns[SIGMA], posterior=True) if SIGMA in columns else None


def _number(value: object) -> float:
    try:
        return float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return float("nan")
