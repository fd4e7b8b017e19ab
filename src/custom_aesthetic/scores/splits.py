"""Which images train, which evaluate and which test: a seeded choice by path, kept in a split file."""

import hashlib
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from custom_aesthetic.base.errors import UserError
from custom_aesthetic.base.files import write_atomically

log = logging.getLogger(__name__)

NAMES = ("train", "eval", "test")


def assign_splits(
    paths: Sequence[str],
    existing: Mapping[str, str],
    *,
    fraction_for_eval: float,
    seed: int,
    fraction_for_test: float = 0.0,
    groups: Mapping[str, str] | None = None,
) -> dict[str, str]:
    """Return path -> `train`, `eval` or `test` for every path; nothing that `existing` assigns moves.

    The others are ranked by a hash of seed and path, which no order of listing can change; the first of them go to
    `eval`, as many as bring it to its share of all, the last of them to `test` in the same way. At least one image is
    left in each set that has a share, where there are as many. `groups` (path -> what its group is called, such as a
    member's path; other paths stand alone) keeps each group in one set: the new ones of a group that is already
    assigned go where most of it is, and other groups are ranked and moved whole, so that shares are met only about.
    """
    known = {path: existing[path] for path in paths if path in existing}
    n_eval, n_test = _wanted(len(paths), fraction_for_eval, fraction_for_test)
    clusters = _clusters(paths, groups)
    chosen = dict(known)
    for members in clusters.values():
        assigned = [known[path] for path in members if path in known]
        if assigned:
            most = max(NAMES, key=assigned.count)
            chosen.update({path: most for path in members if path not in known})
    free = sorted((name for name, members in clusters.items() if members[0] not in chosen), key=_ranking(seed))
    ordered = [clusters[name] for name in free]
    n_new_test = _take(ordered[::-1], n_test - _count(chosen, "test"), len(free) - (n_eval > 0))
    n_new_eval = _take(ordered, n_eval - _count(chosen, "eval"), len(free) - n_new_test)
    names = ["eval"] * n_new_eval + ["train"] * (len(free) - n_new_eval - n_new_test) + ["test"] * n_new_test
    chosen.update({path: name for members, name in zip(ordered, names, strict=True) for path in members})
    return {path: chosen[path] for path in paths}


def _wanted(n_images: int, fraction_for_eval: float, fraction_for_test: float) -> tuple[int, int]:
    """Return how many images belong in eval and in test, leaving one to train where both shares are below all."""
    n_eval, n_test = round(fraction_for_eval * n_images), round(fraction_for_test * n_images)
    n_sets = 1 + (fraction_for_eval > 0) + (fraction_for_test > 0)
    if n_images >= n_sets and fraction_for_eval + fraction_for_test < 1:
        n_test = max(n_test, 1) if fraction_for_test > 0 else 0
        n_eval = max(n_eval, 1) if fraction_for_eval > 0 else 0
        n_test = min(n_test, n_images - 1 - (fraction_for_eval > 0))
        n_eval = min(n_eval, n_images - 1 - n_test)
    return n_eval, min(n_test, n_images - n_eval)


def _clusters(paths: Sequence[str], groups: Mapping[str, str] | None) -> dict[str, list[str]]:
    """Return the members of each group, by its least path, so that another name for the group changes nothing."""
    by_group: dict[tuple[bool, str], list[str]] = {}
    for path in sorted(paths):
        grouped = groups is not None and path in groups
        by_group.setdefault((grouped, groups[path] if grouped and groups is not None else path), []).append(path)
    return {members[0]: members for members in by_group.values()}


def _take(ordered: Sequence[Sequence[str]], n_wanted: int, most: int) -> int:
    """Return how many of the first groups, at most `most`, bring the number of images nearest to the one wanted."""
    n_taken, n_images = 0, 0
    while n_taken < most and n_images + len(ordered[n_taken]) / 2 <= n_wanted and n_images < n_wanted:
        n_images += len(ordered[n_taken])
        n_taken += 1
    return n_taken


def _count(splits: Mapping[str, str], name: str) -> int:
    return sum(split == name for split in splits.values())


def _ranking(seed: int) -> Callable[[str], bytes]:
    return lambda path: hashlib.sha256(f"{seed}:{path}".encode()).digest()


def cut_groups(splits: Mapping[str, str], groups: Mapping[str, str]) -> list[tuple[str, ...]]:
    """Return the groups that lie in more than one set, each as its sorted paths: they make every figure too good."""
    members: dict[str, list[str]] = {}
    for path in sorted(splits):
        if path in groups:
            members.setdefault(groups[path], []).append(path)
    return [tuple(paths) for paths in members.values() if len({splits[path] for path in paths}) > 1]


def warn_of_cut_groups(splits: Mapping[str, str], groups: Mapping[str, str]) -> None:
    """Log a warning if near-duplicates lie in more than one set, with the first few."""
    cut = cut_groups(splits, groups)
    if cut:
        log.warning(
            "%d groups of near-duplicate images lie in more than one set, so that eval and test figures are too good "
            "(%s); a new split keeps them together: --ignore_existing_split",
            len(cut),
            "; ".join(" = ".join(paths[:3]) for paths in cut[:3]),
        )


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
