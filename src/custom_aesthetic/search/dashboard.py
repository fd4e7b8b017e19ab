"""Serving of optuna-dashboard during, and optionally after, a training."""

import contextlib
import json
import logging
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from custom_aesthetic.base.errors import UserError

log = logging.getLogger(__name__)

FIRST_PORT = 8080
PORTS_TRIED = 100

SERVE = """
import json, sys
source, database, port = json.load(sys.stdin)
sys.path.insert(0, source)
from custom_aesthetic.search.storage import open_storage
from optuna_dashboard import run_server
run_server(open_storage(database), host="127.0.0.1", port=port)
"""
"""Code of the dashboard process. It reads the database URL from a pipe, since all users can see command lines."""


def check_server(mode: str, database: str) -> None:
    """Raise UserError if the dashboard is on but the study is not saved anywhere."""
    if mode != "off" and not database:
        raise UserError(f"--server={mode} needs a saved study, but --database is empty; set --database")


@contextlib.contextmanager
def serve_dashboard(mode: str, database: str) -> Iterator[None]:
    """Serve the dashboard: not at all (`off`), until the block ends (`daemon`), or beyond it (`on`)."""
    if mode == "off":
        yield
        return
    check_server(mode, database)
    process, address = start_dashboard(database)
    log.info("optuna-dashboard: %s", address)
    try:
        yield
    finally:
        if mode == "daemon":
            process.terminate()
            process.wait()
        else:
            log.info("optuna-dashboard keeps running at %s; to stop it, end process %d", address, process.pid)


def start_dashboard(database: str, first_port: int = FIRST_PORT) -> tuple[subprocess.Popen, str]:
    """Return the process that serves the dashboard on the first free local port, and its address."""
    port = free_port(first_port)
    new_group = 0x200 if sys.platform == "win32" else 0  # CREATE_NEW_PROCESS_GROUP of Windows
    source = str(Path(__file__).resolve().parents[2])
    process = subprocess.Popen(
        [sys.executable, "-c", SERVE],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=sys.platform != "win32",
        creationflags=new_group,
    )
    assert process.stdin is not None
    with contextlib.suppress(OSError), process.stdin as pipe:  # OSError: the process has already ended
        pipe.write(json.dumps([source, database, port]).encode())
    return process, f"http://127.0.0.1:{port}/"


def free_port(first: int = FIRST_PORT) -> int:
    """Return the first free port of 127.0.0.1 from `first` on; UserError if PORTS_TRIED ports are taken."""
    for port in range(first, first + PORTS_TRIED):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise UserError(f"no free port from {first} to {first + PORTS_TRIED - 1} for optuna-dashboard; use --server=off")
