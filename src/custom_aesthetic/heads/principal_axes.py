"""The principal axes of the training images: the coordinates in which heads learn best.

AdamW scales its steps feature by feature, so it is not indifferent to the axes. In the principal ones, unwhitened, the
few directions that most of the variation lies along get the large inputs, and there are never more of them than
images. The rotation is linear and is folded into the first layer of a head.
"""

import torch
from torch import Tensor

MOST_AXES = 4096
"""Where both images and features are more than this, the decomposition would take minutes and is left out."""

NEGLIGIBLE = 1e-6
"""Axes along which the images spread less than this share of the largest spread are left out."""


def principal_axes(features: Tensor, rows: Tensor) -> Tensor | None:
    """Return a matrix (n_columns, n_axes) float32 that takes standardised features to their principal axes.

    The axes are those of the given rows (n_rows,); the features along them have mean square 1 over all axes, and the
    widest axis comes first. Each axis points to where its largest part is positive. None where there are more than
    MOST_AXES images and features, or where the features do not vary.
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
    """Return features (n_images, n_columns) along the axes, (n_images, n_axes), in their own precision."""
    return torch.cat([(rows.float() @ axes).to(features.dtype) for rows in features.split(8192)])
