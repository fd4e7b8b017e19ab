"""A labelling session without its page: choices, undo, scores, restarts, two at once."""

import itertools
import json
import os
import re
import shutil
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from custom_aesthetic.base.errors import UserError
from custom_aesthetic.commands.score_pairs import describe, open_session, score_by_comparisons
from custom_aesthetic.labelling.plan import BadRequest
from custom_aesthetic.labelling.session import Session
from custom_aesthetic.scores.choice_log import ComparisonLog
from custom_aesthetic.scores.score_files import read_scores
from custom_aesthetic.settings.arguments import parse_arguments
from custom_aesthetic.settings.scorers import ABArguments
from tests.mean_colour import MeanColour
from tests.pictures.test_judgements import with_properties
from tests.pictures.test_xmp import ATTRIBUTE
from tests.scripts.test_scorer import redness_model


def session_of(directory: Path, *options: str) -> Session:
    arguments, _ = parse_arguments(ABArguments, ["-d", str(directory), *options], description="")
    return open_session(arguments)


def seeded(session: Session) -> Session:
    """The same session, drawing the same pairs each time."""
    return Session(session.plan, session.files, ComparisonLog(session.files.log), seed=0)


def number_of(path: str) -> int:
    return int(Path(path).stem)


def choose_redder(session: Session, n_choices: int) -> list[tuple[str, str]]:
    """Choose the picture with the higher number; return (winner, loser)."""
    made = []
    for _ in range(n_choices):
        group = session.group()
        winner, *losers = sorted(group["pictures"], key=number_of, reverse=True)
        session.choose(group["pictures"], winner, seconds=1.0, drawn=group["drawn"], time=None)
        made += [(winner, loser) for loser in losers]
    return made


def test_the_log_contains_the_choices_and_the_scores_follow_them(colour_pictures):
    session = session_of(colour_pictures)
    made = choose_redder(session, 200)
    session.scores.update()
    log = ComparisonLog(colour_pictures / "comparisons.csv")
    assert [(row.winner, row.loser) for row in log.rows] == made
    table = read_scores(colour_pictures / "scores.csv")
    by_score = [number_of(path) for _, path in sorted(zip(table.scores, table.paths, strict=True))]
    assert np.abs(np.array(by_score) - np.arange(24)).mean() < 1.5
    assert sum(table.columns["comparisons"]) == 400
    assert read_scores(colour_pictures / "scores.json").scores == table.scores


def test_scores_are_recomputed_from_the_log_alone(colour_pictures):
    session = session_of(colour_pictures)
    choose_redder(session, 30)
    session.scores.update()
    before = read_scores(colour_pictures / "scores.json").columns
    (colour_pictures / "scores.json").unlink()
    (colour_pictures / "scores.csv").unlink()
    session_of(colour_pictures).scores.update()
    after = read_scores(colour_pictures / "scores.json").columns
    for name in ("score", "score_sigma", "comparisons", "weight"):
        np.testing.assert_allclose(after[name], before[name], atol=2e-4)


def test_a_choice_among_four_is_three_comparisons(colour_pictures):
    session = session_of(colour_pictures, "--number_to_compare=4")
    assert len(choose_redder(session, 5)) == 15
    assert session.progress()["choices"] == 5
    assert len(ComparisonLog(colour_pictures / "comparisons.csv").rows) == 15


def test_undo_removes_the_given_choice_or_the_last(colour_pictures):
    session = session_of(colour_pictures)
    group = session.group()["pictures"]
    first = session.choose(group, group[0], seconds=1, drawn="random", time=None)
    other = session.group()["pictures"]
    session.choose(other, other[1], seconds=1, drawn="random", time=None)
    assert set(session.undo(first)["pictures"]) == set(group)
    assert set(session.undo(None)["pictures"]) == set(other)
    assert session.undo(None) is None
    session.scores.update()
    assert session.progress()["choices"] == 0
    assert session.progress()["seen"] == 0


def test_the_same_choice_sent_twice_counts_once_even_after_a_restart(colour_pictures):
    session = session_of(colour_pictures)
    pictures, time_of_choice = session.group()["pictures"], "2026-01-01T00:00:00.000001+00:00"
    for each in (session, session, session_of(colour_pictures)):
        each.choose(pictures, pictures[0], seconds=1, drawn="random", time=time_of_choice)
    assert len(ComparisonLog(colour_pictures / "comparisons.csv").rows) == 1


