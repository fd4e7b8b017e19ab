"""The training data that all heads of a search share: scaled features and standardised scores on the device.

Features are centred, divided by a power of their standard deviations (DEGREE), and rotated to the principal axes of the
training images, in which heads learn best: AdamW scales its steps feature by feature, so its result depends on the
axes. Along unwhitened principal axes, the few directions with most of the variation get the largest inputs, and there
are at most as many inputs as images. The map is linear and is folded into the first layer of a head.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from custom_aesthetic.base.arrays import Array
from custom_aesthetic.features.hidden_states import Mixture

MOST_AXES = 4096
"""With more images and more features than this, the decomposition would take minutes and is skipped."""

DEGREE = 0.75
"""The power of its standard deviation by which a feature is divided; 1 would standardise, 0 keep the extractor's scale.
Heads and ridge regression learn best between the two, on single raters and on mean ratings; see docs/log.md."""

NEGLIGIBLE = 1e-6
"""Axes are left out if the spread along them is below this share of the largest spread, and features likewise."""


@dataclass(frozen=True)
class TrainingData:
    """Features and scores on the device, standardised by the statistics of the training images alone."""

    features: Tensor
    """(n_images, n_columns): (given - feature_mean) / feature_scale, along the axes, in the given precision."""
    scores: Tensor
    """(n_images,) float32: (given - score_mean) / score_scale."""
    weights: Tensor | None
    """(n_images,) float32, or None: weights of the images in the loss `wmse`."""
    train_rows: Tensor
    """(n_train,) int64: row numbers of the training images."""
    feature_mean: Tensor
    feature_scale: Tensor
    score_mean: float
    score_scale: float
    mixtures: tuple[Mixture, ...] = ()
    """The hidden states that the head combines with trained weights; empty unless in `weight` mode."""
    axes: Tensor | None = None
    """(n_given_columns, n_columns): the principal axes of the training images; None with mixtures, or with too many
    images and features."""

    @property
    def n_inputs(self) -> int:
        """The number of inputs of a head's first layer."""
        return sum(mixture.width for mixture in self.mixtures) or self.features.shape[1]


def standardise(
    features: Tensor,
    scores: Tensor,
    train_rows: Tensor,
    *,
    device: torch.device,
    weights: Tensor | None = None,
    mixtures: Sequence[Mixture] = (),
) -> TrainingData:
    """Return standardised training data on the device from features (n_images, n_columns) and scores (n_images,).

    A column that is constant over the training images gets an infinite scale, so that it is 0 in every image. The
    hidden states of a mixture share one scale per feature, the root of their mean variance, so that the trained
    weights also hold for the original features. Without mixtures the features are rotated to their principal axes.
    """
    mean, variance = _moments(features, train_rows)
    for mixture in mixtures:
        pooled = mixture.states(variance[None]).mean(1).repeat(1, mixture.n_states)
        variance[mixture.start : mixture.stop] = pooled[0]
    scale = torch.from_numpy(scales_of(variance.double().numpy(), 1.0 if mixtures else DEGREE)).float()
    train_scores = scores[train_rows].double()
    score_mean, score_scale = float(train_scores.mean()), float(train_scores.std(correction=0))
    score_scale = score_scale if score_scale > 0 else 1.0
    scaled = [((rows.float() - mean) / scale).to(features.dtype) for rows in features.split(8192)]
    standardised = torch.cat(scaled).to(device)
    axes = None if mixtures else principal_axes(standardised, train_rows.to(device))
    return TrainingData(
        features=standardised if axes is None else project(standardised, axes),
        scores=((scores.double() - score_mean) / score_scale).float().to(device),
        weights=None if weights is None else weights.float().to(device),
        train_rows=train_rows.to(device),
        feature_mean=mean,
        feature_scale=scale,
        score_mean=score_mean,
        score_scale=score_scale,
        mixtures=tuple(mixtures),
        axes=axes,
    )


def scales_of(variances: Array, degree: float = DEGREE) -> Array:
    """Return what features are divided by (n_features,), from their variances; infinity for constant features.

    It is a power of the standard deviation, times the factor that leaves the mean variance of divided features at 1.
    """
    deviations = np.sqrt(variances)
    varying = deviations > NEGLIGIBLE * deviations.max(initial=0)
    if not varying.any():
        return np.full_like(deviations, np.inf)
    powers = np.where(varying, deviations, 1.0) ** degree
    mean_variance = np.mean(np.square(deviations[varying] / powers[varying]))
    return np.where(varying, powers * np.sqrt(mean_variance), np.inf)


def _moments(features: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mean and variance (n_columns,) float32 of these rows, computed in parts to save memory."""
    parts = rows.split(8192)
    mean = sum(features[part].double().sum(0) for part in parts) / len(rows)
    variance = sum((features[part].double() - mean).square().sum(0) for part in parts) / len(rows)
    return torch.as_tensor(mean).float(), torch.as_tensor(variance).float()


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
