"""The Optuna search: the space, the objective, the progress line, and the best model kept as soon as it is the best."""

import logging
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields

import optuna
from optuna.trial import FrozenTrial, TrialState

from src.errors import UserError
from src.evaluation import Judge
from src.metrics import HIGHER_IS_BETTER
from src.settings import INTEGER_PARAMETERS, Range, ScoringSettings, SearchSettings, SearchSpace
from src.training import DivergedError, HeadParameters, TrainedHead, TrainingData, train

log = logging.getLogger(__name__)

FIRST_TRIAL = HeadParameters(
    first_layer_size=256,
    second_layer_size=64,
    train_epochs=30,
    warmup_ratio=0.1,
    log_lr=-3.0,
    log_weight_lr=-3.0,
    batch_size=32,
    input_dropout=0.5,
    dropout=0.3,
    output_dropout=0.0,
)
"""A sound configuration for some hundred images; brought into the bounds given, it is a study's first trial."""


@dataclass(frozen=True)
class Problem:
    """What every trial works on."""

    data: TrainingData
    judge: Judge
    scoring: ScoringSettings

    @property
    def higher_is_better(self) -> bool:
        return HIGHER_IS_BETTER[self.scoring.metric]


KeepModel = Callable[[TrainedHead, FrozenTrial], None]
"""Called with every head that is the best so far, and its trial."""


def searched_parameters(space: SearchSpace, *, weighs_states: bool) -> dict[str, Range]:
    """Return name -> range of the parameters of a head; `log_weight_lr` only where hidden states are weighed."""
    ranges = {field.name: getattr(space, field.name) for field in fields(space)}
    if not weighs_states:
        del ranges["log_weight_lr"]
    return ranges


def suggest(trial: optuna.Trial, space: SearchSpace, *, weighs_states: bool) -> HeadParameters:
    """Return the trial's parameters; those whose range is a point are not searched."""
    values: dict[str, float] = {}
    for name, bounds in searched_parameters(space, weighs_states=weighs_states).items():
        if bounds.is_fixed:
            values[name] = bounds.low
        elif name in INTEGER_PARAMETERS:
            values[name] = trial.suggest_int(name, int(bounds.low), int(bounds.high))
        else:
            values[name] = trial.suggest_float(name, bounds.low, bounds.high)
    return HeadParameters(**values)  # type: ignore[arg-type]


def first_parameters(space: SearchSpace, *, weighs_states: bool) -> dict[str, float]:
    """Return the searched parameters of the first trial: FIRST_TRIAL brought into the bounds."""
    ranges = searched_parameters(space, weighs_states=weighs_states)
    return {name: bounds.clip(getattr(FIRST_TRIAL, name)) for name, bounds in ranges.items() if not bounds.is_fixed}


def make_sampler(name: str, seed: int | None) -> optuna.samplers.BaseSampler:
    """Return the sampler of that name; a seed makes it repeatable."""
    match name:
        case "CmaEs":
            return optuna.samplers.CmaEsSampler(seed=seed, warn_independent_sampling=False)
        case "random":
            return optuna.samplers.RandomSampler(seed=seed)
        case "QMC":
            return optuna.samplers.QMCSampler(seed=seed, scramble=True, warn_independent_sampling=False)
        case "TPE":
            return optuna.samplers.TPESampler(seed=seed)
        case "GP":
            return optuna.samplers.GPSampler(seed=seed)
    raise ValueError(f"no such sampler: {name}")


def run_trial(
    problem: Problem,
    parameters: HeadParameters,
    *,
    seed: int,
    on_epoch: Callable[[int, float], None] | None = None,
) -> tuple[TrainedHead, dict[str, float]]:
    """Return the head trained with these parameters, and its metrics by name (`eval_ab`, ...)."""
    scoring = problem.scoring
    head = train(
        problem.data,
        parameters,
        loss_model=scoring.loss_model,
        seed=seed,
        evaluate=lambda outputs_of: problem.judge.measure(scoring.metric, scoring.set_for_scoring, outputs_of),
        higher_is_better=problem.higher_is_better,
        on_epoch=on_epoch,
    )
    return head, problem.judge.measure_all(scoring.metrics, head.outputs.double().numpy())


