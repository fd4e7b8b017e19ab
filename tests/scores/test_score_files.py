"""Reading and writing of score files in their three forms, and the messages for invalid ones."""

import json
import math
import os
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from custom_aesthetic.base.errors import UserError
from custom_aesthetic.base.json_entries import read_entries
from custom_aesthetic.scores import csv_rows
from custom_aesthetic.scores.score_files import (
    ScoreTable,
    csv_bytes,
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


def test_the_three_forms_give_the_same_table(tmp_path: Path) -> None:
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


def test_a_json_object_of_path_and_score_is_read(tmp_path: Path) -> None:
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
def test_a_written_table_is_read_back(
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
        ("s.csv", "relative_path,score\n", "contains no images"),
        ("s.csv", "relative_path,score\na.png,nan\nb.png,1\n", "not a finite number for a.png ('nan')"),
        ("s.csv", "relative_path,score\na.png,\n", "not a finite number for a.png ('')"),
        ("s.csv", "relative_path,score\na.png,inf\n", "not a finite number"),
        ("s.csv", "relative_path,score\nx/a.png,1\nx\\a.png,2\n", "has duplicates: x/a.png"),
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
        ("s.json", '{"ImageRecords": {}}', "contains no images"),
        ("s.json", '{"a.png": 1, "b.png": 2, "a.png": 3}', "has duplicates: a.png;"),
        ("s.json", '{"ImageRecords": {"a.png": {"score": 1}, "a.png": {"score": 2}}}', "has duplicates: a.png;"),
        ("s.json", '{"a": ' + "[" * 100_000, "is not JSON"),
        ("s.csv", "relative_path,score,score\na.png,1,2\n", "has duplicates: score;"),
        ("s.csv", "relative_path,score\n,1\n", "'' is not a path inside"),
        ("s.json", '{"a\\ud800.png": 1}', "'a\\ud800.png' is not a path inside"),
        ("s.json", '{"a\\u0000.png": 1}', "is not a path inside"),
    ],
)
def test_an_invalid_score_file_is_an_error_that_says_why(tmp_path: Path, name: str, content: str, words: str) -> None:
    with pytest.raises(UserError) as raised:
        read_scores(write(tmp_path, name, content))
    assert words in str(raised.value)
    assert name in str(raised.value)


def test_a_binary_file_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "s.csv").write_bytes(b"\x89\x00\x81\n")
    with pytest.raises(UserError, match="cannot be read"):
        read_scores(tmp_path / "s.csv")


def test_the_first_bad_rows_are_named_and_the_rest_counted(tmp_path: Path) -> None:
    lines = "".join(f"{number}.png,nan\n" for number in range(1207))
    with pytest.raises(UserError, match=r"0\.png .* 4\.png \('nan'\) and 1,202 more"):
        read_scores(write(tmp_path, "s.csv", f"relative_path,score\n{lines}"))
    assert name_some(["a", "b"]) == "a, b"