def test_two_sessions_at_once_share_one_log(colour_pictures):
    left, right = session_of(colour_pictures), session_of(colour_pictures)
    made = [*choose_redder(left, 10), *choose_redder(right, 10), *choose_redder(left, 10)]
    left.scores.update()
    right.scores.update()
    assert left.progress()["choices"] == right.progress()["choices"] == 30
    np.testing.assert_allclose(left.scores.standing.scores, right.scores.standing.scores, atol=1e-4)
    log = ComparisonLog(colour_pictures / "comparisons.csv")
    assert sorted((row.winner, row.loser) for row in log.choices()) == sorted(made)


@pytest.mark.parametrize(
    "pictures, winner",
    [
        (["warm/01.png", "warm/01.png"], "warm/01.png"),
        (["warm/01.png", "../secret.png"], "warm/01.png"),
        (["warm/01.png", "warm/03.png"], "cold/00.png"),
        (["warm/01.png"], "warm/01.png"),
    ],
)
def test_an_invalid_choice_is_refused_and_not_logged(colour_pictures, pictures, winner):
    session = session_of(colour_pictures)
    with pytest.raises(BadRequest):
        session.choose(pictures, winner, seconds=1, drawn="random", time=None)
    assert not (colour_pictures / "comparisons.csv").exists()


@pytest.mark.parametrize("seed", range(20))
def test_the_group_on_screen_is_never_drawn_again_next_even_after_a_broken_picture(colour_pictures, seed):
    for path in sorted(colour_pictures.rglob("*.png"))[4:]:
        path.unlink()
    session = session_of(colour_pictures, "--strategy=random")
    session._drawing.generator = np.random.default_rng(seed)
    broken, on_screen = "cold/00.png", []
    for _ in range(20):
        pictures = session.group()["pictures"]
        if broken in pictures:
            session.leave_out(broken, "truncated")
        else:
            on_screen.append(frozenset(pictures))
    assert all(now != before for before, now in itertools.pairwise(on_screen))


def test_a_picture_that_cannot_be_read_is_not_shown_again(colour_pictures):
    session = session_of(colour_pictures, "--strategy=random")
    session.leave_out("cold/00.png", "truncated")
    shown = {path for _ in range(200) for path in session.group()["pictures"]}
    assert len(shown) == 23
    assert "cold/00.png" not in shown


def test_the_same_pair_is_never_drawn_twice_in_a_row(colour_pictures):
    for path in sorted(colour_pictures.rglob("*.png"))[3:]:
        path.unlink()
    session = session_of(colour_pictures)
    groups = [frozenset(session.group()["pictures"]) for _ in range(40)]
    assert all(one != following for one, following in itertools.pairwise(groups))


def test_pictures_without_an_answer_yet_are_rarely_drawn_again(colour_pictures):
    session = session_of(colour_pictures)
    adaptive = [
        set(group["pictures"]) for group in (session.group() for _ in range(150)) if group["drawn"] == "adaptive"
    ]
    repeats = [bool(one & following) for one, following in itertools.pairwise(adaptive)]
    assert np.mean(repeats) < 0.05


def test_earlier_scores_are_the_start_and_are_kept_as_a_backup(colour_pictures):
    elo = {
        f"{'warm' if number % 2 else 'cold'}/{number:02}.png": {"score": number / 10, "comparisons": 4, "note": "mine"}
        for number in range(20)
    }
    records = {path: {"relative_filepath": path, **record} for path, record in elo.items()}
    original = json.dumps({"ImageRecords": records, "Metadata": {}})
    (colour_pictures / "scores.json").write_text(original, encoding="utf-8")
    session = session_of(colour_pictures)
    session.scores.update()
    assert (colour_pictures / "scores.start.json").read_text(encoding="utf-8") == original
    untouched = read_scores(colour_pictures / "scores.json")
    np.testing.assert_allclose(untouched.scores, [elo[path]["score"] for path in untouched.paths], atol=1e-4)
    assert set(untouched.columns["comparisons"]) == {4.0}
    assert set(untouched.columns["note"]) == {"mine"}
    group = ["cold/00.png", "warm/19.png"]
    session.choose(group, "cold/00.png", seconds=1, drawn="random", time=None)
    again = session_of(colour_pictures)
    again.scores.update()
    table = read_scores(colour_pictures / "scores.json")
    scores = dict(zip(table.paths, table.scores, strict=True))
    assert scores["cold/00.png"] > 0.1
    assert scores["warm/19.png"] < 1.8
    assert dict(zip(table.paths, table.columns["comparisons"], strict=True))["cold/00.png"] == 5
    assert sorted(path.name for path in colour_pictures.glob("scores.*")) == [
        "scores.csv",
        "scores.json",
        "scores.start.json",
    ]


