"""The log of choices: rows are durable and only appended, damage stays local, and logs can be merged."""

import csv
import multiprocessing
from dataclasses import replace
from pathlib import Path

import pytest

from custom_aesthetic.base.errors import UserError
from custom_aesthetic.scores.choice_log import (
    HEADER,
    Comparison,
    ComparisonLog,
    make_choice,
    make_mark,
    make_pick,
    make_stars,
    make_tie,
    merge_log,
    read_log,
    undo_rows,
)


def a_choice(winner: str = "a.png", loser: str = "b.png", time: str = "2026-01-01T00:00:00.000001+00:00"):
    return make_choice(winner, [loser], seconds=1.25, drawn="adaptive", time=time)


def test_appended_rows_are_flushed_and_read_back(tmp_path):
    log = ComparisonLog(tmp_path / "comparisons.csv")
    rows = make_choice('sub/we "quote", and comma.png', ["b.png", "ünï.png"], seconds=2.5, drawn="random")
    log.append(rows)
    assert read_log(log.file) == rows
    assert log.file.read_text(encoding="utf-8").startswith(HEADER + "\n")
    assert log.refresh() == 0
    assert log.choices() == sorted(rows)
    assert log.n_answers == 1
    assert log.last_answer() == rows


def test_an_undo_adds_a_row_and_undoes_only_its_choice(tmp_path):
    log = ComparisonLog(tmp_path / "comparisons.csv")
    first, second = a_choice(time="1"), a_choice(time="2")
    log.append(first)
    log.append(second)
    log.append(undo_rows(second))
    assert len(log.rows) == 3
    assert log.choices() == first
    assert log.last_answer() == first
    assert log.answer_of("2") == []
    assert ComparisonLog(log.file).choices() == first


@pytest.mark.parametrize("order", [1, -1])
def test_a_choice_among_four_is_undone_as_a_whole_in_any_order_of_rows(tmp_path, order):
    choice = make_choice("a", ["b", "c", "d"], seconds=1, drawn="adaptive")
    log = ComparisonLog(tmp_path / "comparisons.csv")
    log.append([*choice, *undo_rows(choice)][::order])
    assert (log.choices(), log.n_answers) == ([], 0)
    log.append(choice)
    assert log.choices() == []


@pytest.mark.parametrize("kept", range(1, 66))
def test_an_incomplete_row_is_ignored_and_does_not_affect_the_next(tmp_path, kept):
    file = tmp_path / "comparisons.csv"
    log = ComparisonLog(file)
    log.append(a_choice("first.png", "loser.png", "1"))
    whole = file.read_bytes()
    log.append(
        make_choice('x", y.png', ["second.png"], seconds=1.25, drawn="adaptive", time="2026-01-01T00:00:00+00:00")
    )
    torn = file.read_bytes()[len(whole) :][:kept]
    assert len(torn) == kept
    file.write_bytes(whole + torn)
    after = a_choice("third.png", "loser.png", "3")
    ComparisonLog(file).append(after)
    choices = ComparisonLog(file).choices()
    assert [row.winner for row in choices if row.winner != 'x", y.png'] == ["first.png", "third.png"]
    assert all(row.loser == "second.png" for row in choices if row.winner == 'x", y.png')
    assert (len(choices) == 3) == torn.rstrip(b"\n").endswith(b",adaptive")


def test_an_incomplete_undo_row_is_not_a_choice(tmp_path):
    file = tmp_path / "comparisons.csv"
    log = ComparisonLog(file)
    choice = a_choice()
    log.append(choice)
    before = file.read_bytes()
    log.append(undo_rows(choice))
    whole = file.read_bytes()
    for end in range(len(before) + 1, len(whole) - 1):
        file.write_bytes(whole[:end])
        assert ComparisonLog(file).choices() == choice
        assert read_log(file) == choice


def test_a_last_line_without_line_end_is_read(tmp_path):
    file = tmp_path / "comparisons.csv"
    file.write_text(f"{HEADER}\r\n1,a,b,2,,random", encoding="utf-8")
    assert read_log(file) == [Comparison("1", "a", "b", 2.0, "random")]
    ComparisonLog(file).append(a_choice())
    assert len(read_log(file)) == 2


