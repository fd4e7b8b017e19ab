"""The folder scorer as a user runs it, on small pictures with a model of their mean colour."""

import json
import logging
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote

import pytest
import torch

import aesthetic_scorer
from custom_aesthetic.features.table import load_features
from custom_aesthetic.heads.domain import find_domain, to_text
from custom_aesthetic.heads.model_file import save_model
from custom_aesthetic.heads.predictor import Predictor, from_layers
from custom_aesthetic.pictures.folders import find_images
from custom_aesthetic.pictures.xmp import read_stars
from custom_aesthetic.scores.score_files import read_scores
from custom_aesthetic.settings.console import run_script
from tests.integrations.immich_stand_in import KEY, Immich, serve
from tests.mean_colour import MeanColour


@pytest.fixture(autouse=True)
def mean_colour(monkeypatch):
    monkeypatch.setattr(
        "custom_aesthetic.heads.prediction.build_extractors",
        lambda names, *_: [MeanColour(n) for n in names.split(",")],
    )


def redness_model(file: Path, **metadata: str) -> Path:
    """A model whose score is ten times the mean red of a picture."""
    first = torch.zeros(2, 3)
    first[0, 0] = 1
    last = torch.tensor([[10 / 255, 0.0]])
    layers = [(first, torch.zeros(2)), (torch.eye(2), torch.zeros(2)), (last, torch.zeros(1))]
    predictor = from_layers(layers)
    assert isinstance(predictor, Predictor)
    known = {"feature_extractor_model": "mean-colour", "hidden_states_used": "0", "hidden_states_mode": "join"}
    save_model(file, predictor, {**known, **metadata})
    return file


@pytest.fixture
def model(tmp_path) -> Path:
    return redness_model(tmp_path / "red.safetensors")


@pytest.fixture
def score(colour_pictures, model, monkeypatch, capsys):
    """Run the script on the 24 colours; return exit code, output and errors."""

    def run(*options: str, with_model: bool = True):
        given = ["-d", str(colour_pictures), "-m", str(model)] if with_model else []
        monkeypatch.setattr(sys, "argv", ["aesthetic_scorer.py", *given, *options])
        code = run_script(aesthetic_scorer.run)
        logging.getLogger("custom_aesthetic").handlers.clear()  # each run adds one for its captured output
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


def numbers(paths) -> list[int]:
    return [int(Path(path).stem) for path in paths]


@pytest.mark.parametrize("name", ["scores.out.csv", "scores.out.json"])
def test_every_picture_is_scored_best_first(score, tmp_path, name):
    code, _, _ = score("-o", str(tmp_path / name))
    assert code == 0
    table = read_scores(tmp_path / name)
    assert numbers(table.paths) == list(range(23, -1, -1))
    assert table.scores[0] == pytest.approx(10 * 230 / 255, abs=0.05)


def test_without_an_action_the_scores_are_printed(score):
    _, out, _ = score("--top=3")
    assert re.findall(r"\d\d\.png", out.split("flagged")[-1]) == ["23.png", "22.png", "21.png"]


@pytest.mark.parametrize(
    "options, kept", [(["--top=4"], 4), (["--above=8"], 3), (["--percentile=75"], 6), (["--above=8", "--top=2"], 2)]
)
def test_only_the_selected_pictures_are_written(score, tmp_path, options, kept):
    score("-o", str(tmp_path / "out.csv"), *options)
    assert numbers(read_scores(tmp_path / "out.csv").paths) == list(range(23, 23 - kept, -1))


def test_a_bad_picture_is_named_and_left_out(score, colour_pictures, tmp_path):
    (colour_pictures / "warm" / "99.png").write_bytes(b"no picture")
    code, out, _ = score("-o", str(tmp_path / "out.csv"))
    assert code == 0
    assert "warm/99.png" in out
    assert len(read_scores(tmp_path / "out.csv")) == 24


def test_a_second_run_reads_the_cached_features(score, tmp_path, monkeypatch):
    score("-o", str(tmp_path / "out.csv"))

    def fail(self, *arguments):
        raise AssertionError("features were computed again")

    monkeypatch.setattr(MeanColour, "features", fail)
    assert score("-o", str(tmp_path / "again.csv"))[0] == 0
    assert (tmp_path / "again.csv").read_bytes() == (tmp_path / "out.csv").read_bytes()


