"""The search in one process: counting, resuming, reproducing and pruning of trials, failures, and the best model."""

import logging
import math
import os
import re
import signal
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
import scipy.stats
import sqlalchemy.orm
import torch
from optuna.distributions import IntDistribution
from optuna.storages._rdb import models
from optuna.trial import FrozenTrial, TrialState

from custom_aesthetic.base.errors import UserError
from custom_aesthetic.heads.fold_training import Fold, train_folds, train_on_all
from custom_aesthetic.heads.linear_members import fit_linear_models, share_explained, share_of_all
from custom_aesthetic.heads.model_file import load_model
from custom_aesthetic.heads.predictor import average, predict
from custom_aesthetic.heads.training_data import standardise
from custom_aesthetic.quality.judge import Judge
from custom_aesthetic.quality.optimism import unpack_outputs
from custom_aesthetic.scores.evidence import Evidence
from custom_aesthetic.scores.folds import fold_levels
from custom_aesthetic.search import space as space_module
from custom_aesthetic.search import study as study_module
from custom_aesthetic.search import succession
from custom_aesthetic.search.best_models import BestModel
from custom_aesthetic.search.cost import head_steps_a_second
from custom_aesthetic.search.run import begin_note, divide_work
from custom_aesthetic.search.space import FIRST_TRIAL, WIDE_HEAD, clipped_head, suggest
from custom_aesthetic.search.storage import GRACE_SECONDS, close_storage, open_storage
from custom_aesthetic.search.study import IDENTITY, Claims, kept_texts
from custom_aesthetic.search.succession import Wanted, open_study
from custom_aesthetic.search.trials import OUTPUTS, Problem, recorded_parameters, retrain
from custom_aesthetic.search.workers import Workers
from custom_aesthetic.settings.declaration import Range
from custom_aesthetic.settings.head_parameters import SearchSpace
from tests.problems import RAW, SCORES, SPACE, find, run_search, small_problem

CPU = torch.device("cpu")


def trials_in(folder: Path, name: str = "aesthetic") -> list[FrozenTrial]:
    storage = open_storage(f"sqlite:///{folder}/db.sqlite")
    try:
        return optuna.load_study(study_name=name, storage=storage).get_trials()
    finally:
        close_storage(storage)


def states(trials: list[FrozenTrial]) -> list[str]:
    return [trial.state.name for trial in trials]


def test_the_first_trial_is_the_default_configuration_clipped_to_the_bounds(tmp_path: Path) -> None:
    run_search(tmp_path, 1)
    (trial,) = trials_in(tmp_path)
    assert (trial.params["first_layer_size"], trial.params["train_epochs"], trial.params["log_lr"]) == (16, 6, -2.6)


def test_the_second_trial_learns_less_from_each_score(tmp_path: Path) -> None:
    run_search(tmp_path, 2)
    first, second = trials_in(tmp_path)
    assert second.params["log_lr"] < first.params["log_lr"]
    assert second.params["dropout"] > first.params["dropout"]