def append_many(file: Path, name: str) -> None:
    log = ComparisonLog(file)
    for i in range(100):
        log.append(make_choice(f"{name}{i}.png", ["loser.png"], seconds=0.1, drawn="random"))


def test_two_processes_can_append_at_the_same_time(tmp_path):
    file = tmp_path / "comparisons.csv"
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=append_many, args=(file, name)) for name in "ab"]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(60)
    log = ComparisonLog(file)
    assert {row.winner for row in log.choices()} == {f"{name}{i}.png" for name in "ab" for i in range(100)}
    assert log.n_unreadable == 0


def test_refresh_reads_rows_appended_by_another_process(tmp_path):
    here, there = ComparisonLog(tmp_path / "comparisons.csv"), ComparisonLog(tmp_path / "comparisons.csv")
    there.append(a_choice())
    assert here.refresh() == 1
    assert here.choices() == a_choice()


def test_merging_keeps_each_row_once_and_applies_undos_from_both_logs(tmp_path):
    left, right = ComparisonLog(tmp_path / "left.csv"), ComparisonLog(tmp_path / "right.csv")
    shared, added, undone = a_choice(time="1"), a_choice("c.png", time="2"), a_choice("d.png", time="3")
    left.append([*shared, *undone])
    right.append([*shared, *added, *undo_rows(undone)])
    assert merge_log(left, right.file) == 2
    assert left.choices() == [*shared, *added]
    assert merge_log(left, right.file) == 0
    one_below_the_other = tmp_path / "both.csv"
    one_below_the_other.write_bytes(right.file.read_bytes() + left.file.read_bytes())
    assert ComparisonLog(one_below_the_other).choices() == left.choices()


def test_a_log_with_an_incomplete_header_can_be_continued(tmp_path):
    file = tmp_path / "comparisons.csv"
    file.write_text(HEADER[:9], encoding="utf-8")
    ComparisonLog(file).append(a_choice())
    assert ComparisonLog(file).choices() == a_choice()


def test_a_file_that_is_not_a_log_is_refused(tmp_path):
    file = tmp_path / "comparisons.csv"
    file.write_text("relative_path,score\na.png,1\n", encoding="utf-8")
    with pytest.raises(UserError, match="not a log of comparisons"):
        ComparisonLog(file)


def test_a_log_that_cannot_be_written_is_an_error(tmp_path):
    with pytest.raises(UserError, match="cannot be written"):
        ComparisonLog(tmp_path / "missing" / "comparisons.csv").append(a_choice())


ODD_NAMES = [
    "caf\udce9.png",
    "line\nbreak.png",
    'quote".png',
    '"quoted".png',
    "a\r,b.png",
    "\udcff\x1b[2J.png",
    "ü.png",
]


def test_names_that_are_not_utf_8_or_contain_newlines_are_read_back(tmp_path):
    file = tmp_path / "comparisons.csv"
    choices = [
        make_choice(name, ["plain.png"], seconds=1, drawn="random", time=str(number))
        for number, name in enumerate(ODD_NAMES)
    ]
    for choice in choices:
        ComparisonLog(file).append(choice)
    assert len(file.read_bytes().splitlines()) == 1 + len(ODD_NAMES)
    log = ComparisonLog(file)
    assert log.n_unreadable == 0
    assert {row.winner for row in log.choices()} == set(ODD_NAMES)
    assert b"caf\xe9.png" in file.read_bytes(), "as the bytes of the name"
    log.append(undo_rows(choices[1]))
    assert {row.winner for row in ComparisonLog(file).choices()} == set(ODD_NAMES) - {ODD_NAMES[1]}


def test_a_name_that_begins_with_a_quote_but_is_not_json_is_read_unchanged(tmp_path):
    file = tmp_path / "comparisons.csv"
    file.write_text(f'{HEADER}\n1,"""a.png",b.png,1,,random\n', encoding="utf-8")
    assert [row.winner for row in ComparisonLog(file).choices()] == ['"a.png']


