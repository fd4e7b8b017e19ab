"""The job around the engine, which here is a loop in this process: what it refuses, keeps, removes and says."""

import contextlib
import errno
import json
import os
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import ray
import torch

from custom_aesthetic.base.errors import UserError
from custom_aesthetic.cluster import engine, places
from custom_aesthetic.cluster.engine import Actors, ClusterWork, PartMaker, choose_actors, connected
from custom_aesthetic.cluster.items import Item
from custom_aesthetic.cluster.job import RUN_FILE, run_work, score_on_cluster
from custom_aesthetic.cluster.parts import Outcome
from custom_aesthetic.heads.model_file import Model
from custom_aesthetic.scripts.scorer import run as run_scorer
from custom_aesthetic.settings.arguments import parse_arguments
from custom_aesthetic.settings.scorers import FolderArguments
from tests.cluster.red import files_of, make_parts, red_model, red_scorer, rows_of, write_files


@pytest.fixture
def model(tmp_path: Path) -> Model:
    return red_model(tmp_path / "red.safetensors")


@pytest.fixture(autouse=True)
def in_this_process(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    def outcomes(work: ClusterWork, _: str) -> Iterator[Outcome]:
        options = {"n_pictures": work.n_pictures, "with_features": work.with_features}
        yield from make_parts(work.model, work.source, work.target, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(engine, "outcomes", outcomes)
    monkeypatch.setattr(engine, "connected", lambda _: contextlib.nullcontext())
    caplog.set_level("INFO", "custom_aesthetic")


@pytest.fixture
def score(tmp_path: Path, model: Model) -> Callable[..., None]:
    """Run the script's job on `pictures`, into `parts`."""

    def score(*options: str) -> None:
        usual = [f"-d={tmp_path / 'pictures'}", f"-m={model.file}", f"-o={tmp_path / 'parts'}", "--part_pictures=20"]
        score_on_cluster(parse_arguments(FolderArguments, [*usual, *options], description="")[0])

    return score


def test_a_second_run_makes_what_is_missing_and_removes_what_has_gone(
    score: Callable[..., None], model: Model, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    files, new = files_of(200), files_of(201)
    write_files(tmp_path / "pictures", files)
    score()
    before = {file.name: file.stat().st_mtime_ns for file in (tmp_path / "parts").iterdir()}
    gone = next(iter(files))
    (tmp_path / "pictures" / gone).unlink()
    write_files(tmp_path / "pictures", {path: new[path] for path in new if path not in files})
    score()
    rows = rows_of(tmp_path / "parts")
    assert set(rows) == set(new) - {gone}
    assert rows["2/0200.png"]["score"] == pytest.approx(red_scorer(model).score(new["2/0200.png"])[0], abs=1e-6)
    after = {file.name: file.stat().st_mtime_ns for file in (tmp_path / "parts").iterdir()}
    assert len(before.items() & after.items()) >= len(before) - 3
    assert "of an earlier run removed" in caplog.text
    assert "200 pictures in" in caplog.text and "of them by an earlier run" in caplog.text


def test_a_run_with_nothing_to_do_writes_nothing(
    score: Callable[..., None], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_files(tmp_path / "pictures", files_of(50, broken=(1,)))
    score()
    before = {file: file.stat().st_mtime_ns for file in (tmp_path / "parts").iterdir()}
    score()
    assert {file: file.stat().st_mtime_ns for file in (tmp_path / "parts").iterdir()} == before
    assert "50 of them by an earlier run" in caplog.text
    assert "1 of them cannot be scored: the column `error` says why" in caplog.text


def test_scores_of_another_model_are_not_mixed_in(score: Callable[..., None], model: Model, tmp_path: Path) -> None:
    write_files(tmp_path / "pictures", files_of(30))
    score()
    before = rows_of(tmp_path / "parts")
    with pytest.raises(UserError, match="holds scores with other features than now; name another folder by -o"):
        score("--with_features")
    with pytest.raises(UserError, match="other pictures than now"):
        score(f"-d={tmp_path}")
    model.file.write_bytes(model.file.read_bytes() + b" ")
    with pytest.raises(UserError):
        score()
    assert rows_of(tmp_path / "parts") == before


def test_what_a_folder_holds_the_scores_of_is_written_down(score: Callable[..., None], tmp_path: Path) -> None:
    write_files(tmp_path / "pictures", files_of(3))
    score()
    found = json.loads((tmp_path / "parts" / RUN_FILE).read_text())
    assert found["pictures"] == str(tmp_path / "pictures")
    (tmp_path / "parts" / RUN_FILE).write_text("{")
    with pytest.raises(UserError, match="is damaged; remove it if"):
        score()


def test_a_wrong_input_ends_the_run_and_removes_nothing(
    score: Callable[..., None], model: Model, tmp_path: Path
) -> None:
    write_files(tmp_path / "pictures", files_of(30))
    score()
    before = rows_of(tmp_path / "parts")
    (tmp_path / "pictures").rename(tmp_path / "elsewhere")
    with pytest.raises(UserError, match="does not exist or is not a directory; check -d"):
        score()
    (tmp_path / "pictures").mkdir()
    with pytest.raises(UserError, match=f"no pictures in {tmp_path / 'pictures'}; check -d"):
        run_work(ClusterWork(str(tmp_path / "pictures"), str(tmp_path / "new"), model, 10), "digest", "local")
    assert rows_of(tmp_path / "parts") == before


def test_parts_of_a_folder_that_cannot_be_read_for_the_moment_stay(
    score: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    write_files(tmp_path / "pictures", files_of(90))
    score()
    before = set((tmp_path / "parts").iterdir())
    scandir = os.scandir

    def fail(folder: str) -> object:
        if str(folder).endswith("/1"):
            raise OSError(errno.ESTALE, "Stale file handle")
        return scandir(folder)

    with monkeypatch.context() as broken:
        broken.setattr("os.scandir", fail)
        score()
    assert before <= set((tmp_path / "parts").iterdir())
    assert "/1 cannot be read (Stale file handle) and is left out" in caplog.text
    assert "no part of an earlier run is removed" in caplog.text
    score()
    assert set((tmp_path / "parts").iterdir()) == before


def test_a_scorer_that_cannot_be_opened_is_a_mistake_of_the_first_item(model: Model, tmp_path: Path) -> None:
    def fail(*_: object) -> None:
        raise UserError("there is no such device; use cpu")

    work = ClusterWork(str(tmp_path), str(tmp_path / "parts"), model, 10, open_scorer=fail)  # type: ignore[arg-type]
    n_threads = torch.get_num_threads()
    maker = PartMaker(work, Actors(1, 0, 1))
    torch.set_num_threads(n_threads)
    (outcome,) = maker({"item": [pickle.dumps(Item("pictures", ("a.png",), "0"))]})["outcome"]
    assert pickle.loads(outcome) == Outcome(mistake="there is no such device; use cpu")


def test_a_folder_that_cannot_be_written_is_one_line_and_keys_are_not_shown(
    model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: object) -> None:
        raise OSError("access\nis denied")

    monkeypatch.setattr(places, "file_info", refuse)
    with pytest.raises(UserError) as raised:
        run_work(ClusterWork(str(tmp_path), "memory://key:secret@parts", model, 10), "digest", "local")
    assert str(raised.value).startswith("-o=memory://parts cannot be reached: access is denied; check")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--top=5"], "--top does not go with --engine=ray"),
        (["--move_to=x"], "--move_to does not go with --engine=ray"),
        (["--export_features=x.parquet"], "add --with_features"),
        (["--serve"], "--serve does not go with"),
        (["-o=scores.csv"], "writes a folder of parquet parts, not -o=scores.csv"),
    ],
)
def test_options_that_need_all_scores_at_once_are_refused(
    score: Callable[..., None], options: list[str], words: str
) -> None:
    with pytest.raises(UserError, match=words):
        score(*options)


def test_options_of_the_cluster_need_the_engine(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="need --engine=ray; add it"):
        run_scorer([f"-d={tmp_path}", "-m=x.safetensors", "--part_pictures=5"])


@pytest.mark.parametrize("error", [ray.exceptions.RayError("no token\nwas found"), ConnectionError("no token")])
def test_a_cluster_that_refuses_is_one_line_and_what_had_started_ends(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    ended: list[bool] = []

    def refuse(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", refuse)
    monkeypatch.setattr(ray, "shutdown", lambda: ended.append(True))
    for name in ("RAY_USAGE_STATS_ENABLED", "RAY_BACKEND_LOG_LEVEL"):
        monkeypatch.setenv(name, "0")
    with (
        pytest.raises(UserError, match=r"^--ray_address=auto: no Ray can be reached \(no token") as raised,
        connected("auto"),
    ):
        raise AssertionError("it is not connected")
    assert "\n" not in str(raised.value) and ended == [True]


def node(**resources: float) -> dict[str, object]:
    return {"Alive": True, "Resources": resources}


def test_actors_are_one_a_gpu_with_its_share_of_cores_or_one_a_core() -> None:
    head, worker = node(CPU=64), node(CPU=30, GPU=4)
    dead = {"Alive": False, "Resources": {"CPU": 8.0, "GPU": 8.0}}
    assert choose_actors([head, worker, worker, dead], "auto") == Actors(8, 1, 7)
    assert choose_actors([head, worker], "cpu") == Actors(94, 0, 1)
    assert choose_actors([node(CPU=2)], "auto") == Actors(2, 0, 1)
    with pytest.raises(UserError, match="no machine of this Ray cluster has a GPU"):
        choose_actors([head], "cuda")
