"""How the hidden states of a picture become the input of a head: joined, averaged, or summed with weights."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor

from custom_aesthetic.base.errors import UserError
from custom_aesthetic.features.table import FeatureBlock, FeatureTable
from custom_aesthetic.settings.training import EXTRACTOR_SEPARATOR, FeatureSettings, HiddenStates

MODES = ("join", "average", "weight")

Given = TypeVar("Given")


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


class WeightedSum(NamedTuple):
    """The sum over some hidden states of weight x state, plus a bias: `width` numbers from n_states x width."""

    weights: Tensor
    """(n_states,)"""
    bias: float
    width: int


@dataclass(frozen=True)
class HeadInput:
    """What a head sees of the features, and how it goes back to what an extractor gives."""

    values: Tensor
    """(n_images, n_columns)"""
    modes: tuple[str, ...]
    """What the model file says of its input, for each extractor: `join` or `average`."""
    mixtures: tuple[Mixture, ...] = ()
    """Hidden states in `values` that the head weighs by weights it trains."""
    fixed: tuple[WeightedSum, ...] = ()
    """The weighted sums that `values` already holds; see predictor.fold_mixtures."""

    @property
    def mode(self) -> str:
        """The modes as the model file spells them."""
        return spell_modes(self.modes)


def make_head_input(features: FeatureTable, settings: FeatureSettings, default_modes: Sequence[str]) -> HeadInput:
    """Return what a head sees of these features in the modes that the user asked for, one for each extractor."""
    modes = resolve_modes(
        settings.hidden_states_mode, default_modes, weight_hidden_states=settings.weight_hidden_states
    )
    joined = ("join",) * len(modes)
    fixed = settings.fixed_hidden_state_weights
    if fixed is not None:
        mixtures = find_mixtures(features.blocks)
        check_fixed_weights(fixed, mixtures)
        values = weigh_states(features.values, mixtures, fixed[:-1], fixed[-1])
        weights = torch.tensor(fixed[:-1])
        sums = tuple(WeightedSum(weights, fixed[-1], mixture.width) for mixture in mixtures)
        return HeadInput(values, joined, fixed=sums)
    kept = tuple("join" if mode == "weight" else mode for mode in modes)
    mixtures = _weighed(features, modes) if "weight" in modes else ()
    return HeadInput(arrange(features, kept), kept, mixtures=mixtures)


def arrange(features: FeatureTable, modes: Sequence[str]) -> Tensor:
    """Return the features as a model file of these modes takes them, (n_images, n_columns).

    There is one mode, `join` or `average`, for each extractor.
    """
    groups = _by_extractor(features.blocks)
    assert len(modes) == len(groups), f"{len(modes)} modes for {len(groups)} extractors"
    if "average" not in modes:
        return features.values
    return torch.cat(
        [
            average_states(features.values, find_mixtures(blocks))
            if mode == "average"
            else features.values[:, blocks[0].start : blocks[-1].stop]
            for mode, blocks in zip(modes, groups, strict=True)
        ],
        dim=1,
    )


def _weighed(features: FeatureTable, modes: Sequence[str]) -> tuple[Mixture, ...]:
    """Return the mixtures of the columns that `arrange` gives for these modes, `weight` lying joined.

    What is not weighed is a mixture of one state: its trained weight and bias fold into the first layer.
    """
    found: list[Mixture] = []
    start = 0
    for mode, blocks in zip(modes, _by_extractor(features.blocks), strict=True):
        width = blocks[-1].stop - blocks[0].start
        if mode == "join":
            own = [Mixture(0, 1, width)]
        elif mode == "average":
            own = [Mixture(0, 1, sum(mixture.width for mixture in find_mixtures(blocks)))]
        else:
            own = [Mixture(one.start - blocks[0].start, one.n_states, one.width) for one in find_mixtures(blocks)]
        found += [Mixture(start + one.start, one.n_states, one.width) for one in own]
        start = found[-1].stop
    return tuple(found)


def _by_extractor(blocks: Sequence[FeatureBlock]) -> list[list[FeatureBlock]]:
    return [list(group) for _, group in groupby(blocks, key=lambda block: block.extractor)]


def resolve_modes(asked: str, default_modes: Sequence[str], *, weight_hidden_states: bool = False) -> tuple[str, ...]:
    """Return `join`, `average` or `weight` for each extractor, of `--hidden_states_mode` and the extractors' defaults.

    UserError for a mode that is unknown, and for as many as there are no extractors.
    """
    given = ["weight"] if weight_hidden_states else [mode.strip() for mode in asked.split(EXTRACTOR_SEPARATOR)]
    unknown = [mode for mode in given if mode not in ("default", *MODES)]
    if unknown:
        choices = ", ".join(("default", *MODES))
        raise UserError(f"--hidden_states_mode={asked}: {unknown[0]!r} is no mode; choose from {choices}")
    each = one_each(given, len(default_modes), f"--hidden_states_mode={asked}")
    return tuple(default if mode == "default" else mode for mode, default in zip(each, default_modes, strict=True))


def one_each(given: Sequence[Given], n_extractors: int, option: str) -> list[Given]:
    """Return one for each extractor: a single one serves them all. UserError for any other number."""
    if len(given) not in (1, n_extractors):
        raise UserError(
            f"{option} gives {len(given)} for {n_extractors} feature extractor(s); give one for all, or one each with "
            f"{EXTRACTOR_SEPARATOR} between"
        )
    return list(given) * n_extractors if len(given) == 1 else list(given)


def states_asked(states: HiddenStates | None, n_extractors: int) -> list[tuple[int, ...]] | None:
    """Return the hidden states of each extractor that `--hidden_states_used` asks for; None: their own defaults."""
    if states is None:
        return None
    option = f"--hidden_states_used={spell_states(states)}"
    if any(len(set(own)) < len(own) for own in states):
        raise UserError(f"{option} names a hidden state twice; name each once")
    return one_each(states, n_extractors, option)


def spell_states(states: Sequence[Sequence[int]]) -> str:
    """Return the hidden states of each extractor as options and the model file spell them, one list where all agree."""
    lists = [",".join(map(str, own)) for own in states]
    return lists[0] if len(set(lists)) == 1 else EXTRACTOR_SEPARATOR.join(lists)


def spell_modes(modes: Sequence[str]) -> str:
    """Return the modes of the extractors as options and the model file spell them, a single one where all agree."""
    return modes[0] if len(set(modes)) == 1 else EXTRACTOR_SEPARATOR.join(modes)


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
