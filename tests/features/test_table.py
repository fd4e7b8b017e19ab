"""The table of features: right, complete, and never computed twice."""

import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors import safe_open
from torch import Tensor

from custom_aesthetic.base.errors import UserError
from custom_aesthetic.engines.lanes import BATCH_SIZE
from custom_aesthetic.features.extraction import Extraction, Features, Lanes, arrangement
from custom_aesthetic.features.table import FeatureBlock, FeatureTable, load_features
from custom_aesthetic.pictures.folders import CACHE_FOLDER_NAME, find_images
from tests.mean_colour import MeanColour, expected, make_pictures

ROOT = Path(__file__).resolve().parents[2]


def load(directory: Path, paths: Sequence[str], *extractors: MeanColour, **options: object) -> FeatureTable:
    return load_features(directory, paths, extractors, show_progress=False, **options)  # type: ignore[arg-type]


def test_every_picture_gets_the_features_of_its_own_file_in_the_order_asked(tmp_path: Path) -> None:
    paths = make_pictures(tmp_path, 50)[::-1]

    table = load(tmp_path, paths, MeanColour())

    assert table.paths == tuple(paths) and table.failures == {}
    assert table.values.dtype == torch.float32 and table.values.device.type == "cpu"
    assert torch.allclose(table.values, expected(tmp_path, paths))


def test_columns_go_by_extractor_then_view_then_hidden_state_as_asked(tmp_path: Path) -> None:
    paths = make_pictures(tmp_path, 5)
    extractors = [MeanColour("b", fingerprint="b"), MeanColour("a", fingerprint="a")]

    table = load(tmp_path, paths, *extractors, hidden_states=[(2, 0)] * len(extractors), views=("mirror", "centre"))

    places = [(name, k, view) for name in "ba" for view in ("mirror", "centre") for k in (2, 0)]
    assert table.blocks == tuple(FeatureBlock(*place, 3 * i, 3 * i + 3) for i, place in enumerate(places))
    for block in table.blocks:
        columns = table.values[:, block.start : block.stop]
        assert torch.allclose(columns, expected(tmp_path, paths, block.hidden_state, block.view))


def test_without_hidden_states_each_extractor_gives_its_own_default(tmp_path: Path) -> None:
    paths = make_pictures(tmp_path, 2)
    other = MeanColour("other", fingerprint="other")
    other.default_hidden_states = (3, 1)

    table = load(tmp_path, paths, MeanColour(), other)

    assert [(block.extractor, block.hidden_state) for block in table.blocks] == [
        ("mean-colour", 0),
        ("other", 3),
        ("other", 1),
    ]


def test_a_second_run_computes_nothing_and_is_silent(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="custom_aesthetic")
    paths = make_pictures(tmp_path, 10)
    first = load_features(tmp_path, paths, [MeanColour()])
    assert capfd.readouterr().err == "", "without a terminal there are only log lines"
    assert "features of mean-colour: 10 pictures" in caplog.messages
    caplog.clear()

    again = MeanColour()
    second = load_features(tmp_path, paths, [again])

    assert again.calls == []
    assert torch.equal(first.values, second.values)
    assert capfd.readouterr() == ("", "")


def test_another_hidden_state_or_view_computes_only_that_and_all_from_one_pass(tmp_path: Path) -> None:
    paths = make_pictures(tmp_path, 3)
    load(tmp_path, paths, MeanColour(), hidden_states=[(0,)])

    extractor = MeanColour()
    load(tmp_path, paths, extractor, hidden_states=[(0, 2, 3)])
    assert {states for states, _ in extractor.calls} == {(2, 3)}
    assert extractor.n_computed == 3

    extractor = MeanColour()
    table = load(tmp_path, paths, extractor, hidden_states=[(0, 2)], views=("centre", "mirror"))
    assert extractor.n_computed == 3
    assert torch.allclose(table.values[:, 6:9], expected(tmp_path, paths, 0, "mirror"))


