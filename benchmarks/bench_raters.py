"""How well the shortest call and simple methods predict one person's ratings, from 25 to 400 of them.

    python -m benchmarks.bench_raters [--quick] [--priors] [--raters FOLDER] [--photos FOLDER] [--processes N]
                                     [--results FILE]

For each rater, draw and size, every method learns from the same ratings and predicts all other pictures that the person
has rated; nothing sees those ratings. The same on the mean ratings of photographs, by two tastes. It prints mean
Spearman, the difference of the shortest call to each method with its 95 % interval (Student's t over the raters, or
over the draws of the photographs, which overlap), and how often the share of right pairs that a model file states has
the true one within its interval. The shortest call is the training script's path, with --features, 20 trials, one
process, a seed and no database. `--priors` adds the same call with --prior_model: the mean taste of the other raters,
the same with shuffled means, which knows nothing, and its opposite; learnt from pictures that the person has not rated.
`--results` keeps the figures of each task, and a later call goes on from them.
"""

import argparse
import itertools
import json
import logging
import os
import platform
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.bench_quality import CPU, PHOTOS
from benchmarks.rater_data import RATERS, prior_of_others, read_ratings
from benchmarks.rater_tables import Result, coverage_lines, table_of
from benchmarks.simple_methods import predict_simply
from custom_aesthetic.base.arrays import Array
from custom_aesthetic.commands.records import BLEND
from custom_aesthetic.commands.train import train_model
from custom_aesthetic.extractors import build_extractors
from custom_aesthetic.features.table import load_features
from custom_aesthetic.heads.linear_members import LinearModel
from custom_aesthetic.heads.model_file import Model, load_model, save_model
from custom_aesthetic.heads.predictor import Predictor, from_layers, predict, to_layers
from custom_aesthetic.hub.figures import KEY as JUDGED
from custom_aesthetic.hub.figures import figures_from_text
from custom_aesthetic.priors.given import as_predictor
from custom_aesthetic.quality import metrics
from custom_aesthetic.scores.score_files import read_scores
from custom_aesthetic.settings.arguments import parse_arguments
from custom_aesthetic.settings.training import TrainingArguments

EXTRACTOR = "efficientnet-lite2"
RATER_SIZES, PHOTO_SIZES = (25, 50, 100, 200, 400), (25, 50, 100, 180)
PROGRAM, HEADS, LINEAR = "shortest call", "its heads alone", "its linear models alone"
N_TRIALS = 20


class Task(NamedTuple):
    """One rater or taste, one draw, one size."""

    data: str
    """`raters` or `photographs`"""
    person: str
    draw: int
    features: NDArray[np.float32]
    """(n_images, n_features)"""
    scores: Array
    """(n_images,)"""
    rows: NDArray[np.int64]
    """The images that may be learnt from."""
    apart: NDArray[np.int64]
    """The images that judge."""
    priors: Mapping[str, LinearModel] = {}
    """Prior models to start from, by the names of the methods that do."""

    @property
    def name(self) -> tuple[str, str, int, int]:
        return self.data, self.person, self.draw, len(self.rows)


def run_task(task: Task) -> list[Result]:
    """Return the results of every method on one task."""
    start = time.process_time()
    found = predict_simply(task.features.astype(np.float64), task.scores, task.rows)
    results = [_result(task, name, values[task.apart]) for name, values in found.items()]
    middle = time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        file = shortest_call(task, Path(folder))
        model, n_bytes = load_model(file), file.stat().st_size
    seconds = time.process_time() - middle
    results = [result._replace(seconds=(middle - start) / len(found)) for result in results]
    stated = figures_from_text(model.metadata.get(JUDGED, ""))
    bounds = None if stated is None or stated.right_pairs_bounds is None else stated.right_pairs_bounds
    own = _result(task, PROGRAM, _said(model, task))
    share = None if stated is None else stated.right_pairs
    results.append(own._replace(seconds=seconds, stated=share, bounds=bounds, n_bytes=n_bytes))
    results += [_result(task, name, _said(model, task, part=name)) for name in (HEADS, LINEAR)]
    for name, prior in task.priors.items():
        with tempfile.TemporaryDirectory() as folder:
            model = load_model(shortest_call(task, Path(folder), prior))
        results.append(_result(task, name, _said(model, task)))
    return results


