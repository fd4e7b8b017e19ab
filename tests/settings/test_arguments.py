"""The command line and the arguments file."""

import dataclasses
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from custom_aesthetic.base.errors import UserError
from custom_aesthetic.settings.arguments import as_lines, options_of, parse_arguments, setting_groups, shown_lines
from custom_aesthetic.settings.declaration import Range
from custom_aesthetic.settings.example_arguments import example_text
from custom_aesthetic.settings.training import TrainingArguments
from tests.conftest import ROOT


def parse(*argv: str) -> TrainingArguments:
    return parse_arguments(TrainingArguments, argv, description="test")[0]


def test_the_later_of_two_arguments_wins(tmp_path: Path) -> None:
    file = tmp_path / "arguments.txt"
    file.write_text("-d=pictures\n--trials=7\n")
    assert parse(f"@{file}", "--trials=5").search.trials == 5
    assert parse("--trials=5", f"@{file}").search.trials == 7


def test_a_file_can_contain_comments_blank_lines_and_spaces_around_the_first_equals_sign(tmp_path: Path) -> None:
    file = tmp_path / "arguments.txt"
    file.write_text(
        "\ufeff# taste\r\n\r\n  -d = my pictures\r\n--model = a = b.safetensors\r\n--fp16_features\r\n",
        encoding="utf-8",
    )
    arguments = parse(f"@{file}")
    assert arguments.images.directory == "my pictures"
    assert arguments.output.model == "a = b.safetensors"
    assert arguments.features.fp16_features


def test_a_windows_path_keeps_its_backslashes(tmp_path: Path) -> None:
    file = tmp_path / "arguments.txt"
    file.write_text("-d=C:\\my pictures\\new\n")
    assert parse(f"@{file}").images.directory == "C:\\my pictures\\new"


def test_a_space_can_separate_an_option_from_its_value_in_the_file(tmp_path: Path) -> None:
    file = tmp_path / "arguments.txt"
    file.write_text("-d my pictures\n--min_log_lr -4\n")
    assert parse(f"@{file}").images.directory == "my pictures"
    assert parse(f"@{file}").space.log_lr == Range(-4, -2.5)


names = st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"]), min_size=1).filter(
    lambda text: not text.startswith("@") and text != "--"
)


