"""Bootstrap intervals, against the slow and obvious way and against what must hold of any interval."""

import math

import numpy as np
import pytest
from scipy import stats

from src import metrics
from src.intervals import Interval, ab_of_draws, bootstrap_intervals


def noisy_pair(n_images: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return scores and model scores with ties, correlated by about 0.7."""
    scores, noise = np.random.default_rng(seed).normal(size=(2, n_images))
    return scores.round(1), (scores + noise).round(1)


def test_ab_of_every_resample_is_the_metric_of_what_was_drawn() -> None:
    scores, models = noisy_pair(30)
    draws = np.random.default_rng(1).integers(30, size=(40, 30))
    np.testing.assert_allclose(
        ab_of_draws(scores, models, draws), [metrics.ab(scores[rows], models[rows]) for rows in draws]
    )


def test_the_intervals_are_those_of_scipys_bootstrap() -> None:
    scores, models = noisy_pair(60)
    found = bootstrap_intervals(scores, models, n_resamples=2000)
    statistics = {
        "ab": metrics.ab,
        "spearman": lambda x, y: stats.spearmanr(x, y).statistic,
        "pearson": lambda x, y: stats.pearsonr(x, y).statistic,
    }
    for name, statistic in statistics.items():
        expected = stats.bootstrap(
            (scores, models),
            statistic,
            paired=True,
            vectorized=False,
            n_resamples=1000,
            method="percentile",
            rng=np.random.default_rng(2),
        ).confidence_interval
        np.testing.assert_allclose(getattr(found, name), [expected.low, expected.high], atol=0.03)


def test_nineteen_in_twenty_intervals_hold_the_truth() -> None:
    """The true AB of normal scores with correlation r is 1/2 + asin(r) / pi."""
    truth = 0.5 + math.asin(1 / math.sqrt(2)) / math.pi
    held = 0
    for seed in range(100):
        scores, noise = np.random.default_rng(seed).normal(size=(2, 80))
        interval = bootstrap_intervals(scores, scores + noise, n_resamples=200).ab
        held += interval.low <= truth <= interval.high
    assert 88 <= held <= 100


@pytest.mark.parametrize("name", ["ab", "spearman", "pearson"])
def test_beyond_two_thousand_images_intervals_go_on_shrinking_with_the_root_of_their_number(name: str) -> None:
    widths = []
    for n_images in (2000, 8000):
        interval: Interval = getattr(bootstrap_intervals(*noisy_pair(n_images), n_resamples=400), name)
        widths.append(interval.high - interval.low)
    assert widths[0] / widths[1] == pytest.approx(2, rel=0.25)


@pytest.mark.parametrize(
    ("scores", "models"), [([], []), ([1.0], [1.0]), ([1.0, 2.0], [1.0, 2.0]), ([1.0] * 9, list(range(9)))]
)
def test_what_is_undefined_has_no_interval(scores: list[float], models: list[float]) -> None:
    found = bootstrap_intervals(np.array(scores, dtype=float), np.array(models, dtype=float))
    assert all(math.isnan(bound) for interval in found for bound in interval)


def test_a_constant_model_is_sure_to_order_half_the_pairs_and_has_no_correlation() -> None:
    found = bootstrap_intervals(np.arange(9.0), np.ones(9))
    assert found.ab == (0.5, 0.5)
    assert math.isnan(found.spearman.low)
