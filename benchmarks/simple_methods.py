"""The methods that benchmarks compare this program with: predictions for all pictures from the ratings of some."""

import warnings
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve

from custom_aesthetic.base.arrays import Array
from custom_aesthetic.heads.linear_members import MEAN_VARIANCE, PENALTIES, left_out_errors
from custom_aesthetic.quality.baselines import fit_baselines

Rows = NDArray[np.int64]
Method = Callable[[Array, Array, Rows], dict[str, Array]]
"""Takes features (n_images, n_features), scores (n_images,) and the rows that may be learnt from; returns predictions
(n_images,) by name. It must not read the scores of other rows."""

CENTRED, PLS, PROCESS = "ridge, centred", "PLS, one component", "Gaussian process"


def predict_simply(features: Array, scores: Array, rows: Rows) -> dict[str, Array]:
    """Return the predictions (n_images,) of every simple method that learns from these rows alone, by name."""
    known = np.full(len(scores), np.nan)
    known[rows] = scores[rows]
    found = fit_baselines(features, known, rows)
    renamed = {"ridge": "ridge, standardised", "kernel ridge": "kernel ridge", "SVR": "SVR"}
    mean = features[rows].mean(0, dtype=np.float64)
    centred = features - mean
    return {
        **{renamed[name]: values for name, values in found.items()},
        CENTRED: _centred_ridge(centred, known, rows),
        PLS: centred @ (centred[rows].T @ (known[rows] - known[rows].mean())),
        PROCESS: _gaussian_process(centred, known, rows),
    }


def _centred_ridge(centred: Array, scores: Array, rows: Rows) -> Array:
    """Return ridge regression on features without any scaling; leave-one-out errors choose its penalty."""
    scale = np.square(centred[rows]).sum(1).mean()
    likeness = MEAN_VARIANCE + centred @ centred[rows].T / scale
    wanted = scores[rows] - scores[rows].mean()
    errors = left_out_errors(likeness[rows], wanted, PENALTIES)
    penalised = likeness[rows] + PENALTIES[np.argmin(errors)] * np.eye(len(rows))
    return likeness @ cho_solve(cho_factor(penalised), wanted)


def _gaussian_process(centred: Array, scores: Array, rows: Rows) -> Array:
    """Return a Gaussian process with a linear and a Gaussian kernel and noise, on standardised features.

    The likelihood chooses the four variances and the width, from two starts.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.gaussian_process.kernels import RBF, ConstantKernel, DotProduct, WhiteKernel

    deviation = centred[rows].std(0)
    kept = deviation > 1e-6 * deviation.max()
    reduced = _reduced(centred[:, kept] / deviation[kept] / np.sqrt(kept.sum()), rows)
    kernel = (
        ConstantKernel(0.3, (1e-4, 1e2)) * DotProduct(1e-3, "fixed")
        + ConstantKernel(0.3, (1e-4, 1e2)) * RBF(1.0, (0.1, 30.0))
        + WhiteKernel(0.5, (1e-3, 1e2))
    )
    process = GaussianProcessRegressor(kernel, normalize_y=True, n_restarts_optimizer=1, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # a variance at its bound is a fair answer here
        return process.fit(reduced[rows], scores[rows]).predict(reduced)


def _reduced(features: Array, rows: Rows) -> Array:
    """Return features (n_images, at most n_rows + 1) with the same products and distances to those of the rows.

    The last column is what lies outside the space of the rows.
    """
    if len(rows) >= features.shape[1]:
        return features
    axes = np.linalg.qr(features[rows].T)[0]
    within = features @ axes
    outside = np.square(features).sum(1) - np.square(within).sum(1)
    outside[rows] = 0
    return np.column_stack([within, np.sqrt(np.maximum(outside, 0))])
