"""Steps and trials per second of the search itself, of plain loops, and of the bound of the machine.

    python -m benchmarks.bench_search [pictures] [--sets=10 --rounds=3]

Each round times the same parameter sets on the same features, one way after the other, so that the ways are comparable
within a round; printed are the medians of the rounds.

(a) a plain `Trainer`, in the first round only; (b) a loop over `nn.Sequential` with `AdamW(fused=True)` on one thread,
as a good engineer writes it, on the features and on their principal axes; (c) this program's training alone on one
thread; (d) the search of `aesthetic_predictor_training.py` in an SQLite study: it claims every trial, trains it, judges
it after every epoch, records parameters, metrics and outputs, reports to the median pruner (which leaves the first ten
trials alone) and writes the model file for each best trial; by one worker and by one per core; (e) the bound: the
matrix products and the optimiser's memory traffic of these steps alone, on one core. The rates of (d) are those from
the start of the first trial to the end of the last one; its seconds are those of the whole search, with the start of
the workers.

Then it times whole searches, with each pruner, until their best eval Spearman reaches the best of the sets in (a).
"""

import argparse
import contextlib
import math
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

import optuna
import torch

from benchmarks.search_bound import time_bound
from benchmarks.search_peers import time_plain_loop, time_trainer
from benchmarks.search_sets import N_SETS, SEED, Timing, load_problem, parameter_sets, total_steps
from custom_aesthetic.base import machine
from custom_aesthetic.base.errors import UserError
from custom_aesthetic.base.machine import choose_device
from custom_aesthetic.heads.model_file import model_bytes
from custom_aesthetic.heads.training import HeadParameters, Job, train_jobs
from custom_aesthetic.search.best_models import BestModel, ModelFiles
from custom_aesthetic.search.run import Target, search
from custom_aesthetic.search.space import first_parameters
from custom_aesthetic.search.storage import opened_study
from custom_aesthetic.search.trials import Problem, retrain
from custom_aesthetic.settings.head_parameters import SearchSpace
from custom_aesthetic.settings.training import SearchSettings, StudySettings

ROOT = Path(__file__).resolve().parent.parent
PHOTOS = ROOT.parent / "shared" / "data" / "photos"


def time_training(problem: Problem, sets: Sequence[HeadParameters]) -> Timing:
    """Time (c): this program's training, one thread, one head after the other, without a study."""
    start = time.perf_counter()
    for index, parameters in enumerate(sets):
        problem.measure_all(retrain(problem, parameters, SEED + index))
    return Timing(time.perf_counter() - start, total_steps(problem, sets))


@dataclass(frozen=True)
class SearchTiming(Timing):
    """The timing of a whole search; its rates leave out what comes before the first trial and after the last one."""

    running_seconds: float = math.nan
    n_trials: int = 0

    @property
    def rate(self) -> float:
        return self.n_steps / self.running_seconds


def time_search(problem: Problem, sets: Sequence[HeadParameters], n_workers: int) -> SearchTiming:
    """Time (d): the search of the script, in a new SQLite study whose queue holds the parameter sets."""

    def make_files(model: BestModel) -> ModelFiles:
        return ModelFiles(model_bytes(model.predictor, model.origin))

    with tempfile.TemporaryDirectory() as folder:
        database, target = f"sqlite:///{folder}/db.sqlite", Target(Path(folder) / "model.safetensors", make_files)
        where = StudySettings(database=database, workers=str(n_workers))
        settings = SearchSettings(trials=0, sampler="random", pruner="median", ensemble=1)
        with contextlib.suppress(UserError):  # a study without trials makes no model
            search(problem, SearchSpace(), settings, where, target)
        with opened_study(database, where.name) as study:
            for parameters in sets:
                study.enqueue_trial({name: vars(parameters)[name] for name in first_searched()})
        settings = replace(settings, trials=len(sets), pruner="median")
        start = time.perf_counter()
        search(problem, SearchSpace(), settings, where, target)
        seconds = time.perf_counter() - start
        with opened_study(database, where.name) as study:
            trials = study.get_trials()
    assert all(trial.state == optuna.trial.TrialState.COMPLETE for trial in trials) and len(trials) == len(sets)
    begun = min(trial.datetime_start for trial in trials if trial.datetime_start)
    ended = max(trial.datetime_complete for trial in trials if trial.datetime_complete)
    running = (ended - begun).total_seconds()
    return SearchTiming(seconds, total_steps(problem, sets), running_seconds=running, n_trials=len(sets))


def first_searched() -> list[str]:
    """Return the names of the searched parameters."""
    return list(first_parameters(SearchSpace(), weighs_states=False)[0])


def time_population(problem: Problem, sets: Sequence[HeadParameters], n_at_once: int) -> Timing:
    """Time many heads at once in one process, as stacked matrices."""
    first, second = max(each.first_layer_size for each in sets), max(each.second_layer_size for each in sets)
    jobs = [Job(parameters, SEED + index) for index, parameters in enumerate(sets)]
    start = time.perf_counter()
    for _, outcome in train_jobs(problem.data, jobs, problem.goal, n_at_once=n_at_once, layers=(first, second)):
        assert not isinstance(outcome, Exception)
    return Timing(time.perf_counter() - start, total_steps(problem, sets))


class ReachedError(Exception):
    """The search has reached the wanted score."""