def test_changed_and_new_pictures_are_computed_and_removed_ones_left_out(tmp_path: Path) -> None:
    paths = make_pictures(tmp_path, 6)
    load(tmp_path, paths, MeanColour())
    changed = tmp_path / paths[0]
    before = changed.stat()
    Image.new("RGB", (9, 9), (1, 2, 3)).save(changed)
    os.utime(changed, ns=(before.st_atime_ns, before.st_mtime_ns + 1_000_000_000))
    (tmp_path / paths[1]).unlink()
    Image.new("RGB", (9, 9), (4, 5, 6)).save(tmp_path / "new.png")

    extractor = MeanColour()
    now = find_images(tmp_path)
    table = load(tmp_path, now, extractor)

    assert extractor.n_computed == 2
    assert table.paths == tuple(now) and paths[1] not in now and "new.png" in now
    assert torch.allclose(table.values, expected(tmp_path, now))


def test_another_fingerprint_or_precision_is_computed_again_and_both_are_kept(tmp_path: Path) -> None:
    paths = make_pictures(tmp_path, 3)
    load(tmp_path, paths, MeanColour())
    other, half, again = MeanColour(fingerprint="2"), MeanColour(), MeanColour()

    load(tmp_path, paths, other)
    load(tmp_path, paths, half, fp16=True)
    load(tmp_path, paths, again)

    assert (other.n_computed, half.n_computed, again.n_computed) == (3, 3, 0)


def test_half_precision_halves_disk_and_memory(tmp_path: Path) -> None:
    paths = make_pictures(tmp_path, 3)

    table = load(tmp_path, paths, MeanColour(), fp16=True)

    assert table.values.dtype == torch.float16
    assert torch.allclose(table.values.float(), expected(tmp_path, paths), rtol=1e-3)
    [folder] = (tmp_path / CACHE_FOLDER_NAME).glob("*/*")
    assert folder.name.endswith("float16")


