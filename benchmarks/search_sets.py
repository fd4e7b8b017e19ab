"""The problem and the parameter sets that the benchmark of the search times, and its timings."""

import math
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import optuna
import torch

from custom_aesthetic.commands.preparation import load_head_input, load_scored_images, make_problem
from custom_aesthetic.heads.training import HeadParameters
from custom_aesthetic.search.sampling import make_sampler
from custom_aesthetic.search.space import first_parameters, suggest
from custom_aesthetic.search.trials import Problem
from custom_aesthetic.settings.head_parameters import SearchSpace
from custom_aesthetic.settings.training import FeatureSettings, ImageSettings, ObjectiveSettings, SplitSettings

N_SETS = 10
"""The median pruner leaves the first ten trials alone, so that all are trained to their end."""
SEED = 1


def load_problem(folder: Path, device: torch.device) -> tuple[Problem, torch.Tensor]:
    """Return the problem with the packaged extractor's features, judged by Spearman on the eval set, and the features.

    The returned features (n_images, n_features) are standardised; the problem has them along their principal axes.
    """
    with tempfile.TemporaryDirectory() as aside:
        images = ImageSettings(str(folder), split=str(Path(aside) / "split.json"))
        scored = load_scored_images(images, SplitSettings())
        settings = FeatureSettings("efficientnet-lite0", hidden_states_used=((0,),))
        scored, features, head_input = load_head_input(scored, settings, SplitSettings(), device)
        objective = ObjectiveSettings(metric_for_scoring="spearman")
        problem = make_problem(scored.table, features, head_input, objective, SplitSettings(folds=1), device)
        return problem, (head_input.values - problem.data.feature_mean) / problem.data.feature_scale


def parameter_sets(n_sets: int) -> list[HeadParameters]:
    """Return parameter sets as a search begins: the default configuration, then random ones."""
    study = optuna.create_study(sampler=make_sampler("random", SEED))
    study.enqueue_trial(first_parameters(SearchSpace(), weighs_states=False)[0])
    return [suggest(study.ask(), SearchSpace(), weighs_states=False) for _ in range(n_sets)]


def n_steps(parameters: HeadParameters, n_train: int) -> int:
    return parameters.train_epochs * math.ceil(n_train / parameters.batch_size)


def total_steps(problem: Problem, sets: Sequence[HeadParameters]) -> int:
    return sum(n_steps(parameters, len(problem.data.train_rows)) for parameters in sets)


@dataclass(frozen=True)
class Timing:
    """Wall time in seconds, the number of steps done, and the (seconds, score) at which each trial ended."""

    seconds: float
    n_steps: int
    scores: tuple[tuple[float, float], ...] = ()

    @property
    def rate(self) -> float:
        return self.n_steps / self.seconds
