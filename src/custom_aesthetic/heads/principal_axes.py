"""Rotation of features to the principal axes of the training images, in which heads learn best.

AdamW scales its steps feature by feature, so its result depends on the axes. Along unwhitened principal axes, the few
directions with most of the variation get the largest inputs, and there are at most as many inputs as images. The
rotation is linear and is folded into the first layer of a head.
"""

import torch
from torch import Tensor

MOST_AXES = 4096
"""With more images and more features than this, the decomposition would take minutes and is skipped."""

NEGLIGIBLE = 1e-6
"""Axes are left out if the spread along them is below this share of the largest spread."""


def principal_axes(features: Tensor, rows: Tensor) -> Tensor | None:
    """Return the matrix (n_columns, n_axes) float32 that projects standardised features onto their principal axes.

    The axes are computed from the given rows (n_rows,), widest first, and scaled so that the mean square of the
    projected features over all axes is 1. The largest component of each axis is positive. Returns None if there are
    more than MOST_AXES rows and columns, or if the features do not vary.
    """
    n_rows, n_columns = len(rows), features.shape[1]
    if min(n_rows, n_columns) > MOST_AXES:
        return None
    if n_rows <= n_columns:
        given = features[rows].double()
        values, vectors = torch.linalg.eigh(given @ given.T)
        axes = given.T @ vectors / values.clamp(min=torch.finfo(torch.float64).tiny).sqrt()
    else:
        covariance = torch.zeros(n_columns, n_columns, dtype=torch.float64, device=features.device)
        for part in rows.split(8192):
            given = features[part].double()
            covariance += given.T @ given
        values, axes = torch.linalg.eigh(covariance)
    kept = values > NEGLIGIBLE**2 * values[-1]
    if not values[-1] > 0:
        return None
    values, axes = values[kept].flip(0), axes[:, kept].flip(1)
    largest = axes.gather(0, axes.abs().argmax(0, keepdim=True))
    mean_square = values.sum() / (n_rows * len(values))
    return (axes * largest.sign() / mean_square.sqrt()).float()


def project(features: Tensor, axes: Tensor) -> Tensor:
    """Return features (n_images, n_columns) along the axes, (n_images, n_axes), in the precision of the features."""
    return torch.cat([(rows.float() @ axes).to(features.dtype) for rows in features.split(8192)])