def test_a_study_of_an_earlier_version_goes_on_with_sizes_on_its_linear_scale(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as earlier:
        earlier.setattr(space_module, "LOG_SCALED", ())
        run_search(tmp_path, 3)
    run_search(tmp_path, 6)
    trials = trials_in(tmp_path)
    assert states(trials) == ["COMPLETE"] * 6
    assert {trial.distributions["first_layer_size"] for trial in trials} == {IntDistribution(8, 16)}


def test_sizes_are_searched_on_a_logarithmic_scale(tmp_path: Path) -> None:
    run_search(tmp_path, 3)
    assert all(
        trial.distributions["first_layer_size"] == IntDistribution(8, 16, log=True) for trial in trials_in(tmp_path)
    )


def test_a_study_is_continued_up_to_its_number_of_trials_and_not_beyond(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="custom_aesthetic")
    run_search(tmp_path, 2)
    run_search(tmp_path, 5)
    assert states(trials_in(tmp_path)) == ["COMPLETE"] * 5
    model = (tmp_path / "model.safetensors").read_bytes()
    run_search(tmp_path, 5)
    assert len(trials_in(tmp_path)) == 5
    assert "already has 5 finished trials, --trials=5: nothing to run" in caplog.text
    assert (tmp_path / "model.safetensors").read_bytes() == model


@pytest.mark.parametrize("sampler", ["CmaEs", "TPE"])
def test_a_study_can_be_continued_with_other_ranges(tmp_path: Path, sampler: str) -> None:
    run_search(tmp_path, 3, sampler=sampler)
    changed = replace(SPACE, train_epochs=Range(3, 3), log_lr=Range(-3, -2), batch_size=Range(8, 30))
    run_search(tmp_path, 6, sampler=sampler, space=changed)
    assert states(trials_in(tmp_path)) == ["COMPLETE"] * 6
    assert all(-3 <= trial.params["log_lr"] <= -2 for trial in trials_in(tmp_path)[3:])


def test_failed_trials_of_a_killed_run_do_not_count(tmp_path: Path) -> None:
    run_search(tmp_path, 1)
    storage = open_storage(f"sqlite:///{tmp_path}/db.sqlite")
    study = optuna.load_study(study_name="aesthetic", storage=storage)
    study.add_trial(optuna.create_trial(state=TrialState.FAIL))
    close_storage(storage)
    run_search(tmp_path, 3)
    assert sorted(states(trials_in(tmp_path))) == ["COMPLETE"] * 3 + ["FAIL"]


def test_a_trial_of_a_machine_without_heartbeats_is_run_again_once(tmp_path: Path) -> None:
    run_search(tmp_path, 1)
    storage = open_storage(f"sqlite:///{tmp_path}/db.sqlite")
    study = optuna.load_study(study_name="aesthetic", storage=storage, sampler=optuna.samplers.RandomSampler())
    claims = Claims(study, 9, "another-machine 1 abcd")
    silent, alive = claims.claim(), claims.claim()
    assert silent is not None and alive is not None
    params = suggest(silent, SPACE, weighs_states=False)
    with sqlalchemy.orm.Session(storage.engine) as session, session.begin():  # type: ignore[attr-defined]
        beat = session.query(models.TrialHeartbeatModel).filter_by(trial_id=silent._trial_id).one()
        beat.heartbeat -= timedelta(seconds=GRACE_SECONDS + 5)
    close_storage(storage)
    with pytest.raises(KeyboardInterrupt):
        run_search(tmp_path, 4, problem=interrupted_after(2))
    trials = trials_in(tmp_path)
    assert trials[silent.number].state == TrialState.FAIL
    assert trials[alive.number].state == TrialState.RUNNING
    again = [trial for trial in trials if trial.system_attrs.get("failed_trial") == silent.number]
    assert [trial.params["log_lr"] for trial in again] == [params.log_lr]


def test_a_lost_or_replaced_model_file_is_rebuilt_from_the_recorded_seed(tmp_path: Path) -> None:
    run_search(tmp_path, 3)
    file = tmp_path / "model.safetensors"
    model = file.read_bytes()
    for damage in (file.unlink, lambda: file.write_bytes(b"something else")):
        damage()
        run_search(tmp_path, 3)
        assert file.read_bytes() == model


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"features": "shapes"}, "other features (colours; now shapes)"),
        ({"scores": "c" * 64, "metric": "ab"}, "other metric_for_scoring (spearman; now ab)"),
        ({"folds": "4 by seed 42"}, "other folds (none; now 4 by seed 42)"),
        ({"metric": "ab"}, "other metric_for_scoring (spearman; now ab)"),
    ],
)
def test_a_study_with_other_features_folds_or_metric_is_not_continued(
    tmp_path: Path, changed: dict[str, str], words: str
) -> None:
    run_search(tmp_path, 1)
    with pytest.raises(UserError) as error:
        run_search(tmp_path, 2, problem=small_problem(**changed))
    assert words in str(error.value)
    assert "choose another --name" in str(error.value)
    assert len(trials_in(tmp_path)) == 1
    run_search(tmp_path, 1, problem=small_problem(**changed), name="another")


