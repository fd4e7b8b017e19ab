"""Ray itself, with two nodes on this machine: the same scores as without it, whatever is killed."""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.fs as pafs
import pytest

from custom_aesthetic.heads.model_file import Model
from tests.cluster.red import (
    files_of,
    make_parts,
    open_red,
    open_slow_red,
    red_model,
    red_scorer,
    rows_of,
    tar_of,
    write_files,
    write_table,
)
from tests.conftest import ROOT

ray = pytest.importorskip("ray", reason="Ray is not installed")
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:ray", "ignore::FutureWarning:ray")

STORE_BYTES = 80 * 2**20


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """Two nodes with one core each, and this process connected to them."""
    from ray.cluster_utils import Cluster

    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    before = os.environ.get("PYTHONPATH", "")
    os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), before])
    node = {"num_cpus": 1, "object_store_memory": STORE_BYTES}
    started = Cluster(initialize_head=True, head_node_args={**node, "include_dashboard": False})
    started.add_node(**node)
    ray.init(started.address, log_to_driver=False, logging_level="ERROR")
    yield started
    ray.shutdown()
    started.shutdown()
    os.environ["PYTHONPATH"] = before


@pytest.fixture
def model(tmp_path: Path) -> Model:
    return red_model(tmp_path / "red.safetensors")


Run = Callable[..., None]


@pytest.fixture
def run(cluster: Any, model: Model) -> Run:
    """Run the job on the cluster."""
    from custom_aesthetic.cluster.engine import ClusterWork
    from custom_aesthetic.cluster.job import run_work

    def run(source: Path | str, target: Path | str, *, n_pictures: int = 25, scorer: Any = open_red) -> None:
        run_work(ClusterWork(str(source), str(target), model, n_pictures, open_scorer=scorer), "digest", "local")

    return run


def check(rows: dict[str, dict[str, Any]], files: dict[str, bytes], model: Model, broken: tuple[str, ...] = ()) -> None:
    """Check that there is a row for each file, with the score that it has without Ray."""
    assert set(rows) == set(files)
    assert {name for name, row in rows.items() if row["error"] is not None} == set(broken)
    good = [name for name in files if name not in broken]
    expected = red_scorer(model).score([files[name] for name in good])
    np.testing.assert_allclose([rows[name]["score"] for name in good], expected, atol=1e-6)


def test_two_nodes_give_the_same_scores_and_one_in_a_hundred_broken_pictures(
    run: Run, model: Model, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "custom_aesthetic")
    broken = (7, 107, 207)
    files = files_of(300, broken=broken)
    write_files(tmp_path / "pictures", files)
    run(tmp_path / "pictures", tmp_path / "parts")
    check(rows_of(tmp_path / "parts"), files, model, tuple(f"{i % 3}/{i:04}.png" for i in broken))
    assert "3 of them cannot be scored: the column `error` says why" in caplog.text


@pytest.fixture(scope="module")
def store() -> Iterator[str]:
    """The query of addresses in a stand-in for S3, which has the bucket `bucket`."""
    pytest.importorskip("moto", reason="moto is not installed")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-p", str(port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        for _ in range(300):
            try:
                request = urllib.request.Request(f"http://127.0.0.1:{port}/bucket", method="PUT")
                urllib.request.urlopen(request, timeout=10).close()
                break
            except OSError:
                time.sleep(0.1)
        yield f"endpoint_override=127.0.0.1:{port}&scheme=http&region=us-east-1"
    finally:
        server.kill()
        server.wait()


def test_tar_files_in_s3_are_scored_into_s3(run: Run, model: Model, tmp_path: Path, store: str) -> None:
    files = files_of(60)
    bucket, _ = pafs.FileSystem.from_uri(f"s3://key:secret@bucket?{store}")
    for shard in range(3):
        content = tar_of({path: files[path] for path in list(files)[20 * shard : 20 * shard + 20]})
        with bucket.open_output_stream(f"bucket/in/shard-{shard:05}.tar") as stream:
            stream.write(content)
    source = f"s3://key:secret@bucket/in/shard-{{00000..00002}}.tar?{store}"
    run(source, f"s3://key:secret@bucket/out?{store}")
    (tmp_path / "parts").mkdir()
    pafs.copy_files("bucket/out", str(tmp_path / "parts"), source_filesystem=bucket)
    rows = rows_of(tmp_path / "parts", "key")
    check(rows, {path.replace("/", "_")[:-4]: content for path, content in files.items()}, model)
    assert "secret" not in (tmp_path / "parts" / "_run.json").read_text()


def test_a_folder_in_s3_is_the_same_as_here(model: Model, tmp_path: Path, store: str) -> None:
    files = files_of(40)
    bucket, _ = pafs.FileSystem.from_uri(f"s3://key:secret@bucket?{store}")
    for path, content in files.items():
        with bucket.open_output_stream(f"bucket/pictures/{path}") as stream:
            stream.write(content)
    make_parts(model, f"s3://key:secret@bucket/pictures?{store}", tmp_path / "parts")
    check(rows_of(tmp_path / "parts"), files, model)


def test_a_run_whose_driver_is_killed_goes_on_from_its_whole_parts(cluster: Any, model: Model, tmp_path: Path) -> None:
    files = files_of(300)
    write_table(tmp_path / "pictures.parquet", files)
    code = (
        "import sys\n"
        "from custom_aesthetic.cluster.engine import ClusterWork\n"
        "from custom_aesthetic.cluster.job import run_work\n"
        "from custom_aesthetic.heads.model_file import load_model\n"
        "from tests.cluster.red import open_slow_red\n"
        "work = ClusterWork(*sys.argv[1:3], load_model(sys.argv[3]), 20, open_scorer=open_slow_red)\n"
        "run_work(work, 'digest', sys.argv[4])\n"
    )
    arguments = [tmp_path / "pictures.parquet", tmp_path / "parts", tmp_path / "red.safetensors", cluster.address]
    command = [sys.executable, "-c", code, *map(str, arguments)]
    parts = tmp_path / "parts"
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE) as driver:
        deadline = time.monotonic() + 100
        while len(list(parts.glob("part-*"))) < 2 and driver.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
        driver.send_signal(signal.SIGKILL)
        _, errors = driver.communicate()
    before = {file.name: file.stat().st_mtime_ns for file in parts.glob("part-*.parquet")}
    assert len(before) >= 2, errors.decode()[-2000:]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=200)
    after = {file.name: file.stat().st_mtime_ns for file in parts.glob("part-*.parquet")}
    assert before.items() < after.items()
    check(rows_of(parts, "key"), files, model)


def test_a_node_killed_in_the_middle_costs_nothing_but_time(
    cluster: Any, run: Run, model: Model, tmp_path: Path
) -> None:
    """The last test of this file: one node is missing afterwards."""
    import threading

    files = files_of(300)
    write_files(tmp_path / "pictures", files)
    parts, killed = tmp_path / "parts", []

    def kill() -> None:
        while len(list(parts.glob("part-*.parquet"))) < 3:
            time.sleep(0.05)
        killed.append(len(list(parts.glob("part-*.parquet"))))
        cluster.remove_node(sorted(cluster.worker_nodes, key=str)[0], allow_graceful=False)

    killer = threading.Thread(target=kill)
    killer.start()
    run(tmp_path / "pictures", parts, scorer=open_slow_red, n_pictures=20)
    killer.join()
    assert killed[0] < len(list(parts.glob("part-*.parquet")))
    check(rows_of(parts), files, model)
    assert not list(parts.glob("*.partial*"))
