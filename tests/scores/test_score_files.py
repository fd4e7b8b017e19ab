"""Score files in their three forms, and what is wrong with a bad one."""

import json
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from custom_aesthetic.base.errors import UserError
from custom_aesthetic.scores.score_files import (
    ScoreTable,
    find_score_file,
    name_some,
    read_scores,
    write_csv,
    write_json,
)


def write(folder: Path, name: str, content: object) -> Path:
    file = folder / name
    file.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return file


def test_the_three_forms_say_the_same(tmp_path: Path) -> None:
    records = {"sub/a.png": {"relative_filepath": "sub\\a.png", "score": 1.5, "comparisons": 3}}
    forms = [
        write(tmp_path, "ab.json", {"ImageRecords": records, "Metadata": {}}),
        write(tmp_path, "older.json", {"sub/a.png": [1.5, 3], "#meta#": {"x": 1}}),
        write(tmp_path, "rows.csv", '\ufeffrelative_path, score,comparisons\r\n"sub/a.png",1.5,3\r\n'),
    ]
    for file in forms:
        table = read_scores(file)
        assert table.paths == ("sub/a.png",)
        assert table.columns == {"score": [1.5], "comparisons": [3]}


def test_a_plain_map_of_path_and_score_is_read(tmp_path: Path) -> None:
    assert read_scores(write(tmp_path, "s.json", {"a.png": 2, "b.png": -1.5})).scores == [2.0, -1.5]


def test_other_columns_are_kept(tmp_path: Path) -> None:
    table = read_scores(
        write(tmp_path, "s.csv", 'relative_path,score,note,weight\na.png,1,"x, ""y""",0.5\nb.png,2,,\n')
    )
    assert table.columns["note"] == ['x, "y"', ""]
    assert table.columns["weight"][0] == 0.5
    assert math.isnan(table.columns["weight"][1])


names = st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"], exclude_characters="\\/.:"), min_size=1)
rows = st.dictionaries(names, st.tuples(st.floats(-1e6, 1e6), st.text("ab,\"' ")), min_size=1, max_size=8)


@given(rows)
def test_a_table_survives_being_written(
    tmp_path_factory: pytest.TempPathFactory, rows: dict[str, tuple[float, str]]
) -> None:
    folder = tmp_path_factory.mktemp("scores")
    table = ScoreTable(
        tuple(rows), {"score": [score for score, _ in rows.values()], "note": [note for _, note in rows.values()]}
    )
    write_csv(folder / "s.csv", table)
    write_json(folder / "s.json", table)
    for name in ("s.csv", "s.json"):
        found = read_scores(folder / name)
        assert found.paths == table.paths
        assert found.scores == table.scores
        if name == "s.json":
            assert found.columns["note"] == table.columns["note"]


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("s.csv", "", "is empty"),
        ("s.csv", "relative_path,scroe\na.png,1\n", "line 1: no column score"),
        ("s.csv", "relative_path,score\na.png,1,2\n", "line 2: more or fewer values"),
        ("s.csv", 'relative_path,score\n"a.png,1\n', "not CSV"),
        ("s.csv", "relative_path,score\n", "names no image"),
        ("s.csv", "relative_path,score\na.png,nan\nb.png,1\n", "not a finite number for a.png ('nan')"),
        ("s.csv", "relative_path,score\na.png,\n", "not a finite number for a.png ('')"),
        ("s.csv", "relative_path,score\na.png,inf\n", "not a finite number"),
        ("s.csv", "relative_path,score\nx/a.png,1\nx\\a.png,2\n", "names twice: x/a.png"),
        ("s.csv", "relative_path,score\n../a.png,1\n", "'../a.png' is not a path inside"),
        ("s.csv", "relative_path,score\nC:\\a.png,1\n", "is not a path inside"),
        ("s.csv", "relative_path,score\n/a.png,1\n", "is not a path inside"),
        ("s.json", "{", "is not JSON"),
        ("s.json", "[1]", "is not a JSON object"),
        ("s.json", '{"a.png": "high"}', "not a finite number for a.png ('high')"),
        ("s.json", '{"a.png": true}', "not a finite number"),
        ("s.json", '{"a.png": [1, 2, 3]}', "has 3 values"),
        ("s.json", '{"ImageRecords": {"a.png": {"comparisons": 1}}}', "no score for a.png"),
        ("s.json", '{"ImageRecords": {"a.png": 3}}', "is not an object"),
        ("s.json", '{"ImageRecords": {}}', "names no image"),
        ("s.json", '{"a.png": 1, "b.png": 2, "a.png": 3}', "names twice: a.png;"),
        ("s.json", '{"ImageRecords": {"a.png": {"score": 1}, "a.png": {"score": 2}}}', "names twice: a.png;"),
        ("s.json", '{"a": ' + "[" * 100_000, "is not JSON"),
        ("s.csv", "relative_path,score,score\na.png,1,2\n", "names twice: score;"),
        ("s.csv", "relative_path,score\n,1\n", "'' is not a path inside"),
    ],
)
def test_what_is_wrong_with_a_score_file_is_said(tmp_path: Path, name: str, content: str, words: str) -> None:
    with pytest.raises(UserError) as raised:
        read_scores(write(tmp_path, name, content))
    assert words in str(raised.value)
    assert name in str(raised.value)


def test_bytes_that_are_no_text_are_an_error(tmp_path: Path) -> None:
    (tmp_path / "s.csv").write_bytes(b"\xff\xfe\x00\x81")
    with pytest.raises(UserError, match="cannot be read"):
        read_scores(tmp_path / "s.csv")


def test_the_first_few_are_named_and_the_rest_counted(tmp_path: Path) -> None:
    lines = "".join(f"{number}.png,nan\n" for number in range(1207))
    with pytest.raises(UserError, match=r"0\.png .* 4\.png \('nan'\) and 1,202 more"):
        read_scores(write(tmp_path, "s.csv", f"relative_path,score\n{lines}"))
    assert name_some(["a", "b"]) == "a, b"


def test_the_usual_score_file_is_found_in_its_order(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no score file"):
        find_score_file(tmp_path, None)
    for name in ("scores.csv", "score.json", "scores.json"):
        write(tmp_path, name, "x")
        assert find_score_file(tmp_path, None).name == name
    assert find_score_file(tmp_path, "score.json").name == "score.json"
    with pytest.raises(UserError, match=r"other\.json is not there"):
        find_score_file(tmp_path, "other.json")
    with pytest.raises(UserError, match="image directory"):
        find_score_file(tmp_path / "nowhere", None)


def test_a_directory_that_cannot_be_looked_into_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: Path) -> bool:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "is_file", refuse)
    with pytest.raises(UserError, match="cannot be read: Permission denied; check its permissions"):
        find_score_file(tmp_path, None)


def test_the_real_score_files_are_read(data_folder: Path) -> None:
    table = read_scores(data_folder / "photos" / "score.json")
    rows = read_scores(data_folder / "photos" / "scores.csv")
    assert len(table) == 240
    assert rows.select(table.paths).scores == table.scores
    assert len(read_scores(data_folder / "photos" / "arousal.json")) == 240
