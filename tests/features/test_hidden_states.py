"""Hidden states joined, averaged and weighted."""

import pytest
import torch

from custom_aesthetic.base.errors import UserError
from custom_aesthetic.features.hidden_states import find_mixtures, make_head_input, resolve_modes, states_asked
from custom_aesthetic.features.table import FeatureBlock, FeatureTable
from custom_aesthetic.heads.predictor import Predictor, fold_mixtures, predict
from custom_aesthetic.settings.training import FeatureSettings


def table(*widths: int, extractors: tuple[str, ...] = ("a",)) -> FeatureTable:
    """One block for each extractor and width, filled with random features of 7 images."""
    blocks, start = [], 0
    for name in extractors:
        for state, width in enumerate(widths):
            blocks.append(FeatureBlock(name, state, "centre", start, start + width))
            start += width
    values = torch.randn(7, start, generator=torch.Generator().manual_seed(0))
    return FeatureTable(tuple("abcdefg"), values, tuple(blocks), {})


def settings(**values: object) -> FeatureSettings:
    return FeatureSettings(**values)  # type: ignore[arg-type]


def test_join_leaves_the_features_as_they_are() -> None:
    features = table(2, 3)
    assert torch.equal(make_head_input(features, settings(), ["join"]).values, features.values)


def test_average_is_the_mean_of_the_states_of_each_extractor() -> None:
    features = table(2, 2, extractors=("a", "b"))
    found = make_head_input(features, settings(hidden_states_mode="average"), ["join", "join"])
    expected = torch.stack([features.values[:, [0, 1, 4, 5]], features.values[:, [2, 3, 6, 7]]]).mean(0)
    torch.testing.assert_close(found.values, expected)
    assert found.mode == "average"


def test_fixed_weights_fold_back_to_joined_features() -> None:
    features = table(2, 2, 2)
    found = make_head_input(features, settings(fixed_hidden_state_weights=(0.5, -1.0, 2.0, 0.25)), ["join"])
    first, second, third = features.values.split(2, dim=1)
    torch.testing.assert_close(found.values, 0.5 * first - second + 2 * third + 0.25)
    predictor = Predictor(2, (3, 3), generator=torch.Generator().manual_seed(1))
    assert found.mode == "join"
    torch.testing.assert_close(
        predict(fold_mixtures(predictor, found.fixed), features.values), predict(predictor, found.values)
    )


def test_weight_mode_finds_the_states_of_each_extractor() -> None:
    found = make_head_input(table(2, 2, extractors=("a", "b")), settings(weight_hidden_states=True), ["join", "join"])
    assert [(mixture.start, mixture.n_states, mixture.width) for mixture in found.mixtures] == [(0, 2, 2), (4, 2, 2)]


@pytest.mark.parametrize("mode", ["average", "weight"])
def test_states_of_different_widths_can_only_be_joined(mode: str) -> None:
    with pytest.raises(UserError, match=r"different widths .2, 3.*join"):
        make_head_input(table(2, 3), settings(hidden_states_mode=mode), ["join"])


def test_a_missing_bias_among_the_fixed_weights_is_an_error() -> None:
    with pytest.raises(UserError, match="2 hidden states need 2 weights, then the bias"):
        make_head_input(table(2, 2), settings(fixed_hidden_state_weights=(0.5, 0.5)), ["join"])


def test_the_default_mode_is_the_extractors_own() -> None:
    assert resolve_modes("default", ["average"]) == ("average",)
    assert resolve_modes("join", ["average", "join"]) == ("join", "join")
    assert resolve_modes("default", ["average", "join"]) == ("average", "join")
    assert resolve_modes("default__weight", ["average", "join"]) == ("average", "weight")
    assert resolve_modes("default", ["average", "join"], weight_hidden_states=True) == ("weight", "weight")


@pytest.mark.parametrize("asked", ["middle", "join__middle", "join__join__join", ""])
def test_a_mode_that_is_unknown_or_for_no_extractor_is_an_error(asked: str) -> None:
    with pytest.raises(UserError, match="--hidden_states_mode="):
        resolve_modes(asked, ["join", "join"])


def test_one_list_of_hidden_states_serves_all_or_each_has_its_own() -> None:
    assert states_asked(None, 2) is None
    assert states_asked(((0, 2),), 2) == [(0, 2), (0, 2)]
    assert states_asked(((0, 2), (1,)), 2) == [(0, 2), (1,)]
    for wrong in (((0,), (1,), (2,)), ((0, 0),)):
        with pytest.raises(UserError, match="--hidden_states_used="):
            states_asked(wrong, 2)


def test_each_extractor_has_its_own_mode() -> None:
    features = table(2, 2, extractors=("a", "b"))
    first, second = features.values.split(4, dim=1)
    mean = (first[:, :2] + first[:, 2:]) / 2
    found = make_head_input(features, settings(hidden_states_mode="average__join"), ["join", "join"])
    torch.testing.assert_close(found.values, torch.cat([mean, second], dim=1))
    assert (found.mode, found.mixtures) == ("average__join", ())


def test_one_extractor_can_be_weighted_beside_others_that_are_not() -> None:
    features = table(2, 2, extractors=("a", "b", "c"))
    found = make_head_input(features, settings(hidden_states_mode="average__weight__join"), ["join"] * 3)
    assert found.mode == "average__join__join"
    assert [(one.start, one.n_states, one.width) for one in found.mixtures] == [(0, 1, 2), (2, 2, 2), (6, 1, 4)]
    assert found.values.shape == (7, 10)


def test_each_view_is_its_own_mixture() -> None:
    blocks = [FeatureBlock("a", 0, "centre", 0, 2), FeatureBlock("a", 0, "whole", 2, 4)]
    assert [mixture.n_states for mixture in find_mixtures(blocks)] == [1, 1]
