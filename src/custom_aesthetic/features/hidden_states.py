"""Turn the hidden states of a picture into the input of a head: joined, averaged, or summed with weights."""

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
    """Hidden states of equal width, side by side in the columns start ... start + n_states x width."""

    start: int
    n_states: int
    width: int

    @property
    def stop(self) -> int:
        return self.start + self.n_states * self.width

    def states(self, joined: Tensor) -> Tensor:
        """Return the hidden states, (n_images, n_states, width), of joined features (n_images, n_columns)."""
        return joined[:, self.start : self.stop].unflatten(1, (self.n_states, self.width))


class WeightedSum(NamedTuple):
    """The sum of weight x state over some hidden states, plus a bias: n_states x width columns become `width`."""

    weights: Tensor
    """(n_states,)"""
    bias: float
    width: int


@dataclass(frozen=True)
class HeadInput:
    """The input of a head, and how it is made from the features of the extractors."""

    values: Tensor
    """(n_images, n_columns)"""
    modes: tuple[str, ...]
    """The mode that the model file records for each extractor: `join` or `average`."""
    mixtures: tuple[Mixture, ...] = ()
    """Hidden states in `values` that the head sums with trained weights."""
    fixed: tuple[WeightedSum, ...] = ()
    """The weighted sums that `values` already contains; see predictor.fold_mixtures."""

    @property
    def mode(self) -> str:
        """The modes as written to the model file."""
        return spell_modes(self.modes)


def make_head_input(features: FeatureTable, settings: FeatureSettings, default_modes: Sequence[str]) -> HeadInput:
    """Return the input of a head for these features, in the modes that the options ask for.

    `default_modes` has the default mode of each extractor. Raises UserError for an option that does not fit.
    """
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
    """Return the features as a model with these modes takes them, (n_images, n_columns).

    `modes` has `join` or `average` for each extractor.
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
    """Return the mixtures of the columns that `arrange` returns for these modes, with `weight` joined.

    Columns that are not weighted form a mixture of one state: its trained weight and bias are folded into the first
    layer.
    """
    found: list[Mixture] = []
    start = 0
    for mode, blocks in zip(modes, _by_extractor(features.blocks), strict=True):
        width = blocks[-1].stop - blocks[0].start
        if mode == "join":
            mixtures = [Mixture(0, 1, width)]
        elif mode == "average":
            mixtures = [Mixture(0, 1, sum(mixture.width for mixture in find_mixtures(blocks)))]
        else:
            offset = blocks[0].start
            mixtures = [Mixture(one.start - offset, one.n_states, one.width) for one in find_mixtures(blocks)]
        found += [Mixture(start + one.start, one.n_states, one.width) for one in mixtures]
        start = found[-1].stop
    return tuple(found)


def _by_extractor(blocks: Sequence[FeatureBlock]) -> list[list[FeatureBlock]]:
    return [list(group) for _, group in groupby(blocks, key=lambda block: block.extractor)]


def resolve_modes(asked: str, default_modes: Sequence[str], *, weight_hidden_states: bool = False) -> tuple[str, ...]:
    """Return the mode of each extractor, `join`, `average` or `weight`, from `--hidden_states_mode` and the defaults.

    Raises UserError for an unknown mode, or for a number of modes other than 1 and the number of extractors.
    """
    given = ["weight"] if weight_hidden_states else [mode.strip() for mode in asked.split(EXTRACTOR_SEPARATOR)]
    unknown = [mode for mode in given if mode not in ("default", *MODES)]
    if unknown:
        choices = ", ".join(("default", *MODES))
        raise UserError(f"--hidden_states_mode={asked}: {unknown[0]!r} is not a mode; choose from {choices}")
    each = one_each(given, len(default_modes), f"--hidden_states_mode={asked}")
    return tuple(default if mode == "default" else mode for mode, default in zip(each, default_modes, strict=True))


def one_each(given: Sequence[Given], n_extractors: int, option: str) -> list[Given]:
    """Return one value for each extractor: a single value serves all of them. UserError for any other number."""
    if len(given) not in (1, n_extractors):
        raise UserError(
            f"{option} has {len(given)} values for {n_extractors} feature extractor(s); give one for all, or one for "
            f"each, separated by {EXTRACTOR_SEPARATOR}"
        )
    return list(given) * n_extractors if len(given) == 1 else list(given)


def states_asked(states: HiddenStates | None, n_extractors: int) -> list[tuple[int, ...]] | None:
    """Return the hidden states that `--hidden_states_used` asks for, by extractor; None for the extractors' defaults.

    Raises UserError if a hidden state is named twice or the number of lists does not fit the extractors.
    """
    if states is None:
        return None
    option = f"--hidden_states_used={spell_states(states)}"
    if any(len(set(indices)) < len(indices) for indices in states):
        raise UserError(f"{option} names a hidden state twice; name each once")
    return one_each(states, n_extractors, option)


def spell_states(states: Sequence[Sequence[int]]) -> str:
    """Return the hidden states as written in options and model files, one list if all extractors have the same."""
    lists = [",".join(map(str, indices)) for indices in states]
    return lists[0] if len(set(lists)) == 1 else EXTRACTOR_SEPARATOR.join(lists)


def spell_modes(modes: Sequence[str]) -> str:
    """Return the modes as written in options and model files, a single one if all extractors have the same."""
    return modes[0] if len(set(modes)) == 1 else EXTRACTOR_SEPARATOR.join(modes)


def find_mixtures(blocks: Sequence[FeatureBlock]) -> tuple[Mixture, ...]:
    """Return one mixture for each extractor and view; UserError if its hidden states differ in width."""
    mixtures = []
    for (extractor, _), group in groupby(blocks, key=lambda block: (block.extractor, block.view)):
        states = list(group)
        widths = {block.stop - block.start for block in states}
        if len(widths) > 1:
            raise UserError(
                f"the hidden states of {extractor} have different widths ({', '.join(map(str, sorted(widths)))}): "
                "average and weight need equal widths; use --hidden_states_mode=join"
            )
        mixtures.append(Mixture(states[0].start, len(states), widths.pop()))
    return tuple(mixtures)


def average_states(joined: Tensor, mixtures: Sequence[Mixture]) -> Tensor:
    """Return the means over the hidden states of each mixture, side by side: (n_images, sum of widths)."""
    return torch.cat([mixture.states(joined).mean(1) for mixture in mixtures], dim=1)


def weigh_states(joined: Tensor, mixtures: Sequence[Mixture], weights: Sequence[float], bias: float) -> Tensor:
    """Return the weighted sums over the hidden states of each mixture, plus the bias: (n_images, sum of widths)."""
    given = torch.tensor(weights, dtype=joined.dtype, device=joined.device)
    sums = [torch.einsum("nkw,k->nw", mixture.states(joined), given) + bias for mixture in mixtures]
    return torch.cat(sums, dim=1)


def check_fixed_weights(fixed: Sequence[float], mixtures: Sequence[Mixture]) -> None:
    """Raise UserError unless there is one weight for every hidden state, followed by a bias."""
    for mixture in mixtures:
        if len(fixed) != mixture.n_states + 1:
            raise UserError(
                f"--fixed_hidden_state_weights has {len(fixed)} values; {mixture.n_states} hidden states need "
                f"{mixture.n_states} weights, then the bias"
            )
