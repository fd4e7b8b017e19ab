"""The training that the page starts: what is read of its output, how it is stopped, and that it dies with the page."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from custom_aesthetic.commands.page_gallery import RECOMMENDED, ready_made_commands, training_options
from custom_aesthetic.commands.score_pairs import open_session
from custom_aesthetic.gallery import learner as learner_module
from custom_aesthetic.gallery import training as training_module
from custom_aesthetic.gallery.jobs import ChildJob
from custom_aesthetic.gallery.learner import FeatureSource, Learner
from custom_aesthetic.gallery.training import Call, Training, share_done, step_of, verdict_of
from custom_aesthetic.labelling.plan import BadRequest
from custom_aesthetic.settings.arguments import parse_arguments
from custom_aesthetic.settings.scorers import ABArguments, ComparisonSettings
from tests.conftest import ROOT

TOLD = [
    *("240 scored images: 240 in 4 folds", "features of efficientnet-lite2: 134 of 240 pictures done", ""),
    "trial 9: 0.4248, best 0.4105 (trial 8), 9 of 20, 5 min left",
]
SLEEPER = "tests.gallery.sleeper"


def test_the_recommended_training_is_that_of_the_arguments_file():
    lines = (ROOT / "arguments-recommended.txt").read_text(encoding="utf-8").splitlines()
    given = [line for line in lines if line.startswith("-")]
    assert sorted(given) == sorted(["-d=images", "--report=report.html", *RECOMMENDED])


def test_the_training_learns_from_the_features_and_scores_that_the_page_was_started_with():
    options = training_options(FeatureSource(Path(), "some/clip"), ComparisonSettings(scores="mine.json"))
    assert "--feature_extractor_model=some/clip" in options
    assert "--scores=mine.json" in options
    assert "--name=recommended-some-clip" in options, "a study has the same features throughout"
    train = ready_made_commands(Path("a b"), FeatureSource(Path(), "some/clip"), ComparisonSettings())[0]
    assert train.endswith(" --feature_extractor_model=some/clip --name=recommended-some-clip")
    assert "--name=recommended" in training_options(FeatureSource(Path()), ComparisonSettings())


def test_a_criterion_is_trained_on_its_own_scores_into_a_study_and_a_model_of_its_own():
    images, source = ComparisonSettings(criterion="sharpness"), FeatureSource(Path("a b"))
    options = training_options(source, images)
    for option in (
        *("--scores=scores-sharpness.json", "--name=recommended-sharpness", "--model=model-sharpness.safetensors"),
        "--savefile=model_scores-sharpness.csv",
    ):
        assert option in options
        assert [one.partition("=")[0] for one in options].count(option.partition("=")[0]) == 1
    train, analyse, score = ready_made_commands(Path("a b"), source, images)
    assert "--scores=scores-sharpness.json --name=recommended-sharpness" in train
    assert "-m model-sharpness.safetensors --scores=scores-sharpness.json --report report-sharpness.html" in analyse
    assert "-m 'a b/model-sharpness.safetensors'" in score


def test_progress_is_read_from_the_last_line_that_tells_it():
    assert share_done([]) is None
    assert share_done(TOLD[:2]) == pytest.approx(0.3 * 134 / 240)
    assert share_done([*TOLD, "something else"]) == pytest.approx(0.3 + 0.7 * 9 / 20)
    assert step_of(TOLD) == "Trial 9 of 20, 5 min left"
    assert step_of(TOLD[:2]) == "Features: 134 of 240 pictures"
    assert step_of([]) == "Starting"


def test_the_verdict_stands_between_the_last_two_empty_lines():
    assert verdict_of([*TOLD, "", "76 times in 100.", "", "Out of fold : 240"]) == ["76 times in 100."]
    assert verdict_of(["no verdict"]) == []


def training_of(tmp_path: Path, *arguments: str, seen: list) -> Training:
    return Training(
        Call(SLEEPER, arguments),
        Call(SLEEPER, ("0", str(tmp_path / "scores"))),
        model=tmp_path / "model.safetensors",
        report=tmp_path / "report.html",
        scores=tmp_path / "scores",
        before=lambda: seen.append("saved"),
        on_scores=lambda file: seen.append(file.name),
    )


def wait_for(condition, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.mark.slow
def test_a_training_saves_the_scores_first_and_ends_with_verdict_report_and_new_scores(tmp_path):
    seen: list = []
    training = training_of(tmp_path, "0", str(tmp_path / "report.html"), seen=seen)
    training.start()
    wait_for(lambda: len(seen) == 2)
    assert seen == ["saved", "scores"]
    told = training.status()
    assert (told["state"], told["verdict"], told["report"]) == ("done", ["76 times in 100."], True)


@pytest.mark.slow
def test_a_training_can_be_stopped_and_started_again_but_not_twice_at_once(tmp_path):
    training = training_of(tmp_path, "100", str(tmp_path / "report.html"), seen=[])
    training.start()
    wait_for(lambda: "asleep" in training.status()["lines"])
    with pytest.raises(BadRequest, match="is running already"):
        training.start()
    training.cancel()
    wait_for(lambda: training.status()["state"] == "cancelled")
    training.start()
    assert training.status()["state"] == "running"
    training.stop()


@pytest.mark.slow
def test_a_failed_training_shows_its_last_lines(tmp_path):
    training = training_of(tmp_path, "fail", seen=[])
    training.start()
    wait_for(lambda: training.status()["state"] == "failed")
    assert "cannot sleep" in "\n".join(training.status()["lines"])


@pytest.mark.slow
def test_the_report_of_an_earlier_training_stays_but_is_not_shown_as_that_of_one_that_failed(tmp_path):
    report = tmp_path / "report.html"
    report.write_text("of an earlier training")
    training = training_of(tmp_path, "fail", seen=[])
    assert training.status()["report"]
    training.start()
    wait_for(lambda: training.status()["state"] == "failed")
    assert report.read_text() == "of an earlier training"
    assert not training.status()["report"]


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_the_work_ends_when_the_page_is_killed(tmp_path):
    file = tmp_path / "process"
    code = (
        "import sys, time; from custom_aesthetic.gallery.jobs import ChildJob; "
        f"ChildJob({SLEEPER!r}, ['100', {str(file)!r}], on_line=lambda line: None); time.sleep(100)"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT)])}
    page = subprocess.Popen([sys.executable, "-c", code], env=environment, cwd=ROOT)
    wait_for(lambda: file.exists() and file.read_text().strip() != "")
    work = int(file.read_text())
    os.kill(work, 0)
    page.send_signal(signal.SIGKILL)
    page.wait()

    def has_ended() -> bool:
        try:
            return Path(f"/proc/{work}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
        except OSError:
            return True

    wait_for(has_ended)


@pytest.mark.slow
def test_a_killed_job_ends_at_once_and_says_so():
    ended: list = []
    job = ChildJob(SLEEPER, ["100"], on_line=lambda line: None, on_end=ended.append)
    job.kill()
    wait_for(lambda: bool(ended))
    assert job.is_cancelled and not job.is_running() and ended[0] != 0


def test_a_job_that_has_ended_signals_nobody_as_its_number_may_be_another_process(monkeypatch):
    ended: list = []
    job = ChildJob(SLEEPER, ["0"], on_line=lambda line: None, on_end=ended.append)
    wait_for(lambda: bool(ended))
    signals: list = []
    monkeypatch.setattr(os, "killpg", lambda *what: signals.append(what), raising=False)
    job.kill()
    assert signals == []


class FakeJob:
    """A job whose lines and end come when the test wants it."""

    def __init__(self, module, arguments, *, on_line, on_end, **options) -> None:
        self.module, self.on_line, self.on_end = module, on_line, on_end
        self.is_cancelled, self.is_there = False, True

    def kill(self) -> None:
        self.is_cancelled = True

    cancel = kill

    def is_running(self) -> bool:
        return self.is_there

    def send(self, line: str) -> None:
        pass


def refuse(*arguments, **options):
    raise OSError(11, "Resource temporarily unavailable")


def test_a_training_that_cannot_be_started_has_failed_and_can_be_tried_again(monkeypatch, tmp_path):
    training = training_of(tmp_path, seen=[])
    monkeypatch.setattr(training_module, "ChildJob", refuse)
    training.start()
    told = training.status()
    assert (told["state"], told["lines"]) == (
        "failed",
        ["the training cannot be started: Resource temporarily unavailable"],
    )
    assert training.outcome() == ["the training ended with an error:", *told["lines"]]
    monkeypatch.setattr(training_module, "ChildJob", FakeJob)
    training.start()
    assert training.status()["state"] == "running"


def test_a_training_that_has_just_ended_when_it_is_stopped_is_done_and_its_pictures_are_scored(monkeypatch, tmp_path):
    monkeypatch.setattr(training_module, "ChildJob", FakeJob)
    seen: list = []
    training = training_of(tmp_path, seen=seen)
    training.start()
    training.cancel()
    training._job.on_end(0)
    assert training.status()["state"] == "done"
    training.cancel()  # a second press: nothing is left to stop but the scoring
    assert not training._job.is_cancelled
    training._job.on_end(0)
    assert seen == ["saved", "scores"] and not training.status()["scoring"]


def test_nothing_is_scored_after_the_page_has_ended(monkeypatch, tmp_path):
    monkeypatch.setattr(training_module, "ChildJob", FakeJob)
    training = training_of(tmp_path, seen=[])
    training.start()
    job = training._job
    training.stop()
    job.on_end(0)
    assert training._job is job


def test_the_terminal_says_how_good_the_model_is_and_where_or_why_there_is_none(monkeypatch, tmp_path):
    monkeypatch.setattr(training_module, "ChildJob", FakeJob)
    training = training_of(tmp_path, seen=[])
    assert training.outcome() == []
    training.start()
    assert "the next one goes on" in training.outcome()[0]
    for line in (*TOLD, "", "76 times in 100.", "", "Out of fold : 240"):
        training._job.on_line(line)
    training._job.on_end(0)
    assert training.outcome() == ["76 times in 100.", f"the trained model is in {tmp_path / 'model.safetensors'}"]


def begun(pictures: Path) -> Learner:
    arguments, _ = parse_arguments(ABArguments, ["-d", str(pictures)], description="")
    learner = Learner(open_session(arguments), FeatureSource(pictures))
    learner.begin()
    return learner


def test_a_model_whose_process_dies_says_so_and_begins_again(monkeypatch, colour_pictures):
    monkeypatch.setattr(learner_module, "ChildJob", FakeJob)
    monkeypatch.setattr(learner_module, "NAP_SECONDS", 0.01)
    learner = begun(colour_pictures)
    basis = np.random.default_rng(0).normal(size=(24, 3))
    np.savez(learner.folder / "basis.npz", paths=json.dumps(learner.session.plan.paths), basis=basis)
    learner._feature_job.on_line('{"basis": true}')
    assert learner.status()["state"] == "learning"
    learner._model_job.is_there = False
    wait_for(lambda: learner.status()["state"] == "failed")
    assert "its process has ended" in learner.status()["reason"]
    learner.extract()
    learner._feature_job.on_line('{"basis": true}')
    assert (learner.status()["state"], learner._model_job.is_there) == ("learning", True)
    learner.stop()


def test_features_that_no_process_can_be_started_for_can_be_tried_again(monkeypatch, colour_pictures):
    monkeypatch.setattr(learner_module, "ChildJob", refuse)
    learner = begun(colour_pictures)
    assert (learner.status()["state"], "no process" in learner.status()["reason"]) == ("failed", True)
    monkeypatch.setattr(learner_module, "ChildJob", FakeJob)
    learner.extract()
    assert learner.status()["state"] == "extracting"
    learner.stop()


def test_a_look_for_features_that_breaks_down_does_not_ask_for_the_features_of_no_pictures(
    monkeypatch, colour_pictures
):
    monkeypatch.setattr(learner_module, "ChildJob", FakeJob)
    learner = begun(colour_pictures)
    learner._feature_job.on_end(1)
    told = learner.status()
    assert (told["state"], told["reason"]) == ("failed", "the process that computes features ended with status 1")
    learner.stop()


def test_features_that_are_stopped_and_begun_again_do_not_fail_by_the_end_of_the_first_job(
    monkeypatch, colour_pictures
):
    monkeypatch.setattr(learner_module, "ChildJob", FakeJob)
    learner = begun(colour_pictures)
    learner._feature_job.on_end(0)
    learner.extract()
    first = learner._feature_job
    learner.cancel()
    assert learner.status()["state"] == "asking"
    learner.extract()
    first.on_line('{"done": 7}')
    first.on_end(-9)
    assert (learner.status()["state"], learner.status()["done"]) == ("extracting", 0)
    learner.stop()
