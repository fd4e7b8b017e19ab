"""Running of trials in one process of a search: claim a trial, train its head, record the result, and repeat."""

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from enum import Enum, auto
from typing import Any

import numpy as np
import optuna
import torch
from numpy.typing import NDArray
from optuna.trial import TrialState
from torch import Tensor

from custom_aesthetic.base.interrupts import obey_lost, uninterrupted
from custom_aesthetic.heads.fold_training import Fold, train_fold_jobs, train_folds
from custom_aesthetic.heads.trained_head import TrainedHead
from custom_aesthetic.heads.training import DivergedError, Goal, HeadParameters, Job, train, train_jobs
from custom_aesthetic.heads.training_data import TrainingData
from custom_aesthetic.priors.given import PriorScores
from custom_aesthetic.quality.judge import Judge
from custom_aesthetic.quality.metrics import HIGHER_IS_BETTER
from custom_aesthetic.quality.optimism import MOST_NUMBERS, pack_outputs
from custom_aesthetic.scores.evidence import Evidence
from custom_aesthetic.search.optuna_private import trial_id
from custom_aesthetic.search.sampling import report_at
from custom_aesthetic.search.space import FIRST_TRIAL, WIDE_HEAD, suggest
from custom_aesthetic.search.storage import patiently
from custom_aesthetic.search.study import FAILURE, Claims, best_first, complete_trials, heartbeats
from custom_aesthetic.settings.head_parameters import SearchSpace
from custom_aesthetic.settings.training import ObjectiveSettings

OUTPUTS = "aesthetic:outputs"
"""System attribute of a trial: its outputs for the images that trials are chosen by, from `optimism.pack_outputs`."""

LARGEST = 1.1
"""How many times the file of FIRST_TRIAL's heads a model file may be. So the file of the default ensemble has less than
25 MB with 2,480 features; see docs/log.md."""

WAIT_SECONDS = 0.3
"""Pause between two attempts to claim a trial."""


@dataclass(frozen=True)
class Problem:
    """The data and objective shared by all trials of a search."""

    data: TrainingData
    judge: Judge
    objective: ObjectiveSettings
    folds: tuple[Fold, ...] = ()
    """The folds that trials are judged by; empty if they are judged by a set of images."""
    inputs: Tensor = field(default_factory=lambda: torch.empty(0))
    """(n_images, n_columns): what a predictor takes, for the linear models that join the heads; empty: none join."""
    prior: PriorScores | None = None
    """The prior model whose difference from the scores joins the heads too."""
    answers: Evidence | None = None
    """The answers that the scores come from, which the linear models are fitted to; None if they do not."""
    identity: dict[str, str] = field(default_factory=dict)
    """Everything that a study's scores depend on, by name; a study is continued only if all of it is the same."""

    @property
    def higher_is_better(self) -> bool:
        return HIGHER_IS_BETTER[self.objective.metric]

    def on_cpu(self) -> "Problem":
        """Return the problem with all its tensors in the memory of the CPU."""

        def moved(data: TrainingData) -> TrainingData:
            parts: dict[str, Any] = {name: part.cpu() for name, part in vars(data).items() if isinstance(part, Tensor)}
            return replace(data, **parts)

        folds = tuple(replace(fold, data=moved(fold.data)) for fold in self.folds)
        return replace(self, data=moved(self.data), folds=folds)

    @property
    def rows_that_choose(self) -> NDArray[np.int64]:
        """Row numbers of the images that trials are chosen by."""
        return self.judge.rows[self.objective.set_for_scoring]

    @property
    def goal(self) -> Goal:
        return Goal(self.objective.loss_model, self.evaluate, self.higher_is_better)

    def evaluate(self, outputs_of: Callable) -> float:
        """Return the metric that the search optimises, on `set_for_scoring`; nan if it is undefined."""
        return self.judge.measure(self.objective.metric, self.objective.set_for_scoring, outputs_of)

    def evaluate_rows(self, rows: NDArray[np.int64], outputs: Tensor) -> float:
        """Return the metric that the search optimises, on these rows of outputs (n_images, n_outputs) alone."""
        name = self.objective.set_for_scoring
        judge = replace(self.judge, rows={**self.judge.rows, name: rows, "train": rows})
        return judge.measure(self.objective.metric, name, lambda chosen: outputs[chosen])

    def measure_all(self, head: TrainedHead) -> dict[str, float]:
        """Return the metrics of a head by name (`eval_ab`, ...), without undefined ones.

        With folds, the eval metrics are out of fold; those of train and full are by heads that learnt from the image.
        """
        values = self.judge.measure_all(self.objective.metrics, head.outputs.double().numpy())
        if head.seen_outputs is None:
            return values
        seen = self.judge.measure_all(self.objective.metrics, head.seen_outputs.double().numpy())
        return {name: (values if name.startswith("eval_") else seen)[name] for name in values if name in seen}