def test_with_new_scores_the_same_command_starts_a_successor_from_the_best_parameters(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="custom_aesthetic")
    run_search(tmp_path, 8)
    old = trials_in(tmp_path)
    rescored = small_problem(scores="c" * 64, images="d" * 64)
    assert find(tmp_path, 7, problem=rescored).study == "aesthetic-2"
    lines = [record.message for record in caplog.records if "changed since" in record.message]
    assert lines == [
        "images, scores changed since study aesthetic: the new study aesthetic-2 starts from the parameters of its 5 "
        "best trials"
    ]
    best = sorted(old, key=lambda trial: -(trial.value or 0))[:5]
    assert [trial.params for trial in trials_in(tmp_path, "aesthetic-2")[:5]] == [trial.params for trial in best]
    assert find(tmp_path, 8, problem=rescored).study == "aesthetic-2"
    assert len(trials_in(tmp_path, "aesthetic-2")) == 8
    assert find(tmp_path, 8, problem=small_problem(split="e" * 64)).study == "aesthetic-3"
    assert find(tmp_path, 9).study == "aesthetic"
    assert len(trials_in(tmp_path)) == 9


def test_an_unrelated_study_with_the_name_of_a_successor_is_left_alone(tmp_path: Path) -> None:
    run_search(tmp_path, 1, name="taste")
    run_search(tmp_path, 1, name="taste-2", problem=small_problem("ab"))
    assert find(tmp_path, 2, name="taste", problem=small_problem(scores="c" * 64)).study == "taste-3"
    assert len(trials_in(tmp_path, "taste-2")) == 1


def test_processes_that_create_a_successor_at_the_same_moment_agree_on_one(tmp_path: Path) -> None:
    run_search(tmp_path, 2)
    identity = {**small_problem().identity, "scores": "c" * 64}
    wanted = Wanted("aesthetic", True, identity, SPACE, weighs_states=False, place="here")

    def begin(_: int) -> str:
        storage = open_storage(f"sqlite:///{tmp_path}/db.sqlite")
        try:
            return open_study(storage, wanted, "").study_name
        finally:
            close_storage(storage)

    with ThreadPoolExecutor(6) as pool:
        assert set(pool.map(begin, range(6))) == {"aesthetic-2"}


def test_an_identity_written_while_the_study_is_examined_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    study = optuna.create_study()
    get_trials = study.get_trials

    def written_first(**options: bool) -> list[FrozenTrial]:
        study.set_user_attr(IDENTITY, {"scores": "c"})
        study.enqueue_trial({"x": 1})
        return get_trials(**options)

    monkeypatch.setattr(study, "get_trials", written_first)
    assert succession._recorded(study) == {"scores": "c"}