@pytest.mark.parametrize("kind", ["copy", "link", "move"])
def test_a_dry_run_prints_what_would_be_done_and_does_nothing(score, colour_pictures, tmp_path, kind):
    before = find_images(colour_pictures)
    code, out, _ = score("--top=2", f"--{kind}_to={tmp_path / 'best'}", "--dry_run", "--write_xmp")
    assert code == 0
    assert out.count(f"would {kind}") == 2
    assert out.count("would write") == 2
    assert not (tmp_path / "best").exists()
    assert find_images(colour_pictures) == before
    assert not list(colour_pictures.rglob("*.xmp"))


@pytest.mark.parametrize("kind", ["copy", "link", "move"])
def test_the_best_are_copied_linked_or_moved(score, colour_pictures, tmp_path, kind):
    code, _, _ = score("--top=3", f"--{kind}_to={tmp_path / 'best'}")
    assert code == 0
    assert numbers(find_images(tmp_path / "best")) == [22, 21, 23]
    assert len(find_images(colour_pictures)) == (21 if kind == "move" else 24)


def test_a_move_is_undone_by_the_command_that_it_prints(score, colour_pictures, tmp_path):
    before = find_images(colour_pictures)
    _, out, _ = score("--percentile=50", f"--move_to={tmp_path / 'best'}")
    command = re.search(r"--undo=\S+", out)[0]
    code, out, _ = score(command, with_model=False)
    assert code == 0
    assert "12 files moved back" in out
    assert find_images(colour_pictures) == before


def test_the_sheet_shows_the_pictures_best_first_and_needs_no_network(score, tmp_path):
    score("--top=5", f"--sheet={tmp_path / 'sheet.html'}")
    page = (tmp_path / "sheet.html").read_text(encoding="utf-8")
    assert re.findall(r"(\d\d)\.png</small>", page) == ["23", "22", "21", "20", "19"]
    assert page.count("data:image/jpeg;base64,") == 5
    assert "http" not in re.sub(r"base64,[^\"]*", "", page)


@pytest.mark.parametrize("options", [(), ("--rank_prefix", "--move_to={0}/best"), ("--copy_to={0}/best",)])
def test_the_pictures_of_the_sheet_open_the_originals(score, colour_pictures, tmp_path, options):
    (colour_pictures / "warm" / "23.png").rename(colour_pictures / "warm" / "2#3 %41?.png")
    sheet = tmp_path / "sheets" / "sheet.html"
    score("--top=2", f"--sheet={sheet}", *(option.format(tmp_path) for option in options))
    addresses = re.findall(r'<a href="([^"]+)" target="_blank"', sheet.read_text(encoding="utf-8"))
    originals = [Path(os.path.normpath(sheet.parent / unquote(address))) for address in addresses]
    if "--rank_prefix" in options:
        assert originals == [tmp_path / "best" / "warm" / "001_2#3 %41?.png", tmp_path / "best" / "cold" / "002_22.png"]
    else:
        assert originals == [colour_pictures / "warm" / "2#3 %41?.png", colour_pictures / "cold" / "22.png"]
    assert all(original.is_file() for original in originals)


def test_ranks_before_names_need_files_to_name(score):
    code, _, errors = score("--top=2", "--rank_prefix")
    assert code == 2
    assert "--rank_prefix goes with --copy_to, --link_to or --move_to; add one" in errors


def test_names_cannot_break_the_sheet(score, colour_pictures, tmp_path):
    (colour_pictures / "warm" / "23.png").rename(colour_pictures / "warm" / '<b>"23&.png')
    score("--top=1", f"--sheet={tmp_path / 'sheet.html'}")
    page = (tmp_path / "sheet.html").read_text(encoding="utf-8")
    assert "&lt;b&gt;&quot;23&amp;.png" in page
    assert '<b>"23' not in page


def test_stars_are_written_by_fifths_beside_the_pictures(score, colour_pictures):
    before = {path: (colour_pictures / path).read_bytes() for path in find_images(colour_pictures)}
    assert score("--write_xmp")[0] == 0
    stars = [read_stars(colour_pictures / path) for path in sorted(before, key=lambda path: int(Path(path).stem))]
    assert stars == sorted(stars)
    assert [stars.count(k) for k in range(1, 6)] == [5, 5, 5, 5, 4]
    assert {path: (colour_pictures / path).read_bytes() for path in before} == before