def test_the_usual_score_files_are_found_in_order(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no score file"):
        find_score_file(tmp_path, None)
    for name in ("scores.csv", "score.json", "scores.json"):
        write(tmp_path, name, "x")
        assert find_score_file(tmp_path, None).name == name
    assert find_score_file(tmp_path, "score.json").name == "score.json"
    with pytest.raises(UserError, match=r"other\.json does not exist"):
        find_score_file(tmp_path, "other.json")
    with pytest.raises(UserError, match="image directory"):
        find_score_file(tmp_path / "nowhere", None)


def test_a_directory_without_read_permission_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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


@pytest.mark.parametrize(
    ("content", "scores", "words"),
    [
        ("relative_path;score\na.png;1,5\nb.png;-2\n", [1.5, -2], "separated by semicolons, commas in numbers"),
        ("relative_path\tscore\na.png\t1.5\nb.png\t2\n", [1.5, 2], "separated by tabs"),
        ("path,rating\na.png,1.5\nb.png,2\n", [1.5, 2], "path as relative_path, rating as score"),
        ("File Name;Aesthetic\na.png;1\nb.png;2\n", [1, 2], "File Name as relative_path, Aesthetic as score"),
        ("file,Score,Split\na.png,1,\nb.png,2,\n", [1, 2], "file as relative_path, Split as split, Score as score"),
        ("filename,rank\na.png,1\nb.png,2\n", [-1, -2], "1 is the best (score = minus rank"),
        ('"path";"stars";;\n"a.png";4;;\n"b.png";5;;\n', [4, 5], "2 column(s) without a name left out"),
    ],
)
def test_other_separators_and_names_are_read_and_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, content: str, scores: list[float], words: str
) -> None:
    caplog.set_level("INFO", logger="custom_aesthetic")
    for encoding in ("utf-8", "utf-8-sig", "utf-16"):
        caplog.clear()
        (tmp_path / "s.csv").write_text(content, encoding=encoding)
        table = read_scores(tmp_path / "s.csv")
        assert table.paths == ("a.png", "b.png")
        assert table.scores == scores
        assert set(table.columns) <= {"score", "split"}
        assert len(caplog.messages) == 1, "one line"
        assert words in caplog.messages[0]


def test_the_usual_names_take_precedence_and_nothing_is_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger="custom_aesthetic")
    file = write(tmp_path, "s.csv", "rank,path,relative_path,score,rating\n1,x,a.png,3,9\n")
    table = read_scores(file)
    assert table.paths == ("a.png",)
    assert table.columns == {"rank": ["1"], "path": ["x"], "score": [3.0], "rating": ["9"]}
    table = read_scores(write(tmp_path, "m.csv", "path,model_score,rank\na.png,3,1\n"), required=())
    assert table.columns == {"model_score": [3.0], "rank": ["1"]}, "a model's scores are not changed"
    assert len(caplog.messages) == 1


any_name = st.text(
    st.one_of(
        st.sampled_from(" \n\r\t\"',;\udcff\udc80#=é\u2028\ufeff\ufffd"),
        st.characters(codec="utf-8", exclude_characters="\0/\\."),
    ),
    min_size=1,
    max_size=12,
)


@pytest.mark.skipif(os.name == "nt", reason="file names on Windows are not bytes")
@given(st.lists(any_name, min_size=1, max_size=6, unique=True))
def test_any_file_name_is_read_back_from_both_forms(tmp_path_factory: pytest.TempPathFactory, names: list[str]) -> None:
    folder = tmp_path_factory.mktemp("names")
    table = ScoreTable(tuple(f"sub/{name}.png" for name in names), {"score": [float(n) for n in range(len(names))]})
    write_csv(folder / "s.csv", table)
    write_json(folder / "s.json", table)
    (folder / "s.json").read_bytes().decode("utf-8")
    for name in ("s.csv", "s.json"):
        found = read_scores(folder / name)
        assert found.paths == table.paths
        assert found.scores == table.scores
    assert os.fsencode(table.paths[0]).replace(b'"', b'""') in (folder / "s.csv").read_bytes()


cells = st.one_of(
    st.floats(), st.text('a\n"\udcff,', max_size=4), st.none(), st.lists(st.integers(), max_size=2), st.just({})
)


@given(st.dictionaries(any_name, st.tuples(cells, cells), max_size=5), st.integers(0, 2))
def test_json_written_a_record_at_a_time_has_the_bytes_of_the_whole(
    tmp_path_factory: pytest.TempPathFactory, rows: dict[str, tuple[object, object]], n_columns: int
) -> None:
    columns = {name: [row[i] for row in rows.values()] for i, name in enumerate(("score", "note")[:n_columns])}
    records = {
        path: {"relative_filepath": path}
        | {name: values[i] for name, values in columns.items() if values[i] == values[i]}  # without nan
        for i, path in enumerate(rows)
    }
    content = {"ImageRecords": records, "Metadata": {}} | ({"Additionals": ["note"]} if n_columns == 2 else {})
    file = tmp_path_factory.mktemp("json") / "s.json"
    write_json(file, ScoreTable(tuple(rows), columns))
    assert file.read_bytes() == json.dumps(content, indent=1, ensure_ascii=False).encode("utf-8", "backslashreplace")


