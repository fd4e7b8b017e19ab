"""Work that the page starts in another process, so that it never waits for it: lines come back, and it can be ended."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

SOURCES = Path(__file__).resolve().parents[2]
"""The folder that holds this library, which the process must find as well."""

PATIENCE_SECONDS = 4.0


class ChildJob:
    """A module of this library that runs in a process of its own, which ends with this one.

    Each line that it prints goes to `on_line`, called in a thread of the job; `on_end` gets the exit status.
    """

    def __init__(
        self,
        module: str,
        arguments: Sequence[str],
        *,
        on_line: Callable[[str], None],
        on_end: Callable[[int], None] = lambda status: None,
        environment: Mapping[str, str] | None = None,
        with_errors: bool = False,
        listens: bool = False,
    ) -> None:
        """`with_errors` takes the lines of the standard error as well; else they go where ours go.

        A module that `listens` reads what `send` sends from its standard input, and ends where that ends.
        """
        paths = [str(SOURCES), *filter(None, [os.environ.get("PYTHONPATH")])]
        self._process = subprocess.Popen(
            [sys.executable, "-u", "-m", *([] if listens else ["custom_aesthetic.gallery.minded"]), module, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT if with_errors else None,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths), **(environment or {})},
            start_new_session=True,
            encoding="utf-8",
            errors="replace",
        )
        self.is_cancelled = False
        self._is_over = False
        self._thread = threading.Thread(target=self._read, args=(on_line, on_end), name=module, daemon=True)
        self._thread.start()

    def is_running(self) -> bool:
        """Return whether the process has not ended yet."""
        return self._process.poll() is None

    def send(self, line: str) -> None:
        """Send a line to a module that listens; nothing happens if it has ended."""
        assert self._process.stdin is not None
        with contextlib.suppress(OSError, ValueError):
            self._process.stdin.write(line + "\n")
            self._process.stdin.flush()

    def cancel(self) -> None:
        """Ask the process to end; what it has kept on the disk stays. It is killed after PATIENCE_SECONDS."""
        if not self.is_running():
            return
        self.is_cancelled = True
        self._signal(getattr(signal, "SIGINT", signal.SIGTERM))
        timer = threading.Timer(PATIENCE_SECONDS, self.kill)
        timer.daemon = True
        timer.start()

    def kill(self) -> None:
        """End the process and all that it has started, at once."""
        self.is_cancelled = True
        if self._is_over:
            return  # its number may be that of another process by now
        if os.name == "posix":
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)
        else:
            self._process.kill()

    def _signal(self, number: int) -> None:
        if os.name == "posix":
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._process.pid, number)
        else:
            self._process.terminate()

    def _read(self, on_line: Callable[[str], None], on_end: Callable[[int], None]) -> None:
        assert self._process.stdout is not None and self._process.stdin is not None
        for line in self._process.stdout:
            on_line(line.rstrip("\r\n"))
        status = self._process.wait()
        if self.is_cancelled:
            self.kill()  # what it has started may be slower to end
        self._is_over = True
        self._process.stdout.close()
        with contextlib.suppress(OSError):
            self._process.stdin.close()
        on_end(status)
