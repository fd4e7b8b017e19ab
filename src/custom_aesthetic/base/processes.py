"""Names for partial files that say which process writes them, and removal of those whose process has ended.

A partial file is called `.NAME.HOST-PID-START-RANDOM.part`. START, the start time of the process, is needed because
process ids are reused.
"""

import contextlib
import gc
import hashlib
import os
import platform
import re
import secrets
import shutil
import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path

PART_SUFFIX = ".part"
LEFTOVER_SECONDS = 86_400
"""Partial files of another machine or container, or of unknown origin, are removed at this age."""

_MOST_NAME_BYTES = 100
_PART = re.compile(r".*\.([0-9a-f]{8})-(\d{1,10})-(\d{1,20})-[0-9a-f]{8}\.part", re.DOTALL)

_FOLDER = re.compile(r"aesthetic-([0-9a-f]{8})-(\d{1,10})-(\d{1,20})-[^-]*")


def aside_name(name: str) -> str:
    """Return a new name, different at every call, for a partial file of this process that will become `name`."""
    begin = os.fsencode(name)[:_MOST_NAME_BYTES].decode("utf-8", "ignore")
    return f".{begin}.{_host()}-{os.getpid()}-{start_of(os.getpid()) or 0}-{secrets.token_hex(4)}{PART_SUFFIX}"


def sweep(folder: Path) -> None:
    """Remove the partial files in a folder whose processes have ended."""
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.endswith(PART_SUFFIX) and _is_abandoned(entry):
                with contextlib.suppress(OSError):
                    Path(entry.path).unlink()


def folder_prefix() -> str:
    """Return how the name of a temporary folder of this process begins."""
    return f"aesthetic-{_host()}-{os.getpid()}-{start_of(os.getpid()) or 0}-"


def sweep_folders(parent: Path) -> None:
    """Remove the temporary folders that ended processes of this machine have left, as far as this user may."""
    with contextlib.suppress(OSError), os.scandir(parent) as entries:
        for entry in entries:
            found = _FOLDER.fullmatch(entry.name)
            if found is None or found[1] != _host() or not entry.is_dir(follow_symlinks=False):
                continue
            if not is_running(int(found[2]), int(found[3])):
                shutil.rmtree(entry.path, ignore_errors=True)


def is_running(process_id: int, start: int | None) -> bool:
    """Return whether a process with this id, and with this start time if it is known, is running.

    Always True on Windows, where it cannot be checked.
    """
    if os.name == "nt":  # os.kill would end the process
        return True
    try:
        os.kill(process_id, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass
    now = start_of(process_id)
    return not start or now is None or now == start


def start_of(process_id: int) -> int | None:
    """Return the start time of a process in ticks since the machine booted; None if the system does not tell."""
    try:
        return int(Path(f"/proc/{process_id}/stat").read_bytes().rpartition(b")")[2].split()[19])
    except (OSError, ValueError, IndexError):
        return None


def _is_abandoned(entry: os.DirEntry[str]) -> bool:
    if not entry.is_file(follow_symlinks=False):
        return False
    part = _PART.fullmatch(entry.name)
    if part is not None and part[1] == _host() and os.name != "nt":
        return not is_running(int(part[2]), int(part[3]))
    return time.time() - entry.stat(follow_symlinks=False).st_mtime > LEFTOVER_SECONDS


@cache
def _host() -> str:
    """Return 8 hexadecimal digits that identify this machine and its process namespace (a container has another)."""
    try:
        numbers = os.readlink("/proc/self/ns/pid")  # noqa: PTH115 - the result is not a path
    except OSError:
        numbers = ""
    return hashlib.sha256(f"{platform.node()} {numbers}".encode("utf-8", "replace")).hexdigest()[:8]


@contextlib.contextmanager
def imports() -> Iterator[None]:
    """Import large libraries within the block without searching for garbage: a tenth less time.

    What is there after the block stays out of later searches as well.
    """
    is_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if is_enabled:
            gc.enable()


def spare_last_collection() -> None:
    """Let this process end without a last search for garbage; call it where nothing is left to do.

    With torch, scipy and scikit-learn loaded the interpreter searches through a million objects as it ends, which
    takes seconds on a busy machine. What is to be done at exit is still done.
    """
    gc.freeze()
