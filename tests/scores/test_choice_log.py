"""The log of choices: rows are durable and only appended, damage stays local, and logs can be merged."""

import multiprocessing
from pathlib import Path

import pytest

from custom_aesthetic.base.errors import UserError
from custom_aesthetic.scores.choice_log import (
    HEADER,
    Comparison,
    ComparisonLog,
    make_choice,
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
    assert log.n_choices == 1
    assert log.last_choice() == rows


def test_an_undo_adds_a_row_and_undoes_only_its_choice(tmp_path):
    log = ComparisonLog(tmp_path / "comparisons.csv")
    first, second = a_choice(time="1"), a_choice(time="2")
    log.append(first)
    log.append(second)
    log.append(undo_rows(second))
    assert len(log.rows) == 3
    assert log.choices() == first
    assert log.last_choice() == first
    assert log.choice_of("2") == []
    assert ComparisonLog(log.file).choices() == first


@pytest.mark.parametrize("order", [1, -1])
def test_a_choice_among_four_is_undone_as_a_whole_in_any_order_of_rows(tmp_path, order):
    choice = make_choice("a", ["b", "c", "d"], seconds=1, drawn="adaptive")
    log = ComparisonLog(tmp_path / "comparisons.csv")
    log.append([*choice, *undo_rows(choice)][::order])
    assert (log.choices(), log.n_choices) == ([], 0)
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
