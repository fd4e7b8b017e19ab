"""A journal file that stays usable after a full disk or a kill in the middle of an entry."""

import os
from pathlib import Path
from typing import Any

from optuna.storages.journal import JournalFileBackend

from custom_aesthetic.search.optuna_private import held

BEGINNING = b'{"op_code"'
"""The first bytes of every entry."""


class Journal(JournalFileBackend):
    """Optuna's journal file, with incomplete entries removed.

    Optuna itself would append to an incomplete entry, after which the file could not be read.
    """

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
    """Remove an incomplete last line, if any. The caller must hold the journal's lock."""
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
    """Return whether the file is empty or starts like a journal file; raises OSError if it cannot be read."""
    with file.open("rb") as stream:
        first = stream.read(len(BEGINNING))
    return BEGINNING.startswith(first)
