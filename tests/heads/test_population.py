"""Heads trained side by side equal heads trained alone, and heads trained with PyTorch's autograd and AdamW."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from custom_aesthetic.features.hidden_states import Mixture
from custom_aesthetic.heads import losses
from custom_aesthetic.heads.head_stack import HeadParts, HeadSizes, HeadStack
from custom_aesthetic.heads.schedule import Schedule
from custom_aesthetic.heads.trained_head import TrainedHead
from custom_aesthetic.heads.training import (
    DivergedError,
    Goal,
    HeadParameters,
    Job,
    _Population,
    train,
    train_jobs,
)
from custom_aesthetic.heads.training_data import TrainingData, standardise
from tests.heads import autograd_losses

CPU = torch.device("cpu")
MIXTURES = (Mixture(0, 3, 2), Mixture(6, 2, 2))
VARIED = (
    HeadParameters(7, 5, 3, 0.1, -2.5, -3.0, 4, 0.3, 0.0, 0.2),
    HeadParameters(12, 3, 6, 0.0, -2.0, -3.0, 7, 0.0, 0.4, 0.0),
    HeadParameters(4, 9, 2, 0.2, -3.0, -3.0, 30, 0.0, 0.0, 0.0),
    HeadParameters(10, 10, 4, 0.1, -2.2, -3.0, 1, 0.5, 0.5, 0.5),
    HeadParameters(1, 1, 5, 0.1, -2.2, -3.0, 3, 0.1, 0.1, 0.0),
)


def problem(mixtures: tuple[Mixture, ...] = ()) -> TrainingData:
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(24, 10, generator=generator)
    scores = 3 + features[:, :3].sum(1)
    weights = torch.rand(24, generator=generator)
    return standardise(features, scores, torch.arange(17), device=CPU, weights=weights, mixtures=mixtures)


def goal(data: TrainingData, loss_model: str = "mse") -> Goal:
    scores = data.scores * data.score_scale + data.score_mean
    rows = torch.arange(17, 24)

    def evaluate(outputs_of) -> float:
        return float((outputs_of(rows)[:, 0] - scores[rows]).square().mean())

    return Goal(loss_model, evaluate, False)


def alone(data: TrainingData, job: Job, loss_model: str = "mse") -> TrainedHead:
    evaluate = goal(data, loss_model).evaluate
    return train(data, job.parameters, loss_model=loss_model, seed=job.seed, evaluate=evaluate, higher_is_better=False)


def together(data: TrainingData, jobs: list[Job], loss_model: str = "mse", n_at_once: int = 3):
    outcomes = train_jobs(data, jobs, goal(data, loss_model), n_at_once=n_at_once, layers=(12, 10))
    return {job.seed: outcome for job, outcome in outcomes}


@pytest.mark.parametrize("mixtures", [(), MIXTURES], ids=["plain", "weighted states"])
@pytest.mark.parametrize("loss_model", losses.GRADIENTS)
def test_heads_trained_side_by_side_equal_those_trained_alone(loss_model: str, mixtures: tuple[Mixture, ...]) -> None:
    data = problem(mixtures)
    jobs = [Job(parameters, seed) for seed, parameters in enumerate(VARIED)]
    outcomes = together(data, jobs, loss_model)
    assert sorted(outcomes) == list(range(len(jobs)))
    for job in jobs:
        expected, found = alone(data, job, loss_model), outcomes[job.seed]
        assert isinstance(found, TrainedHead)
        assert found.epoch == expected.epoch
        torch.testing.assert_close(found.outputs, expected.outputs, atol=1e-4, rtol=1e-4)
        for weights, expected_weights in zip(found.state_weights, expected.state_weights, strict=True):
            assert weights == pytest.approx(expected_weights, abs=1e-5)
        for name, value in expected.predictor.state_dict().items():
            torch.testing.assert_close(found.predictor.state_dict()[name], value, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("mixtures", [(), MIXTURES], ids=["plain", "weighted states"])
def test_heads_train_the_same_without_the_private_kernel(
    monkeypatch: pytest.MonkeyPatch, mixtures: tuple[Mixture, ...]
) -> None:
    data = problem(mixtures)
    jobs = [Job(parameters, seed) for seed, parameters in enumerate(VARIED)]
    fused = together(data, jobs)
    monkeypatch.delattr(torch, "_fused_adamw_")
    for seed, found in together(data, jobs).items():
        assert isinstance(found, TrainedHead)
        torch.testing.assert_close(found.outputs, fused[seed].outputs, atol=1e-3, rtol=1e-3)


class Counted(TorchDispatchMode):
    """Counts the operations that PyTorch carries out."""

    def __init__(self) -> None:
        super().__init__()
        self.n_operations = 0

    def __torch_dispatch__(self, function, types, arguments=(), options=None):  # type: ignore[no-untyped-def]
        self.n_operations += 1
        return function(*arguments, **(options or {}))


@pytest.mark.parametrize("mixtures", [(), MIXTURES], ids=["plain", "weighted states"])
@pytest.mark.parametrize("loss_model", losses.GRADIENTS)
def test_the_operations_of_a_step_do_not_grow_with_the_number_of_heads(
    loss_model: str, mixtures: tuple[Mixture, ...]
) -> None:
    data = problem(mixtures)
    counts = []
    for n_heads in (2, 5, 64):
        population = _Population([data], goal(data, loss_model), n_heads, (12, 10))
        for seed in range(n_heads):
            population._add(Job(VARIED[seed % len(VARIED)], seed), 0)
        population.step()  # sets up what does not change from step to step
        with Counted() as counted:
            population.step()
        counts.append(counted.n_operations)
    assert counts[0] == counts[1] == counts[2] < 250


def test_heads_of_several_data_sets_train_side_by_side() -> None:
    features = torch.randn(24, 30, generator=torch.Generator().manual_seed(0))
    scores = features[:, :3].sum(1)
    rows = (torch.arange(17), torch.arange(5, 24), torch.arange(0, 24, 2))
    sets = [standardise(features, scores, some, device=CPU) for some in rows]
    assert len({data.n_inputs for data in sets}) == 3
    jobs = [Job(parameters, seed, data=seed % 3) for seed, parameters in enumerate(VARIED)]
    outcomes = train_jobs(sets, jobs, goal(sets[0]), n_at_once=3, layers=(12, 10))
    found = {job.seed: outcome for job, outcome in outcomes}
    for job in jobs:
        data = sets[job.data]
        expected = train(
            data, job.parameters, loss_model="mse", seed=job.seed, evaluate=goal(sets[0]).evaluate,
            higher_is_better=False,
        )  # fmt: skip
        head = found[job.seed]
        assert isinstance(head, TrainedHead)
        torch.testing.assert_close(head.outputs, expected.outputs, atol=1e-4, rtol=1e-4)


def test_stopping_a_head_does_not_change_the_others() -> None:
    data = problem()

    def stop(epoch: int, score: float) -> None:
        if epoch == 2:
            raise RuntimeError("pruned")

    jobs = [Job(parameters, seed, stop if seed in (0, 3) else None) for seed, parameters in enumerate(VARIED)]
    outcomes = together(data, jobs)
    assert [str(outcomes[seed]) for seed in (0, 3)] == ["pruned", "pruned"]
    for seed in (1, 2, 4):
        expected, found = alone(data, jobs[seed]), outcomes[seed]
        assert isinstance(found, TrainedHead)
        torch.testing.assert_close(found.outputs, expected.outputs, atol=1e-4, rtol=1e-4)


def test_a_diverging_head_does_not_end_the_others() -> None:
    data = problem()
    jobs = [Job(VARIED[0], 0), Job(replace(VARIED[1], log_lr=30.0), 1)]
    outcomes = together(data, jobs)
    assert isinstance(outcomes[1], DivergedError)
    assert isinstance(outcomes[0], TrainedHead)


def test_the_next_job_is_taken_when_a_slot_is_free() -> None:
    data = problem()
    asked: list[int] = []

    def jobs():
        for seed, parameters in enumerate(VARIED):
            asked.append(seed)
            yield Job(parameters, seed)

    outcomes = train_jobs(data, jobs(), goal(data), n_at_once=2, layers=(12, 10))
    first, _ = next(outcomes)
    assert asked == [0, 1]
    assert first.seed in asked
    assert len(list(outcomes)) == len(VARIED) - 1


class Plain(nn.Module):
    """A head written in the usual way, for autograd."""

    def __init__(self, data: TrainingData, parts: HeadParts) -> None:
        super().__init__()
        self.mixtures = data.mixtures
        self.weights = nn.ParameterList([layer.weight.clone() for layer in parts.layers])
        self.biases = nn.ParameterList([layer.bias.clone() for layer in parts.layers])
        self.mixing = nn.Parameter(parts.mixing.clone())

    def forward(self, features: Tensor, masks) -> Tensor:
        if self.mixtures:
            sums, start = [], 0
            for mixture in self.mixtures:
                weights = self.mixing[start : start + mixture.n_states + 1]
                sums.append((mixture.states(features) * weights[:-1, None]).sum(1) + weights[-1])
                start += mixture.n_states + 1
            features = torch.cat(sums, 1)
        for index in range(3):
            mask = masks[index]
            features = features if mask is None else features * mask
            features = features @ self.weights[index].T + self.biases[index]
            features = features.relu() if index < 2 else features
        return features


@pytest.mark.parametrize("mixtures", [(), MIXTURES], ids=["plain", "weighted states"])
@pytest.mark.parametrize("loss_model", losses.GRADIENTS)
def test_training_equals_autograd_and_adamw(loss_model: str, mixtures: tuple[Mixture, ...]) -> None:
    data, parameters, seed = (
        problem(mixtures),
        replace(VARIED[1], batch_size=6, log_weight_lr=-2.0),
        4,
    )  # no pair is at the margin
    found: list[Tensor] = []
    evaluate = goal(data, loss_model).evaluate
    train(
        data, parameters, loss_model=loss_model, seed=seed, higher_is_better=False,
        evaluate=lambda outputs_of: found.append(outputs_of(torch.arange(24))) or evaluate(outputs_of),
    )  # fmt: skip

    generator = torch.Generator().manual_seed(seed)
    n_mixing = sum(mixture.n_states + 1 for mixture in mixtures)
    sizes = HeadSizes(data.n_inputs, 12, 3, losses.n_outputs(loss_model), n_mixing)
    stack = HeadStack(1, sizes, mixtures, CPU)
    stack.start(0, sizes, generator, first_sigma=loss_model == "nll")
    head = Plain(data, stack.head(0, sizes))
    schedule = Schedule(
        data.train_rows, n_epochs=6, batch_size=6, warmup_ratio=0.0,
        dropouts=((data.n_inputs, 0.0), (12, 0.4), (3, 0.0)), generator=generator,
    )  # fmt: skip
    optimiser = torch.optim.AdamW(
        [
            {"params": [*head.weights, *head.biases], "peak": 0.01},
            {"params": [head.mixing], "peak": 0.01, "weight_decay": 0.0},
        ]
    )
    for expected in found:
        for _ in range(3):
            batch = schedule.next_batch()
            for group in optimiser.param_groups:
                group["lr"] = group["peak"] * schedule.learning_rate_factor
            optimiser.zero_grad()
            outputs = head(data.features[batch.rows], batch.masks)
            weights = None if data.weights is None else data.weights[batch.rows]
            autograd_losses.BY_NAME[loss_model](outputs, data.scores[batch.rows], weights).backward()
            optimiser.step()
        with torch.no_grad():
            outputs = head(data.features, [None] * 3)
        if loss_model == "ab":
            spread, wanted = outputs - outputs.mean(), expected - expected.mean()
            torch.testing.assert_close(spread / spread.std(), wanted / wanted.std(), atol=1e-4, rtol=1e-4)
        else:
            scaled = outputs * data.score_scale
            scaled[:, 0] += data.score_mean
            torch.testing.assert_close(scaled, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("loss_model", losses.GRADIENTS)
def test_the_gradients_of_a_padded_batch_are_those_of_each_head_alone(loss_model: str) -> None:
    generator = torch.Generator().manual_seed(0)
    shape = (2, 6, losses.n_outputs(loss_model))
    outputs = torch.randn(shape, generator=generator)
    scores, weights = torch.randn(2, 6, generator=generator).round(decimals=0), torch.rand(2, 6, generator=generator)
    shares = torch.tensor([[1 / 6] * 6, [1 / 4] * 4 + [0] * 2])
    found = losses.GRADIENTS[loss_model](outputs, scores, shares, weights)
    for head, n_rows in enumerate((6, 4)):
        alone = outputs[head, :n_rows].clone().requires_grad_()
        autograd_losses.BY_NAME[loss_model](alone, scores[head, :n_rows], weights[head, :n_rows]).backward()
        assert alone.grad is not None
        torch.testing.assert_close(found[head, :n_rows], alone.grad)
        assert not found[head, n_rows:].any()
