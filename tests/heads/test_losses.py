"""The autograd losses, against which the gradients are checked, equal those of PyTorch and slow formulas."""

import pytest
import torch
from torch import nn

from custom_aesthetic.heads.losses import GRADIENTS
from custom_aesthetic.settings.training import LOSSES
from tests.heads import autograd_losses as losses


def batch(n_outputs: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    outputs = torch.randn(9, n_outputs, generator=generator)
    return outputs, torch.randn(9, generator=generator).round()


def test_mse_and_nll_equal_those_of_pytorch() -> None:
    outputs, scores = batch(2)
    assert losses.mse(outputs, scores) == nn.MSELoss()(outputs[:, 0], scores)
    assert losses.nll(outputs, scores) == nn.GaussianNLLLoss()(outputs[:, 0], scores, outputs[:, 1] ** 2)


def test_wmse_with_equal_weights_is_mse() -> None:
    outputs, scores = batch()
    assert losses.wmse(outputs, scores, torch.ones(9)) == pytest.approx(float(losses.mse(outputs, scores)))
    assert losses.wmse(outputs, scores, torch.eye(9)[0]) == pytest.approx(float((outputs[0, 0] - scores[0]) ** 2) / 9)


def test_ab_is_the_margin_ranking_loss_over_pairs_with_different_scores() -> None:
    outputs, scores = batch()
    criterion = nn.MarginRankingLoss(margin=1)
    pairs = [(i, j) for i in range(9) for j in range(i) if scores[i] != scores[j]]
    assert 0 < len(pairs) < 36
    expected = sum(float(criterion(outputs[i], outputs[j], torch.sign(scores[i] - scores[j])[None])) for i, j in pairs)
    assert float(losses.ab(outputs, scores)) == pytest.approx(expected / len(pairs))


@pytest.mark.parametrize("scores", [torch.ones(4), torch.ones(1)])
def test_ab_has_no_gradient_if_all_scores_are_equal(scores: torch.Tensor) -> None:
    outputs = torch.randn(len(scores), 1, requires_grad=True)
    losses.ab(outputs, scores).backward()
    assert outputs.grad is not None
    assert not outputs.grad.any()


def test_the_same_losses_have_names_gradients_and_autograd_functions() -> None:
    assert set(losses.BY_NAME) == set(GRADIENTS) == set(LOSSES)
