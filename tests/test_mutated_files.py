"""Score, split and arguments files with many small damages: each gives a result or one line, never a traceback."""

import random
from collections.abc import Callable
from pathlib import Path

import pytest

from custom_aesthetic.base.errors import UserError
from custom_aesthetic.scores.image_splits import split_column
from custom_aesthetic.scores.score_files import read_scores, write_csv, write_json
from custom_aesthetic.scores.splits import read_split_file, write_split_file
from custom_aesthetic.settings.analysis import AnalysisArguments
from custom_aesthetic.settings.arguments import as_lines, parse_arguments
from custom_aesthetic.settings.training import TrainingArguments

AB_JSON = (
    b'{"ImageRecords": {"s/a.png": {"relative_filepath": "s/a.png", "score": 1.31, "comparisons": 3, "note": "x"}, '
)
AB_JSON += b'"b.png": {"relative_filepath": "b.png", "score": -2e-3, "comparisons": 0}}, "Metadata": {"a": [1]}}'
SCORES = (
    AB_JSON,
    b'{"s/a.png": [1.31, 3], "b.png": [0.2, 1], "#meta#": {"x": null}}',
    b'{"a.png": 1.5, "b.png": 2}',
    b'\xef\xbb\xbfrelative_path,score,split,weight,comparisons\r\n"a, b.png",1.5,train,1,3\r\nc.png,2,eval,,\r\n',
    b"path;rating;note\na.png;1,5;x\nb.png;2;\xff\n",
    "relative_path\tscore\na.png\t1\n".encode("utf-16"),
)
SPLITS = (
    b'{"a.png": "train", "s/b.png": "eval", "c.png": "test"}',
    b'{"train": ["a.png", "b.png"], "eval": ["c.png"]}',
)
ARGUMENTS = (
    b'# mine\n-d = "my pictures"\n--scores = saved_scores.csv # here\n--trials=7\n--min_log_lr = -4\n--max_log_lr=-3\n'
    b"--hidden_states_used=0,1\n--fp16_features\n--loss_model=nll\n--views = centre,mirror\n",
    b"-d pictures\n--feature_extractor_model=a,b\n--fixed_hidden_state_weights=1,2,3\n--ensemble=3\n--workers=2\n",
)
ACCIDENTS = (
    *(
        b"",
        b"\0",
        b"\xff",
        b"\xed\xa0\x80",
        b"\\ud800",
        b"\n",
        b"\r",
        b'"',
        b"'",
        b",",
        b";",
        b"=",
        b"--",
        b"=--",
        b"@",
    ),
    *(
        b"NaN",
        b"1e999",
        b"9" * 500,
        b"[" * 2000,
        b"{}",
        b"[]",
        b"null",
        b"true",
        b"../",
        b"C:\\",
        b"/",
        b"#",
        b" # ",
        b"%s",
    ),
    *(b"-", b"\x1b[2J", b"\xe2\x80\xae", b"rank", b"model_score", b"ImageRecords", b"relative_path", b"{0}"),
)


def mutated(content: bytes, chance: random.Random) -> bytes:
    """Return the content after one to four damages: bytes inserted, removed, doubled or replaced."""
    for _ in range(chance.randint(1, 4)):
        first, second = sorted(chance.choices(range(len(content) + 1), k=2))
        second = min(second, first + chance.choice((1, 1, 2, 8, 40)))
        kind = chance.randrange(4)
        if kind == 0:
            content = content[:first] + chance.choice(ACCIDENTS) + content[first:]
        elif kind == 1:
            content = content[:first] + content[second:]
        elif kind == 2:
            content = content[:second] + content[first:second] + content[second:]
        else:
            content = content[:first] + chance.choice(ACCIDENTS) + content[second:]
    return content


def read_and_write_scores(file: Path) -> None:
    table = read_scores(file)
    split_column(table)
    write_csv(file.with_name("again.csv"), table)
    write_json(file.with_name("again.json"), table)
    again = read_scores(file.with_name("again.json"))
    assert again.paths == table.paths
    assert again.scores == table.scores
    assert read_scores(file.with_name("again.csv")).paths == table.paths


def read_and_write_split(file: Path) -> None:
    splits = read_split_file(file)
    write_split_file(file, splits)
    assert read_split_file(file) == splits


def read_and_write_arguments(file: Path) -> None:
    analysis, _ = parse_arguments(AnalysisArguments, [f"@{file}"], description="test", ignore_unknown=True)
    training, _ = parse_arguments(TrainingArguments, [f"@{file}"], description="test")
    assert analysis.images == training.images
    lines = file.with_name("again.txt")
    lines.write_bytes("\n".join(as_lines(training)).encode("utf-8", "surrogateescape"))
    assert parse_arguments(TrainingArguments, [f"@{lines}"], description="test")[0] == training


@pytest.mark.parametrize(
    ("originals", "use", "n_mutations"),
    [
        (SCORES, read_and_write_scores, 1500),
        (SPLITS, read_and_write_split, 500),
        (ARGUMENTS, read_and_write_arguments, 1000),
    ],
)
def test_a_mutated_file_gives_a_result_or_one_line(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    originals: tuple[bytes, ...],
    use: Callable[[Path], None],
    n_mutations: int,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("os.fsync", lambda _: None)
    chance = random.Random(0)
    n_read = 0
    for number in range(n_mutations):
        content = mutated(originals[number % len(originals)], chance)
        (tmp_path / "file").write_bytes(content)
        try:
            use(tmp_path / "file")
            n_read += 1
        except UserError as error:
            str(error).encode("utf-8", "backslashreplace")
            assert len(str(error)) < 3000, content
        except Exception as error:
            raise AssertionError(f"{content!r}") from error
    assert n_mutations / 20 < n_read < n_mutations, "some are read, some are not"
