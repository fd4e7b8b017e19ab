"""What simple methods make of the same features and split: ridge, support-vector and kernel regression.

They show whether a search earns its keep. Hyper-parameters are chosen inside the training images, by leaving out
parts of them; the other images are never looked at.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve, eigh
from sklearn.model_selection import GridSearchCV, KFold
from sklearn.svm import SVR

from custom_aesthetic.base.arrays import Array
from custom_aesthetic.quality.confidence import Interval, spearman_difference

Rows = NDArray[np.int64]
Kernel = Callable[[Array, Array], Array]
"""Likeness (n_rows, n_others) of standardised features (n_rows, n_columns) and others (n_others, n_columns)."""

FEWEST_TRAINING_IMAGES = 4
MOST_TRAINING_IMAGES = 3000
"""Training images beyond which a random part of them serves: kernels take memory by the square of their number."""

MOST_SEARCHED_IMAGES = 1000
"""Training images beyond which a random part of them serves to choose the hyper-parameters."""

MEAN_VARIANCE = 100.0
"""Added to every likeness: it leaves the mean of the scores free, so that leaving an image out changes it too."""

N_FOLDS = 5
ROWS_AT_ONCE = 4096
RIDGE_PENALTIES = np.logspace(-3, 3, 25)
"""Added to the diagonal of a kernel whose own diagonal is about 1, so in shares of the scores' variance."""

SVR_PENALTIES = (1.0, 3.0, 10.0)
SVR_EPSILON = 0.1
"""Errors within this many standard deviations of the scores cost nothing."""


