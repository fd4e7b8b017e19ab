"""The search: runs trials until the study is complete, alone or with other machines, and writes the best model."""

import logging
import tempfile
import time
import warnings
from collections.abc import Callable, MutableMapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import optuna
import torch
from optuna.trial import FrozenTrial, TrialState

from custom_aesthetic.base.database_urls import shown_url
from custom_aesthetic.base.errors import UserError
from custom_aesthetic.base.machine import n_cores
from custom_aesthetic.base.processes import folder_prefix, sweep_folders
from custom_aesthetic.base.progress import StatusLine, status_line
from custom_aesthetic.quality.optimism import Optimism
from custom_aesthetic.search.best_models import BestModels, MakeFiles
from custom_aesthetic.search.cost import costly_trial, cpu_is_faster, say_time
from custom_aesthetic.search.optuna_private import storage_of, writable
from custom_aesthetic.search.sampling import N_REPORTS, sampler_seed
from custom_aesthetic.search.space import WIDE_HEAD, clipped_head, first_parameters, is_linear, starting_points
from custom_aesthetic.search.storage import close_storage, is_server, open_storage, patiently
from custom_aesthetic.search.study import Claims, best_first, bury_silent, counts, kept_texts, n_finished, process_name
from custom_aesthetic.search.succession import Wanted, open_study
from custom_aesthetic.search.trials import Ended, Order, Problem, TrialPlan
from custom_aesthetic.search.workers import Place, Workers, work
from custom_aesthetic.settings.head_parameters import SearchSpace
from custom_aesthetic.settings.training import SearchSettings, StudySettings

log = logging.getLogger(__name__)

HEADS_ON_ACCELERATOR = 16
"""Heads that `--workers=auto` trains side by side on an accelerator, as stacked matrices."""

LINKED, NOTE, SHOWN_NOTE = "trials in the model file", "note", "note as shown"
"""Texts kept with a study: the trials whose notes name the model file, its note, and its note with a verdict."""


@dataclass(frozen=True)
class Found:
    """The result of a search."""

    trials: tuple[FrozenTrial, ...]
    """The trials whose heads are in the model file, best first."""
    optimism: Optimism | None
    """None if it cannot be computed, for instance from a single trial or an older study."""
    study: str = ""
    """The name of the study: `--name`, or that of a successor."""


@dataclass(frozen=True)
class Target:
    """The model file that a search writes, and the information that it saves with the study."""

    file: Path
    make_files: MakeFiles
    arguments: tuple[str, ...] = ()
    """The arguments in force, as lines; saved with the study."""
    note: str = ""
    """The note on the study in the dashboard, in Markdown."""
    begin: Callable[[], None] = lambda: None
    """Called before the first trial, when the study is open and all checks have passed."""


def search(
    problem: Problem, space: SearchSpace, settings: SearchSettings, where: StudySettings, target: Target
) -> Found:
    """Run trials until the study has `settings.trials` finished ones, and write its best heads to the model file.

    After Ctrl-C the model file holds the best head so far, and no trial of this process is marked as running. Raises
    UserError if no trial produced a model.
    """
    n_workers, n_at_once = divide_work(
        where.workers, problem.data.features.device, seeded=settings.model_seed is not None
    )
    plan = TrialPlan(
        space, settings.trials, settings.ensemble, settings.model_seed, n_at_once, settings.pruner != "none"
    )
    sweep_folders(Path(tempfile.gettempdir()))
    with tempfile.TemporaryDirectory(prefix=folder_prefix(), ignore_cleanup_errors=True) as folder:
        journal = str(Path(folder) / "journal")
        is_free = where.workers == "auto" and n_at_once > 1  # to choose the CPU instead of the accelerator
        database = journal if not where.database and (n_workers > 1 or is_free) else where.database
        storage = open_storage(database)
        try:
            wanted = Wanted(
                where.name,
                problem.higher_is_better,
                problem.identity,
                space,
                weighs_states=bool(problem.data.mixtures),
                place=shown_url(where.database) or "memory",
            )
            study = open_study(storage, wanted, where.database)
            target.begin()
            _describe(study, target, f"{problem.objective.set_for_scoring}_{problem.objective.metric}")
            models = BestModels(
                study,
                problem,
                wide_head=clipped_head(WIDE_HEAD, space),
                n_heads=settings.ensemble,
                file=target.file,
                make_files=target.make_files,
                shared=is_server(database),
            )
            trials = patiently(study.get_trials, deepcopy=False)
            plan = replace(plan, linear_sizes=is_linear(trials))
            start = _start_within(trials, starting_points(space, weighs_states=bool(problem.data.mixtures)))
            place = Place(
                database, study.study_name, settings.sampler, settings.pruner, start, len(problem.folds) or N_REPORTS
            )
            bury_silent(study)
            _search(study, problem, plan, place, models, n_workers=n_workers, folder=Path(folder), is_free=is_free)
            best = models.finish()
            _link(study, best, target)
            return Found(best, models.optimism(), study.study_name)
        finally:
            close_storage(storage)


def divide_work(workers: str, device: torch.device, *, seeded: bool = False) -> tuple[int, int]:
    """Return (number of processes, heads that each trains at once) for `--workers`; UserError if it is invalid.

    `4` means four processes. `auto` means one process per core on a CPU, and one process that trains many heads on an
    accelerator, unless the cores turn out to be faster (`cost.cpu_is_faster`). `heads:4` means one process that trains
    four heads as stacked matrices, on any device. With a seed, `auto` means one process with one head, because parallel
    trials are not exactly reproducible.
    """
    if workers == "auto" and seeded:
        return 1, 1
    if workers == "auto":
        return (1, HEADS_ON_ACCELERATOR) if device.type != "cpu" else (n_cores(), 1)
    name, _, number = workers.rpartition(":")
    if name not in ("", "heads") or not number.isdecimal() or int(number) < 1:
        raise UserError(f"--workers={workers} is not auto, a whole number of 1 or more, or heads:N; choose one of them")
    if name == "heads":
        return 1, int(number)
    if device.type != "cpu" and int(number) > 1:
        raise UserError(f"--workers={workers} only works on a CPU; on {device} use auto, 1, or heads:{number}")
    return int(number), 1


