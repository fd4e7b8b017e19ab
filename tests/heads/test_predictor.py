"""The predictor, and the maps and ensembles folded into it."""

from collections.abc import Sequence

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from custom_aesthetic.features.hidden_states import WeightedSum
from custom_aesthetic.heads.predictor import Predictor, average, fold_features, fold_mixtures, fold_scores, predict


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def made(n_features: int = 6, layers: Sequence[int] = (5, 4), n_outputs: int = 1, seed: int = 0) -> Predictor:
    return Predictor(n_features, layers, n_outputs, generator=seeded(seed))


def rows(n_features: int = 6, seed: int = 1) -> torch.Tensor:
    return torch.randn(20, n_features, generator=seeded(seed))


def test_its_tensors_have_the_names_used_in_model_files() -> None:
    names = [f"main_process.{index}.{part}" for index in (1, 4, 7) for part in ("weight", "bias")]
    assert list(made().state_dict()) == names


def test_it_equals_a_plain_stack_of_layers() -> None:
    stack = nn.Sequential(
        nn.Dropout(),
        nn.Linear(6, 5),
        nn.ReLU(),
        nn.Dropout(),
        nn.Linear(5, 4),
        nn.ReLU(),
        nn.Dropout(),
        nn.Linear(4, 2),
    )
    predictor = made(n_outputs=2)
    stack.load_state_dict(predictor.main_process.state_dict())
    assert torch.equal(predict(predictor, rows()), stack.eval()(rows()))


def test_a_seed_makes_the_weights_reproducible_and_leaves_the_global_generator_alone() -> None:
    before = torch.get_rng_state()
    first, second, other = made(seed=3), made(seed=3), made(seed=4)
    assert torch.equal(predict(first, rows()), predict(second, rows()))
    assert not torch.equal(predict(first, rows()), predict(other, rows()))
    fold_scores(first, 1.0, 2.0)
    assert torch.equal(torch.get_rng_state(), before)


@given(scale=st.floats(0.01, 100), shift=st.floats(-10, 10), seed=st.integers(0, 99))
def test_folding_feature_and_score_scales_keeps_the_outputs(scale: float, shift: float, seed: int) -> None:
    predictor = made(n_outputs=2, seed=seed)
    features = rows(seed=seed)
    mean, spread = features.mean(0) * 3, features.std(0) * scale
    expected = predict(predictor, (features - mean) / spread) * scale
    expected[:, 0] += shift
    folded = fold_scores(fold_features(predictor, mean, spread), shift, scale)
    torch.testing.assert_close(predict(folded, features), expected, atol=1e-4 * max(1, scale), rtol=1e-4)


def test_a_feature_with_infinite_scale_is_ignored() -> None:
    folded = fold_features(made(), torch.zeros(6), torch.tensor([1, 1, torch.inf, 1, 1, 1]))
    features = rows()
    other = features.clone()
    other[:, 2] = 1e9
    assert torch.equal(predict(folded, features), predict(folded, other))


def test_folding_weighted_hidden_states_keeps_the_outputs() -> None:
    predictor = made(n_features=5)
    first, second = rows(9).unflatten(1, (3, 3)), rows(4, seed=2).unflatten(1, (2, 2))
    mixtures = [WeightedSum(torch.tensor([0.5, -1.0, 2.0]), 0.7, 3), WeightedSum(torch.tensor([1.5, 0.25]), -0.3, 2)]
    sums = [
        torch.einsum("nkw,k->nw", states, weights) + bias
        for states, (weights, bias, _) in zip((first, second), mixtures, strict=True)
    ]
    joined = torch.cat([first.flatten(1), second.flatten(1)], dim=1)
    torch.testing.assert_close(
        predict(fold_mixtures(predictor, mixtures), joined), predict(predictor, torch.cat(sums, 1))
    )


@pytest.mark.parametrize("n_outputs", [1, 2])
def test_an_ensemble_is_the_mean_of_its_members(n_outputs: int) -> None:
    members = [
        made(layers=layers, n_outputs=n_outputs, seed=seed) for seed, layers in enumerate([(5, 4), (2, 7), (9, 1)])
    ]
    combined = average(members)
    expected = torch.stack([predict(member, rows()) for member in members]).mean(0)
    torch.testing.assert_close(predict(combined, rows()), expected)
    assert combined.layers == (16, 12)


def test_predict_takes_half_precision_and_more_rows_than_one_batch() -> None:
    features = torch.randn(20_000, 6, generator=seeded(0)).half()
    predictor = made()
    assert torch.equal(predict(predictor, features)[:10], predict(predictor, features[:10]))
    assert predict(predictor, features).shape == (20_000, 1)