@pytest.mark.parametrize("rows_at_once", [1, 2, 1024])
def test_csv_written_some_rows_at_a_time_has_the_same_bytes(monkeypatch: pytest.MonkeyPatch, rows_at_once: int) -> None:
    monkeypatch.setattr(csv_rows, "ROWS_AT_ONCE", rows_at_once)
    table = ScoreTable(
        ("a.png", " \udcff,é.png", "\ud800.png"), {"score": [1.5, math.nan, 1e-9], "note": ["x", "\r", "y"]}
    )
    assert csv_bytes(table) == (
        b'relative_path,score,note\na.png,1.5,x\n" \xff,\xc3\xa9.png","","\r"\n\\ud800.png,1e-09,y\n'
    )


@pytest.mark.parametrize("write_file", [write_csv, write_json])
def test_a_large_table_is_written_without_the_whole_text_in_memory(
    tmp_path: Path, write_file: Callable[[Path, ScoreTable], None]
) -> None:
    n_rows = 20_000
    table = ScoreTable(tuple(f"folder/{i:06}.jpg" for i in range(n_rows)), {"score": [i / 7 for i in range(n_rows)]})
    write_file(tmp_path / "warm", table)
    tracemalloc.start()
    write_file(tmp_path / "scores", table)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < (tmp_path / "scores").stat().st_size / 2


@pytest.mark.parametrize("path", [3, None, ["a.png"], {"a": 1}])
def test_a_path_that_is_not_text_is_an_error(tmp_path: Path, path: object) -> None:
    record = {"relative_filepath": path, "score": 1}
    with pytest.raises(UserError, match="instead of the path of an image"):
        read_scores(write(tmp_path, "s.json", {"ImageRecords": {"a.png": record}}))


@pytest.mark.skipif(os.name == "nt", reason="on Windows these are valid paths")
@pytest.mark.parametrize(
    ("directory", "words"),
    [
        (".\\images", "separated by /: -d ./images"),
        ("C:\\my images", "under WSL it is /mnt/c/my"),
        ("\\\\server\\share\\images", "Windows network folder: mount \\\\server\\share"),
    ],
)
def test_the_error_for_a_windows_path_says_what_to_type(directory: str, words: str) -> None:
    with pytest.raises(UserError) as raised:
        find_score_file(Path(directory), None)
    assert words in str(raised.value)


def test_the_error_for_a_missing_score_file_names_the_ab_scorer(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"python aesthetic_ab_scorer\.py -d "):
        find_score_file(tmp_path, None)


def test_the_error_for_a_score_file_in_the_current_directory_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pictures").mkdir()
    write(tmp_path, "saved_scores.csv", "relative_path,score\na.png,1\n")
    with pytest.raises(UserError, match="--scores is relative to -d"):
        find_score_file(Path("pictures"), "saved_scores.csv")


@pytest.mark.parametrize("text", ["\\\\server\\share\\a.png", "//server/share/a.png", "\\a.png", "\\\\?\\C:\\a.png"])
def test_an_image_on_a_network_share_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(UserError, match="not a path inside the image directory"):
        read_scores(write(tmp_path, "s.json", {text: 1.0}))