def _start_within(trials: Sequence[FrozenTrial], start: tuple[FrozenTrial, ...]) -> tuple[FrozenTrial, ...]:
    """Return the trials that the sampler starts from; none if trials of the study have other ranges than these."""
    ended = [trial for trial in trials if trial.state in (TrialState.COMPLETE, TrialState.PRUNED)]
    return () if any(trial.distributions != one.distributions for trial in ended for one in start) else start


def _describe(study: optuna.Study, target: Target, metric: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        patiently(study.set_metric_names, [metric])
    patiently(study.set_user_attr, "arguments", list(target.arguments))
    with kept_texts(study) as texts:
        if target.note and texts.get(NOTE) != target.note:
            from optuna_dashboard import save_note  # takes a second, and a run that goes on has the note already

            patiently(save_note, study, target.note)
            texts[NOTE] = texts[SHOWN_NOTE] = target.note


def begin_note(study: optuna.Study, texts: MutableMapping[str, str], verdict: str) -> None:
    """Let the study's note in the dashboard begin with the verdict; `texts` are those kept with the study."""
    note = f"{verdict}\n\n{texts.get(NOTE, '')}"
    if texts.get(SHOWN_NOTE) != note:
        from optuna_dashboard import save_note

        patiently(save_note, study, note)
        texts[SHOWN_NOTE] = note


def _link(study: optuna.Study, trials: tuple[FrozenTrial, ...], target: Target) -> None:
    """Note in the dashboard which trials are in the model file, and update the notes of those that no longer are."""
    now = [trial.number for trial in trials]
    linked = f"{now} {target.file.resolve()}"
    with kept_texts(study) as texts:
        if target.note and texts.get(LINKED) != linked:
            _save_links(study, now, target)
            texts[LINKED] = linked


def _save_links(study: optuna.Study, now: list[int], target: Target) -> None:
    from optuna_dashboard import save_note

    everyone = patiently(study.get_trials, deepcopy=False)
    former = [number for number in study.user_attrs.get(LINKED, []) if number not in now]
    texts = dict.fromkeys(former, f"No longer in the model file, which now holds trial {', '.join(map(str, now))}")
    for number, text in (texts | dict.fromkeys(now, f"In the model file `{target.file.resolve()}`")).items():
        patiently(save_note, writable(study, everyone[number]), text)
    patiently(study.set_user_attr, LINKED, now)


def _search(
    study: optuna.Study,
    problem: Problem,
    plan: TrialPlan,
    place: Place,
    models: BestModels,
    *,
    n_workers: int,
    folder: Path,
    is_free: bool,
) -> None:
    """Run the trials that the study lacks. `is_free` allows the CPU's cores in place of an accelerator."""
    n_done = n_finished(study)
    if n_done >= plan.n_trials:
        log.info(
            "study %s already has %d finished trials, --trials=%d: nothing to run; raise --trials for more, or choose "
            "another --name for a new study",
            place.name,
            n_done,
            plan.n_trials,
        )
        return
    if not study.get_trials(deepcopy=False):
        first = first_parameters(plan.space, weighs_states=bool(problem.data.mixtures))
        for parameters in first[: plan.n_trials]:
            patiently(study.enqueue_trial, parameters, skip_if_exists=True)
    if is_free and cpu_is_faster(problem, plan.space, n_heads=plan.n_at_once, n_workers=n_cores()):
        problem, plan, n_workers = problem.on_cpu(), replace(plan, n_at_once=1), n_cores()
    costly = costly_trial(problem, plan.space)
    if costly is not None:
        log.warning("%s", costly)
    with status_line() as line:
        progress = _Progress(study, plan.n_trials, n_done, line)

        def on_end(ended: Ended) -> None:
            models.take(ended)
            progress.show(ended)

        if n_workers > 1:
            Workers(study, folder, plan, place).run(n_workers, on_end, problem)
            return
        seed = sampler_seed(plan.model_seed, worker=0, n_trials_before=len(study.get_trials(deepcopy=False)))
        claims = Claims(place.load(storage_of(study), seed), plan.n_trials, process_name())
        work(claims, problem, plan, ask=lambda: Order.GO_ON, on_end=on_end)


class _Progress:
    """Shows a line after each trial: number, score, best score so far, time left."""

    def __init__(self, study: optuna.Study, n_trials: int, n_done: int, line: StatusLine) -> None:
        self.study, self.n_trials, self.n_done_before, self.line = study, n_trials, n_done, line
        self.start = time.perf_counter()

    def show(self, ended: Ended) -> None:
        trials = patiently(self.study.get_trials, deepcopy=False)
        done = sum(map(counts, trials))
        spent = time.perf_counter() - self.start
        left = max(0, self.n_trials - done) * spent / max(done - self.n_done_before, 1)
        outcome = f"{ended.value:.4f}" if ended.value is not None else ended.failure or ended.state.name.lower()
        best = best_first(self.study, trials)[:1]
        so_far = f"best {best[0].value:.4f} (trial {best[0].number})" if best else "no model yet"
        self.line.show(f"trial {ended.number}: {outcome}, {so_far}, {done} of {self.n_trials}, {say_time(left)} left")
