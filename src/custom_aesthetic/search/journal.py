"""A journal file that a full disk or a kill in the middle of an entry leaves usable."""

import os
from pathlib import Path
from typing import Any

from optuna.storages.journal import JournalFileBackend

from custom_aesthetic.search.optuna_private import held

BEGINNING = b'{"op_code"'
"""How an entry begins."""


class Journal(JournalFileBackend):
    """Optuna's journal file. Optuna itself would write on behind half an entry, and never read the file again."""

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        with held(self._lock):
            cut_half_entry(Path(self._file_path))
        try:
            super().append_logs(logs)
        except OSError:
            with held(self._lock):
                cut_half_entry(Path(self._file_path))
            raise


def cut_half_entry(file: Path) -> None:
    """Remove what stands behind the last line end, if anything; only for the holder of the journal's lock."""
    with file.open("rb+") as stream:
        size = stream.seek(0, os.SEEK_END)
        if size == 0:
            return
        stream.seek(size - 1)
        if stream.read(1) == b"\n":
            return
        stream.seek(0)
        stream.truncate(stream.read().rfind(b"\n") + 1)


def is_journal(file: Path) -> bool:
    """Return whether the file is empty or begins as a journal does; raises OSError if it cannot be read."""
    with file.open("rb") as stream:
        first = stream.read(len(BEGINNING))
    return BEGINNING.startswith(first)
