"""How the hidden states of a picture become the input of a head: joined, averaged, or summed with weights."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

import torch
from torch import Tensor

from custom_aesthetic.base.errors import UserError
from custom_aesthetic.features.table import FeatureBlock, FeatureTable
from custom_aesthetic.settings.training import FeatureSettings


@dataclass(frozen=True)
class Mixture:
    """Equally wide hidden states that lie side by side in the columns start ... start + n_states x width."""

    start: int
    n_states: int
    width: int

    @property
    def stop(self) -> int:
        return self.start + self.n_states * self.width

    def states(self, joined: Tensor) -> Tensor:
        """Return the hidden states apart, (n_images, n_states, width), of joined features (n_images, n_columns)."""
        return joined[:, self.start : self.stop].unflatten(1, (self.n_states, self.width))


@dataclass(frozen=True)
class HeadInput:
    """What a head sees of the features, and how it goes back to what an extractor gives."""

    values: Tensor
    """(n_images, n_columns)"""
    mode: str
    """What the model file says of its input: `join` or `average`."""
    mixtures: tuple[Mixture, ...] = ()
    """Hidden states in `values` that the head weighs by weights it trains."""
    fixed: tuple[tuple[Tensor, float, int], ...] = ()
    """Weights, bias and width of each weighted sum that `values` already holds; see predictor.fold_mixtures."""


def make_head_input(features: FeatureTable, settings: FeatureSettings, default_modes: Sequence[str]) -> HeadInput:
    """Return what a head sees of these features in the mode that the user asked for."""
    mode = resolve_mode(settings.hidden_states_mode, default_modes, weight_hidden_states=settings.weight_hidden_states)
    fixed = settings.fixed_hidden_state_weights
    if fixed is not None:
        mixtures = find_mixtures(features.blocks)
        check_fixed_weights(fixed, mixtures)
        values = weigh_states(features.values, mixtures, fixed[:-1], fixed[-1])
        weights = torch.tensor(fixed[:-1])
        return HeadInput(values, "join", fixed=tuple((weights, fixed[-1], mixture.width) for mixture in mixtures))
    if mode == "weight":
        return HeadInput(features.values, "join", mixtures=find_mixtures(features.blocks))
    return HeadInput(arrange(features, mode), mode)


def arrange(features: FeatureTable, mode: str) -> Tensor:
    """Return the features joined or averaged, as a model file of that mode takes them."""
    if mode == "average":
        return average_states(features.values, find_mixtures(features.blocks))
    return features.values


def resolve_mode(mode: str, default_modes: Sequence[str], *, weight_hidden_states: bool = False) -> str:
    """Return `join`, `average` or `weight` for what the user asked and what the extractors want by default."""
    if weight_hidden_states:
        return "weight"
    if mode != "default":
        return mode
    if len(set(default_modes)) > 1:
        raise UserError("the feature extractors have different default modes; choose with --hidden_states_mode")
    return default_modes[0]


def find_mixtures(blocks: Sequence[FeatureBlock]) -> tuple[Mixture, ...]:
    """Return one mixture for each extractor and view; UserError where its hidden states differ in width."""
    mixtures = []
    for (extractor, _), group in groupby(blocks, key=lambda block: (block.extractor, block.view)):
        own = list(group)
        widths = {block.stop - block.start for block in own}
        if len(widths) > 1:
            raise UserError(
                f"the hidden states of {extractor} have different widths ({', '.join(map(str, sorted(widths)))}): "
                "average and weight need equal ones; use --hidden_states_mode=join"
            )
        mixtures.append(Mixture(own[0].start, len(own), widths.pop()))
    return tuple(mixtures)


def average_states(joined: Tensor, mixtures: Sequence[Mixture]) -> Tensor:
    """Return the mean over the hidden states of each mixture, side by side: (n_images, sum of widths)."""
    return torch.cat([mixture.states(joined).mean(1) for mixture in mixtures], dim=1)


def weigh_states(joined: Tensor, mixtures: Sequence[Mixture], weights: Sequence[float], bias: float) -> Tensor:
    """Return the weighted sum over the hidden states of each mixture, plus the bias: (n_images, sum of widths)."""
    given = torch.tensor(weights, dtype=joined.dtype, device=joined.device)
    sums = [torch.einsum("nkw,k->nw", mixture.states(joined), given) + bias for mixture in mixtures]
    return torch.cat(sums, dim=1)


def check_fixed_weights(fixed: Sequence[float], mixtures: Sequence[Mixture]) -> None:
    """Raise UserError unless there is a weight for every hidden state, and then a bias."""
    for mixture in mixtures:
        if len(fixed) != mixture.n_states + 1:
            raise UserError(
                f"--fixed_hidden_state_weights has {len(fixed)} values; {mixture.n_states} hidden states need "
                f"{mixture.n_states} weights and then the bias"
            )
