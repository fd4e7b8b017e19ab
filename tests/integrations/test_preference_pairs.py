"""Preference pairs from a log of choices: what the rows hold, and which pictures are encoded anew."""

import io
import logging
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as some
from PIL import Image
from PIL.ExifTags import Base

from custom_aesthetic.base.errors import UserError
from custom_aesthetic.commands.score_pairs import score_by_comparisons
from custom_aesthetic.scores.choice_log import Comparison, ComparisonLog, make_choice, undo_rows
from custom_aesthetic.settings.arguments import parse_arguments
from custom_aesthetic.settings.scorers import ABArguments

parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed")

from custom_aesthetic.integrations import preference_pairs  # noqa: E402 - it needs pyarrow
from custom_aesthetic.integrations.preference_pairs import preferences, write_pairs  # noqa: E402


def export(directory: Path, file: Path, *options: str) -> list[dict]:
    arguments, _ = parse_arguments(ABArguments, ["-d", str(directory), f"--pairs={file}", *options], description="")
    score_by_comparisons(arguments)
    return parquet.read_table(file).to_pylist()


def choose(directory: Path, *choices: tuple[str, ...], name: str = "comparisons.csv") -> ComparisonLog:
    """Write choices, the winner first, to the log, a second apart."""
    log = ComparisonLog(directory / name)
    for number, (winner, *losers) in enumerate(choices):
        time = f"2026-01-01T00:00:{number:02}.000000+00:00"
        log.append(make_choice(winner, losers, seconds=1, drawn="adaptive", time=time))
    return log


def as_array(content: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGB"), dtype=int)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A JPEG, a turned JPEG, a PNG with transparency, and a picture that no decoder can read."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    gradient = Image.linear_gradient("L").resize((64, 32))
    Image.merge("RGB", [gradient, gradient.rotate(180), gradient]).save(folder / "a.jpg", quality=80)
    exif = Image.Exif()
    exif[Base.Orientation] = 6
    Image.merge("RGB", [gradient] * 3).save(folder / "turned.jpg", exif=exif)
    Image.new("RGBA", (20, 10), (200, 0, 0, 0)).save(folder / "clear.png")
    (folder / "torn.jpg").write_bytes((folder / "a.jpg").read_bytes()[:400])
    return folder


def test_a_choice_is_a_row_with_both_pictures_and_who_won(folder, tmp_path):
    choose(folder, ("clear.png", "a.jpg"), ("a.jpg", "clear.png", "turned.jpg"))
    rows = export(folder, tmp_path / "pairs.parquet")
    assert [(row["relative_path_0"], row["label_0"], row["relative_path_1"], row["label_1"]) for row in rows] == [
        ("a.jpg", 0.0, "clear.png", 1.0),
        ("a.jpg", 1.0, "clear.png", 0.0),
        ("a.jpg", 1.0, "turned.jpg", 0.0),
    ]
    assert rows[1]["time"] == rows[2]["time"] == "2026-01-01T00:00:01.000000+00:00"
    assert not (folder / "scores.json").exists()


def test_an_upright_jpeg_stays_as_it_is_and_other_pictures_are_encoded_upright(folder, tmp_path):
    choose(folder, ("clear.png", "a.jpg"), ("a.jpg", "turned.jpg"))
    first, second = export(folder, tmp_path / "pairs.parquet")
    assert first["jpg_0"] == second["jpg_0"] == (folder / "a.jpg").read_bytes()
    assert as_array(first["jpg_1"]).min() >= 253
    assert Image.open(io.BytesIO(second["jpg_1"])).format == "JPEG"
    upright = np.asarray(Image.open(folder / "turned.jpg").convert("RGB").transpose(Image.Transpose.ROTATE_270))
    assert np.abs(as_array(second["jpg_1"]) - upright).mean() < 2


def test_pictures_that_are_gone_or_cannot_be_read_are_counted_and_left_out(folder, tmp_path, caplog):
    choose(folder, ("a.jpg", "clear.png"), ("gone.jpg", "a.jpg"), ("a.jpg", "torn.jpg"), ("gone.jpg", "torn.jpg"))
    with caplog.at_level(logging.INFO):
        rows = export(folder, tmp_path / "pairs.parquet")
    assert len(rows) == 1
    assert "1 pairs of 4 choices" in caplog.text
    assert "3 pairs left out" in caplog.text
    assert "gone.jpg (not in the directory any more), torn.jpg (truncated image file)" in caplog.text


def test_a_path_outside_the_directory_is_not_read(folder, tmp_path):
    (tmp_path / "secret.jpg").write_bytes((folder / "a.jpg").read_bytes())
    choose(folder, ("../secret.jpg", "a.jpg"), (str(tmp_path / "secret.jpg"), "a.jpg"), ("a.jpg", "clear.png"))
    assert len(export(folder, tmp_path / "pairs.parquet")) == 1


def test_choices_taken_back_are_left_out_and_merged_ones_added(folder, tmp_path):
    log = choose(folder, ("a.jpg", "clear.png"), ("clear.png", "a.jpg"))
    log.append(undo_rows(log.last_answer()))
    choose(tmp_path, ("turned.jpg", "a.jpg"), name="other.csv")
    rows = export(folder, tmp_path / "pairs.parquet", f"--merge={tmp_path / 'other.csv'}")
    assert [(row["relative_path_1"], row["label_0"]) for row in rows] == [("clear.png", 1.0), ("turned.jpg", 0.0)]


def test_recompute_writes_the_scores_as_well(colour_pictures, tmp_path):
    choose(colour_pictures, ("warm/23.png", "cold/00.png"))
    assert len(export(colour_pictures, tmp_path / "pairs.parquet", "--recompute")) == 1
    assert (colour_pictures / "scores.json").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [(["--pairs=pairs.csv"], "end the file name with .parquet"), (["--pairs=pairs.parquet"], "no choices in")],
)
def test_what_cannot_be_written_is_refused(folder, tmp_path, monkeypatch, options, message):
    monkeypatch.chdir(tmp_path)
    arguments, _ = parse_arguments(ABArguments, ["-d", str(folder), *options], description="")
    with pytest.raises(UserError, match=message):
        score_by_comparisons(arguments)
    assert not list(tmp_path.glob("pairs*"))


