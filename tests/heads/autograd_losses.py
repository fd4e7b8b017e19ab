"""The losses as slow, obvious autograd functions; the tests check the gradients in `heads.losses` against them."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

Loss = Callable[[Tensor, Tensor, Tensor | None], Tensor]
"""(outputs (n_images, n_outputs), scores (n_images,), weights (n_images,) or None) -> mean loss; lower is better."""


def mse(outputs: Tensor, scores: Tensor, weights: Tensor | None = None) -> Tensor:
    """Return the mean squared error."""
    return functional.mse_loss(outputs[:, 0], scores)


def wmse(outputs: Tensor, scores: Tensor, weights: Tensor | None) -> Tensor:
    """Return the mean of weight x squared error."""
    assert weights is not None
    return (weights * (outputs[:, 0] - scores).square()).mean()


def ab(outputs: Tensor, scores: Tensor, weights: Tensor | None = None) -> Tensor:
    """Return `MarginRankingLoss(margin=1)` over all pairs of the batch with different scores; 0 without such pairs."""
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
