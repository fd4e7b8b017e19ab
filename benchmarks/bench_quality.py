"""How well simple methods and this program predict held-out pictures, on the same features and splits.

    python -m benchmarks.bench_quality [--quick | --long] [--first_split K] [--directory FOLDER] [--processes N]

Each split holds out a random quarter of the pictures; nothing is chosen by them. Each method can use all other
pictures. It prints means over the splits of both tastes, and the paired difference to support-vector regression on the
same features, with its 95 % interval (Student's t over the splits; they overlap, so it is slightly too narrow).
"""

import argparse
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from scipy import stats

from custom_aesthetic.base.arrays import Array
from custom_aesthetic.commands.preparation import make_problem
from custom_aesthetic.extractors import build_extractors
from custom_aesthetic.features.hidden_states import HeadInput
from custom_aesthetic.features.table import FeatureTable, load_features
from custom_aesthetic.features.views import average_views
from custom_aesthetic.quality import metrics
from custom_aesthetic.quality.baselines import fit_baselines
from custom_aesthetic.scores.score_files import ScoreTable, read_scores
from custom_aesthetic.scores.splits import assign_splits
from custom_aesthetic.search.best_models import BestModel, ModelFiles
from custom_aesthetic.search.run import Target, search
from custom_aesthetic.search.space import FIRST_TRIAL
from custom_aesthetic.settings.declaration import Range
from custom_aesthetic.settings.head_parameters import SearchSpace
from custom_aesthetic.settings.training import ObjectiveSettings, SearchSettings, SplitSettings, StudySettings

CPU = torch.device("cpu")
PHOTOS = Path(__file__).resolve().parent.parent.parent / "shared" / "data" / "photos"
FOUR_VIEWS = ("centre", "whole", "mirror", "mirror_whole")
RECOMMENDED_STATES = (0, 1, 2, 3, 4, 5, 6)
REFERENCE = "SVR"
RECOMMENDED = "recommended: 20 trials, 4 folds, ensemble 4"
TEN_TIMES = "the same with 200 trials"

SMALL_SPACE = SearchSpace(first_layer_size=Range(10, 300), second_layer_size=Range(10, 100))
"""Small heads, because the file of an ensemble grows with the square of the sizes."""


@dataclass(frozen=True)
class Program:
    """A call of this program."""

    trials: int
    ensemble: int = 1
    folds: int = 1
    space: SearchSpace = SearchSpace()


def fixed_space() -> SearchSpace:
    """Return the space that contains only the default configuration."""
    ranges = {name: Range(getattr(FIRST_TRIAL, name), getattr(FIRST_TRIAL, name)) for name in vars(SearchSpace())}
    return replace(SearchSpace(), **ranges)


PROGRAMS = {
    "one default head": Program(1, space=fixed_space()),
    "20 trials": Program(20),
    "20 trials, ensemble 8": Program(20, ensemble=8),
    "100 trials": Program(100),
    "20 trials, 4 folds": Program(20, folds=4),
    RECOMMENDED: Program(20, ensemble=4, folds=4, space=SMALL_SPACE),
}
QUICK = ("one default head", RECOMMENDED)
LONG = {TEN_TIMES: Program(200, ensemble=4, folds=4, space=SMALL_SPACE)}
"""Shows whether more trials help."""


@dataclass(frozen=True)
class Task:
    """One taste and one split."""

    taste: str
    table: ScoreTable
    plain: FeatureTable
    """Feature 0 of the centre crop."""
    rich: FeatureTable
    """The recommended hidden states, averaged over four views."""
    seed: int
    programs: tuple[str, ...]


@dataclass(frozen=True)
class Result:
    """The figures of one method on one split, and the processor time it took."""

    taste: str
    seed: int
    method: str
    spearman: float
    pearson: float
    ab: float
    seconds: float


def run_task(task: Task) -> list[Result]:
    """Return the results of every method on one split."""
    torch.set_num_threads(1)
    scores = np.asarray(task.table.scores)
    split = assign_splits(task.table.paths, {}, fraction_for_eval=0.1875, fraction_for_test=0.25, seed=task.seed)
    table = task.table.with_column("split", [split[path] for path in task.table.paths])
    apart = np.array([split[path] == "test" for path in table.paths])
    known = np.flatnonzero(~apart)
    results: list[Result] = []

    def judge(methods: Callable[[], Mapping[str, Array]], suffix: str) -> None:
        start = time.process_time()
        found = methods()
        seconds = (time.process_time() - start) / len(found)
        for name, predictions in found.items():
            pair = scores[apart], predictions[apart]
            results.append(
                Result(
                    task.taste,
                    task.seed,
                    name + suffix,
                    metrics.spearman(*pair).statistic,
                    metrics.pearson(*pair).statistic,
                    metrics.ab(*pair),
                    seconds,
                )
            )

    judge(lambda: fit_baselines(task.plain.values.numpy(), scores, known), ", feature 0")
    judge(lambda: fit_baselines(task.rich.values.numpy(), scores, known), "")
    for name in task.programs:
        program = (PROGRAMS | LONG)[name]
        judge(lambda name=name, program=program: {name: run_program(program, table, task)}, "")  # type: ignore[misc]
    return results


