"""The simulation behind the choice of Bradley-Terry and adaptive pairs: judges, curves, comparisons needed."""

import numpy as np
import pytest

from benchmarks import bench_ab
from benchmarks.bench_ab import CHECKPOINTS, Pictures, comparisons_needed, make_judge, random_answers, run


@pytest.mark.parametrize("constant", [False, True])
@pytest.mark.parametrize("consistency", [0.65, 0.8, 0.95])
def test_a_judge_is_as_consistent_as_requested(consistency, constant):
    generator = np.random.default_rng(0)
    truth = generator.normal(size=60)
    judge = make_judge(truth, consistency, generator, constant=constant)
    answers = [judge(a, b) == (truth[a] > truth[b]) for a, b in generator.integers(60, size=(4000, 2)) if a != b]
    assert np.mean(answers) == pytest.approx(consistency, abs=0.025)


def test_random_pairs_show_each_picture_equally_often():
    answers = random_answers(30, lambda a, b: a > b, np.random.default_rng(0))
    assert set(np.bincount(answers.ravel())) == {max(CHECKPOINTS)}
    assert (answers[:, 0] > answers[:, 1]).all()


def test_every_method_orders_the_pictures_better_with_more_answers_and_bradley_terry_beats_elo():
    generator = np.random.default_rng(1)
    truth = generator.normal(size=60)
    features = np.outer(truth, generator.normal(size=20)) + generator.normal(size=(60, 20))
    curves = [run(Pictures(truth, features), 0.9, seed, constant=False) for seed in range(3)]
    mean = {method: np.mean([curve[method] for curve in curves], axis=0) for method in curves[0]}
    for method, curve in mean.items():
        assert len(curve) == len(CHECKPOINTS)
        assert curve[-1] > curve[0] + 0.05, method
    assert mean["bt"][-1] > mean["elo"][-1]
    assert mean["adaptive"][-1] > mean["elo"][-1]
    assert mean["features"][0] > mean["adaptive"][0] + 0.1


def test_the_comparisons_needed_are_interpolated_between_checkpoints():
    curve = np.linspace(0.1, 0.8, len(CHECKPOINTS))
    assert comparisons_needed(curve, 0.05) == CHECKPOINTS[0]
    assert comparisons_needed(curve, curve[3]) == pytest.approx(CHECKPOINTS[3])
    assert comparisons_needed(curve, 0.9) == float("inf")
    assert bench_ab.ELO_K == 0.7
