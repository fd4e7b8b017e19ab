"""Gradients of the losses that heads are trained with, for several heads at once on batches of standardised scores."""

from collections.abc import Callable

import torch
from torch import Tensor

Gradient = Callable[[Tensor, Tensor, Tensor, Tensor | None], Tensor]
"""(outputs (heads, rows, n_outputs), scores, shares, weights (heads, rows) or None) -> gradient of each head's loss.

`shares` (heads, rows) are 1 / (number of rows of the head), and 0 for padded rows.
"""


def n_outputs(loss_model: str) -> int:
    """Return how many outputs a head has for this loss: two (mean and sigma) for `nll`, else one."""
    return 2 if loss_model == "nll" else 1


def even_batches(loss_model: str) -> bool:
    """Return whether an odd batch size is rounded up for this loss."""
    return loss_model in ("ab", "nll")


NLL_MINIMUM_VARIANCE = 1e-6


def mse_gradient(outputs: Tensor, scores: Tensor, shares: Tensor, weights: Tensor | None = None) -> Tensor:
    """Return the gradient of the mean squared error."""
    return (outputs[..., 0] - scores).mul_(shares).mul_(2)[..., None]


def wmse_gradient(outputs: Tensor, scores: Tensor, shares: Tensor, weights: Tensor | None) -> Tensor:
    """Return the gradient of the mean of weight x squared error."""
    assert weights is not None
    return (outputs[..., 0] - scores).mul_(shares).mul_(weights).mul_(2)[..., None]


def ab_gradient(outputs: Tensor, scores: Tensor, shares: Tensor, weights: Tensor | None = None) -> Tensor:
    """Return the gradient of `MarginRankingLoss(margin=1)`, averaged over all pairs whose scores differ.

    Only pairs with a margin below 1 contribute. The gradient is zero if all scores are equal.
    """
    is_row = shares > 0
    order = torch.sign(scores[:, :, None] - scores[:, None, :]) * (is_row[:, :, None] & is_row[:, None, :])
    margins = order * (outputs[:, :, 0, None] - outputs[:, None, :, 0])
    n_pairs = order.abs().sum((1, 2)).div_(2).clamp_(min=1)
    return (order * (margins < 1)).sum(2).div_(-n_pairs[:, None])[..., None]


def nll_gradient(outputs: Tensor, scores: Tensor, shares: Tensor, weights: Tensor | None = None) -> Tensor:
    """Return the gradient of `GaussianNLLLoss`: output 0 is the mean, the square of output 1 the variance.

    As in PyTorch, the gradient ignores that the variance is clamped to at least NLL_MINIMUM_VARIANCE.
    """
    errors = outputs[..., 0] - scores
    sigmas = outputs[..., 1]
    variances = sigmas.square().clamp(min=NLL_MINIMUM_VARIANCE)
    for_sigma = (1 - errors.square() / variances) / variances * sigmas
    return torch.stack([errors / variances, for_sigma], dim=-1).mul_(shares[..., None])


GRADIENTS: dict[str, Gradient] = {"mse": mse_gradient, "wmse": wmse_gradient, "ab": ab_gradient, "nll": nll_gradient}
"""The gradients, by the value of `--loss_model`."""
