"""optuna-dashboard, started beside a training."""

import contextlib
import logging
import socket
import subprocess
import sys
from collections.abc import Iterator

from custom_aesthetic.base.errors import UserError
from custom_aesthetic.search.storage import with_driver

log = logging.getLogger(__name__)

FIRST_PORT = 8080
PORTS_TRIED = 100


def check_server(mode: str, database: str) -> None:
    """Raise UserError where there is no kept study to show."""
    if mode != "off" and not database:
        raise UserError(f"--server={mode} shows a study that is kept, but --database is empty; name one")


@contextlib.contextmanager
def serve_dashboard(mode: str, database: str) -> Iterator[None]:
    """Serve the dashboard meanwhile: `off` not at all, `daemon` until the block ends, `on` for longer than that."""
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
    code = "import sys; from optuna_dashboard._cli import main; sys.argv[0] = 'optuna-dashboard'; main()"
    command = [sys.executable, "-c", code, with_driver(database), "--host", "127.0.0.1", "--port", str(port)]
    new_group = 0x200 if sys.platform == "win32" else 0  # Windows' CREATE_NEW_PROCESS_GROUP
    process = subprocess.Popen(
        command,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=sys.platform != "win32",
        creationflags=new_group,
    )
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