@given(
    directory=names,
    trials=st.integers(0, 10**6),
    low=st.floats(0, 0.4),
    high=st.floats(0.4, 0.9),
    states=st.lists(st.lists(st.integers(0, 40), min_size=1, max_size=5), min_size=1, max_size=3),
    fp16=st.booleans(),
)
def test_settings_survive_being_written_to_an_arguments_file(
    tmp_path_factory: pytest.TempPathFactory,
    directory: str,
    trials: int,
    low: float,
    high: float,
    states: list[list[int]],
    fp16: bool,
) -> None:
    options = [f"--directory={directory}", f"--trials={trials}", f"--min_dropout={low}", f"--max_dropout={high}"]
    options += [
        f"--hidden_states_used={'__'.join(','.join(map(str, one_list)) for one_list in states)}",
        *(["--fp16_features"] if fp16 else []),
    ]
    settings = parse(*options)
    file = tmp_path_factory.mktemp("arguments") / "arguments.txt"
    file.write_text("\n".join(as_lines(settings)), encoding="utf-8")
    assert parse(f"@{file}") == settings


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--trials=5"], "-d/--directory is required"),
        (["-d=x", "--trails=5"], "unknown argument --trails=5; did you mean --trials?"),
        (["-d=x", "--tri=5"], "unknown argument --tri=5"),
        (["-d=x", "stray"], "unknown argument stray;"),
        (["-d=x", "--trials=-1"], "--trials=-1 is out of bounds: it must be at least 0"),
        (["-d=x", "--trials=many"], "--trials=many is not a whole number; --help"),
        (["-d=x", "--fraction_for_eval=1.5"], "--fraction_for_eval=1.5 is out of bounds"),
        (["-d=x", "--min_dropout=0.9"], "--min_dropout (0.9) is above --max_dropout (0.8)"),
        (["-d=x", "--max_first_layer_size=-3"], "--max_first_layer_size=-3 is out of bounds"),
        (["-d=x", "--max_log_lr=nan"], "--max_log_lr=nan is not a number"),
        (
            ["-d=x", "--fixed_hidden_state_weights=1,nan"],
            "--fixed_hidden_state_weights=1,nan is not a comma-separated list of numbers",
        ),
        (["-d=x", "--model_seed=99999999999999999999"], "--model_seed=99999999999999999999 is out of bounds"),
        (["-d=x", "--normalise_weights=False"], "a flag takes no value, but was given 'False'"),
        (["-d=x", "--hidden_states_used=0,-1"], "--hidden_states_used=-1 is out of bounds"),
        (["-d=x", "--sampler=best"], "--sampler=best is none of CmaEs, random"),
        (["@nowhere.txt"], "arguments file nowhere.txt does not exist (looked from"),
        (["images"], "images stands alone, with no option before it; did you mean -d images?"),
        (["-d=x", "--min_log_lr=--"], "--min_log_lr has no value but --"),
        (["-d--"], "-d has no value but --"),
        (["-d=x", "--"], "the argument has no value but --"),
        (["-d=x", "--trials"], "--trials has no value; write --trials=VALUE"),
        (["-d"], "--directory has no value; write --directory=VALUE"),
        (["-d=x", "--trials=" + "9" * 5000], "is not a whole number"),
        (["-d=x", "--hidden_states_used=0,,1"], "--hidden_states_used=0,,1 is not a comma-separated list of whole"),
        (["-d=x", "--hidden_states_used=,"], "is not a comma-separated list of whole numbers"),
        (["-d=x", "--no_server"], "--no_server is no longer an argument: the server is off by default: delete"),
        (["-d=x", "--final_layer_bias"], "it is always on: delete the line"),
        (["-d=x", "--stack_hidden_states"], "write --hidden_states_mode=join"),
        (["-d=x", "--modelpath=m"], "write --model instead, which takes absolute paths"),
        (["-d=x", "--\x1b[2J"], "unknown argument --\\x1b[2J"),
    ],
)
def test_a_wrong_argument_is_named_with_what_to_do(argv: list[str], words: str) -> None:
    with pytest.raises(UserError) as raised:
        parse(*argv)
    assert words in str(raised.value)


def test_unknown_arguments_can_be_ignored_and_returned() -> None:
    settings, ignored = parse_arguments(
        TrainingArguments, ["-d=x", "--regex=a.*"], description="test", ignore_unknown=True
    )
    assert settings.images.directory == "x"
    assert ignored == ["--regex=a.*"]


def test_equal_bounds_fix_a_parameter() -> None:
    space = parse("-d=x", "--min_batch_size=8", "--max_batch_size=8").space
    assert space.batch_size.is_fixed
    assert not space.dropout.is_fixed


def test_the_example_file_matches_the_declarations() -> None:
    text = (ROOT / "arguments-example.txt").read_text(encoding="utf-8")
    assert text == example_text(), "run: python -m custom_aesthetic.settings.example_arguments > arguments-example.txt"


def test_the_example_file_names_every_training_argument_with_its_default(tmp_path: Path) -> None:
    lines = example_text().splitlines()
    shown = [line.removeprefix("# ") for line in lines if line.removeprefix("# ").startswith("--")]
    options = [
        option
        for group in setting_groups(TrainingArguments).values()
        for field in dataclasses.fields(group)
        for option in options_of(field)
    ]
    assert [line.partition("=")[0] for line in shown] == options
    file = tmp_path / "arguments.txt"
    file.write_text("\n".join(line for line in shown if "(none)" not in line and "=" in line), encoding="utf-8")
    assert parse(f"@{file}") == parse("--directory=images")


def test_every_argument_has_a_help_text() -> None:
    for group in setting_groups(TrainingArguments).values():
        for field in dataclasses.fields(group):
            assert len(field.metadata["help"]) > 10, field.name


def test_a_database_password_is_not_shown() -> None:
    settings = parse("-d=x", "--database=postgresql://me:pass:w@rd@host:5432/taste")
    assert "--database=postgresql://***@host:5432/taste" in shown_lines(settings)
    for plain in ("sqlite:///db.sqlite", "postgresql://me@host/taste", "grpc://host:13000"):
        assert f"--database={plain}" in shown_lines(parse("-d=x", f"--database={plain}"))


