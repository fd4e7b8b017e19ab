"""Two machines run one study on a real PostgreSQL server that is restarted during the search."""

import os
import pwd
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from custom_aesthetic.heads.model_file import load_model
from tests.search.test_run import states
from tests.search.test_storage import free_port
from tests.search.test_workers import SMALL, machine, pictures, trials_of, wait_for  # noqa: F401 (a fixture)

MACHINE = [*SMALL, "--min_train_epochs=250", "--max_train_epochs=250", "--min_batch_size=8"]
TRIALS = 14


@dataclass
class Server:
    """A temporary PostgreSQL server; if the tests run as root, it runs as the user `postgres`."""

    programs: Path
    folder: Path
    port: int

    @property
    def url(self) -> str:
        return f"postgresql://postgres@127.0.0.1:{self.port}/postgres"

    def run(self, program: str, *arguments: str) -> None:
        prefix = ["runuser", "-u", "postgres", "--"] if os.getuid() == 0 else []
        command = [*prefix, str(self.programs / program), *arguments]
        done = subprocess.run(
            command, cwd="/", stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, timeout=60
        )
        assert done.returncode == 0, done.stderr

    def control(self, action: str) -> None:
        options = f"-p {self.port} -k {self.folder} -c listen_addresses=127.0.0.1 -c fsync=off"
        extra = ["-o", options, "-l", str(self.folder / "log")] if action != "stop" else []
        self.run("pg_ctl", "-D", str(self.folder / "data"), "-w", "-m", "fast", *extra, action)


@pytest.fixture
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    pytest.importorskip("psycopg2", reason="the driver psycopg2-binary is not installed")
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb")) if sys.platform == "linux" else []
    program = str(found[-1]) if found else shutil.which("initdb")
    if program is None:
        pytest.skip("PostgreSQL is not installed (Debian's package postgresql)")
    folder = Path(tempfile.mkdtemp(prefix="aesthetic-pg-"))  # the user postgres may not enter pytest's tmp_path
    if os.getuid() == 0:
        user = pwd.getpwnam("postgres")
        os.chown(folder, user.pw_uid, user.pw_gid)
    server = Server(Path(program).parent, folder, free_port())
    try:
        server.run("initdb", "-D", str(folder / "data"), "-U", "postgres", "--auth=trust", "--no-sync")
        server.control("start")
        try:
            yield server
        finally:
            server.control("stop")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def test_two_machines_complete_one_study_while_its_server_restarts(
    server: Server,
    pictures: Path,  # noqa: F811
    tmp_path: Path,
) -> None:
    copies = [tmp_path / "first", tmp_path / "second"]
    for copy in copies:
        shutil.copytree(pictures, copy)
    arguments = [*MACHINE, "--workers=1", f"--trials={TRIALS}", f"--database={server.url}"]
    with machine(copies[0], *arguments) as first, machine(copies[1], *arguments) as second:
        wait_for(lambda: states(trials_of(server.url)).count("COMPLETE") >= 3)
        server.control("restart")
        outputs = [process.communicate(timeout=120)[0] for process in (first, second)]
    assert [first.returncode, second.returncode] == [0, 0], outputs
    trials = trials_of(server.url)
    assert states(trials).count("COMPLETE") == TRIALS
    assert "RUNNING" not in states(trials)
    machines = {trial.user_attrs["process"] for trial in trials if trial.value is not None}
    assert len(machines) == 2, "both took part"
    models = [(copy / "model.safetensors").read_bytes() for copy in copies]
    assert models[0] == models[1]
    lowest = min(trial.value for trial in trials if trial.value is not None)
    best = load_model(copies[0] / "model.safetensors").metadata["trial"]
    assert trials[int(best.split(",")[0])].value == lowest, "the metric is mse"