def test_scores_that_another_program_wrote_later_become_the_new_start(colour_pictures):
    (colour_pictures / "scores.csv").write_text("relative_path,score\ncold/00.png,1\nwarm/01.png,5\n", encoding="utf-8")
    session = session_of(colour_pictures)
    choose_redder(session, 3)
    session.scores.update()
    (colour_pictures / "scores.csv").write_text("relative_path,score\ncold/00.png,7\nwarm/01.png,2\n", encoding="utf-8")
    (colour_pictures / "scores.json").unlink()
    again = session_of(colour_pictures)
    assert again.files.start.scores == [7.0, 2.0]
    assert (colour_pictures / "scores.start.csv").exists()
    assert (colour_pictures / "scores.start2.csv").exists()


def test_comparisons_with_deleted_pictures_still_count_for_the_others(colour_pictures):
    session = session_of(colour_pictures)
    for number in range(2, 12, 2):
        session.choose([f"cold/{number:02}.png", "cold/00.png"], "cold/00.png", seconds=1, drawn="random", time=None)
    (colour_pictures / "cold" / "04.png").unlink()
    again = session_of(colour_pictures)
    again.scores.update()
    table = read_scores(colour_pictures / "scores.csv")
    assert table.paths[int(np.argmax(table.scores))] == "cold/00.png"
    assert dict(zip(table.paths, table.columns["comparisons"], strict=True))["cold/00.png"] == 5
    assert not any("cold/04.png" in again.group()["pictures"] for _ in range(50))