def fit_baselines(features: Array, scores: Array, train_rows: Rows, *, seed: int = 0) -> dict[str, Array]:
    """Return the predictions (n_images,) of each baseline, by its name, in the units of the scores.

    `features` are (n_images, n_features) in any units; columns constant in training are left out. With more than
    MOST_TRAINING_IMAGES training images they learn from a random part of that size. Where nothing can be learnt (too
    few training images, constant scores or features) there are none.
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
    """Return what each baseline says of the images that each fold leaves out, (n_images,); nan for the others.

    `folds` are (rows that train, rows left out), those that judge the model. Only baselines that every fold can fit.
    """
    found = [fit_baselines(features, scores, learnt, seed=seed) for learnt, _ in folds]
    names = [name for name in found[0] if all(name in own for own in found)] if found else []
    predictions = {name: np.full(len(scores), np.nan) for name in names}
    for own, (_, left_out) in zip(found, folds, strict=True):
        for name in names:
            predictions[name][left_out] = own[name][left_out]
    return predictions


def fit_ridge(features: Array, scores: Array, train_rows: Rows) -> Callable[[Array], Array]:
    """Return ridge as `fit_baselines` fits it: a function from features (n, n_features) to predictions (n,).

    Where nothing can be learnt it gives the mean.
    """
    data = _Standardised.of(features, scores, train_rows)
    if data.columns.size == 0:
        return lambda given: np.full(len(given), data.score_mean)
    predict = _fit_kernel_ridge(data, _linear)
    return lambda given: data.in_score_units(predict, given)


def better_baseline(
    scores: Array, predictions: Array, baselines: Mapping[str, Array], *, seed: int = 0
) -> tuple[str, Interval] | None:
    """Return the baseline with the highest Spearman if it is significantly above the model's, and by how much.

    None if there is none. All arrays are (n_images,) of the same images, which should have chosen nothing; the test is
    the paired bootstrap's 95 % interval.
    """
    differences = {
        name: spearman_difference(scores, found, predictions, seed=seed) for name, found in baselines.items()
    }
    above = {name: interval for name, interval in differences.items() if interval.low > 0}
    if not above:
        return None
    name = max(above, key=lambda name: above[name].value)
    return name, above[name]


def advice(scores: Array, predictions: Array, baselines: Mapping[str, Array], *, seed: int = 0) -> str:
    """Return the sentence that says whether the model earns its keep, and what to do where it does not."""
    found = better_baseline(scores, predictions, baselines, seed=seed)
    if found is None:
        return f"no simple method is clearly better than the model on these {len(scores)} images"
    name, interval = found
    ends = f"{interval.low:+.4f} ... {interval.high:+.4f}"
    return (
        f"{name} is better than the model: Spearman {interval.value:+.4f} ({ends}) on these {len(scores)} images; "
        "the search has not found a good head yet: run more --trials, allow more --max_train_epochs, and see that the "
        "metric that it improves is the one wanted"
    )


@dataclass(frozen=True)
class _Standardised:
    """Training features and scores, standardised by their own statistics, and what brings others to the same units."""

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
        """Return the predictions (n_images,) of a function of standardised features, called on some rows at a time."""
        starts = range(0, len(features), ROWS_AT_ONCE)
        given = (features[start : start + ROWS_AT_ONCE][:, self.columns] for start in starts)
        found = [predict((np.asarray(rows, dtype=np.float64) - self.mean) / self.scale) for rows in given]
        return self.score_mean + self.score_scale * np.concatenate([np.zeros(0), *found])


def _linear(rows: Array, others: Array) -> Array:
    return MEAN_VARIANCE + rows @ others.T / others.shape[1]


def _gaussian(rows: Array, others: Array) -> Array:
    """Return the Gaussian kernel as wide as scikit-learn's `scale`; choosing the width by cross-validation made both
    regressions worse on the photographs."""
    squares = np.square(rows).sum(1)[:, None] + np.square(others).sum(1)
    return MEAN_VARIANCE + np.exp(-np.maximum(squares - 2 * rows @ others.T, 0) / others.shape[1])


def _fit_kernel_ridge(data: _Standardised, kernel: Kernel) -> Callable[[Array], Array]:
    """Return the predictor of kernel ridge; its penalty is chosen by leaving each image out in turn."""
    searched, scores = data.train[:MOST_SEARCHED_IMAGES], data.scores[:MOST_SEARCHED_IMAGES]
    errors = left_out_errors(kernel(searched, searched), scores, RIDGE_PENALTIES)
    likeness = kernel(data.train, data.train)
    likeness[np.diag_indices_from(likeness)] += RIDGE_PENALTIES[np.argmin(errors)]
    coefficients = cho_solve(cho_factor(likeness, lower=True), data.scores)
    return lambda rows: kernel(rows, data.train) @ coefficients


def left_out_errors(likeness: Array, scores: Array, penalties: Array) -> Array:
    """Return for each penalty the mean squared error of kernel ridge when each image is left out in turn.

    Exact, from one decomposition: the error of image i is (G scores)[i] / G[i, i], where G is the inverse of
    likeness + penalty x identity (Rasmussen and Williams, Gaussian Processes, 2006, equation 5.12).
    """
    values, vectors = eigh(likeness)
    inverses = 1 / (np.maximum(values, 0)[:, None] + penalties)
    solved = vectors @ (inverses * (vectors.T @ scores)[:, None])
    return np.square(solved / (np.square(vectors) @ inverses)).mean(0)


def _fit_svr(data: _Standardised) -> Callable[[Array], Array]:
    """Return the predictor of support-vector regression; its penalty is chosen by cross-validation."""
    searched, scores = data.train[:MOST_SEARCHED_IMAGES], data.scores[:MOST_SEARCHED_IMAGES]
    model = SVR(kernel="precomputed", epsilon=SVR_EPSILON)
    folds = KFold(min(N_FOLDS, len(scores)))  # the images are in random order
    search = GridSearchCV(model, {"C": SVR_PENALTIES}, scoring="neg_mean_squared_error", cv=folds, refit=False)
    search.fit(_gaussian(searched, searched), scores)
    model.set_params(**search.best_params_).fit(_gaussian(data.train, data.train), data.scores)
    return lambda rows: model.predict(_gaussian(rows, data.train))