@dataclass(frozen=True)
class Ended:
    """A trial that has ended."""

    number: int
    state: TrialState
    value: float | None
    """The score of a complete trial, else None."""
    failure: str | None = None
    """Why the trial failed, if it did."""
    head: TrainedHead | None = None
    """The head, only if it is one of the best so far."""


@dataclass(frozen=True)
class TrialPlan:
    """How a process runs trials."""

    space: SearchSpace
    n_trials: int
    """The number of finished trials at which the study is complete."""
    n_kept: int
    """Only the heads of this many best trials are passed on."""
    model_seed: int | None
    n_at_once: int = 1
    """Heads trained side by side in one process, as stacked matrices."""
    reports: bool = False
    """Whether trials report to a pruner."""
    linear_sizes: bool = False
    """Whether sizes are searched on a linear scale, as in studies of earlier versions."""


class Order(Enum):
    """An instruction to a process that runs trials."""

    GO_ON = auto()
    """Continue with running and new trials."""
    STOP = auto()
    """Abandon the running trials."""


class StoppedError(Exception):
    """A running trial is abandoned because the search stops."""


def retrain(problem: Problem, parameters: HeadParameters, seed: int) -> TrainedHead:
    """Train the head of a trial again, from its recorded parameters and seed."""
    goal = problem.goal
    if problem.folds:
        return train_folds(problem.folds, parameters, goal, seed=seed)
    return train(
        problem.data,
        parameters,
        loss_model=goal.loss_model,
        seed=seed,
        evaluate=goal.evaluate,
        higher_is_better=goal.higher_is_better,
    )


def run_trials(
    claims: Claims, problem: Problem, plan: TrialPlan, *, ask: Callable[[], Order], on_end: Callable[[Ended], None]
) -> None:
    """Run trials until the study is complete or `ask()` orders otherwise; call `on_end` for each that ends.

    `ask` is called before every trial and after every epoch. After Ctrl-C or an error, no trial of this process is
    marked as running.
    """
    study = claims.study
    running: dict[int, _Run] = {}
    beating: set[int] = set()

    def begin() -> _Run | None:
        with uninterrupted():
            trial = claims.claim()
            if trial is None:
                return None
            run = running[trial.number] = _Run(trial, problem, plan, ask)
            beating.add(trial_id(trial))
            return run

    def jobs() -> Iterator[Job | None]:
        last_refused = -math.inf
        while ask() is Order.GO_ON:
            obey_lost()
            if time.monotonic() - last_refused < WAIT_SECONDS:
                yield None
                continue
            run = begin()
            if run is not None:
                yield run.job
                continue
            last_refused = time.monotonic()
            if not running:
                return

    try:
        with heartbeats(study, beating):
            for job, outcome in _train(problem, plan, jobs()):
                with uninterrupted():
                    run = running[job.number]
                    ended = run.end(study, outcome, plan.n_kept)
                    beating.discard(trial_id(run.trial))
                    del running[job.number]
                    if ended is not None:
                        on_end(ended)
    finally:
        with uninterrupted():
            for run in running.values():
                patiently(study.tell, run.trial, state=TrialState.FAIL, skip_if_finished=True)


def _train(
    problem: Problem, plan: TrialPlan, jobs: Iterator[Job | None]
) -> Iterator[tuple[Job, TrainedHead | Exception]]:
    """Yield each finished job with its trained head, or with the exception that ended it."""
    largest = (int(plan.space.first_layer_size.high), int(plan.space.second_layer_size.high))
    layers = largest if plan.n_at_once > 1 else None
    if problem.folds:
        return train_fold_jobs(problem.folds, jobs, problem.goal, n_at_once=plan.n_at_once, layers=layers)
    return train_jobs(problem.data, jobs, problem.goal, n_at_once=plan.n_at_once, layers=layers)


