"""The fused step of AdamW and its public fallback, compared with `torch.optim.AdamW`."""

import pytest
import torch

from custom_aesthetic.base import torch_private
from custom_aesthetic.base.torch_private import AdamWState, adamw_step


@pytest.fixture(params=["fused", "without the kernel", "on another device"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Each implementation of a step; the fallback fails if the kernel is called."""
    if request.param == "fused":
        assert hasattr(torch, "_fused_adamw_")
    elif request.param == "without the kernel":
        monkeypatch.delattr(torch, "_fused_adamw_")
    else:
        monkeypatch.setattr(torch_private, "FUSED_DEVICES", ("cuda",))
        monkeypatch.setattr(torch, "_fused_adamw_", lambda *_, **__: pytest.fail("the fused kernel was called"))
    return request.param


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_steps_equal_those_of_the_torch_optimiser(way: str, weight_decay: float) -> None:
    generator = torch.Generator().manual_seed(0)
    numbers = torch.randn(50, generator=generator)
    expected = torch.nn.Parameter(numbers.clone())
    optimiser = torch.optim.AdamW([expected], lr=0.0, weight_decay=weight_decay)
    state = AdamWState([numbers], [torch.empty(50)], [torch.zeros(50)], [torch.zeros(50)], [torch.zeros(())])
    for step in range(200):
        gradients = torch.randn(50, generator=generator) * 10 ** (step % 7 - 3)
        gradients[step % 50 :: 9] = 0  # padding has no gradient
        expected.grad = gradients.clone()
        state.gradients[0].copy_(gradients)
        optimiser.param_groups[0]["lr"] = 0.03 * (200 - step) / 200
        optimiser.step()
        adamw_step(state, lr=0.03 * (200 - step) / 200, weight_decay=weight_decay)
        torch.testing.assert_close(numbers, expected.detach(), atol=1e-5, rtol=1e-5)
    assert state.n_steps[0] == 200


def test_numbers_without_gradients_stay_zero(way: str) -> None:
    state = AdamWState([torch.zeros(3)], [torch.zeros(3)], [torch.zeros(3)], [torch.zeros(3)], [torch.zeros(())])
    for _ in range(3):
        adamw_step(state, lr=0.1, weight_decay=0.01)
    assert not state.numbers[0].any()