PICTURES = ["a.png", "sub/b.png", "caf\udce9.png", "line\nbreak.png", "4", "c,d.png"]
EVERY_KIND = {
    "choice": make_choice("a.png", ["4", "c,d.png"], seconds=1, drawn="adaptive", time="1"),
    "tie": make_tie(["a.png", "sub/b.png"], seconds=2, drawn="random", time="2"),
    "repeated choice": make_choice("4", ["a.png"], seconds=1, drawn="repeat", time="3"),
    "repeated tie": make_tie(["caf\udce9.png", "line\nbreak.png"], seconds=1, drawn="repeat", time="4"),
    "pick": make_pick(PICTURES[:2], PICTURES[2:], seconds=9, drawn="adaptive", time="5"),
    "stars": make_stars("4", 4, seconds=1.5, drawn="random", time="6"),
    "keep": make_mark("caf\udce9.png", keep=True, time="7"),
    "reject": make_mark("line\nbreak.png", keep=False, time="8"),
}


@pytest.mark.parametrize("name", EVERY_KIND)
def test_an_answer_of_every_kind_is_read_back_as_given_and_can_be_undone(tmp_path, name):
    answer, log = EVERY_KIND[name], ComparisonLog(tmp_path / "comparisons.csv")
    log.append(answer)
    again = ComparisonLog(log.file)
    assert again.answers() == sorted(answer) == sorted(read_log(log.file))
    assert again.last_answer() == answer
    assert again.choices() == (sorted(answer) if "choice" in name else [])
    again.append(undo_rows(answer))
    assert ComparisonLog(log.file).answers() == []
    assert again.n_unreadable == 0


@pytest.mark.parametrize("name", EVERY_KIND)
def test_no_beginning_of_a_row_is_taken_for_another_answer(tmp_path, name):
    log = ComparisonLog(tmp_path / "comparisons.csv")
    log.append(EVERY_KIND[name][:1])
    whole = log.file.read_bytes()
    for end in range(len(HEADER) + 1, len(whole) - 1):
        log.file.write_bytes(whole[:end] + b"\n")
        assert ComparisonLog(log.file).answers() == []


def test_only_stars_and_marks_are_about_one_picture(tmp_path):
    file = tmp_path / "comparisons.csv"
    file.write_text(
        f"{HEADER}\n1,a,,1,,random\n2,a,,1,,tie-random\n3,a,b,1,,stars4-random\n4,a,b,1,,stars6-random\n5,a,b,1,,keep-x\n",
        encoding="utf-8",
    )
    log = ComparisonLog(file)
    assert (log.answers(), log.n_unreadable) == ([], 5)


def test_logs_with_answers_of_every_kind_are_merged_in_any_order(tmp_path):
    everything = [row for answer in EVERY_KIND.values() for row in answer]
    undone = [*undo_rows(EVERY_KIND["tie"]), *undo_rows(EVERY_KIND["stars"])]
    orders = [[*everything, *undone], [*undone, *everything[::-1]], [*everything[::2], *undone, *everything[1::2]]]
    found = []
    for number, rows in enumerate(orders):
        log, other = (ComparisonLog(tmp_path / f"{name}{number}.csv") for name in "lo")
        log.append(rows[: len(rows) // 2])
        other.append(rows[len(rows) // 3 :])
        merge_log(log, other.file)
        assert merge_log(log, other.file) == 0
        found.append(log.answers())
    assert found[0] == found[1] == found[2]
    assert {row.time for row in found[0]} == {"1", "3", "4", "5", "7", "8"}


def test_a_log_of_an_earlier_version_is_continued_and_every_line_still_has_its_columns(tmp_path):
    file = tmp_path / "comparisons.csv"
    file.write_text(f"{HEADER}\n1,a.png,b.png,1.5,,adaptive\n0,undone.png,b.png,1,,random\n", encoding="utf-8")
    log = ComparisonLog(file)
    log.append(undo_rows(log.answer_of("0")))
    for answer in EVERY_KIND.values():
        log.append([replace(row, time=f"9{row.time}") for row in answer])
    lines = list(csv.reader(file.read_text(encoding="utf-8", errors="surrogateescape").splitlines()))
    assert {len(line) for line in lines} == {6}
    earlier = [line for line in lines if line[5] in ("adaptive", "random", "undo")]
    assert [line[1] for line in earlier] == ["a.png", "undone.png", "undone.png", "a.png", "a.png"]
    assert ComparisonLog(file).choices()[0] == Comparison("1", "a.png", "b.png", 1.5)
