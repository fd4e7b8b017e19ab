"""Sharing of the training data between processes that map the same files."""

import pickle
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from custom_aesthetic.base.errors import UserError
from custom_aesthetic.heads.fold_training import Fold
from custom_aesthetic.search.shared_data import share
from tests.problems import small_problem


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_the_attached_problem_equals_the_shared_one(tmp_path: Path, dtype: torch.dtype) -> None:
    problem = small_problem()
    data = replace(problem.data, features=problem.data.features.to(dtype))
    fold = Fold(replace(data, features=-data.features[:, :3]), problem.judge.rows["eval"])
    found = share(replace(problem, data=data, folds=(fold,)), tmp_path).attach()
    assert torch.equal(found.data.features, data.features)
    assert torch.equal(found.folds[0].data.features, -data.features[:, :3])
    assert torch.equal(found.data.scores, problem.data.scores)
    assert found.objective == problem.objective
    assert found.identity == problem.identity


def test_all_attached_problems_share_one_copy_of_the_features(tmp_path: Path) -> None:
    shared = share(small_problem(), tmp_path)
    first, second = shared.attach(), shared.attach()
    first.data.features[0, 0] = 123.0
    assert second.data.features[0, 0] == 123.0
    assert len(pickle.dumps(shared)) < 4096  # the smallest buffer of a pipe


def test_a_folder_that_cannot_be_written_is_an_error_with_advice(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="use --workers=1"):
        share(small_problem(), tmp_path / "missing")
