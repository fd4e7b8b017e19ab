"""Baselines on the same features and split as the model: ridge, support-vector and kernel ridge regression.

They show whether a search is worth its time. Their hyper-parameters are chosen by cross-validation within the training
images; no other images are used.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve

from custom_aesthetic.base.arrays import Array
from custom_aesthetic.heads.linear_members import MEAN_VARIANCE, PENALTIES, left_out_errors
from custom_aesthetic.quality.answers import Taste
from custom_aesthetic.quality.confidence import Interval, spearman_difference
from custom_aesthetic.scores.folds import fold_levels

Rows = NDArray[np.int64]
Kernel = Callable[[Array, Array], Array]
"""Returns the similarities (n_rows, n_others) of features (n_rows, n_columns) and others (n_others, n_columns)."""

FEWEST_TRAINING_IMAGES = 4
MOST_TRAINING_IMAGES = 3000
"""Of more training images a random sample is used, because kernels take memory by the square of their number."""

MOST_SEARCHED_IMAGES = 1000
"""Of more training images a random sample is used to choose the hyper-parameters."""

N_FOLDS = 5
ROWS_AT_ONCE = 4096
SVR_PENALTIES = (1.0, 3.0, 10.0)
SVR_EPSILON = 0.1
"""Errors within this many standard deviations of the scores cost nothing."""


def fit_baselines(features: Array, scores: Array, train_rows: Rows, *, seed: int = 0) -> dict[str, Array]:
    """Return the predictions (n_images,) of each baseline, by name, in the units of the scores.

    `features` are (n_images, n_features) in any units; columns that are constant in training are left out. Of more
    than MOST_TRAINING_IMAGES training images a random sample is used. The result is empty if nothing can be learnt
    (too few training images, constant scores or features).
    """
    rows = np.random.default_rng(seed).permutation(train_rows)[:MOST_TRAINING_IMAGES]
    data = _Standardised.of(features, scores, rows)
    if len(rows) < FEWEST_TRAINING_IMAGES or data.columns.size == 0 or np.ptp(scores[rows]) == 0:
        return {}
    predictors = {
        "ridge": _fit_kernel_ridge(data, _linear),
        "SVR": _fit_svr(data),
        "kernel ridge": _fit_kernel_ridge(data, _gaussian),
    }
    return {name: data.in_score_units(predict, features) for name, predict in predictors.items()}


def out_of_fold_baselines(
    features: Array, scores: Array, folds: Sequence[tuple[Rows, Rows]], *, seed: int = 0
) -> dict[str, Array]:
    """Return the out-of-fold predictions (n_images,) of each baseline, by name; nan for images in no fold.

    `folds` are (rows that train, rows left out), the same as the model's, and as there the levels of the folds are
    subtracted. Baselines that cannot be fitted in every fold are left out.
    """
    found = [fit_baselines(features, scores, learnt, seed=seed) for learnt, _ in folds]
    names = [name for name in found[0] if all(name in by_name for by_name in found)] if found else []
    predictions = {name: np.full(len(scores), np.nan) for name in names}
    levels = fold_levels(scores, folds) if folds else np.zeros(len(scores))
    for by_name, (_, left_out) in zip(found, folds, strict=True):
        for name in names:
            predictions[name][left_out] = by_name[name][left_out] - levels[left_out]
    return predictions


def fit_ridge(features: Array, scores: Array, train_rows: Rows) -> Callable[[Array], Array]:
    """Return the ridge regression of `fit_baselines`: a function from features (n, n_features) to predictions (n,).

    If nothing can be learnt it predicts the mean score.
    """
    data = _Standardised.of(features, scores, train_rows)
    if data.columns.size == 0:
        return lambda given: np.full(len(given), data.score_mean)
    predict = _fit_kernel_ridge(data, _linear)
    return lambda given: data.in_score_units(predict, given)


def better_baseline(
    scores: Array,
    predictions: Array,
    baselines: Mapping[str, Array],
    *,
    taste: Taste | None = None,
    rows: Rows | None = None,
) -> tuple[str, Interval] | None:
    """Return the name of the baseline that is most clearly better than the model by Spearman, and the difference.

    None if no baseline is significantly better, by the 95 % interval of `ahead`, which says what is compared. All
    arrays are (n_images,) for the same images, which should not have been used for any choice.
    """
    differences = {name: ahead(scores, found, predictions, taste=taste, rows=rows) for name, found in baselines.items()}
    above = {name: interval for name, interval in differences.items() if interval.low > 0}
    if not above:
        return None
    name = max(above, key=lambda name: above[name].value)
    return name, above[name]


def ahead(
    scores: Array, first: Array, second: Array, *, taste: Taste | None = None, rows: Rows | None = None
) -> Interval:
    """Return how much better the first predictions are than the second, with the 95 % interval; all are (n_images,).

    It is the difference of their Spearman, by the paired bootstrap, or, with the taste that the scores come from, that
    of the shares of pairs in which each picks what the user picks; `rows` are the images in it.
    """
    if taste is None or rows is None:
        return spearman_difference(scores, first, second)
    return taste.ahead(rows, first, second)


def advice(
    scores: Array,
    predictions: Array,
    baselines: Mapping[str, Array],
    *,
    taste: Taste | None = None,
    rows: Rows | None = None,
) -> str:
    """Return a sentence on whether a baseline is better than the model and, if so, what to do.

    The arguments are those of `better_baseline`.
    """
    found = better_baseline(scores, predictions, baselines, taste=taste, rows=rows)
    if found is None:
        return f"no simple method is clearly better than the model on these {len(scores)} images"
    name, interval = found
    by = "Spearman" if taste is None else "share of pairs in which it picks as you do"
    ends = f"{interval.low:+.4f} ... {interval.high:+.4f}"
    return (
        f"{name} is better than the model: {by} {interval.value:+.4f} ({ends}) on these {len(scores)} images; "
        "the search has not found a good head yet: run more --trials, allow more --max_train_epochs, and check "
        "--metric_for_scoring"
    )


@dataclass(frozen=True)
class _Standardised:
    """Standardised training features and scores, with the statistics that standardise other images in the same way."""

    columns: Rows
    mean: Array
    scale: Array
    train: Array
    """(n_train, n_columns), in random order"""
    scores: Array
    """(n_train,)"""
    score_mean: float
    score_scale: float

    @staticmethod
    def of(features: Array, scores: Array, rows: Rows) -> "_Standardised":
        given = np.asarray(features[rows], dtype=np.float64)
        mean, scale = given.mean(0), given.std(0)
        columns = np.flatnonzero(scale > 1e-6 * scale.max(initial=0))
        mean, scale = mean[columns], scale[columns]
        score_mean, score_scale = float(np.mean(scores[rows])), float(np.std(scores[rows])) or 1.0
        return _Standardised(
            columns=columns,
            mean=mean,
            scale=scale,
            train=(given[:, columns] - mean) / scale,
            scores=(scores[rows] - score_mean) / score_scale,
            score_mean=score_mean,
            score_scale=score_scale,
        )

    def in_score_units(self, predict: Callable[[Array], Array], features: Array) -> Array:
        """Return the predictions (n_images,) of a function of standardised features, applied in blocks of rows."""
        starts = range(0, len(features), ROWS_AT_ONCE)
        given = (features[start : start + ROWS_AT_ONCE][:, self.columns] for start in starts)
        found = [predict((np.asarray(rows, dtype=np.float64) - self.mean) / self.scale) for rows in given]
        return self.score_mean + self.score_scale * np.concatenate([np.zeros(0), *found])


def _linear(rows: Array, others: Array) -> Array:
    return MEAN_VARIANCE + rows @ others.T / others.shape[1]


def _gaussian(rows: Array, others: Array) -> Array:
    """Return the Gaussian kernel with the width of scikit-learn's `scale`.

    Choosing the width by cross-validation made both regressions worse on real photographs.
    """
    squares = np.square(rows).sum(1)[:, None] + np.square(others).sum(1)
    return MEAN_VARIANCE + np.exp(-np.maximum(squares - 2 * rows @ others.T, 0) / others.shape[1])


def _fit_kernel_ridge(data: _Standardised, kernel: Kernel) -> Callable[[Array], Array]:
    """Return the predictor of kernel ridge regression; leave-one-out errors choose its penalty."""
    searched, scores = data.train[:MOST_SEARCHED_IMAGES], data.scores[:MOST_SEARCHED_IMAGES]
    errors = left_out_errors(kernel(searched, searched), scores, PENALTIES)
    likeness = kernel(data.train, data.train)
    likeness[np.diag_indices_from(likeness)] += PENALTIES[np.argmin(errors)]
    coefficients = cho_solve(cho_factor(likeness, lower=True), data.scores)
    return lambda rows: kernel(rows, data.train) @ coefficients


def _fit_svr(data: _Standardised) -> Callable[[Array], Array]:
    """Return the predictor of support-vector regression; cross-validation chooses its penalty."""
    from sklearn.model_selection import GridSearchCV, KFold  # takes a second, and most runs have the fits already
    from sklearn.svm import SVR

    searched, scores = data.train[:MOST_SEARCHED_IMAGES], data.scores[:MOST_SEARCHED_IMAGES]
    model = SVR(kernel="precomputed", epsilon=SVR_EPSILON)
    folds = KFold(min(N_FOLDS, len(scores)))  # the images are in random order
    search = GridSearchCV(model, {"C": SVR_PENALTIES}, scoring="neg_mean_squared_error", cv=folds, refit=False)
    search.fit(_gaussian(searched, searched), scores)
    model.set_params(**search.best_params_).fit(_gaussian(data.train, data.train), data.scores)
    return lambda rows: model.predict(_gaussian(rows, data.train))