def n_finished(study: optuna.Study) -> int:
    """Return how many trials count towards `--trials`: complete, pruned, or failed by what they were."""
    return sum(
        trial.state in (TrialState.COMPLETE, TrialState.PRUNED) or "failure" in trial.user_attrs
        for trial in study.get_trials(deepcopy=False)
    )


def best_trial(study: optuna.Study) -> FrozenTrial:
    """Return the best complete trial; UserError if there is none."""
    try:
        return study.best_trial
    except ValueError:
        reasons = {trial.user_attrs["failure"] for trial in study.get_trials() if "failure" in trial.user_attrs}
        why = "; ".join(sorted(reasons)) or "no trial has ended"
        raise UserError(f"no trial of study {study.study_name} gave a model: {why}") from None


def search(
    study: optuna.Study, problem: Problem, space: SearchSpace, settings: SearchSettings, keep_model: KeepModel
) -> None:
    """Bring the study up to `settings.trials` finished trials, handing every new best head to `keep_model`."""
    weighs_states = bool(problem.data.mixtures)
    if not study.get_trials(deepcopy=False):
        study.enqueue_trial(first_parameters(space, weighs_states=weighs_states))
    progress = _Progress(settings.trials, n_finished(study))

    def objective(trial: optuna.Trial) -> float:
        parameters = suggest(trial, space, weighs_states=weighs_states)
        base = settings.model_seed
        seed = trial.number + (time.time_ns() % 2**31 if base is None else 1_000_003 * base)
        trial.set_user_attr("seed", seed)
        start = time.perf_counter()
        try:
            head, values = run_trial(problem, parameters, seed=seed)
            if not math.isfinite(head.score):
                raise DivergedError(f"{problem.scoring.metric} is undefined for what the head predicts")
        except DivergedError as error:
            trial.set_user_attr("failure", str(error))
            raise
        for name, value in {**asdict(parameters), **values, "best_epoch": head.epoch}.items():
            if name not in trial.params:
                trial.set_user_attr(name, value)
        trial.set_user_attr("seconds", round(time.perf_counter() - start, 3))
        heads[trial.number] = head
        return head.score

    heads: dict[int, TrainedHead] = {}

    def after(study: optuna.Study, trial: FrozenTrial) -> None:
        head = heads.pop(trial.number, None)
        if head is not None and study.best_trial.number == trial.number:
            keep_model(head, trial)
        progress.show(study, trial)
        if n_finished(study) >= settings.trials:
            study.stop()

    if n_finished(study) >= settings.trials:
        log.info("study %s has its %d finished trials already: none to run", study.study_name, n_finished(study))
        return
    study.optimize(objective, callbacks=[after], catch=(DivergedError,))


class _Progress:
    """The line a trial: number, score, best so far, time left."""

    def __init__(self, n_trials: int, n_done: int) -> None:
        self.n_trials = n_trials
        self.n_done_before = n_done
        self.start = time.perf_counter()

    def show(self, study: optuna.Study, trial: FrozenTrial) -> None:
        done = n_finished(study)
        spent = time.perf_counter() - self.start
        left = (self.n_trials - done) * spent / max(done - self.n_done_before, 1)
        if trial.value is None:
            outcome = str(trial.user_attrs.get("failure", trial.state.name.lower()))
        else:
            outcome = f"{trial.value:.4f}"
        complete = [other for other in study.get_trials(deepcopy=False) if other.state == TrialState.COMPLETE]
        best = f"best {study.best_value:.4f} (trial {study.best_trial.number})" if complete else "no model yet"
        log.info("trial %d: %s, %s, %d of %d, %.0f s left", trial.number, outcome, best, done, self.n_trials, left)