def run_program(program: Program, table: ScoreTable, task: Task) -> Array:
    """Return the program's predictions (n_images,), as its model file gives them."""
    objective = ObjectiveSettings(metric_for_scoring="spearman")
    head_input = HeadInput(task.rich.values, ("join",))
    problem = make_problem(table, task.rich, head_input, objective, SplitSettings(folds=program.folds), CPU)
    written: list[BestModel] = []

    def make_files(model: BestModel) -> ModelFiles:
        written.append(model)
        return ModelFiles(b"", b"")

    with tempfile.TemporaryDirectory() as folder:
        settings = SearchSettings(trials=program.trials, ensemble=program.ensemble, model_seed=task.seed)
        where = StudySettings(database="", workers="1")
        search(problem, program.space, settings, where, Target(Path(folder) / "model", make_files))
    return written[-1].outputs[:, 0].double().numpy()


def make_tasks(directory: Path, splits: range, programs: Sequence[str]) -> list[Task]:
    """Return the tasks of both tastes; the features are computed once."""
    tastes = {"valence": read_scores(directory / "scores.csv"), "arousal": read_scores(directory / "arousal.json")}
    paths = tastes["valence"].paths
    extractors = build_extractors("efficientnet-lite0", CPU)
    plain = load_features(directory, paths, extractors, hidden_states=[(0,)])
    rich = average_views(
        load_features(directory, paths, extractors, hidden_states=[RECOMMENDED_STATES], views=FOUR_VIEWS)
    )
    return [
        Task(taste, ScoreTable(paths, {"score": table.select(paths).scores}), plain, rich, seed, tuple(programs))
        for taste, table in tastes.items()
        for seed in splits
    ]


def summarise(results: Sequence[Result]) -> str:
    """Return the table: means, and the paired difference of Spearman to the reference."""
    methods = list(dict.fromkeys(result.method for result in results))
    by_key = {(result.method, result.taste, result.seed): result for result in results}
    seeds = sorted({result.seed for result in results})
    tastes = list(dict.fromkeys(result.taste for result in results))
    lines = [
        f"{len(seeds)} splits, a quarter held out; Spearman, Pearson, AB: means of {' and '.join(tastes)}",
        f"{'method':46} {'spearman':>8} {'valence':>8} {'arousal':>8} {'pearson':>8} {'AB':>7} "
        f"{'to SVR (95 %)':>24} {'seconds':>8}",
    ]
    for method in methods:
        all_of = [by_key[method, taste, seed] for taste in tastes for seed in seeds]
        each = [np.mean([by_key[method, taste, seed].spearman for seed in seeds]) for taste in tastes]
        differences = [
            float(np.mean([by_key[method, t, seed].spearman - by_key[REFERENCE, t, seed].spearman for t in tastes]))
            for seed in seeds
        ]
        lines.append(
            f"{method:46} {np.mean(each):8.4f} {each[0]:8.4f} {each[1]:8.4f} "
            f"{np.mean([result.pearson for result in all_of]):8.4f} {100 * np.mean([r.ab for r in all_of]):6.2f}% "
            f"{interval(differences):>24} {np.mean([result.seconds for result in all_of]):8.1f}"
        )
    if TEN_TIMES in methods:
        for taste in tastes:
            gains = [
                by_key[TEN_TIMES, taste, seed].spearman - by_key[RECOMMENDED, taste, seed].spearman for seed in seeds
            ]
            lines.append(f"200 trials above 20 on {taste}: {interval(gains)}")
    return "\n".join(lines)


def interval(differences: Sequence[float]) -> str:
    """Return mean and 95 % interval of paired differences."""
    mean = float(np.mean(differences))
    if len(differences) < 2 or not np.ptp(differences):
        return f"{mean:+.4f}"
    half = float(stats.sem(differences) * stats.t.ppf(0.975, len(differences) - 1))
    return f"{mean:+.4f} ({mean - half:+.4f} ... {mean + half:+.4f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--directory", type=Path, default=PHOTOS, help="photographs with scores.csv and arousal.json")
    parser.add_argument("--quick", action="store_true", help="the recommended call only, and two splits by default")
    parser.add_argument("--long", action="store_true", help="also 200 trials, which takes about as long as the rest")
    parser.add_argument("--splits", type=int, help="10 by default")
    parser.add_argument("--first_split", type=int, default=0, help="another one gives fresh splits")
    parser.add_argument("--processes", type=int, default=2)
    options = parser.parse_args()
    if not options.directory.is_dir():
        raise SystemExit(f"no photographs in {options.directory}; give their folder by --directory")
    names = QUICK if options.quick else tuple(PROGRAMS | LONG if options.long else PROGRAMS)
    n_splits = (2 if options.quick else 10) if options.splits is None else options.splits
    splits = range(options.first_split, options.first_split + n_splits)
    tasks = make_tasks(options.directory, splits, names)
    start = time.perf_counter()
    with ProcessPoolExecutor(options.processes, mp_context=get_context("spawn")) as pool:
        results = [result for found in pool.map(run_task, tasks) for result in found]
    print(summarise(results))
    print(f"{time.perf_counter() - start:.0f} s in {options.processes} processes")


if __name__ == "__main__":
    main()