def test_a_warning_names_changed_bounds_and_what_to_do(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    run_search(tmp_path, 1)
    run_search(tmp_path, 2)
    assert "bounds" not in caplog.text
    run_search(tmp_path, 3, space=replace(SPACE, train_epochs=Range(3, 3), output_dropout=Range(0, 0.5)))
    assert "--min_train_epochs=3 (was 2), --max_train_epochs=3 (was 6), --max_output_dropout=0.5 (was 0)" in caplog.text
    assert "choose another --name" in caplog.text


def test_every_trial_can_be_repeated_from_its_record(tmp_path: Path) -> None:
    run_search(tmp_path, 4, space=replace(SPACE, dropout=Range(0.3, 0.3)))
    problem = small_problem()
    for trial in trials_in(tmp_path):
        head = retrain(problem, recorded_parameters(trial), trial.user_attrs["seed"])
        assert (head.score, head.epoch) == (trial.value, trial.user_attrs["best_epoch"])
        assert trial.user_attrs["train_ab"] == pytest.approx(problem.measure_all(head)["train_ab"], rel=1e-3)


@pytest.mark.parametrize("sampler", ["CmaEs", "random", "QMC", "TPE", "GP"])
def test_a_seed_makes_the_whole_search_reproducible(tmp_path: Path, sampler: str) -> None:
    values = []
    for name in ("first", "second"):
        run_search(tmp_path, 4, name=name, sampler=sampler, model_seed=3, workers="auto")
        values.append([(trial.params, trial.value) for trial in trials_in(tmp_path, name)])
    assert values[0] == values[1]


def test_a_resumed_search_with_a_seed_draws_new_parameters(tmp_path: Path) -> None:
    run_search(tmp_path, 3, model_seed=3)
    run_search(tmp_path, 6, model_seed=3)
    drawn = [trial.params["log_lr"] for trial in trials_in(tmp_path)]
    assert len(set(drawn)) == 6


def test_heads_trained_side_by_side_record_the_same_metrics_as_alone(tmp_path: Path) -> None:
    run_search(tmp_path, 7, workers="heads:3")
    problem = small_problem("mse")
    trials = trials_in(tmp_path)
    assert states(trials) == ["COMPLETE"] * 7
    for trial in trials:
        assert trial.value is not None
        head = retrain(problem, recorded_parameters(trial), trial.user_attrs["seed"])
        assert trial.user_attrs["eval_mse"] == pytest.approx(problem.measure_all(head)["eval_mse"], rel=0.2)


@pytest.mark.parametrize("workers", ["1", "heads:3"])
@pytest.mark.parametrize("pruner", ["median", "hyperband"])
def test_pruned_trials_count_but_never_win(tmp_path: Path, pruner: str, workers: str) -> None:
    space = replace(SPACE, train_epochs=Range(10, 10), log_lr=Range(-6, -2))
    (best,) = run_search(tmp_path, 24, space=space, pruner=pruner, model_seed=1, workers=workers)
    trials = trials_in(tmp_path)
    assert len(trials) == 24
    assert set(states(trials)) == {"COMPLETE", "PRUNED"}
    assert best.state == TrialState.COMPLETE
    assert best.value == max(trial.value for trial in trials if trial.state == TrialState.COMPLETE)  # type: ignore[type-var]


def folded_problem(n_folds: int = 4) -> Problem:
    """Return the small problem judged by folds."""
    problem = small_problem()
    every = np.arange(len(RAW))
    folds = []
    for index in range(n_folds):
        learnt = torch.from_numpy(every[every % n_folds != index])
        folds.append(Fold(standardise(RAW, SCORES, learnt, device=CPU), every[every % n_folds == index]))
    return replace(
        problem, folds=tuple(folds), judge=replace(problem.judge, rows=dict.fromkeys(problem.judge.rows, every))
    )


@pytest.mark.parametrize("pruner", ["median", "hyperband"])
def test_a_pruner_ends_cross_validated_trials_before_their_last_fold(tmp_path: Path, pruner: str) -> None:
    space = replace(SPACE, train_epochs=Range(10, 10), log_lr=Range(-6, -2))
    (best,) = run_search(tmp_path, 24, space=space, pruner=pruner, model_seed=1, problem=folded_problem())
    trials = trials_in(tmp_path)
    pruned = [trial for trial in trials if trial.state == TrialState.PRUNED]
    assert pruned
    assert {trial.state for trial in trials} == {TrialState.COMPLETE, TrialState.PRUNED}
    assert all(set(trial.intermediate_values) <= {1, 2, 3} for trial in trials)
    assert best.value == max(trial.value for trial in trials if trial.state == TrialState.COMPLETE)  # type: ignore[type-var]
    head = retrain(folded_problem(), recorded_parameters(best), best.user_attrs["seed"])
    assert head.score == best.value, "reporting does not change the result"


def test_a_fold_reports_the_metric_on_the_images_left_out_so_far() -> None:
    problem = folded_problem()
    reported = []

    def note(n_done: int, rows: np.ndarray, outputs: torch.Tensor) -> None:
        reported.append((n_done, rows.tolist(), problem.evaluate_rows(rows, outputs)))

    parameters = suggest(optuna.trial.FixedTrial(vars(FIRST_TRIAL)), SearchSpace(), weighs_states=False)  # type: ignore[arg-type]
    head = train_folds(problem.folds, parameters, problem.goal, seed=3, on_fold=note)
    assert [n_done for n_done, _, _ in reported] == [1, 2, 3, 4]
    assert reported[1][1] == [row for row in range(40) if row % 4 < 2]
    expected = scipy.stats.spearmanr(SCORES[reported[1][1]], head.outputs[reported[1][1], 0]).statistic
    assert reported[1][2] == pytest.approx(expected)
    assert reported[3][2] == pytest.approx(head.score)


def test_a_diverging_trial_fails_with_its_reason_and_the_search_continues(tmp_path: Path) -> None:
    space = replace(SPACE, log_lr=Range(30, 30))
    with pytest.raises(UserError, match="produced a model: the outputs are not finite"):
        run_search(tmp_path, 3, space=space)
    assert [trial.user_attrs["failure"] for trial in trials_in(tmp_path)] == ["the outputs are not finite"] * 3
    run_search(tmp_path, 5)
    assert states(trials_in(tmp_path)) == ["FAIL"] * 3 + ["COMPLETE"] * 2


@dataclass(frozen=True)
class Interrupted(Judge):
    """Raises KeyboardInterrupt when it has measured the metrics of as many heads as `countdown` has entries."""

    countdown: list[int] = field(default_factory=list)

    def measure_all(self, *arguments):
        self.countdown.pop()
        if not self.countdown:
            raise KeyboardInterrupt
        return super().measure_all(*arguments)


def interrupted_after(n_trials: int) -> Problem:
    problem = small_problem()
    judge = Interrupted(problem.judge.scores, problem.judge.rows, 3.0, countdown=[0] * n_trials)
    return replace(problem, judge=judge)


class Undecided(Judge):
    def measure(self, *_) -> float:
        return math.nan


@pytest.mark.parametrize("workers", ["1", "2"])
def test_the_optimism_of_a_search_is_the_same_on_another_run_and_covers_later_trials(
    tmp_path: Path, workers: str
) -> None:
    first = find(tmp_path, 6, workers=workers).optimism
    assert first is not None
    assert first.n_trials == 6
    assert find(tmp_path, 6).optimism == first, "no trial was run"
    more = find(tmp_path, 8, workers=workers)
    assert more.optimism is not None
    assert more.optimism.n_trials == 8
    assert more.optimism.chosen == more.trials[0].value


def test_saved_outputs_are_the_rounded_outputs_of_the_trial(tmp_path: Path) -> None:
    problem = small_problem()
    rows = problem.rows_that_choose
    run_search(tmp_path, 2, problem=problem)
    for trial in trials_in(tmp_path):
        kept = unpack_outputs(trial.system_attrs[OUTPUTS], problem.judge.scores[rows])
        again = retrain(problem, recorded_parameters(trial), int(trial.user_attrs["seed"])).outputs.numpy()[rows]
        assert kept is not None
        torch.testing.assert_close(torch.from_numpy(kept).float(), torch.from_numpy(again), rtol=2e-3, atol=2e-3)
        assert "outputs" not in trial.user_attrs, "the dashboard would show them"


def test_an_undefined_metric_fails_the_trial_with_its_reason(tmp_path: Path) -> None:
    problem = small_problem()
    judge = Undecided(problem.judge.scores, problem.judge.rows, problem.judge.divider)
    with pytest.raises(UserError, match="spearman is undefined for the head's predictions"):
        run_search(tmp_path, 1, problem=replace(problem, judge=judge))
    assert trials_in(tmp_path)[0].state == TrialState.FAIL


def test_an_ensemble_is_the_mean_of_the_best_heads_even_in_a_resumed_study(tmp_path: Path) -> None:
    run_search(tmp_path, 4, ensemble=3)
    best = run_search(tmp_path, 6, ensemble=3)
    trials = trials_in(tmp_path)
    assert [trial.number for trial in best] == sorted(range(6), key=lambda number: -(trials[number].value or 0))[:3]
    heads = [retrain(small_problem(), recorded_parameters(trial), trial.user_attrs["seed"]) for trial in best]
    model = load_model(tmp_path / "model.safetensors")
    expected = predict(average([head.predictor for head in heads]), RAW)
    torch.testing.assert_close(predict(model.predictor, RAW), expected)
    assert model.metadata["trial"] == ",".join(str(trial.number) for trial in best)


def test_linear_models_and_heads_of_all_images_join_an_ensemble_that_is_judged_out_of_fold(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("custom_aesthetic.heads.linear_members.FEWEST_EXPLAINED", -0.1)
    problem = replace(folded_problem(), inputs=RAW)
    made: list[BestModel] = []
    for workers in ("2", "1"):  # the second finds the study complete, and makes the same model again
        (tmp_path / "model.safetensors").unlink(missing_ok=True)
        find(tmp_path, 4, problem=problem, ensemble=3, workers=workers, made=made)
    first, last = made[-1], made[-2]
    assert first.blend == last.blend
    assert first.blend.keys() == {"heads", "ridge"}
    assert sum(first.blend.values()) > 0.5
    model = load_model(tmp_path / "model.safetensors")
    seeds = [trial.user_attrs["seed"] for trial in first.trials]
    heads = [retrain(problem, recorded_parameters(trial), trial.user_attrs["seed"]) for trial in first.trials]
    n_folds, wide = len(problem.folds), clipped_head(WIDE_HEAD, SPACE)
    on_all = [train_on_all(problem.data, wide, problem.goal, seed=seed + n_folds) for seed in seeds]
    out_of_fold = torch.stack([head.outputs[:, 0] for head in heads]).mean(0).double().numpy()
    folds = [fold.rows for fold in problem.folds]
    scores = problem.judge.scores
    share = share_of_all(share_explained(out_of_fold - fold_levels(scores, folds), scores))
    assert 0 < share < 1
    linear = fit_linear_models(RAW.numpy(), problem.judge.scores, np.arange(40))
    weights = first.blend
    both = [predict(average([head.predictor for head in part]), RAW)[:, 0].double() for part in (heads, on_all)]
    expected = weights["heads"] * ((1 - share) * both[0] + share * both[1])
    for name, line in linear.items():
        expected += weights[name] * torch.from_numpy(line.predict(RAW.numpy()))
    said = predict(model.predictor, RAW)[:, 0].double()
    shift = said - expected
    torch.testing.assert_close(shift, shift.mean().expand_as(shift), atol=1e-4, rtol=0)
    assert np.corrcoef(first.outputs[:, 0], SCORES)[0, 1] > 0.75, "one of five features, by closed form"
    # Out of fold: an image's score does not touch what is said of it.
    assert not torch.allclose(first.outputs[:, 0].double(), said, atol=1e-3)


def test_the_linear_models_are_fitted_to_the_answers_that_the_scores_come_from(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    pairs = np.concatenate([generator.permutation(40).reshape(-1, 2) for _ in range(3)])
    first_wins = SCORES.numpy()[pairs[:, 0]] > SCORES.numpy()[pairs[:, 1]]
    winners, losers = np.where(first_wins, pairs.T, pairs[:, ::-1].T)
    answers = Evidence(winners, losers, np.ones(60), np.arange(60), np.ones(60, bool))
    problem = replace(folded_problem(), inputs=RAW)
    made: list[BestModel] = []
    for answered, workers in ((answers, "2"), (answers, "1"), (None, "1")):  # the first makes the study, all the model
        (tmp_path / "model.safetensors").unlink(missing_ok=True)
        find(tmp_path, 2, problem=replace(problem, answers=answered), ensemble=2, workers=workers, made=made)
    by_answers, again, by_scores = (predict(model.predictor, RAW)[:, 0] for model in [made[-3], made[-2], made[-1]])
    torch.testing.assert_close(by_answers, again, rtol=0, atol=0)
    assert (by_answers - by_scores).abs().max() > 1e-3
    assert np.corrcoef(made[-2].outputs[:, 0], SCORES)[0, 1] > 0.7


@pytest.mark.parametrize("n_heads", [1, 2])
def test_heads_alone_lack_the_levels_of_the_folds_as_the_simple_methods_beside_them(
    tmp_path: Path, n_heads: int
) -> None:
    problem = folded_problem()
    made: list[BestModel] = []
    find(tmp_path, 3, problem=problem, ensemble=n_heads, made=made)
    model = made[-1]
    heads = [retrain(problem, recorded_parameters(trial), trial.user_attrs["seed"]) for trial in model.trials]
    every = np.arange(40)
    folds = [(np.setdiff1d(every, fold.left_out), fold.left_out) for fold in problem.folds]
    expected = torch.stack([head.outputs[:, 0] for head in heads]).mean(0) - torch.from_numpy(
        fold_levels(SCORES.double().numpy(), folds)
    )
    torch.testing.assert_close(model.outputs[:, 0].double(), expected, atol=1e-5, rtol=0)
    measured = scipy.stats.spearmanr(SCORES, model.outputs[:, 0]).statistic
    assert model.metrics["eval_spearman"] == pytest.approx(measured)


@pytest.mark.parametrize(
    "problem",
    [
        replace(small_problem(), inputs=RAW),
        small_problem(loss_model="ab"),
    ],
    ids=["no folds", "another loss"],
)
def test_heads_stay_alone_where_linear_models_cannot_join(tmp_path: Path, problem: Problem) -> None:
    made: list[BestModel] = []
    find(tmp_path, 2, problem=problem, ensemble=2, made=made)
    assert made[-1].blend == {}


def test_the_best_model_is_written_as_soon_as_its_trial_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[str] = []

    def note(message: str, *arguments: object) -> None:
        best = max(trials_in(tmp_path), key=lambda trial: trial.value if trial.value is not None else -9)
        written.append(load_model(tmp_path / "model.safetensors").metadata["trial"])
        assert written[-1] == str(best.number)

    monkeypatch.setattr("custom_aesthetic.base.progress.log.info", note)
    run_search(tmp_path, 5)
    assert len(written) == 5


def test_ctrl_c_leaves_the_best_model_and_no_running_trial(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = iter(range(1000))
    evaluate = Judge.measure

    def interrupted(*arguments: object) -> float:
        if next(calls) == 60:
            raise KeyboardInterrupt
        return evaluate(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(Judge, "measure", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run_search(tmp_path, 50)
    assert "RUNNING" not in states(trials_in(tmp_path))
    assert load_model(tmp_path / "model.safetensors").metadata["trial"]


@pytest.mark.skipif(sys.platform == "win32", reason="a process can only send itself signals on POSIX systems")
@pytest.mark.parametrize("moment", ["after ask", "after tell"])
def test_ctrl_c_between_two_steps_of_a_trial_leaves_no_running_trial(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    owner, name = {"after ask": (study_module, "_ask"), "after tell": (optuna.Study, "tell")}[moment]
    step = getattr(owner, name)
    calls = iter(range(1000))

    def then_ctrl_c(*arguments: object, **options: object) -> object:
        result = step(*arguments, **options)
        if next(calls) == 2:
            os.kill(os.getpid(), signal.SIGINT)
        return result

    monkeypatch.setattr(owner, name, then_ctrl_c)
    with pytest.raises(KeyboardInterrupt):
        run_search(tmp_path, 50)
    trials = trials_in(tmp_path)
    assert states(trials) == (["COMPLETE"] * 3 if moment == "after tell" else ["COMPLETE", "COMPLETE", "FAIL"])
    best = max((trial for trial in trials if trial.value is not None), key=lambda trial: trial.value or 0.0)
    assert load_model(tmp_path / "model.safetensors").metadata["trial"] == str(best.number)


def test_the_dashboard_describes_the_study_and_marks_the_trial_in_the_model_file(tmp_path: Path) -> None:
    (best,) = run_search(tmp_path, 2, note="Pictures in `images`")
    storage = open_storage(f"sqlite:///{tmp_path}/db.sqlite")
    study = optuna.load_study(study_name="aesthetic", storage=storage)
    assert study.user_attrs["arguments"] == ["--trials=3"]
    notes = get_study_notes(study)
    assert notes[""] == "Pictures in `images`"
    assert notes[f"{best._trial_id}:"] == f"In the model file `{tmp_path / 'model.safetensors'}`"
    numbers = best.user_attrs
    assert {"eval_spearman", "train_mse", "full_ab", "best_epoch", "seconds", "seed"} <= set(numbers)
    assert all(isinstance(value, int | float) for name, value in numbers.items() if name != "process")
    metrics = {name: value for name, value in numbers.items() if name.startswith(("eval_", "full_"))}
    assert {name: float(f"{value:.4g}") for name, value in metrics.items()} == metrics, "four digits are enough to read"
    close_storage(storage)


def test_the_note_of_a_finished_study_begins_with_the_verdict(tmp_path: Path) -> None:
    run_search(tmp_path, 1, note="Pictures in `images`")
    storage = open_storage(f"sqlite:///{tmp_path}/db.sqlite")
    study = optuna.load_study(study_name="aesthetic", storage=storage)
    for verdict in ("Right for 70 of 100 pairs.", "Right for 80 of 100 pairs."):
        with kept_texts(study) as texts:
            begin_note(study, texts, verdict)
        assert get_study_notes(study)[""] == f"{verdict}\n\nPictures in `images`"
    close_storage(storage)
    run_search(tmp_path, 2, note="Pictures in `others`")
    storage = open_storage(f"sqlite:///{tmp_path}/db.sqlite")
    study = optuna.load_study(study_name="aesthetic", storage=storage)
    assert get_study_notes(study)[""] == "Pictures in `others`"
    with kept_texts(study) as texts:
        begin_note(study, texts, "Right for 80 of 100 pairs.")
    assert get_study_notes(study)[""] == "Right for 80 of 100 pairs.\n\nPictures in `others`"
    close_storage(storage)


def get_study_notes(study: optuna.Study) -> dict[str, str]:
    """Return the dashboard's notes: "" -> that of the study, a trial's id and a colon -> that of the trial."""
    attributes = study._storage.get_study_system_attrs(study._study_id)
    pattern = re.compile(r"dashboard:(\d*:?)note_str:")
    return {found[1]: str(value) for name, value in attributes.items() if (found := pattern.match(name))}


def test_a_costly_trial_is_described_with_its_time(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    space = replace(SPACE, train_epochs=Range(5, 10**7), batch_size=Range(1, 8))
    from custom_aesthetic.search.cost import costly_trial

    words = costly_trial(small_problem(), space)
    assert words is not None
    assert "batch size 1 and 10000000 epochs of 30 training images takes up to" in words
    assert costly_trial(small_problem(), SPACE) is None


def test_auto_means_one_worker_per_core_or_many_heads_on_an_accelerator() -> None:
    assert divide_work("auto", CPU)[1] == 1
    assert divide_work("auto", CPU, seeded=True) == (1, 1)
    assert divide_work("3", CPU) == (3, 1)
    assert divide_work("heads:5", CPU) == (1, 5)
    assert divide_work("auto", torch.device("cuda")) == (1, 16)
    for wrong in ("0", "-1", "many", "heads:0", "heads:", "2.5"):
        with pytest.raises(UserError, match="choose one of them"):
            divide_work(wrong, CPU)


@pytest.mark.parametrize(("alone", "stacked", "is_cpu"), [(300.0, 1000.0, False), (700.0, 1000.0, True)])
def test_auto_on_an_accelerator_takes_the_cores_where_they_train_faster(
    alone: float,
    stacked: float,
    is_cpu: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO", logger="custom_aesthetic")
    rates = {1: alone, 4: stacked}
    monkeypatch.setattr(
        "custom_aesthetic.search.cost.head_steps_a_second", lambda problem, space, n_heads: rates[n_heads]
    )
    monkeypatch.setattr("custom_aesthetic.search.run.divide_work", lambda *_, **__: (1, 4))
    monkeypatch.setattr("custom_aesthetic.search.run.n_cores", lambda: 2)
    started: list[int] = []
    run = Workers.run

    def noted(self: Workers, n_workers: int, *arguments: Any) -> None:
        started.append(n_workers)
        run(self, n_workers, *arguments)

    monkeypatch.setattr(Workers, "run", noted)
    run_search(tmp_path, 5, workers="auto")
    assert started == ([2] if is_cpu else [])
    assert f"{2 * alone:.0f} training steps a second by 2 workers on the CPU, and 1000 by 4 heads" in caplog.text
    assert states(trials_in(tmp_path)) == ["COMPLETE"] * 5


def test_how_fast_heads_train_alone_and_side_by_side_is_measured_on_the_data(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("custom_aesthetic.search.cost.SECONDS_MEASURED", 0.05)
    for n_heads in (1, 3):
        assert 1 < head_steps_a_second(small_problem(), SPACE, n_heads) < 10**7


def test_a_search_space_without_ranges_runs_one_configuration(tmp_path: Path) -> None:
    points = {
        name: Range(bounds.low, bounds.low) for name, bounds in vars(replace(SPACE, log_lr=Range(-2, -2))).items()
    }
    run_search(tmp_path, 2, space=SearchSpace(**points))
    assert [trial.params for trial in trials_in(tmp_path)] == [{}, {}]
