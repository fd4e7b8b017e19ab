"""Which images train and which evaluate: a seeded choice by path, kept in a split file."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from src.errors import UserError
from src.files import write_atomically

NAMES = ("train", "eval", "test")


def assign_splits(
    paths: Sequence[str], existing: Mapping[str, str], *, fraction_for_eval: float, seed: int
) -> dict[str, str]:
    """Return path -> `train` or `eval` for every path; nothing that `existing` assigns moves.

    The others are ranked by a hash of seed and path, which no order of listing can change; the first of them go to
    `eval`, as many as bring it to its share of all. At least one image is left on each side where there are two.
    """
    known = {path: existing[path] for path in paths if path in existing}
    new = sorted((path for path in paths if path not in existing), key=lambda path: _rank(path, seed))
    n_eval_wanted = round(fraction_for_eval * len(paths))
    if len(paths) >= 2 and 0 < fraction_for_eval < 1:
        n_eval_wanted = min(max(n_eval_wanted, 1), len(paths) - 1)
    n_eval_known = sum(name == "eval" for name in known.values())
    n_eval_new = min(max(n_eval_wanted - n_eval_known, 0), len(new))
    chosen = dict.fromkeys(new[:n_eval_new], "eval") | dict.fromkeys(new[n_eval_new:], "train")
    return {path: known.get(path) or chosen[path] for path in paths}


def _rank(path: str, seed: int) -> bytes:
    return hashlib.sha256(f"{seed}:{path}".encode()).digest()


def read_split_file(file: Path) -> dict[str, str]:
    """Return path -> split from a split file, `{"sub/a.png": "train", ...}` or `{"train": ["sub/a.png", ...], ...}`."""
    try:
        content = json.loads(file.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise UserError(
            f"split file {file} cannot be read: {error}; mend it, or make a new one with --ignore_existing_split"
        ) from None
    if isinstance(content, dict) and all(isinstance(value, list) for value in content.values()):
        content = {path: name for name, paths in content.items() for path in paths}
    if not isinstance(content, dict):
        raise UserError(f"split file {file} is not a JSON object of path and split; mend or delete it")
    for path, name in content.items():
        if name not in NAMES:
            raise UserError(f"split file {file}: {path} is in split {name!r}; the splits are {', '.join(NAMES)}")
    return {path.replace("\\", "/"): name for path, name in content.items()}


def write_split_file(file: Path, splits: Mapping[str, str]) -> None:
    """Write path -> split as JSON, one image a line, aside and then renamed."""
    write_atomically(file, json.dumps(splits, indent=1, ensure_ascii=False).encode())