class _Run:
    """One running trial."""

    def __init__(self, trial: optuna.Trial, problem: Problem, plan: TrialPlan, ask: Callable[[], Order]) -> None:
        self.trial, self.problem, self.plan, self.ask = trial, problem, plan, ask
        self.parameters = patiently(
            suggest,
            trial,
            plan.space,
            weighs_states=bool(problem.data.mixtures),
            linear_sizes=plan.linear_sizes,
        )
        base = plan.model_seed
        self.seed = trial.number + (time.time_ns() % 2**40 if base is None else 1_000_003 * base)
        self.start = time.perf_counter()
        self.best: float | None = None
        self.job = Job(self.parameters, self.seed, self.on_epoch, self.on_fold, trial.number)

    def on_epoch(self, epoch: int, score: float) -> None:
        """Report the best score so far after every tenth of the training.

        Raises TrialPruned if the pruner ends the trial, and StoppedError if the search stops.
        """
        obey_lost()
        if self.ask() is Order.STOP:
            raise StoppedError
        if score == score and (self.best is None or (score > self.best) == self.problem.higher_is_better):
            self.best = score
        step = report_at(epoch, self.parameters.train_epochs)
        if not self.plan.reports or step is None or self.best is None:
            return
        patiently(self.trial.report, self.best, step)
        if epoch < self.parameters.train_epochs and patiently(self.trial.should_prune):
            raise optuna.TrialPruned

    def on_fold(self, n_done: int, rows: NDArray[np.int64], outputs: Tensor) -> None:
        """Report the score on the completed folds; TrialPruned if the pruner ends the trial."""
        if not self.plan.reports or n_done == len(self.problem.folds):
            return
        score = self.problem.evaluate_rows(rows, outputs)
        if score != score:
            return
        patiently(self.trial.report, score, n_done)
        if patiently(self.trial.should_prune):
            raise optuna.TrialPruned

    def end(self, study: optuna.Study, outcome: TrainedHead | Exception, n_kept: int) -> Ended | None:
        """Record the outcome of the trial and return it; None if the trial was abandoned."""
        if isinstance(outcome, TrainedHead) and outcome.score != outcome.score:
            outcome = DivergedError(f"{self.problem.objective.metric} is undefined for the head's predictions")
        match outcome:
            case TrainedHead():
                measured = {name: shortened(value) for name, value in self.problem.measure_all(outcome).items()}
                self._record({**measured, "best_epoch": outcome.epoch})
                self._keep_outputs(outcome)
                patiently(study.tell, self.trial, outcome.score, skip_if_finished=True)
                best = [trial.number for trial in trials_to_average(study, self.problem, n_kept)]
                head = outcome if self.trial.number in best else None
                return Ended(self.trial.number, TrialState.COMPLETE, outcome.score, head=head)
            case optuna.TrialPruned():
                self._record({})
                patiently(study.tell, self.trial, state=TrialState.PRUNED, skip_if_finished=True)
                return Ended(self.trial.number, TrialState.PRUNED, None)
            case DivergedError():
                self._record({FAILURE: str(outcome)})
                patiently(study.tell, self.trial, state=TrialState.FAIL, skip_if_finished=True)
                return Ended(self.trial.number, TrialState.FAIL, None, failure=str(outcome))
            case StoppedError():
                patiently(study.tell, self.trial, state=TrialState.FAIL, skip_if_finished=True)
                return None
        raise outcome

    def _keep_outputs(self, head: TrainedHead) -> None:
        """Save the outputs for the images that trials are chosen by, as an attribute hidden from the dashboard."""
        rows = self.problem.rows_that_choose
        outputs = head.outputs[rows]
        if outputs.numel() <= MOST_NUMBERS:
            text = pack_outputs(outputs.double().numpy(), self.problem.judge.scores[rows])
            patiently(self.trial.storage.set_trial_system_attr, trial_id(self.trial), OUTPUTS, text)

    def _record(self, attributes: dict[str, float | str]) -> None:
        """Save attributes with the trial, together with all that is needed to repeat it."""
        parameters = {name: value for name, value in asdict(self.parameters).items() if name not in self.trial.params}
        seconds = round(time.perf_counter() - self.start, 3)
        for name, value in {**parameters, **attributes, "seed": self.seed, "seconds": seconds}.items():
            patiently(self.trial.set_user_attr, name, value)


def shortened(value: float) -> float:
    """Return a metric with the four significant digits that the dashboard is to show."""
    return float(f"{value:.4g}")


def trials_to_average(study: optuna.Study, problem: Problem, n_kept: int) -> list[optuna.trial.FrozenTrial]:
    """Return the trials whose heads the model file averages, best first.

    These are the best `n_kept` whose heads are not large; large ones join only where there are too few others, because
    in a mean of many heads they are no better, and the file grows with them.
    """
    trials = complete_trials(study)
    n_heads, others = n_kept * max(len(problem.folds), 1), [WIDE_HEAD] * n_kept if problem.folds else []
    n_features = len(problem.data.feature_mean)

    def weights(head: HeadParameters) -> int:
        """Return how many weights the first two layers of the file have if all heads of trials are like this one."""
        heads = [head] * n_heads + others
        return sum(one.first_layer_size for one in heads) * (n_features + sum(one.second_layer_size for one in heads))

    most = LARGEST * weights(FIRST_TRIAL)
    large = [trial.number for trial in trials if n_kept > 1 and weights(recorded_parameters(trial)) > most]
    return best_first(study, sorted(trials, key=lambda trial: trial.number in large)[:n_kept])


def recorded_parameters(trial: optuna.trial.FrozenTrial) -> HeadParameters:
    """Return the parameters of a finished trial, both searched and fixed ones."""
    known = {**trial.user_attrs, **trial.params}
    return HeadParameters(**{name: known[name] for name in HeadParameters.__dataclass_fields__})