def time_to_score(problem: Problem, wanted: float, pruner: str, n_workers: int, sampler: str = "CmaEs") -> float | None:
    """Return the wall seconds of a search, with the start of its workers, until its best score reaches `wanted`."""
    with tempfile.TemporaryDirectory() as folder:
        database = f"sqlite:///{folder}/db.sqlite"
        reached: list[float] = []
        start = time.perf_counter()

        def make_files(model: BestModel) -> ModelFiles:
            value = model.trials[0].value
            if value is not None and value >= wanted:
                reached.append(time.perf_counter() - start)
                raise ReachedError
            return ModelFiles(model_bytes(model.predictor, model.origin))

        settings = SearchSettings(trials=200, sampler=sampler, pruner=pruner, ensemble=1)
        where = StudySettings(database=database, workers=str(n_workers))
        with contextlib.suppress(ReachedError):
            search(problem, SearchSpace(), settings, where, Target(Path(folder) / "model.safetensors", make_files))
    return reached[0] if reached else None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = PHOTOS if PHOTOS.is_dir() else ROOT / "demo" / "images"
    parser.add_argument("pictures", nargs="?", type=Path, default=default)
    parser.add_argument("--repeats", type=int, default=9, help="searches with each pruner for the time to score")
    parser.add_argument("--sets", type=int, default=N_SETS, choices=range(1, N_SETS + 1))
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    n_cores = machine.n_cores()
    problem, features = load_problem(arguments.pictures, torch.device("cpu"))
    sets = parameter_sets(arguments.sets)
    n_pictures = len(problem.judge.scores)
    print(f"{n_pictures} pictures of {arguments.pictures}, {features.shape[1]} features, {n_cores} cores")
    print(f"{len(sets)} parameter sets, {total_steps(problem, sets):,} steps; load before: {os.getloadavg()[0]:.1f}")
    plain = time_trainer(problem, features, sets)
    torch.set_num_threads(1)
    time_training(problem, sets[:1])  # imports and sets up what is needed once
    ways: dict[str, Callable[[], Timing]] = {
        "(b) plain loop, one thread": lambda: time_plain_loop(problem, features, sets),
        f"    on the {problem.data.n_inputs} principal axes": lambda: time_plain_loop(
            problem, problem.data.features, sets
        ),
        "(c) this program's training alone": lambda: time_training(problem, sets),
        "(d) the search, one worker": lambda: time_search(problem, sets, 1),
        f"    the search, {n_cores} workers": lambda: time_search(problem, sets, n_cores),
        "(e) bound of one core": lambda: time_bound(problem, features.shape[1], sets),
        "    bound on the principal axes": lambda: time_bound(problem, problem.data.n_inputs, sets),
        "    four heads side by side, one core": lambda: time_population(problem, sets, 4),
    }
    rounds = [{name: time_it() for name, time_it in ways.items()} for _ in range(arguments.rounds)]
    rows = [("(a) plain Trainer, its default threads", [plain])]
    rows += [(name, [round[name] for round in rounds]) for name in ways]
    device = choose_device("auto")
    if device.type != "cpu":
        rows += [(name, [timing]) for name, timing in _on_accelerator(arguments.pictures, device, sets)]
    print_table(rows)
    report_time_to_score(problem, plain, n_cores, arguments.repeats)


def print_table(rows: Sequence[tuple[str, Sequence[Timing]]]) -> None:
    """Print the medians of each way, and the medians of its rate as a multiple of (b)'s and (e)'s in the same round."""
    loop, bound = rows[1][1], next(timings for name, timings in rows if name.startswith("(e)"))
    print(f"{'':42}{'seconds':>9}{'steps/s':>9}{'trials/s':>10}{'of (b)':>8}{'of (e)':>8}")
    for name, timings in rows:
        seconds, rate = median(timing.seconds for timing in timings), median(timing.rate for timing in timings)
        ratios = [
            median(timing.rate / other.rate for timing, other in zip(timings, others, strict=False))
            for others in (loop, bound)
        ]
        searches = [timing for timing in timings if isinstance(timing, SearchTiming)]
        trials = f"{median(one.n_trials / one.running_seconds for one in searches):10.2f}" if searches else f"{'':10}"
        print(f"{name:42}{seconds:9.2f}{rate:9.0f}{trials}{ratios[0]:8.2f}{ratios[1]:8.2f}")


def _on_accelerator(pictures: Path, device: torch.device, sets: Sequence[HeadParameters]) -> list[tuple[str, Timing]]:
    problem, _ = load_problem(pictures, device)
    rows = []
    for n_at_once in (16, 64, 256):
        many = [sets[index % len(sets)] for index in range(max(len(sets), 4 * n_at_once))]
        rows.append((f"(e) {n_at_once} heads at once on {device}", time_population(problem, many, n_at_once)))
    return rows


def report_time_to_score(problem: Problem, plain: Timing, n_cores: int, repeats: int) -> None:
    if not repeats:
        return
    best = max(score for _, score in plain.scores)
    needed = next(seconds for seconds, score in plain.scores if score >= best)
    took = f"reached after {needed:.1f} s; all its trials take {plain.seconds:.1f} s"
    print(f"\nbest eval Spearman of (a): {best:.4f}, {took}")
    time_to_score(problem, -math.inf, "none", n_cores)  # imports what is needed once, as (a) has done
    pruners = ("none", "median", "hyperband")
    rounds = [[time_to_score(problem, best, pruner, n_cores) for pruner in pruners] for _ in range(repeats)]
    for pruner, times in zip(pruners, zip(*rounds, strict=True), strict=True):
        reached = sorted(seconds for seconds in times if seconds is not None)
        shown = ", ".join(f"{seconds:.1f}" for seconds in reached)
        if len(reached) < repeats:
            shown += f", {repeats - len(reached)} x not in 200 trials"
        middle = reached[len(reached) // 2] if reached else math.nan
        ratio = f"median {middle:.2f} s, {plain.seconds / middle:.0f} x shorter than (a)'s trials"
        print(f"all cores, --pruner={pruner}: {shown} s; {ratio}, {needed / middle:.0f} x than it took to reach it")


if __name__ == "__main__":
    main()