def test_features_that_do_not_fit_are_named_and_not_kept(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = make_pictures(tmp_path, 3)
    extractor = MeanColour()

    def features(pixels: Tensor, hidden_states: Sequence[int]) -> dict[int, Tensor]:
        values = torch.ones(len(pixels), 3)
        values[pixels[:, 0, 0, 0] == expected(tmp_path, [paths[0]])[0, 0]] = 1e6
        values[pixels[:, 0, 0, 0] == expected(tmp_path, [paths[1]])[0, 0]] = float("nan")
        return dict.fromkeys(hidden_states, values)

    monkeypatch.setattr(extractor, "features", features)
    other = MeanColour("other", fingerprint="other")
    table = load(tmp_path, paths, extractor, other, fp16=True)

    assert table.paths == (paths[2],) and other.n_computed == 1
    assert "--fp16_features" in table.failures[paths[0]] and "no finite features" in table.failures[paths[1]]


def test_bad_pictures_are_named_counted_left_out_and_tried_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    good = make_pictures(tmp_path, 20)
    for i in range(7):
        (tmp_path / f"bad_{i}.png").touch()
    paths = [*(f"bad_{i}.png" for i in range(7)), *good, "missing.png"]

    table = load(tmp_path, paths, MeanColour(), MeanColour("other", fingerprint="other"))

    assert table.paths == tuple(good)
    assert torch.allclose(table.values, expected(tmp_path, good).repeat(1, 2))
    assert table.failures["bad_3.png"] == "empty file (0 bytes)" and table.failures["missing.png"] == "file not found"
    assert len(table.failures) == 8
    assert "8 of 28 pictures" in caplog.text and "bad_0.png: empty file (0 bytes)" in caplog.text
    assert "and 3 more" in caplog.text

    before = (tmp_path / "bad_0.png").stat()
    Image.new("RGB", (2, 2), (9, 9, 9)).save(tmp_path / "bad_0.png")
    os.utime(tmp_path / "bad_0.png", ns=(before.st_atime_ns, before.st_mtime_ns))
    extractor = MeanColour()
    assert load(tmp_path, paths, extractor).paths == ("bad_0.png", *good)
    assert extractor.n_computed == 1


def test_a_picture_that_the_extractor_cannot_transform_is_named_and_left_out(tmp_path: Path) -> None:
    paths = make_pictures(tmp_path, 5)
    Image.new("RGB", (1, 3), (9, 9, 9)).save(tmp_path / "thin.png")

    class NeedsTwoColumns(MeanColour):
        def transform(self, image: Image.Image, view: str = "centre") -> Tensor:
            if image.width < 2:
                raise ValueError("mean must have\n1 elements")
            return super().transform(image, view)

    table = load(tmp_path, [*paths, "thin.png"], NeedsTwoColumns())

    assert table.paths == tuple(paths)
    reason = "mean-colour cannot transform it (ValueError: mean must have 1 elements)"
    assert table.failures == {"thin.png": reason}


def test_no_readable_picture_is_a_user_error(tmp_path: Path) -> None:
    (tmp_path / "bad.png").touch()
    with pytest.raises(UserError, match=r"none of the 1 pictures.*bad\.png: empty file"):
        load(tmp_path, ["bad.png"], MeanColour())
    with pytest.raises(UserError, match="no pictures"):
        load(tmp_path, [], MeanColour())


def test_a_hidden_state_that_does_not_exist_is_refused_before_any_work(tmp_path: Path) -> None:
    extractor = MeanColour()
    with pytest.raises(UserError, match=r"mean-colour has no hidden state 4; choose from 0 .* to 3"):
        load(tmp_path, make_pictures(tmp_path, 2), extractor, hidden_states=[(0, 4)])
    assert extractor.calls == []


@pytest.mark.parametrize("part", ["features", "index"])
def test_a_damaged_shard_is_computed_again_in_the_same_run(
    tmp_path: Path, part: str, caplog: pytest.LogCaptureFixture
) -> None:
    paths = make_pictures(tmp_path, 12)
    load(tmp_path, paths, MeanColour())
    damaged = next((tmp_path / CACHE_FOLDER_NAME).rglob("*.safetensors"))
    with safe_open(damaged, framework="numpy") as file:
        whole = file.get_tensor("features" if part == "features" else "paths").tobytes()
    damaged.write_bytes(damaged.read_bytes().replace(whole, whole[:-1] + bytes([whole[-1] ^ 1])))

    extractor = MeanColour()
    table = load(tmp_path, paths, extractor)

    assert 0 < extractor.n_computed < 12
    assert torch.allclose(table.values, expected(tmp_path, paths))
    assert damaged.name in caplog.text and damaged.with_suffix(".damaged").exists()


def test_torch_threads_are_left_as_found(tmp_path: Path) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        load(tmp_path, make_pictures(tmp_path, 3), ThreadSafe())
        with ThreadPoolExecutor(1) as another_thread:
            assert another_thread.submit(torch.get_num_threads).result() == torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


class ThreadSafe(MeanColour):
    """Records how many batches run at once."""

    features_thread_safe = True
    device = torch.device("cpu")

    def __init__(self) -> None:
        super().__init__()
        self.running = self.most_running = 0
        self.lock = threading.Lock()

    def features(self, pixels: Tensor, hidden_states: Sequence[int]) -> dict[int, Tensor]:
        with self.lock:
            self.running += 1
            self.most_running = max(self.most_running, self.running)
        time.sleep(0.02)
        found = super().features(pixels, hidden_states)
        with self.lock:
            self.running -= 1
        return found


def test_only_an_extractor_that_says_so_runs_in_several_threads_at_once(tmp_path: Path) -> None:
    paths = make_pictures(tmp_path, 60)
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        at_once, one_by_one = ThreadSafe(), ThreadSafe()
        one_by_one.features_thread_safe = False
        table = load(tmp_path, paths, at_once)
        (tmp_path / CACHE_FOLDER_NAME).rename(tmp_path / "away")
        load(tmp_path, paths, one_by_one)
    finally:
        torch.set_num_threads(before)
    assert (at_once.most_running, one_by_one.most_running) == (3, 1)
    assert torch.allclose(table.values, expected(tmp_path, paths))


def test_batches_run_side_by_side_where_that_works_and_a_few_pictures_share_the_cores() -> None:
    assert arrangement(ThreadSafe(), 4, 100) == Lanes(4, 1)
    assert arrangement(ThreadSafe(), 4, 2) == Lanes(2, 2)
    assert arrangement(ThreadSafe(), 4, 1) == arrangement(MeanColour(), 4, 100) == Lanes(1, 4)
    on_an_accelerator = ThreadSafe()
    on_an_accelerator.device = torch.device("meta")
    assert arrangement(on_an_accelerator, 4, 100) == Lanes(1, 4)


@pytest.mark.parametrize("best", [8, 32])
def test_an_accelerator_gets_the_best_batch_size_and_timed_batches_are_kept(tmp_path: Path, best: int) -> None:
    def seconds(n_pictures: int) -> float:
        return 0.02 * (1 if n_pictures <= best else (n_pictures / best) ** 2)

    paths = make_pictures(tmp_path, 200)
    extractor = MeanColour(seconds=seconds)
    extractor.device = torch.device("meta")
    rows: list[int] = []
    extraction = Extraction(
        tmp_path,
        extractor,
        {"centre": (0,)},
        on_batch=lambda batch_rows, features: rows.extend(batch_rows),
        on_failure=lambda row, reason: None,
    )
    extraction.run(list(enumerate(paths)))

    assert extraction.batch_size == best
    assert sorted(rows) == list(range(200)) and extractor.n_computed == 200


def test_on_a_cpu_every_batch_is_small_however_long_the_first_ones_take(tmp_path: Path) -> None:
    paths = make_pictures(tmp_path, 30)
    extractor = ThreadSafe()
    delays = iter([0.2, 0.0, 0.2])
    extractor._seconds = lambda n_pictures: next(delays, 0.0)
    load(tmp_path, paths, extractor)
    assert sorted(n_pictures for _, n_pictures in extractor.calls) == [6] + [BATCH_SIZE] * 3


def test_finished_batches_are_stored_together_and_all_of_them(tmp_path: Path) -> None:
    paths = make_pictures(tmp_path, 60)
    reported: list[list[int]] = []

    def keep(rows: list[int], features: Features) -> None:
        reported.append(rows)
        assert torch.allclose(torch.from_numpy(features["centre", 0]), expected(tmp_path, [paths[row] for row in rows]))

    extraction = Extraction(tmp_path, MeanColour(), {"centre": (0,)}, on_batch=keep, on_failure=lambda *failure: None)
    extraction.run(list(enumerate(paths)))
    assert sorted(row for rows in reported for row in rows) == list(range(60))
    assert len(reported) < 60 / BATCH_SIZE


def test_pictures_are_decoded_while_the_model_works(tmp_path: Path) -> None:
    paths = make_pictures(tmp_path, 40)
    all_decoded = threading.Event()

    class Slow(MeanColour):
        n_decoded = 0

        def transform(self, image: Image.Image, view: str = "centre") -> Tensor:
            self.n_decoded += 1
            if self.n_decoded >= 30:
                all_decoded.set()
            return super().transform(image, view)

        def features(self, pixels: Tensor, hidden_states: Sequence[int]) -> dict[int, Tensor]:
            assert all_decoded.wait(20), "the decoders wait for the model"
            return super().features(pixels, hidden_states)

    assert len(load(tmp_path, paths, Slow()).paths) == 40


def test_a_batch_that_does_not_fit_the_memory_is_halved(tmp_path: Path) -> None:
    class Small(MeanColour):
        largest = 2

        def features(self, pixels: Tensor, hidden_states: Sequence[int]) -> dict[int, Tensor]:
            if len(pixels) > self.largest:
                raise torch.OutOfMemoryError("too large")
            return super().features(pixels, hidden_states)

    paths = make_pictures(tmp_path, 11)
    table = load(tmp_path, paths, Small())
    assert torch.allclose(table.values, expected(tmp_path, paths))

    nothing_fits = Small(fingerprint="2")
    nothing_fits.largest = 0
    with pytest.raises(UserError, match="one picture at a time"):
        load(tmp_path, paths, nothing_fits)


def test_an_error_in_the_model_is_raised_and_finished_batches_are_kept(tmp_path: Path) -> None:
    class Breaking(MeanColour):
        def features(self, pixels: Tensor, hidden_states: Sequence[int]) -> dict[int, Tensor]:
            if self.n_computed >= 20:
                raise UserError("the checkpoint is broken")
            return super().features(pixels, hidden_states)

    paths = make_pictures(tmp_path, 60)
    broken = Breaking()
    with pytest.raises(UserError, match="the checkpoint is broken"):
        load(tmp_path, paths, broken)

    whole = MeanColour()
    load(tmp_path, paths, whole)
    assert whole.n_computed == 60 - broken.n_computed


PROCESS = """
import json, sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from custom_aesthetic.features import extraction
from custom_aesthetic.features.table import load_features
from custom_aesthetic.pictures.folders import find_images
from tests.mean_colour import MeanColour, expected
directory, log_file, seconds = Path(sys.argv[1]), Path(sys.argv[2]), float(sys.argv[3])
extraction.SECONDS_BETWEEN_REPORTS = extraction.LONGEST_BETWEEN_REPORTS = 0.1
extractor = MeanColour(seconds=lambda n: seconds * n, log_file=log_file)
paths = find_images(directory)
try:
    table = load_features(directory, paths, [extractor], show_progress=False)
except KeyboardInterrupt:
    print(json.dumps({"computed": extractor.n_computed}))
    sys.exit(130)
right = table.paths == tuple(paths) and torch.allclose(table.values, expected(directory, paths))
print(json.dumps({"computed": extractor.n_computed, "right": right}))
"""


def start(directory: Path, log_file: Path, seconds_a_picture: float) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", PROCESS, str(directory), str(log_file), str(seconds_a_picture)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)


def wait_for_batches(log_file: Path, n_batches: int) -> None:
    deadline = time.monotonic() + 60
    while not log_file.exists() or len(log_file.read_text().split()) < n_batches:
        assert time.monotonic() < deadline, "the process makes no progress"
        time.sleep(0.005)


@pytest.mark.parametrize("n_batches", [2, 9])
def test_a_kill_loses_at_most_the_batches_since_the_last_report(tmp_path: Path, n_batches: int) -> None:
    """Batches of 8 take 0.08 s at least, and are reported every 0.1 s: at most 2 wait, and one is under way."""
    directory, log_file = tmp_path / "pictures", tmp_path / "log"
    paths = make_pictures(directory, 100)
    process = start(directory, log_file, 0.01)
    wait_for_batches(log_file, n_batches)
    process.kill()
    process.communicate(timeout=60)
    begun = [int(line) for line in log_file.read_text().split()]

    extractor = MeanColour()
    table = load(directory, paths, extractor)

    assert extractor.n_computed < 100
    assert 100 - extractor.n_computed >= sum(begun[:-3])
    assert torch.allclose(table.values, expected(directory, paths))


@pytest.mark.skipif(os.name != "posix", reason="sends a signal as a terminal does")
def test_ctrl_c_keeps_every_batch_that_the_model_has_begun(tmp_path: Path) -> None:
    directory, log_file = tmp_path / "pictures", tmp_path / "log"
    paths = make_pictures(directory, 100)
    process = start(directory, log_file, 0.01)
    wait_for_batches(log_file, 5)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 130

    extractor = MeanColour()
    load(directory, paths, extractor)

    assert 0 < extractor.n_computed == 100 - json.loads(output)["computed"]


def test_two_processes_can_work_on_one_folder(tmp_path: Path) -> None:
    directory = tmp_path / "pictures"
    paths = make_pictures(directory, 120)
    processes = [start(directory, tmp_path / f"log_{i}", 0.002) for i in range(2)]
    for process in processes:
        output, _ = process.communicate(timeout=100)
        assert process.returncode == 0
        assert json.loads(output)["right"]

    extractor = MeanColour()
    table = load(directory, paths, extractor)

    assert extractor.n_computed == 0
    assert torch.allclose(table.values, expected(directory, paths))
    assert not list((directory / CACHE_FOLDER_NAME).rglob("*.damaged"))
