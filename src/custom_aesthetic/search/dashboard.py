"""optuna-dashboard, started beside a training."""

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
"""What the process of the dashboard runs. The database comes through a pipe: every user sees a command line."""


def check_server(mode: str, database: str) -> None:
    """Raise UserError where there is no kept study to show."""
    if mode != "off" and not database:
        raise UserError(f"--server={mode} shows a study that is kept, but --database is empty; name one")


@contextlib.contextmanager
def serve_dashboard(mode: str, database: str) -> Iterator[None]:
    """Serve the dashboard within the block: `off` not at all, `daemon` until the block ends, `on` beyond it."""
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
            log.info("optuna-dashboard stays up at %s; stop it by ending process %d", address, process.pid)


def start_dashboard(database: str) -> tuple[subprocess.Popen, str]:
    """Return the process that serves the dashboard on a free local port, and its address."""
    port = free_port()
    new_group = 0x200 if sys.platform == "win32" else 0  # Windows' CREATE_NEW_PROCESS_GROUP
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
    with contextlib.suppress(OSError), process.stdin as pipe:  # OSError: it has ended already
        pipe.write(json.dumps([source, database, port]).encode())
    return process, f"http://127.0.0.1:{port}/"


def free_port(first: int = FIRST_PORT) -> int:
    """Return the first free port of 127.0.0.1 from `first` on; UserError if a hundred are taken."""
    for port in range(first, first + PORTS_TRIED):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise UserError(f"no free port from {first} to {first + PORTS_TRIED - 1} for optuna-dashboard; use --server=off")
