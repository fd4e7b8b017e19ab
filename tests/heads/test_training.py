"""Training of one head: it learns a planted relation, is reproducible, and returns its best epoch."""

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from custom_aesthetic.features.hidden_states import Mixture
from custom_aesthetic.heads.predictor import predict
from custom_aesthetic.heads.schedule import learning_rate_factor
from custom_aesthetic.heads.trained_head import TrainedHead
from custom_aesthetic.heads.training import DivergedError, Evaluate, HeadParameters, train
from custom_aesthetic.heads.training_data import TrainingData, standardise

PARAMETERS = HeadParameters(
    first_layer_size=24,
    second_layer_size=12,
    train_epochs=40,
    warmup_ratio=0.1,
    log_lr=-2.0,
    log_weight_lr=-3.0,
    batch_size=16,
    input_dropout=0.1,
    dropout=0.1,
    output_dropout=0.0,
)
CPU = torch.device("cpu")


def planted(n_images: int = 120, n_columns: int = 8, mixtures: tuple[Mixture, ...] = ()) -> tuple[TrainingData, Tensor]:
    """Return data with scores far from 0, linear in features of very different scales; and the raw features."""
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(n_images, n_columns, generator=generator) * torch.logspace(-2, 2, n_columns) + 5
    scores = 500 + 30 * ((features - 5) / torch.logspace(-2, 2, n_columns))[:, :4].sum(1)
    train_rows = torch.arange(0, n_images * 3 // 4)
    return standardise(features, scores, train_rows, device=CPU, mixtures=mixtures), features


def error_on(data: TrainingData, rows: Tensor) -> Evaluate:
    scores = data.scores * data.score_scale + data.score_mean

    def evaluate(outputs_of) -> float:
        return float((outputs_of(rows)[:, 0] - scores[rows]).square().mean())

    return evaluate


def trained(data: TrainingData, parameters: HeadParameters = PARAMETERS, **changes: object) -> TrainedHead:
    rows = torch.arange(len(data.scores) * 3 // 4, len(data.scores))
    options = {"loss_model": "mse", "seed": 1, "evaluate": error_on(data, rows), "higher_is_better": False, **changes}
    return train(data, parameters, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("loss_model", ["mse", "ab", "nll"])
def test_every_loss_learns_a_planted_relation_in_the_units_of_the_scores(loss_model: str) -> None:
    data, _ = planted()
    head = trained(data, loss_model=loss_model)
    assert head.score < 0.25 * data.score_scale**2


def test_wmse_uses_the_weights() -> None:
    data, _ = planted()
    half = torch.zeros(len(data.scores))
    half[::2] = 2
    wrong = data.scores.clone()
    wrong[1::2] = -wrong[1::2]
    head = trained(
        replace(data, scores=wrong, weights=half), loss_model="wmse", evaluate=error_on(data, torch.arange(90, 120))
    )
    assert head.score < 0.3 * data.score_scale**2


@pytest.mark.parametrize("loss_model", ["mse", "ab", "nll"])
def test_the_folded_head_has_the_outputs_of_the_trained_head(loss_model: str) -> None:
    data, features = planted()
    head = trained(data, loss_model=loss_model)
    torch.testing.assert_close(predict(head.predictor, features), head.outputs, atol=1e-4 * data.score_scale, rtol=1e-4)


def test_a_head_with_trained_hidden_state_weights_folds_to_joined_states() -> None:
    data, features = planted(mixtures=(Mixture(0, 2, 4),))
    head = trained(data, replace(PARAMETERS, log_weight_lr=-1.5))
    assert head.predictor.n_features == 8
    torch.testing.assert_close(predict(head.predictor, features), head.outputs, atol=1e-4 * data.score_scale, rtol=1e-4)
    ((first, second, _),) = head.state_weights
    assert abs(first) > abs(second), "the scores come from the first state alone"


def test_the_same_seed_gives_the_same_head_regardless_of_the_global_generator() -> None:
    data, _ = planted()
    first = trained(data)
    torch.rand(3)
    second, other = trained(data), trained(data, seed=2)
    assert torch.equal(first.outputs, second.outputs)
    assert not torch.equal(first.outputs, other.outputs)


def test_the_best_epoch_is_returned_even_if_it_is_not_the_last() -> None:
    data, _ = planted()
    scores = iter([5.0, 3.0, 1.0, 2.0, 4.0])
    seen: list[Tensor] = []

    def evaluate(outputs_of) -> float:
        seen.append(outputs_of(torch.arange(120)))
        return next(scores)

    head = trained(data, replace(PARAMETERS, train_epochs=5), evaluate=evaluate)
    assert (head.score, head.epoch) == (1.0, 3)
    torch.testing.assert_close(head.outputs, seen[2])


def test_on_epoch_is_called_after_every_epoch_and_may_end_the_training() -> None:
    data, _ = planted()
    epochs: list[int] = []

    def stop_at_three(epoch: int, score: float) -> None:
        epochs.append(epoch)
        if epoch == 3:
            raise StopIteration

    with pytest.raises(StopIteration):
        trained(data, on_epoch=stop_at_three)
    assert epochs == [1, 2, 3]


def test_a_diverging_training_raises_diverged_error() -> None:
    data, _ = planted()
    with pytest.raises(DivergedError):
        trained(data, replace(PARAMETERS, log_lr=30.0))


def test_the_scales_depend_only_on_the_training_images() -> None:
    features = torch.tensor([[0.0], [2.0], [100.0]])
    data = standardise(features, torch.tensor([1.0, 3.0, 500.0]), torch.tensor([0, 1]), device=CPU)
    assert data.features.flatten().tolist() == [-1, 1, 99]
    assert (data.score_mean, data.score_scale) == (2, 1)


def test_a_constant_feature_is_ignored() -> None:
    features = torch.tensor([[1.0, 3.0], [2.0, 3.0], [1.5, 1e6]])
    data = standardise(features, torch.tensor([1.0, 2.0, 3.0]), torch.tensor([0, 1]), device=CPU)
    assert data.features.tolist() == [[-1], [1], [0]]


def test_training_works_if_all_scores_are_equal() -> None:
    features = torch.randn(12, 3, generator=torch.Generator().manual_seed(0))
    data = standardise(features, torch.full((12,), 4.0), torch.arange(9), device=CPU)
    assert float(trained(data).outputs[:, 0].mean()) == pytest.approx(4, abs=0.5)


@pytest.mark.parametrize("batch_size", [1, 7, 1000])
def test_training_works_with_any_batch_size(batch_size: int) -> None:
    data, _ = planted(20)
    for loss_model in ("mse", "ab", "nll"):
        head = trained(data, replace(PARAMETERS, batch_size=batch_size, train_epochs=2), loss_model=loss_model)
        assert math.isfinite(head.score)


def test_training_works_with_half_precision_features() -> None:
    data, features = planted()
    halved = standardise(features.half(), data.scores * data.score_scale + data.score_mean, data.train_rows, device=CPU)
    assert halved.features.dtype == torch.float16
    assert trained(halved).score < 0.25 * data.score_scale**2


def test_the_learning_rate_rises_linearly_and_falls_to_zero_as_a_cosine() -> None:
    factors = [learning_rate_factor(step, 100, 10) for step in range(100)]
    assert factors[:10] == pytest.approx([(step + 1) / 11 for step in range(10)])
    assert factors[10] == 1
    assert factors[55] == pytest.approx(0.5)
    assert factors[99] < 0.001
    assert sorted(factors[10:], reverse=True) == factors[10:]
    assert learning_rate_factor(0, 3, 0) == 1