def test_quotes_around_values_and_comments_after_them_are_removed(tmp_path: Path) -> None:
    file = tmp_path / "arguments.txt"
    file.write_text(
        "-d \"my pictures\"  # where they are\n--scores = 'a # b.csv' # quoted\n--trials = 7 # few\n"
        '--fp16_features # a flag\n--savefile=no#1 #2.csv\n"--name=my taste"\n--model=\'a.safetensors\n'
    )
    arguments = parse(f"@{file}")
    assert arguments.images.directory == "my pictures"
    assert arguments.images.scores == "a # b.csv"
    assert arguments.search.trials == 7
    assert arguments.features.fp16_features
    assert arguments.output.savefile == "no#1 #2.csv"
    assert arguments.study.name == "my taste"
    assert arguments.output.model == "'a.safetensors"


@given(st.text("ab#'\"= -\\@\t", min_size=1, max_size=12))
def test_any_value_on_one_line_survives_an_arguments_file(tmp_path_factory: pytest.TempPathFactory, value: str) -> None:
    settings = parse("-d=x", f"--name=n{value}")
    file = tmp_path_factory.mktemp("arguments") / "arguments.txt"
    file.write_text("\n".join(as_lines(settings)), encoding="utf-8")
    assert parse(f"@{file}").study.name == f"n{value}"


def test_a_file_can_include_files_from_the_current_directory_or_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "first.txt").write_text("@second.txt\n@here.txt\n--trials=3\n")
    (tmp_path / "sub" / "second.txt").write_text("-d=x\n--trials=1\n")
    (tmp_path / "here.txt").write_text("--ensemble=2\n")
    arguments = parse("@sub/first.txt")
    assert (arguments.images.directory, arguments.search.trials, arguments.search.ensemble) == ("x", 3, 2)


def test_a_file_that_includes_itself_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("@b.txt\n@b.txt\n")
    (tmp_path / "b.txt").write_text("@a.txt\n")
    with pytest.raises(UserError, match=r"a\.txt names itself"):
        parse(f"@{tmp_path}/a.txt")
    for number in range(20):
        (tmp_path / f"{number}.txt").write_text(f"@{number + 1}.txt\n" * 2)
    (tmp_path / "20.txt").write_text("-d=x\n")
    with pytest.raises(UserError, match="names itself"):
        parse(f"@{tmp_path}/0.txt")


def test_utf16_files_are_read_and_binary_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("-d=x\n--trials=4\n", encoding="utf-16")
    assert parse(f"@{tmp_path}/a.txt").search.trials == 4
    (tmp_path / "a.txt").write_bytes(b"\x89PNG\x00")
    with pytest.raises(UserError, match="is not a text file"):
        parse(f"@{tmp_path}/a.txt")
    with pytest.raises(UserError, match="cannot be read"):
        parse(f"@{tmp_path}")


def test_older_spellings_are_accepted() -> None:
    arguments = parse("-d=x", "--feature_extractor=a,b,", "--hidden_states_used=0,1,", "--views=centre,")
    assert arguments.features.feature_extractor_model == "a,b,"
    assert arguments.features.hidden_states_used == ((0, 1),)
    assert arguments.features.views == ("centre",)


def test_a_directory_without_its_option_is_an_error_even_where_others_are_ignored() -> None:
    with pytest.raises(UserError, match="did you mean -d images"):
        parse_arguments(TrainingArguments, ["images", "--regex=a"], description="test", ignore_unknown=True)


@pytest.mark.parametrize("line", ["-d = {}", '-d="{}"', "-d {}", "--directory={}  # the share"])
def test_a_network_folder_of_windows_keeps_its_backslashes(tmp_path: Path, line: str) -> None:
    share = r"\\server\share\my images"
    (tmp_path / "arguments.txt").write_text(line.format(share))
    assert parse(f"@{tmp_path / 'arguments.txt'}").images.directory == share
    assert parse(f"-d={share}").images.directory == share