@pytest.mark.parametrize(
    ("content", "columns"),
    [
        ('{"a.png": [1.5, 3], "b.png": [2, 4]}', {"a.png": (1.5, 3), "b.png": (2, 4)}),
        ('\n {"a.png": 1.5,\n "b.png": 2e0 }\n', {"a.png": (1.5,), "b.png": (2,)}),
        ('{ "#meta#": {"x": [1, {"y": "}"}]}, "a.png":1.5,"b.png":[ "2" ]}', {"a.png": (1.5,), "b.png": (2,)}),
        ('{"\\u00e9\\"\\n.png" : 1, "sub\\\\b.png": -0.5, "#meta#": null}', {'é"\n.png': (1,), "sub/b.png": (-0.5,)}),
        ('{"a.png": [1, 2], "b.png": 3}', {"a.png": (1, 2), "b.png": (3, math.nan)}),
    ],
)
def test_the_older_form_is_read_with_any_spaces_escapes_and_mixtures(
    tmp_path: Path, content: str, columns: dict[str, tuple[float, ...]]
) -> None:
    found = read_scores(write(tmp_path, "scores.json", content))
    assert found.paths == tuple(columns)
    names = ("score", "comparisons")[: len(next(iter(columns.values())))]
    assert tuple(found.columns) == names
    for number, name in enumerate(names):
        expected = [values[number] for values in columns.values()]
        np.testing.assert_array_equal(np.array(found.columns[name], float), np.array(expected, float))


def test_records_need_not_have_the_same_values_nor_come_first(tmp_path: Path) -> None:
    records = {"a": {"score": 1, "x": "u"}, "b": {"relative_filepath": "c", "score": 2}, "d": {"score": 3, "y": [1]}}
    file = write(tmp_path, "s.json", {"Additionals": ["x", "y", "z"], "ImageRecords": records, "Metadata": {}})
    found = read_scores(file)
    assert found.paths == ("a", "c", "d")
    assert found.columns == {"score": [1, 2, 3], "x": ["u", "", ""], "y": ["", "", [1]]}


@given(
    st.dictionaries(
        st.text(min_size=1), st.floats(allow_nan=False, allow_infinity=False) | st.integers(-9, 9), min_size=1
    ),
    st.sampled_from([None, 1, "\t"]),
    st.booleans(),
)
def test_entries_are_those_of_the_parser(content: dict[str, float], indent: int | str | None, ascii_only: bool) -> None:
    text = json.dumps(content, indent=indent, ensure_ascii=ascii_only)
    found: dict[str, float] = {}
    decoder = json.JSONDecoder()

    def take(name: str, place: int) -> int:
        found[name], end = decoder.raw_decode(text, place)
        return end

    assert read_entries(text, 0, decoder, take, is_whole=True) == len(text)
    assert found == content and list(found) == list(content)


@pytest.mark.parametrize(
    "content",
    [
        '{"a.png": 1,}',
        '{"a.png": 1} x',
        '{"a.png": 01}',
        '{"a.png": 1',
        '{"a.png" 1}',
        '{"#meta#": {"a": }, "a.png": 1}',
        *('{"a.p\\ua.png": 1}', '{"\\x.png": 1}', '[{"a.png": 1}', '[1, {"a.png": 1}'),
    ],
)
def test_what_is_no_json_is_refused(tmp_path: Path, content: str) -> None:
    file = tmp_path / "scores.json"
    file.write_text(content, encoding="utf-8")
    with pytest.raises(UserError, match="is not JSON"):
        read_scores(file)


@pytest.mark.parametrize("name", ["scores.json", "scores.csv"])
def test_an_image_named_twice_among_many_is_an_error_that_names_it(tmp_path: Path, name: str) -> None:
    paths = [f"{row % 60}.png" for row in range(61)]
    rows = [f'"{path}": 1' if name.endswith("json") else f"{path},1" for path in paths]
    text = "{" + ",".join(rows) + "}" if name.endswith("json") else "\n".join(["relative_path,score", *rows])
    (tmp_path / name).write_text(text)
    with pytest.raises(UserError, match=r"has duplicates: 0\.png; keep one of each"):
        read_scores(tmp_path / name)