def picture_name(row: int) -> str:
    """Return the name that a picture has in a training."""
    return f"{row:05}.jpg"


def quieten() -> None:
    """Make this process one of several that measure: one thread, and no log."""
    torch.set_num_threads(1)
    logging.disable(logging.CRITICAL)


def shortest_call(task: Task, folder: Path, prior: LinearModel | None = None) -> Path:
    """Train on a table of the rated pictures alone, as the script does, and return the model file."""
    paths = [picture_name(row) for row in task.rows]
    np.savez(folder / "table.npz", paths=np.array(paths), features=task.features[task.rows])
    lines = [f"{path},{score}" for path, score in zip(paths, task.scores[task.rows], strict=True)]
    (folder / "scores.csv").write_text("\n".join(["relative_path,score", *lines]) + "\n")
    argv = [
        *("-d", str(folder), f"--features={folder / 'table.npz'}", f"--trials={N_TRIALS}"),
        *("--database=", "--workers=1", f"--model_seed={task.draw}"),
    ]
    if prior is not None:
        save_model(folder / "prior.safetensors", as_predictor(prior), {})
        argv.append("--prior_model=prior.safetensors")
    arguments, _ = parse_arguments(TrainingArguments, argv, description="")
    train_model(arguments)
    return folder / arguments.output.model


def _said(model: Model, task: Task, *, part: str = PROGRAM) -> Array:
    """Return what a model, or its part HEADS or LINEAR, says of the images apart, (n_apart,).

    The linear models are the last two units of each hidden layer, if there are any.
    """
    assert isinstance(model.predictor, Predictor)
    (first, first_bias), (second, second_bias), (last, last_bias) = to_layers(model.predictor)
    if BLEND in model.metadata and part != PROGRAM:
        unused = slice(-2, None) if part == HEADS else slice(None, -2)
        last[:, unused] = 0
    predictor = from_layers([(first, first_bias), (second, second_bias), (last, last_bias)])
    return predict(predictor, torch.from_numpy(task.features[task.apart]))[:, 0].double().numpy()


def _result(task: Task, method: str, predictions: Array) -> Result:
    scores = task.scores[task.apart]
    return Result(
        task.data,
        task.person,
        task.draw,
        len(task.rows),
        method,
        metrics.spearman(scores, predictions).statistic,
        metrics.ab(scores, predictions),
    )


def rater_tasks(folder: Path, sizes: Sequence[int], draws: range, *, with_priors: bool = False) -> Iterator[Task]:
    """Yield the tasks of single raters, draw by draw."""
    people, features, ratings = read_ratings(folder)
    given, exact = features.astype(np.float32), features.astype(np.float64)
    priors = [priors_of(exact, ratings, rater) if with_priors else {} for rater in range(len(people))]
    for draw, (rater, person) in itertools.product(draws, enumerate(people)):
        rows = np.flatnonzero(np.isfinite(ratings[:, rater]))
        tasks = _drawn("raters", person, given[rows], ratings[rows, rater], sizes, draw)
        yield from (task._replace(priors=priors[rater]) for task in tasks)


def priors_of(features: Array, ratings: Array, rater: int) -> dict[str, LinearModel]:
    """Return the prior models of a rater, by the names of the methods that start from them."""
    others = prior_of_others(features, ratings, rater)
    return {
        "prior: others": others,
        "prior: shuffled": prior_of_others(features, ratings, rater, shuffled=True),
        "prior: opposite": LinearModel(-others.weight, -others.bias),
    }


