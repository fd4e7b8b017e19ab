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
from functools import partial
from pathlib import Path
from statistics import median

import numpy as np
import optuna
import torch
from torch import nn

from custom_aesthetic.base import machine
from custom_aesthetic.base.errors import UserError
from custom_aesthetic.base.machine import choose_device
from custom_aesthetic.commands.preparation import load_head_input, load_scored_images, make_problem
from custom_aesthetic.heads.model_file import model_bytes
from custom_aesthetic.heads.schedule import learning_rate_factor
from custom_aesthetic.heads.training import HeadParameters, Job, train_jobs
from custom_aesthetic.search.best_models import BestModel, ModelFiles
from custom_aesthetic.search.run import Target, search
from custom_aesthetic.search.sampling import make_sampler
from custom_aesthetic.search.space import first_parameters, suggest
from custom_aesthetic.search.storage import opened_study
from custom_aesthetic.search.trials import Problem, retrain
from custom_aesthetic.settings.training import (
    FeatureSettings,
    ImageSettings,
    ObjectiveSettings,
    SearchSettings,
    SearchSpace,
    SplitSettings,
    StudySettings,
)

ROOT = Path(__file__).resolve().parent.parent
PHOTOS = ROOT.parent / "shared" / "data" / "photos"
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


@dataclass(frozen=True)
class Timing:
    """Wall time in seconds, the number of steps done, and the (seconds, score) at which each trial ended."""

    seconds: float
    n_steps: int
    scores: tuple[tuple[float, float], ...] = ()

    @property
    def rate(self) -> float:
        return self.n_steps / self.seconds


def time_trainer(problem: Problem, features: torch.Tensor, sets: Sequence[HeadParameters]) -> Timing:
    """Time (a): a plain Trainer with the same model, data and settings, evaluated every epoch, else its defaults."""
    import transformers

    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    data, judge = problem.data, problem.judge
    eval_rows = torch.from_numpy(judge.rows["eval"])
    scores: list[tuple[float, float]] = []

    def measure(prediction: transformers.EvalPrediction) -> dict[str, float]:
        outputs = torch.from_numpy(np.asarray(prediction.predictions))
        measured.append(judge.measure("spearman", "eval", lambda rows: outputs))
        return {"spearman": measured[-1]}

    start = time.perf_counter()
    for parameters in sets:
        measured: list[float] = []

        with tempfile.TemporaryDirectory() as folder:
            arguments = transformers.TrainingArguments(
                output_dir=folder,
                num_train_epochs=parameters.train_epochs,
                per_device_train_batch_size=parameters.batch_size,
                per_device_eval_batch_size=256,
                learning_rate=10**parameters.log_lr,
                weight_decay=0.01,
                warmup_steps=round(parameters.warmup_ratio * n_steps(parameters, len(data.train_rows))),
                lr_scheduler_type="cosine",
                eval_strategy="epoch",
                save_strategy="no",
                report_to=[],
                disable_tqdm=True,
                use_cpu=data.features.device.type == "cpu",
                logging_strategy="no",
                seed=SEED,
            )
            trainer = transformers.Trainer(
                PlainHead(features.shape[1], parameters),
                arguments,
                train_dataset=Rows(features[data.train_rows], data.scores[data.train_rows]),
                eval_dataset=Rows(features[eval_rows], data.scores[eval_rows]),
                compute_metrics=measure,
            )
            trainer.remove_callback(transformers.PrinterCallback)
            trainer.train()
        scores.append((time.perf_counter() - start, max(measured)))
    return Timing(time.perf_counter() - start, total_steps(problem, sets), tuple(scores))


def total_steps(problem: Problem, sets: Sequence[HeadParameters]) -> int:
    return sum(n_steps(parameters, len(problem.data.train_rows)) for parameters in sets)