def test_pictures_far_from_the_training_are_flagged(score, colour_pictures, model, tmp_path):
    blue = [f"cold/{number:02}.png" for number in range(0, 10, 2)] + [
        f"warm/{number:02}.png" for number in range(1, 8, 2)
    ]
    features = load_features(colour_pictures, blue, [MeanColour("mean-colour")], show_progress=False)
    redness_model(model, domain=to_text(find_domain(features.values.numpy())))
    code, out, _ = score("-o", str(tmp_path / "out.csv"), f"--sheet={tmp_path / 'sheet.html'}")
    assert code == 0
    assert "unfamiliar to the model" in out
    table = read_scores(tmp_path / "out.csv")
    flagged = {path for path, flag in zip(table.paths, table.columns["out_of_domain"], strict=True) if flag == "1"}
    assert {"warm/23.png", "cold/22.png"} <= flagged
    assert not flagged & set(blue)
    assert 'class="flag"' in (tmp_path / "sheet.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "options, message",
    [
        (["--copy_to=best"], "needs a selection"),
        (["--top=2", "--copy_to=best", "--move_to=best"], "cannot be combined"),
        (["--top=0"], "at least 1"),
        (["--percentile=101"], "at most 100"),
        (["--above=99"], "none of the 24"),
        (["-o", "scores.txt"], ".csv or .json or .parquet"),
        (["--tpo=3"], "did you mean --top"),
        (["--undo=missing.jsonl"], "cannot be read"),
    ],
)
def test_invalid_options_give_one_line_and_status_2(score, options, message):
    code, _, err = score(*options)
    assert code == 2
    assert message in err
    assert err.split("\n")[-2].startswith("error: ")
    assert "Traceback" not in err


def test_a_target_inside_the_folder_is_refused_before_any_work(score, colour_pictures):
    code, _, err = score("--top=2", f"--move_to={colour_pictures / 'best'}")
    assert (code, "lies inside" in err) == (2, True)
    assert not (colour_pictures / ".aesthetic_features").exists()


def test_directory_and_model_are_required(score):
    code, _, err = score(with_model=False)
    assert code == 2
    assert "-m/--model" in err


def test_json_scores_are_in_the_ab_scorers_form(score, tmp_path):
    score("-o", str(tmp_path / "out.json"), "--top=1")
    content = json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))
    assert list(content["ImageRecords"]) == ["warm/23.png"]


def test_stars_for_lightroom_go_beside_raw_files_and_the_rest_is_counted(score, colour_pictures):
    (colour_pictures / "warm" / "23.CR2").write_bytes(b"raw")
    code, out, _ = score("--write_xmp", "--xmp_for=lightroom", "--top=2")
    assert code == 0
    assert [file.name for file in colour_pictures.rglob("*.xmp")] == ["23.xmp"]
    assert "stars written for 1 pictures" in out
    assert "1 without stars because Lightroom reads no sidecar of theirs" in out


def test_a_program_named_without_stars_to_write_is_refused(score):
    code, _, err = score("--xmp_for=lightroom")
    assert code == 2
    assert "--write_xmp" in err


@pytest.mark.parametrize(
    ("options", "kept"),
    [
        (["--worst=3"], [0, 1, 2]),
        (["--below=1", "--worst=2"], [0, 1]),
        (["--below=1"], [2, 1, 0]),
        (["--above=1", "--worst=1"], [3]),
    ],
)
def test_the_worst_are_selected_too(score, tmp_path, options, kept):
    assert score("-o", str(tmp_path / "out.csv"), *options)[0] == 0
    assert numbers(read_scores(tmp_path / "out.csv").paths) == kept


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--top=2", "--worst=2"], "--top=2 and --worst=2 cannot be combined"),
        (["--above=5", "--below=4"], "no score is above 5 and below 4"),
        (["--worst=0"], "at least 1"),
        (["--per_group=0"], "at least 1"),
        (["--below=-9"], "relax --below"),
    ],
)
def test_conditions_that_no_picture_meets_are_one_line_and_status_2(score, options, message):
    code, _, err = score(*options)
    assert (code, message in err, err.count("\n")) == (2, True, 1)


@pytest.fixture
def alike(monkeypatch):
    """Pictures are alike if their tens are equal: 00 ... 09, 10 ... 19, 20 ... 23."""

    def tens(directory: Path, paths, features) -> list[str]:
        return [f"group {Path(path).stem[0]}" for path in paths]

    monkeypatch.setattr("custom_aesthetic.commands.score_folder.picture_groups", tens)


def test_of_each_group_the_best_are_moved_and_taken_back(score, alike, colour_pictures, tmp_path):
    before = find_images(colour_pictures)
    options = ["--per_group=2", f"--move_to={tmp_path / 'best'}"]
    assert "would move" in score(*options, "--dry_run")[1]
    assert find_images(colour_pictures) == before
    _, out, _ = score(*options)
    assert sorted(numbers(find_images(tmp_path / "best"))) == [8, 9, 18, 19, 22, 23]
    assert score(re.search(r"--undo=\S+", out)[0], with_model=False)[0] == 0
    assert find_images(colour_pictures) == before


