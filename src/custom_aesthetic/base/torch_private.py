"""What the project uses of PyTorch that is not public, each with its reason and a public fallback.

`torch._fused_adamw_` is the kernel behind `torch.optim.AdamW(fused=True)`. A step of 1,000 numbers takes some 10
microseconds by it and 60 by `AdamW.step`, which checks its arguments anew each time. Checked with torch 2.13. Where
PyTorch does not have it, the public `torch.optim.adamw.adamw` does the same.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.optim.adamw import adamw

FUSED_DEVICES = ("cpu", "cuda", "mps", "xpu")
"""Where PyTorch has the fused kernel."""

OPTIONS: dict[str, Any] = {"beta1": 0.9, "beta2": 0.999, "eps": 1e-8, "amsgrad": False, "maximize": False}


class AdamWState(NamedTuple):
    """What AdamW works on, in place: numbers, their gradients, and its means of gradients and of their squares.

    `n_steps` are float tensors () on the same device, and `counts` the tensor whose elements they are, which one call
    counts on. All are lists, as the fused kernel takes them.
    """

    numbers: list[Tensor]
    gradients: list[Tensor]
    means: list[Tensor]
    mean_squares: list[Tensor]
    n_steps: list[Tensor]
    counts: Tensor | None = None
    """None for a single tensor of `n_steps`."""


def adamw_step(state: AdamWState, *, lr: float, weight_decay: float) -> None:
    """Do one step of AdamW (Loshchilov and Hutter 2019) in place, by the fused kernel where there is one."""
    numbers, gradients, means, mean_squares, n_steps, counts = state
    fused = getattr(torch, "_fused_adamw_", None)
    if fused is None or numbers[0].device.type not in FUSED_DEVICES:
        with torch.no_grad():
            adamw(
                numbers, gradients, means, mean_squares, [], n_steps,
                foreach=len(numbers) > 1, fused=False, lr=lr, weight_decay=weight_decay, **OPTIONS,
            )  # fmt: skip
        return
    (n_steps[0] if counts is None else counts).add_(1)
    fused(numbers, gradients, means, mean_squares, [], n_steps, lr=lr, weight_decay=weight_decay, **OPTIONS)