class PlainHead(nn.Module):
    """The predictor as a user of Trainer writes it."""

    def __init__(self, n_features: int, parameters: HeadParameters) -> None:
        super().__init__()
        first, second = parameters.first_layer_size, parameters.second_layer_size
        self.main_process = nn.Sequential(
            nn.Dropout(parameters.input_dropout),
            nn.Linear(n_features, first),
            nn.ReLU(),
            nn.Dropout(parameters.dropout),
            nn.Linear(first, second),
            nn.ReLU(),
            nn.Dropout(parameters.output_dropout),
            nn.Linear(second, 1),
        )

    def forward(self, x: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
        outputs = self.main_process(x)
        return {"loss": nn.functional.mse_loss(outputs[:, 0], labels), "logits": outputs}


class Rows(torch.utils.data.Dataset):
    def __init__(self, features: torch.Tensor, scores: torch.Tensor) -> None:
        self.features, self.scores = features, scores

    def __len__(self) -> int:
        return len(self.scores)

    def __getitem__(self, row: int) -> dict[str, torch.Tensor]:
        return {"x": self.features[row], "labels": self.scores[row]}


def time_plain_loop(problem: Problem, features: torch.Tensor, sets: Sequence[HeadParameters]) -> Timing:
    """Time (b): a loop in plain PyTorch with the same model, data and settings, judged after every epoch."""
    data, judge = problem.data, problem.judge
    eval_features = features[judge.rows["eval"]]
    train_features, train_scores = features[data.train_rows], data.scores[data.train_rows]
    scores = []
    start = time.perf_counter()
    for index, parameters in enumerate(sets):
        torch.manual_seed(SEED + index)
        model = PlainHead(features.shape[1], parameters).main_process
        optimiser = torch.optim.AdamW(model.parameters(), lr=10**parameters.log_lr, weight_decay=0.01, fused=True)
        total = n_steps(parameters, len(train_scores))
        warmup = round(parameters.warmup_ratio * total)
        shares = [learning_rate_factor(step, total, warmup) for step in range(total)] + [0.0]
        schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, shares.__getitem__)
        best, kept = -math.inf, None
        for _ in range(parameters.train_epochs):
            model.train()
            for rows in torch.randperm(len(train_scores)).split(parameters.batch_size):
                loss = nn.functional.mse_loss(model(train_features[rows])[:, 0], train_scores[rows])
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
                schedule.step()
            model.eval()
            with torch.no_grad():
                outputs = model(eval_features)
            score = judge.measure("spearman", "eval", partial(returned, outputs))
            if score > best:
                best, kept = score, {name: value.clone() for name, value in model.state_dict().items()}
        assert kept is not None
        scores.append((time.perf_counter() - start, best))
    return Timing(time.perf_counter() - start, total_steps(problem, sets), tuple(scores))


def returned(outputs: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    """Return the outputs of all eval rows, which are those asked for."""
    return outputs


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
    """Time (e): many heads at once in one process, as stacked matrices."""
    first, second = max(each.first_layer_size for each in sets), max(each.second_layer_size for each in sets)
    jobs = [Job(parameters, SEED + index) for index, parameters in enumerate(sets)]
    start = time.perf_counter()
    for _, outcome in train_jobs(problem.data, jobs, problem.goal, n_at_once=n_at_once, layers=(first, second)):
        assert not isinstance(outcome, Exception)
    return Timing(time.perf_counter() - start, total_steps(problem, sets))


def time_bound(problem: Problem, n_inputs: int, sets: Sequence[HeadParameters]) -> Timing:
    """Time (d): the matrix products and memory traffic of one step of every set, times its number of steps."""
    seconds = 0.0
    n_train = len(problem.data.train_rows)
    for parameters in sets:
        batch_size = min(parameters.batch_size, n_train)
        sizes = (n_inputs, parameters.first_layer_size, parameters.second_layer_size)
        seconds += n_steps(parameters, n_train) * (_products_seconds(batch_size, *sizes) + _traffic_seconds(*sizes))
    return Timing(seconds, total_steps(problem, sets))


def _products_seconds(n_rows: int, n_inputs: int, first: int, second: int) -> float:
    """Return the time of the eight matrix products of a step, forward and backward, into existing buffers."""
    inputs, hidden, last = torch.randn(n_rows, n_inputs), torch.randn(n_rows, first), torch.randn(n_rows, second)
    weights = torch.randn(first, n_inputs), torch.randn(second, first), torch.randn(1, second)
    outer = torch.randn(n_rows, 1)
    to_first, to_second, to_outer = torch.empty(n_rows, first), torch.empty(n_rows, second), torch.empty(n_rows, 1)
    gradients = [torch.empty_like(weight) for weight in weights]

    def step() -> None:
        torch.mm(inputs, weights[0].T, out=to_first)
        torch.mm(hidden, weights[1].T, out=to_second)
        torch.mm(last, weights[2].T, out=to_outer)
        torch.mm(outer.T, last, out=gradients[2])
        torch.mm(outer, weights[2], out=to_second)
        torch.mm(last.T, hidden, out=gradients[1])
        torch.mm(last, weights[1], out=to_first)
        torch.mm(hidden.T, inputs, out=gradients[0])

    return _seconds(step)


def _traffic_seconds(n_inputs: int, first: int, second: int) -> float:
    """Return the time to read weights, gradients and both moments and to write all but the gradients.

    It is timed as three additions, which move nine numbers per weight, while AdamW needs to move seven.
    """
    n_numbers = (n_inputs + 1) * first + (first + 1) * second + second + 1
    weights, gradients, mean, square = (torch.zeros(n_numbers) for _ in range(4))

    def step() -> None:
        weights.add_(mean)
        mean.add_(gradients)
        square.add_(gradients)

    return _seconds(step) * 7 / 9


def _seconds(step) -> float:  # type: ignore[no-untyped-def]
    """Return the seconds per call: the median of several rounds of a few milliseconds."""
    step()
    start = time.perf_counter()
    step()
    n_calls = max(1, int(0.005 / max(time.perf_counter() - start, 1e-6)))
    rounds = []
    for _ in range(7):
        start = time.perf_counter()
        for _ in range(n_calls):
            step()
        rounds.append((time.perf_counter() - start) / n_calls)
    return sorted(rounds)[len(rounds) // 2]


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