def test_groups_are_written_with_the_scores(score, alike, tmp_path):
    score("-o", str(tmp_path / "out.csv"), "--per_group=1", "--top=2")
    table = read_scores(tmp_path / "out.csv")
    assert numbers(table.paths) == [23, 19]
    assert list(table.columns["group"]) == ["group 2", "group 1"]


def test_scores_are_written_as_parquet_too(score, alike, tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed")
    score("-o", str(tmp_path / "out.csv"), "--top=5")
    assert score("-o", str(tmp_path / "out.parquet"), "--top=5")[0] == 0
    table, found = read_scores(tmp_path / "out.csv"), parquet.read_table(tmp_path / "out.parquet")
    assert found.column_names == ["relative_path", *table.columns]
    assert found["relative_path"].to_pylist() == list(table.paths)
    assert found["score"].to_pylist() == list(table.scores)
    assert found["group"].to_pylist() == list(table.columns["group"])


def test_names_that_are_not_utf8_are_written_to_parquet_as_to_json(score, colour_pictures, tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed")
    odd = os.fsdecode(b"warm/odd \xff.png")
    try:
        shutil.copy(colour_pictures / "warm" / "23.png", colour_pictures / odd)
    except OSError:
        pytest.skip("this file system takes names in UTF-8 only")
    score("-o", str(tmp_path / "out.parquet"), "--top=2")
    assert r"warm/odd \udcff.png" in parquet.read_table(tmp_path / "out.parquet")["relative_path"].to_pylist()


def test_parquet_without_its_package_is_refused_before_any_work(score, colour_pictures, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    code, _, err = score("-o", "out.parquet")
    assert (code, "-o out.parquet needs the package pyarrow" in err) == (2, True)
    assert not (colour_pictures / ".aesthetic_features").exists()


def test_the_sheet_shows_groups_together_in_a_frame(score, alike, tmp_path):
    score("--top=6", "--per_group=3", f"--sheet={tmp_path / 'sheet.html'}")
    page = (tmp_path / "sheet.html").read_text(encoding="utf-8")
    frames = re.findall(r'<li class="group"><p>(.*?)</p>(.*?)</ol></li>', page, re.DOTALL)
    assert [title for title, _ in frames] == ["3 of 4 alike", "3 of 10 alike"]
    assert [re.findall(r"(\d\d)\.png</small>", body) for _, body in frames] == [["23", "22", "21"], ["19", "18", "17"]]


@pytest.mark.parametrize("others", [["--xmp_for=lightroom"], ["--write_xmp"], ["--write_xmp", "--xmp_for=digikam"]])
def test_stars_are_put_inside_pictures_only_for_lightroom(score, others):
    code, _, err = score("--embed", *others)
    assert code == 2
    assert "--write_xmp" in err


def test_stars_inside_pictures_are_taken_back_by_the_command_that_the_output_names(score, colour_pictures):
    pytest.importorskip("exiv2")
    (colour_pictures / "warm" / "23.CR2").write_bytes(b"raw")
    paths = [path for path in find_images(colour_pictures) if path.endswith(".png")]
    before = {path: (colour_pictures / path).read_bytes() for path in paths}
    options = ["--write_xmp", "--xmp_for=lightroom", "--embed"]
    code, out, _ = score(*options, "--dry_run")
    assert code == 0
    assert out.count("would write") == 24
    assert "to 23.xmp and the picture itself" in out
    assert {path: (colour_pictures / path).read_bytes() for path in paths} == before
    code, out, _ = score(*options)
    assert code == 0
    assert "stars written for 24 pictures" in out
    assert "25 files changed" in out
    stars = [read_stars(colour_pictures / path) for path in sorted(paths, key=lambda path: int(Path(path).stem))]
    assert [stars.count(k) for k in range(1, 6)] == [5, 5, 5, 5, 4]
    assert [file.name for file in colour_pictures.rglob("*.xmp")] == ["23.xmp"]
    command = re.search(r"--undo=\S+", out)[0]
    assert "files changed" not in score(*options)[1]
    code, out, _ = score(command, with_model=False)
    assert code == 0
    assert "of 25 files restored" in out
    assert [read_stars(colour_pictures / path) for path in paths] == [None] * 24
    assert not list(colour_pictures.rglob("*.xmp"))


def test_the_best_are_rated_in_immich_and_put_into_an_album(score, colour_pictures, monkeypatch):
    immich = Immich()
    ids = {path: immich.upload((colour_pictures / path).read_bytes()) for path in find_images(colour_pictures)}
    server = serve(immich)
    address = f"--immich=http://127.0.0.1:{server.server_port}"
    code, _, err = score(address, "--top=2")
    assert (code, "IMMICH_API_KEY" in err, immich.requests) == (2, True, [])
    monkeypatch.setenv("IMMICH_API_KEY", KEY)
    assert score(address, "--top=2")[0] == 0
    assert score("--immich_album=Mine", address)[0] == 0
    server.shutdown()
    server.server_close()
    assert immich.problems == []
    given = [immich.rating(ids[path]) for path in sorted(ids, key=lambda path: int(Path(path).stem))]
    assert [given.count(k) for k in range(1, 6)] == [5, 5, 5, 5, 4]
    assert {album["albumName"]: len(album["ids"]) for album in immich.albums.values()} == {
        "Selected from pictures": 2,
        "Mine": 24,
    }
    assert score("--immich_album=Mine")[0] == 2


def captions(folder: Path) -> dict[int, str]:
    """The captions below a folder by the number of their picture."""
    return {int(file.stem): file.read_text(encoding="utf-8") for file in folder.rglob("*.txt")}


def test_captions_get_tags_by_tenths_and_are_taken_back_by_the_command_that_is_named(score, colour_pictures):
    (colour_pictures / "warm" / "23.txt").write_bytes(b"\xef\xbb\xbfred, score_4_up\r\n")
    (colour_pictures / "cold" / "00.txt").write_bytes(b"score_9, blue")
    (colour_pictures / "warm" / "21.txt").write_bytes(b"r\xe9d")
    code, out, _ = score("--captions")
    assert code == 0
    assert "1 not changed because they are no captions" in out
    assert "21.txt (not UTF-8)" in out
    assert (colour_pictures / "warm" / "23.txt").read_bytes() == b"\xef\xbb\xbfred, score_9\r\n"
    assert (colour_pictures / "cold" / "00.txt").read_bytes() == b"blue"
    (colour_pictures / "warm" / "21.txt").unlink()
    found = captions(colour_pictures)
    assert sorted(found) == [0, *range(10, 21), 22, 23]
    assert [found[number] for number in (22, 20, 18, 10)] == [
        "score_9\n",
        "score_8_up\n",
        "score_7_up\n",
        "score_4_up\n",
    ]
    undoing = re.search(r"--undo=\S+", out)[0]
    assert "captions changed for 0 of 20 pictures" in score("--captions", "--worst=20")[1]
    assert score(undoing, with_model=False)[0] == 0
    assert captions(colour_pictures) == {0: "score_9, blue", 23: "\ufeffred, score_4_up\n"}


def test_a_dry_run_changes_no_caption(score, colour_pictures):
    code, out, _ = score("--captions", "--top=2", "--dry_run")
    assert code == 0
    assert out.count("would write score_9 to ") == 2
    assert captions(colour_pictures) == {}
    assert not list(colour_pictures.glob("undo-*"))


def test_pictures_that_share_a_caption_are_named(score, colour_pictures):
    shutil.copy(colour_pictures / "cold" / "00.png", colour_pictures / "warm" / "23.jpg")
    code, out, _ = score("--captions", "--top=1")
    assert code == 0
    assert "1 not tagged because pictures of other tags have the same caption: warm/23.png" in out
    assert captions(colour_pictures) == {}


KILLED_BEFORE_THE_REPLACEMENT = """
import os, pathlib, sys
from custom_aesthetic.pictures.rating_undo import UndoFile
from custom_aesthetic.pictures.ratings import plan_ratings, write_rating
pathlib.Path.replace = lambda *_: os._exit(9)
folder = pathlib.Path(sys.argv[1])
(rating,) = plan_ratings(folder, {"warm/23.png": 4}, program="lightroom", embed=True).ratings
write_rating(rating, UndoFile(folder / "undo.jsonl"))
"""


def test_a_process_killed_before_it_replaces_a_picture_leaves_it_whole_and_the_next_run_clears_up(
    score, colour_pictures
):
    pytest.importorskip("exiv2")
    picture = colour_pictures / "warm" / "23.png"
    before = picture.read_bytes()
    killed = subprocess.run([sys.executable, "-c", KILLED_BEFORE_THE_REPLACEMENT, str(colour_pictures)], check=False)
    assert killed.returncode == 9
    assert picture.read_bytes() == before
    assert len(list(picture.parent.glob("*.part"))) == 1
    code, out, _ = score(f"--undo={colour_pictures / 'undo.jsonl'}", with_model=False)
    assert (code, "content of 0 files restored" in out) == (0, True)
    assert score("--write_xmp", "--xmp_for=lightroom", "--embed", "--top=1")[0] == 0
    assert read_stars(picture) == 5
    assert not list(picture.parent.glob("*.part"))
