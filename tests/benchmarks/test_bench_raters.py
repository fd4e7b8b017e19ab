"""The benchmark of single raters: what is learnt from, what judges, and the prior models."""

from pathlib import Path

import numpy as np
import pytest

from benchmarks import bench_raters
from benchmarks.bench_raters import rater_tasks, run_task
from benchmarks.rater_data import prior_of_others, read_ratings
from benchmarks.rater_tables import coverage_lines, table_of

RANDOM = np.random.default_rng(4)
N_PICTURES, N_RATERS = 90, 3
FEATURES = RANDOM.normal(size=(N_PICTURES, 8)).astype(np.float16)
TASTE = FEATURES.astype(float) @ RANDOM.normal(size=8)
RATINGS = np.round(5 + TASTE[:, None] + 0.5 * RANDOM.normal(size=(N_PICTURES, N_RATERS)))
RATINGS[RANDOM.random(RATINGS.shape) < 0.3] = np.nan


@pytest.fixture
def raters(tmp_path: Path) -> Path:
    paths = [f"{number}.jpg" for number in range(N_PICTURES)]
    np.savez(tmp_path / "features.npz", paths=np.array(paths), features=FEATURES)
    rows = [
        ",".join([path, *("" if np.isnan(rating) else f"{rating:.0f}" for rating in given)])
        for path, given in zip(paths, RATINGS, strict=True)
    ]
    (tmp_path / "ratings.csv").write_text("\n".join(["relative_path,first,second,third", *rows]) + "\n")
    return tmp_path


def test_no_picture_both_teaches_and_judges(raters: Path) -> None:
    tasks = list(rater_tasks(raters, (10, 20), range(2)))
    assert len(tasks) == 3 * 2 * 2
    for number, task in enumerate(tasks):
        rated = RATINGS[:, number // 2 % N_RATERS]
        assert sorted([*task.rows, *task.apart]) == list(range(np.isfinite(rated).sum()))
        np.testing.assert_array_equal(task.scores, rated[np.isfinite(rated)])
    assert set(tasks[0].rows) < set(tasks[1].rows)
    assert set(tasks[0].rows) != set(tasks[6].rows)


def test_a_prior_learns_the_others_from_pictures_that_the_person_has_not_rated(raters: Path) -> None:
    _, features, ratings = read_ratings(raters)
    prior = prior_of_others(features, ratings, 0)
    rated = np.isfinite(ratings[:, 0])
    assert np.corrcoef(prior.predict(features[rated]), TASTE[rated])[0, 1] > 0.7
    mixed = ratings.copy()
    for other in (1, 2):
        both = np.flatnonzero(rated & np.isfinite(ratings[:, other]))
        mixed[both, other] = RANDOM.permutation(mixed[both, other])
    np.testing.assert_allclose(prior_of_others(features, mixed, 0).weight, prior.weight)
    shuffled = prior_of_others(features, ratings, 0, shuffled=True)
    assert abs(np.corrcoef(shuffled.predict(features), TASTE)[0, 1]) < 0.7


def test_the_program_starts_from_each_prior(raters: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench_raters, "N_TRIALS", 1)
    task = next(rater_tasks(raters, (20,), range(1), with_priors=True))
    results = run_task(task)
    found = {result.method: result.spearman for result in results}
    assert {"prior: others", "prior: shuffled", "prior: opposite", bench_raters.PROGRAM, "SVR"} < found.keys()
    assert found["prior: others"] > found["prior: shuffled"]
    others, opposite = (task.priors[f"prior: {name}"].predict(task.features) for name in ("others", "opposite"))
    np.testing.assert_allclose(opposite, -others)
    assert "prior: opposite" in table_of(results, bench_raters.PROGRAM)
    assert "of 1 runs" in coverage_lines(results, bench_raters.PROGRAM)
