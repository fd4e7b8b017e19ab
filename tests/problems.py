"""A search problem small enough for many searches a second."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from optuna.trial import FrozenTrial

from custom_aesthetic.heads.model_file import model_bytes
from custom_aesthetic.heads.training_data import standardise
from custom_aesthetic.quality.judge import Judge
from custom_aesthetic.search.best_models import BestModel, ModelFiles
from custom_aesthetic.search.run import Found, Target, search
from custom_aesthetic.search.trials import Problem
from custom_aesthetic.settings.declaration import Range
from custom_aesthetic.settings.head_parameters import SearchSpace
from custom_aesthetic.settings.training import ObjectiveSettings, SearchSettings, StudySettings

SPACE = SearchSpace(
    first_layer_size=Range(8, 16),
    second_layer_size=Range(6, 12),
    train_epochs=Range(2, 6),
    batch_size=Range(4, 16),
)
RAW = torch.randn(40, 5, generator=torch.Generator().manual_seed(0))
SCORES = 3 + RAW[:, 0] + 0.5 * torch.randn(40, generator=torch.Generator().manual_seed(1))


def small_problem(metric: str = "spearman", loss_model: str = "mse", **identity: str) -> Problem:
    """Return forty images whose score is one of five features, and noise."""
    rows = {"train": np.arange(30), "eval": np.arange(30, 40), "full": np.arange(40)}
    data = standardise(RAW, SCORES, torch.arange(30), device=torch.device("cpu"))
    objective = ObjectiveSettings(metric_for_scoring=metric, loss_model=loss_model, calculate_ab=True)
    known = {"images": "a" * 64, "scores": "b" * 64, "features": "colours", "metric_for_scoring": metric, **identity}
    return Problem(data, Judge(SCORES.double().numpy(), rows, 3.0), objective, identity=known)


def make_files(model: BestModel) -> ModelFiles:
    return ModelFiles(model_bytes(model.predictor, model.origin))


def run_search(folder: Path, trials: int, **options: Any) -> tuple[FrozenTrial, ...]:
    """Run a search in a folder, and return the trials in its model file; options as for `find`."""
    return find(folder, trials, **options).trials


def find(
    folder: Path,
    trials: int,
    *,
    problem: Problem | None = None,
    space: SearchSpace = SPACE,
    note: str = "",
    made: list[BestModel] | None = None,
    **options: Any,
) -> Found:
    """Run a search in a folder; options are settings of `SearchSettings` and `StudySettings`, by name.

    `made` collects the models that it makes.
    """

    def noted(model: BestModel) -> ModelFiles:
        if made is not None:
            made.append(model)
        return make_files(model)

    where = {"database": f"sqlite:///{folder}/db.sqlite", "workers": "1"}
    study = {name: options.pop(name) for name in ("name", "workers", "database") if name in options}
    return search(
        problem or small_problem(),
        space,
        SearchSettings(trials=trials, **{"sampler": "random", "ensemble": 1, **options}),
        StudySettings(**{**where, **study}),
        Target(folder / "model.safetensors", noted, ("--trials=3",), note),
    )