def photo_tasks(folder: Path, sizes: Sequence[int], draws: range) -> Iterator[Task]:
    """Yield the tasks of the photographs' mean ratings, by two tastes."""
    tastes = {"valence": read_scores(folder / "scores.csv"), "arousal": read_scores(folder / "arousal.json")}
    paths = tastes["valence"].paths
    features = load_features(folder, paths, build_extractors(EXTRACTOR, CPU)).values.float().numpy()
    for draw, (taste, table) in itertools.product(draws, tastes.items()):
        scores = np.asarray(table.select(paths).scores, dtype=np.float64)
        yield from _drawn("photographs", taste, features, scores, sizes, draw)


def _drawn(
    data: str,
    person: str,
    features: NDArray[np.float32],
    scores: Array,
    sizes: Sequence[int],
    draw: int,
) -> Iterator[Task]:
    """Yield the tasks of one draw: the sizes are nested, and all other images judge."""
    seed = [draw, *person.encode()] if data == "raters" else [draw]  # the tastes share the draws, to be averaged
    order = np.random.default_rng(seed).permutation(len(scores))
    for size in sizes:
        yield Task(data, person, draw, features, scores, order[:size], order[size:])


def _tasks(options: argparse.Namespace) -> dict[str, Iterator[Task]]:
    """Return the tasks on both kinds of data that the options ask for; `--quick` takes a part of them."""
    draws = range(options.first_draw, options.first_draw + (1 if options.quick else options.draws))
    usual = ((25, 100), (50,)) if options.quick else (RATER_SIZES, PHOTO_SIZES)
    rater_sizes, photo_sizes = ([size for size in sizes if size in (options.sizes or sizes)] for sizes in usual)
    raters = rater_tasks(options.raters, rater_sizes, draws, with_priors=options.priors)
    more = range(draws.start, draws.start + 2 * len(draws))
    return {"raters": raters, "photographs": photo_tasks(options.photos, photo_sizes, more)}


def _run(pool: Executor, tasks: Sequence[Task], file: Path | None) -> list[Result]:
    """Return the results of all tasks, those of some perhaps from the file, to which those of the others are added."""
    lines = file.read_text().splitlines() if file is not None and file.exists() else []
    kept = [[Result(*result) for result in json.loads(line)] for line in lines]
    known = {found[0].task: found for found in kept}
    waiting = [task for task in tasks if task.name not in known]
    for task, found in zip(waiting, pool.map(run_task, waiting), strict=True):
        known[task.name] = found
        if file is not None:
            with file.open("a") as opened:
                opened.write(json.dumps(found) + "\n")
    return [result for task in tasks for result in known[task.name]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one draw and fewer sizes, in about five minutes")
    parser.add_argument("--priors", action="store_true", help="also start from prior models, in four times the time")
    parser.add_argument("--raters", type=Path, default=RATERS, help="folder of features.npz and ratings.csv")
    parser.add_argument("--photos", type=Path, default=PHOTOS, help="photographs with scores.csv and arousal.json")
    parser.add_argument("--draws", type=int, default=3, help="of each rater; of the photographs twice as many")
    parser.add_argument("--first_draw", type=int, default=0, help="another one gives fresh draws")
    parser.add_argument("--sizes", type=int, nargs="+", help="only these numbers of scores")
    parser.add_argument("--only", choices=("raters", "photographs"), help="one kind of data")
    parser.add_argument("--results", type=Path, help="JSON lines of every task's figures; tasks in it are not repeated")
    parser.add_argument("--processes", type=int, default=2)
    options = parser.parse_args()
    print(f"{platform.machine()}, {os.cpu_count()} cores, {time.strftime('%Y-%m-%d')}, {options.processes} processes")
    start = time.perf_counter()
    with ProcessPoolExecutor(options.processes, mp_context=get_context("spawn"), initializer=quieten) as pool:
        for name, tasks in _tasks(options).items():
            if options.only in (None, name):
                results = _run(pool, list(tasks), options.results)
                print(f"\n{table_of(results, PROGRAM)}\n{coverage_lines(results, PROGRAM)}", flush=True)
    print(f"{time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
