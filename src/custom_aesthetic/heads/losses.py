"""The losses a head can be trained with, on a batch of standardised scores, and their gradients for many heads."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

Loss = Callable[[Tensor, Tensor, Tensor | None], Tensor]
"""(outputs (n_images, n_outputs), scores (n_images,), weights (n_images,) or None) -> mean loss; lower is better."""

Gradient = Callable[[Tensor, Tensor, Tensor, Tensor | None], Tensor]
"""(outputs (heads, rows, n_outputs), scores, shares, weights (heads, rows) or None) -> gradient of each head's loss.

`shares` are 1 / the head's number of rows where there is a row, 0 where there is padding.
"""


def n_outputs(loss_model: str) -> int:
    """Return how many outputs a head needs for the loss: two, mean and sigma, for `nll`."""
    return 2 if loss_model == "nll" else 1


def even_batches(loss_model: str) -> bool:
    """Return whether an odd batch size is rounded up for the loss."""
    return loss_model in ("ab", "nll")


def mse(outputs: Tensor, scores: Tensor, weights: Tensor | None = None) -> Tensor:
    """Return the mean squared error."""
    return functional.mse_loss(outputs[:, 0], scores)


def wmse(outputs: Tensor, scores: Tensor, weights: Tensor | None) -> Tensor:
    """Return the mean of weight x squared error."""
    assert weights is not None
    return (weights * (outputs[:, 0] - scores).square()).mean()


def ab(outputs: Tensor, scores: Tensor, weights: Tensor | None = None) -> Tensor:
    """Return `MarginRankingLoss(margin=1)` over all pairs of the batch whose scores differ; 0 if there is none."""
    first, second = torch.triu_indices(len(scores), len(scores), offset=1, device=scores.device)
    order = torch.sign(scores[first] - scores[second])
    counted = order != 0
    losses = functional.margin_ranking_loss(outputs[first, 0], outputs[second, 0], order, margin=1, reduction="none")
    return (losses * counted).sum() / counted.sum().clamp(min=1)


def nll(outputs: Tensor, scores: Tensor, weights: Tensor | None = None) -> Tensor:
    """Return `GaussianNLLLoss` with output 0 as mean and the square of output 1 as variance."""
    return functional.gaussian_nll_loss(outputs[:, 0], scores, outputs[:, 1].square())


BY_NAME: dict[str, Loss] = {"mse": mse, "wmse": wmse, "ab": ab, "nll": nll}
"""The losses, by the value of `--loss_model`."""

NLL_MINIMUM_VARIANCE = 1e-6


def mse_gradient(outputs: Tensor, scores: Tensor, shares: Tensor, weights: Tensor | None = None) -> Tensor:
    """Return the gradient of `mse`."""
    return (outputs[..., 0] - scores).mul_(shares).mul_(2)[..., None]


def wmse_gradient(outputs: Tensor, scores: Tensor, shares: Tensor, weights: Tensor | None) -> Tensor:
    """Return the gradient of `wmse`."""
    assert weights is not None
    return (outputs[..., 0] - scores).mul_(shares).mul_(weights).mul_(2)[..., None]


def ab_gradient(outputs: Tensor, scores: Tensor, shares: Tensor, weights: Tensor | None = None) -> Tensor:
    """Return the gradient of `ab`: of the pairs that differ in score, those whose margin is below 1 push apart."""
    there = shares > 0
    order = torch.sign(scores[:, :, None] - scores[:, None, :]) * (there[:, :, None] & there[:, None, :])
    margins = order * (outputs[:, :, 0, None] - outputs[:, None, :, 0])
    n_pairs = order.abs().sum((1, 2)).div_(2).clamp_(min=1)
    return (order * (margins < 1)).sum(2).div_(-n_pairs[:, None])[..., None]


def nll_gradient(outputs: Tensor, scores: Tensor, shares: Tensor, weights: Tensor | None = None) -> Tensor:
    """Return the gradient of `nll`, through the floor of the variance as in `GaussianNLLLoss`."""
    errors = outputs[..., 0] - scores
    sigmas = outputs[..., 1]
    variances = sigmas.square().clamp(min=NLL_MINIMUM_VARIANCE)
    for_sigma = (1 - errors.square() / variances) / variances * sigmas
    return torch.stack([errors / variances, for_sigma], dim=-1).mul_(shares[..., None])


GRADIENTS: dict[str, Gradient] = {"mse": mse_gradient, "wmse": wmse_gradient, "ab": ab_gradient, "nll": nll_gradient}
"""Their gradients, by the same names."""
