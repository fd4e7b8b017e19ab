"""The optimism of a search: how much of the best trial's result is luck."""

import numpy as np
import pytest

from custom_aesthetic.quality import confidence, metrics
from custom_aesthetic.quality import optimism as module
from custom_aesthetic.quality.metrics import HIGHER_IS_BETTER
from custom_aesthetic.quality.optimism import Blended, Choice, Optimism, optimism


def trials(predictions: np.ndarray) -> list[np.ndarray]:
    """Return the outputs of trials with these predictions (n_trials, n_images) and a sigma of one."""
    return [np.stack([scores, np.ones_like(scores)], axis=1).astype(np.float32) for scores in predictions]


def found(choice: Choice, predictions: np.ndarray, seed: int = 0) -> Optimism:
    result = optimism(choice, trials(predictions), seed=seed)
    assert result is not None
    return result


@pytest.mark.parametrize("metric", HIGHER_IS_BETTER)
def test_the_chosen_figure_is_the_best_metric_and_the_corrected_one_is_worse(metric: str) -> None:
    generator = np.random.default_rng(0)
    scores, weights = generator.normal(5, 2, 60), generator.uniform(0.5, 2, 60)
    predictions = scores + 3 * generator.normal(size=(40, 60))
    result = found(Choice(metric, scores, 5.0, weights), predictions)
    values = [
        metrics.compute(metric, scores, row, divider=5.0, weights=weights, sigmas=np.ones(60))
        for row in predictions.astype(np.float32).astype(np.float64)
    ]
    better = HIGHER_IS_BETTER[metric]
    assert result.chosen == pytest.approx(max(values) if better else min(values))
    assert (result.chosen > result.corrected) == better
    assert f"best of 40 trials reached {metric}" in str(result)


def test_the_best_of_many_random_trials_is_expected_to_be_no_better_than_chance() -> None:
    worth = []
    for seed in range(5):
        generator = np.random.default_rng(seed)
        result = found(Choice("spearman", generator.normal(size=60), 0.0), generator.normal(size=(50, 60)), seed)
        assert result.chosen > 0.2
        worth.append(result.corrected)
    assert abs(np.mean(worth)) < 0.12


def test_the_corrected_figure_is_close_to_that_on_new_images() -> None:
    generator = np.random.default_rng(0)
    flattered, corrected, real = [], [], []
    for seed in range(15):
        scores = generator.normal(size=1060)
        heads = scores + generator.uniform(1.2, 1.4, size=(40, 1)) * generator.normal(size=(40, 1060))
        result = found(Choice("spearman", scores[:60], 0.0), heads[:, :60], seed)
        best = np.argmax([metrics.spearman(scores[:60], rows[:60]).statistic for rows in heads])
        flattered.append(result.chosen)
        corrected.append(result.corrected)
        real.append(metrics.spearman(scores[60:], heads[best, 60:]).statistic)
    assert np.mean(flattered) > np.mean(real) + 0.08
    assert np.mean(corrected) == pytest.approx(np.mean(real), abs=0.03)


def test_choosing_among_heads_flatters_a_blend_less_the_less_they_weigh() -> None:
    flattery = []
    for weight in (1.0, 0.3, 0.0):
        of_runs = []
        for seed in range(8):
            generator = np.random.default_rng(seed)
            scores = generator.normal(size=60)
            heads = trials(scores + 2 * generator.normal(size=(40, 60)))
            rest = scores + generator.normal(size=60)
            found = optimism(Choice("mse", scores, 0.0), heads, n_kept=2, blended=Blended(weight, rest), seed=seed)
            assert found is not None
            of_runs.append(found.ab_flattery)
        flattery.append(np.mean(of_runs))
    assert flattery[0] > 1.5 * flattery[1] > flattery[2] == 0


def test_the_flattery_is_close_to_the_difference_from_new_images() -> None:
    generator = np.random.default_rng(1)
    corrected, real, flattered = [], [], []
    for seed in range(15):
        scores = generator.normal(size=1060)
        heads = scores + generator.uniform(1.2, 1.4, size=(40, 1)) * generator.normal(size=(40, 1060))
        result = optimism(Choice("mse", scores[:60], 0.0), trials(heads[:, :60]), n_kept=2, seed=seed)
        assert result is not None
        best = np.argsort(np.square(heads[:, :60] - scores[:60]).mean(1))[:2]
        mean = heads[best].mean(0)
        flattered.append(metrics.ab(scores[:60], mean[:60]))
        corrected.append(flattered[-1] - result.ab_flattery)
        real.append(metrics.ab(scores[60:], mean[60:]))
    assert np.mean(flattered) > np.mean(real) + 0.01
    assert np.mean(corrected) == pytest.approx(np.mean(real), abs=0.015)


def test_without_a_choice_or_a_defined_metric_it_is_none() -> None:
    scores = np.arange(30.0)
    choice = Choice("spearman", scores, 0.0)
    assert optimism(choice, trials(scores[None])) is None
    assert optimism(choice, trials(np.ones((3, 30)))) is None
    assert optimism(Choice("spearman", scores[:5], 0.0), trials(np.ones((3, 5)))) is None
    assert optimism(Choice("nll", scores, 0.0), [outputs[:, :1] for outputs in trials(np.ones((3, 30)))]) is None


@pytest.mark.parametrize("metric", ["mse", "spearman", "ab"])
def test_of_many_images_a_part_of_the_work_finds_what_all_of_it_does(
    metric: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    generator = np.random.default_rng(2)
    scores = generator.normal(size=400)
    heads = scores + generator.uniform(1.2, 1.5, size=(60, 1)) * generator.normal(size=(60, 400))
    every = found(Choice(metric, scores, 0.0), heads)
    monkeypatch.setattr(module, "MANY_IMAGES", 300)
    monkeypatch.setattr(confidence, "BOOTSTRAP_UP_TO", 300)
    part = found(Choice(metric, scores, 0.0), heads)
    assert part.n_trials == every.n_trials == 60
    assert part.chosen == pytest.approx(every.chosen)
    assert part.corrected == pytest.approx(every.corrected, abs=0.02, rel=0.03)
    assert part.ab_flattery == pytest.approx(every.ab_flattery, abs=0.004)
    assert part.ab_flattery > 0


def test_the_share_of_pairs_within_resamples_is_the_same_either_way(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = np.random.default_rng(3)
    scores, predictions = generator.integers(0, 5, 40).astype(float), generator.integers(0, 9, 40).astype(float)
    counts = confidence.draw_counts(40, 20, seed=0)
    quick = confidence.resampled_ab(scores, predictions, counts)
    monkeypatch.setattr(confidence, "BOOTSTRAP_UP_TO", 10)
    np.testing.assert_allclose(confidence.resampled_ab(scores, predictions, counts), quick, atol=1e-6)
