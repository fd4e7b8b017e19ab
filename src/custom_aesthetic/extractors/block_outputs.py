"""The output of each transformer block of a tower, recorded by hooks.

The `hidden_states` of transformers depend on its version: in some, the last one is normalised, and in some it is None
for a part of a model. The output of the blocks is the same in all versions.
"""

import operator
from threading import local
from typing import Any

from torch import Tensor, nn

BLOCKS = ("vision_model.encoder.layers", "encoder.layers", "encoder.layer", "model.layer", "layer")
"""Attributes that can hold the blocks of a vision tower; the first that exists is used."""


class BlockOutputs:
    """The input of a model's first block and the output of every block, kept for the thread that runs the model."""

    def __init__(self, model: nn.Module) -> None:
        self._kept = local()
        blocks = _blocks(model)
        blocks[0].register_forward_pre_hook(self._begin, with_kwargs=True)
        for block in blocks:
            block.register_forward_hook(self._add)

    def take(self) -> list[Tensor]:
        """Return the states of this thread's last run, (images, tokens, width) each, and forget them."""
        states = self._kept.states
        del self._kept.states
        return states

    def _begin(self, _block: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any]) -> None:
        self._kept.states = [inputs[0] if inputs else named["hidden_states"]]

    def _add(self, _block: nn.Module, _inputs: Any, output: Any) -> None:
        self._kept.states.append(output[0] if isinstance(output, tuple) else output)


def _blocks(model: nn.Module) -> nn.ModuleList:
    for path in BLOCKS:
        try:
            return operator.attrgetter(path)(model)
        except AttributeError:
            continue
    raise AssertionError(f"{type(model).__name__} holds its blocks in none of {', '.join(BLOCKS)}")