def test_a_file_without_any_pair_is_not_written_over_an_older_one(folder, tmp_path):
    choose(folder, ("a.jpg", "clear.png"))
    export(folder, tmp_path / "pairs.parquet")
    before = (tmp_path / "pairs.parquet").read_bytes()
    with pytest.raises(UserError, match="no pair can be written"):
        write_pairs(tmp_path / "pairs.parquet", folder, set(), preferences([Comparison("t", "a.jpg", "b.jpg", 1)]))
    assert (tmp_path / "pairs.parquet").read_bytes() == before
    assert {file.name for file in tmp_path.iterdir()} == {"pictures", "pairs.parquet"}


def test_pictures_are_written_in_row_groups_and_do_not_fill_the_memory(folder, tmp_path, monkeypatch):
    n_bytes = (folder / "a.jpg").stat().st_size
    (folder / "large.jpg").write_bytes((folder / "a.jpg").read_bytes() + b"\0" * (500_000 - n_bytes))
    monkeypatch.setattr(preference_pairs, "ROW_GROUP_BYTES", 2_000_000)
    rows = [Comparison(f"{number:04}", "a.jpg", "large.jpg", 1.0) for number in range(100)]
    pool = preference_pairs.pa.default_memory_pool()
    before = pool.bytes_allocated()
    tracemalloc.start()
    write_pairs(tmp_path / "pairs.parquet", folder, {"a.jpg", "large.jpg"}, preferences(rows))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8_000_000
    assert pool.bytes_allocated() - before < 8_000_000
    found = parquet.ParquetFile(tmp_path / "pairs.parquet")
    assert found.metadata.num_row_groups == 25
    assert found.metadata.num_rows == 100
    assert (tmp_path / "pairs.parquet").stat().st_size > 50_000_000
    assert found.metadata.row_group(0).column(1).statistics is None


NAMES = some.sampled_from(["a", "b", "c"])


@given(some.lists(some.tuples(some.integers(0, 3), NAMES, NAMES).filter(lambda row: row[1] != row[2]), max_size=12))
def test_every_choice_is_one_pair_and_a_choice_of_both_ways_is_a_tie(choices):
    rows = [Comparison(str(time), winner, loser, 1.0) for time, winner, loser in choices]
    pairs = preferences(rows)
    assert len(pairs) == len({(time, frozenset(names)) for time, *names in choices})
    assert [pair.time for pair in pairs] == sorted(pair.time for pair in pairs)
    for pair in pairs:
        first, second = pair.paths
        assert first < second
        ways = {(winner, loser) for time, winner, loser in choices if str(time) == pair.time}
        assert (
            pair.label_0
            == {(True, False): 1, (False, True): 0, (True, True): 0.5}[(first, second) in ways, (second, first) in ways]
        )