def test_stars_are_a_starting_point(colour_pictures):
    for number in range(12):
        sidecar = colour_pictures / ("warm" if number % 2 else "cold") / f"{number:02}.png.xmp"
        sidecar.write_bytes(ATTRIBUTE % (1 + number // 3))
    plan = session_of(colour_pictures, "--from_xmp").plan
    mean = dict(zip(plan.paths, plan.prior.mean, strict=True))
    assert mean["cold/00.png"] < mean["cold/04.png"] < mean["warm/11.png"]
    assert mean["cold/20.png"] == 0
    assert (session_of(colour_pictures).plan.prior.mean == 0).all()


def test_what_was_picked_starts_above_what_was_rejected_and_the_choices_have_the_last_word(colour_pictures, caplog):
    caplog.set_level("INFO")
    for name, flag in (("cold/00.png", "True"), ("warm/01.png", "False"), ("cold/02.png", "True")):
        (colour_pictures / f"{name}.xmp").write_bytes(with_properties(**{"xmpDM:good": flag}))
    session = session_of(colour_pictures, "--from_xmp")
    assert "flags: 2 picked, 0 pending, 1 rejected" in caplog.text
    mean = dict(zip(session.plan.paths, session.plan.prior.mean, strict=True))
    assert mean["warm/01.png"] < mean["cold/04.png"] < mean["cold/00.png"] == mean["cold/02.png"]
    assert session.progress()["choices"] == 0
    for _ in range(12):
        session.choose(["cold/00.png", "warm/01.png"], "warm/01.png", seconds=1, drawn="random", time=None)
    session.scores.update()
    scores = dict(zip(session.plan.paths, session.scores.standing.scores, strict=True))
    assert scores["warm/01.png"] > scores["cold/00.png"]


def test_features_give_pictures_that_were_never_shown_a_first_guess(colour_pictures, monkeypatch):
    monkeypatch.setattr("custom_aesthetic.extractors.build_extractors", lambda *_: [MeanColour()])
    session = session_of(colour_pictures, "--feature_extractor_model=mean-colour")
    rows = {path: row for row, path in enumerate(session.plan.paths)}
    shown = [path for path in session.plan.paths if number_of(path) % 3]
    generator = np.random.default_rng(0)
    for _ in range(150):
        pair = [str(path) for path in generator.choice(shown, 2, replace=False)]
        session.choose(pair, max(pair, key=number_of), seconds=1, drawn="random", time=None)
    session.scores.update()
    never = [path for path in session.plan.paths if number_of(path) % 3 == 0]
    scores = [session.scores.standing.scores[rows[path]] for path in sorted(never, key=number_of)]
    assert np.corrcoef(scores, np.arange(len(scores)))[0, 1] > 0.7
    assert set(read_scores(colour_pictures / "scores.csv").paths) == set(shown)


def test_random_choices_are_not_called_a_good_order(colour_pictures):
    session, generator = seeded(session_of(colour_pictures)), np.random.default_rng(0)
    for _ in range(200):
        group = session.group()
        winner = str(generator.choice(group["pictures"]))
        session.choose(group["pictures"], winner, seconds=1, drawn=group["drawn"], time=None)
    found = session.summary()
    assert found["predicted"][0] < 0.65


def test_no_figures_are_shown_before_twenty_choices_or_without_an_update(colour_pictures):
    session = session_of(colour_pictures)
    choose_redder(session, 19)
    early = session.summary()
    assert early["choices_to_go"] == 1
    assert early["order_right"] is early["predicted"] is None
    assert "give 1 more answer to see" in describe(session)
    choose_redder(session, 1)
    found = session.summary()
    assert found["choices_to_go"] == 0
    for name in ("order_right", "predicted"):
        value, low, high = found[name]
        assert low <= value <= high
    assert re.search(r"the scores put the right one first in \d+ % \(\d+ to \d+ %\)", describe(session))
    session.undo(None)
    assert session.progress()["order_right"] is None


def test_a_model_gives_the_first_guess(colour_pictures, tmp_path, monkeypatch):
    monkeypatch.setattr("custom_aesthetic.heads.prediction.build_extractors", lambda *_: [MeanColour()])
    model = redness_model(tmp_path / "red.safetensors")
    session = session_of(colour_pictures, f"--model={model}")
    mean = dict(zip(session.plan.paths, session.plan.prior.mean, strict=True))
    by_number = [mean[path] for path in sorted(mean, key=number_of)]
    assert by_number == sorted(by_number)
    assert by_number[0] < -1 < 1 < by_number[-1]
    assert session.plan.prior.basis is not None


def test_the_order_improves_with_every_few_choices(colour_pictures):
    session, found = seeded(session_of(colour_pictures)), []
    for _ in range(6):
        choose_redder(session, 20)
        session.scores.update()
        found.append(session.progress()["order_right"][0])
    assert found == sorted(found)
    assert found[-1] > found[0] + 0.1
    assert session.progress()["pace"] == 1.0


def test_the_background_keeps_the_score_file_up_to_date_and_stopping_completes_it(colour_pictures):
    session = session_of(colour_pictures)
    session.scores.start()
    choose_redder(session, 5)
    deadline = time.monotonic() + 10
    while not (colour_pictures / "scores.csv").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert (colour_pictures / "scores.csv").exists()
    choose_redder(session, 20)
    session.scores.stop()
    assert sum(read_scores(colour_pictures / "scores.csv").columns["comparisons"]) == 50


def test_stopping_does_not_wait_for_the_figures(colour_pictures, monkeypatch):
    release, asked = threading.Event(), threading.Event()

    def slow(*_: object) -> None:
        asked.set()
        release.wait(20)

    monkeypatch.setattr("custom_aesthetic.labelling.scorekeeper.random_pairs", slow)
    session = session_of(colour_pictures)
    choose_redder(session, 30)
    session.scores.start()
    assert asked.wait(10)
    choose_redder(session, 5)
    session.scores.stop()
    assert not release.is_set()
    assert sum(read_scores(colour_pictures / "scores.csv").columns["comparisons"]) == 70
    release.set()


def test_recompute_writes_the_scores_of_the_choices_and_opens_no_page(colour_pictures, monkeypatch):
    monkeypatch.setattr("custom_aesthetic.extractors.build_extractors", lambda *_: [MeanColour()])
    choose_redder(session_of(colour_pictures), 40)
    options = ["-d", str(colour_pictures), "--recompute"]
    for name, more in (("with.json", ["--feature_extractor_model=mean-colour"]), ("alone.json", [])):
        score_by_comparisons(parse_arguments(ABArguments, [*options, f"--scores={name}", *more], description="")[0])
    together, alone = (read_scores(colour_pictures / name) for name in ("with.json", "alone.json"))
    assert together.paths == alone.paths
    assert not np.allclose(together.scores, alone.scores, atol=0.05)
    session = session_of(colour_pictures)
    session.scores.update()
    np.testing.assert_allclose(read_scores(colour_pictures / "scores.json").scores, alone.scores, atol=2e-4)


def test_another_log_can_be_merged(colour_pictures, tmp_path):
    session = session_of(colour_pictures)
    choose_redder(session, 5)
    other = tmp_path / "other.csv"
    (colour_pictures / "comparisons.csv").rename(other)
    session = session_of(colour_pictures, f"--merge={other}")
    assert session.progress()["choices"] == 5
    with pytest.raises(UserError, match="no such file"):
        session_of(colour_pictures, "--merge=nowhere.csv")


@pytest.mark.parametrize(
    "options, message",
    [
        (["--scores=scores.txt"], "must end in .json or .csv"),
        (["--scores=comparisons.csv"], "must not be comparisons.csv"),
        (["--number_to_compare=5"], "at most 4"),
        (["--strategy=clever"], "adaptive, random"),
        (["--model=none.safetensors"], "does not exist"),
    ],
)
def test_invalid_options_are_refused_before_the_page_opens(colour_pictures, options, message):
    with pytest.raises(UserError, match=message):
        session_of(colour_pictures, *options)


def test_a_directory_with_fewer_than_two_pictures_is_refused(tmp_path):
    with pytest.raises(UserError, match="at least 2"):
        session_of(tmp_path)


def test_weights_are_larger_for_more_certain_scores_and_one_on_average(colour_pictures):
    session = session_of(colour_pictures)
    for _ in range(20):
        session.choose(["cold/00.png", "warm/01.png"], "warm/01.png", seconds=1, drawn="random", time=None)
        session.choose(["cold/02.png", "warm/01.png"], "warm/01.png", seconds=1, drawn="random", time=None)
    session.choose(["cold/04.png", "warm/01.png"], "warm/01.png", seconds=1, drawn="random", time=None)
    session.scores.update()
    table = read_scores(colour_pictures / "scores.csv")
    sigma = dict(zip(table.paths, map(float, table.columns["score_sigma"]), strict=True))
    weight = dict(zip(table.paths, table.columns["weight"], strict=True))
    assert sigma["warm/01.png"] < sigma["cold/04.png"]
    assert weight["warm/01.png"] > weight["cold/04.png"]
    assert np.mean(list(weight.values())) == pytest.approx(1, abs=1e-3)


def test_choices_among_ten_thousand_pictures_do_not_wait_for_the_scores(colour_pictures, monkeypatch):
    names = [f"{i:05}.png" for i in range(10_000)]
    monkeypatch.setattr("custom_aesthetic.commands.score_pairs.find_images", lambda directory: names)
    session = session_of(colour_pictures)
    session.scores.start()
    generator = np.random.default_rng(0)
    for _ in range(60):
        group = session.group()
        winner = str(generator.choice(group["pictures"]))
        session.choose(group["pictures"], winner, seconds=1, drawn=group["drawn"], time=None)
        session.progress()
    session.scores.stop()
    assert len(read_scores(colour_pictures / "scores.csv").paths) > 0


@pytest.mark.skipif(sys.platform != "linux", reason="file names of bytes are Linux's")
def test_pictures_with_odd_names_are_scored_and_their_scores_read_back(colour_pictures):
    odd = [os.fsdecode(b"cold/caf\xe9.png"), "cold/line\nbreak.png", "cold/\u200bspace.png"]
    for name in odd:
        shutil.copyfile(colour_pictures / "cold" / "00.png", colour_pictures / name)
    session = seeded(session_of(colour_pictures))
    for number, name in enumerate(odd):
        moment = f"2026-01-01T00:00:0{number}+00:00"
        session.choose([name, "warm/01.png"], name, seconds=1, drawn="random", time=moment)
    session.scores.update()
    assert session.progress()["pictures"] == 27
    for file in ("scores.json", "scores.csv"):
        assert set(odd) <= set(read_scores(colour_pictures / file).paths)
    (colour_pictures / "scores.json").unlink()
    again = session_of(colour_pictures)
    assert again.progress()["choices"] == 3
    again.scores.update()
    assert set(odd) <= set(read_scores(colour_pictures / "scores.json").paths)
