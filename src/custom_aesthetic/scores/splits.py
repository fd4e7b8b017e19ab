"""The split of images into train, eval and test: a seeded choice by path, saved in a split file."""

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from custom_aesthetic.base.errors import UserError
from custom_aesthetic.base.files import write_atomically
from custom_aesthetic.base.text import encoding_of, json_bytes, printable
from custom_aesthetic.scores.folds import gather, rank

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
    """Return path -> `train`, `eval` or `test` for every path; assignments in `existing` do not change.

    New images are ordered by a hash of seed and path, so the order of `paths` does not matter. The first of them go to
    `eval` until it has its fraction of all images, and the last of them to `test` in the same way. Each set with a
    positive fraction gets at least one image, if there are enough.

    `groups` (path -> name of its group; other paths are groups of one) keeps each group in one set. New images join the
    set with most of their group. Groups without assigned images move as a whole, so fractions are met approximately.
    """
    known = {path: existing[path] for path in paths if path in existing}
    n_eval, n_test = _wanted(len(paths), fraction_for_eval, fraction_for_test)
    clusters = gather(paths, groups)
    chosen = dict(known)
    for members in clusters.values():
        assigned = [known[path] for path in members if path in known]
        if assigned:
            most = max(NAMES, key=assigned.count)
            chosen.update({path: most for path in members if path not in known})
    free = sorted(
        (name for name, members in clusters.items() if members[0] not in chosen), key=lambda path: rank(path, seed)
    )
    ordered = [clusters[name] for name in free]
    n_new_test = _take(ordered[::-1], n_test - _count(chosen, "test"), len(free) - (n_eval > 0))
    n_new_eval = _take(ordered, n_eval - _count(chosen, "eval"), len(free) - n_new_test)
    names = ["eval"] * n_new_eval + ["train"] * (len(free) - n_new_eval - n_new_test) + ["test"] * n_new_test
    chosen.update({path: name for members, name in zip(ordered, names, strict=True) for path in members})
    return {path: chosen[path] for path in paths}


def _wanted(n_images: int, fraction_for_eval: float, fraction_for_test: float) -> tuple[int, int]:
    """Return the numbers of images for eval and test, with at least one left for train if fractions allow."""
    n_eval, n_test = round(fraction_for_eval * n_images), round(fraction_for_test * n_images)
    n_sets = 1 + (fraction_for_eval > 0) + (fraction_for_test > 0)
    if n_images >= n_sets and fraction_for_eval + fraction_for_test < 1:
        n_test = max(n_test, 1) if fraction_for_test > 0 else 0
        n_eval = max(n_eval, 1) if fraction_for_eval > 0 else 0
        n_test = min(n_test, n_images - 1 - (fraction_for_eval > 0))
        n_eval = min(n_eval, n_images - 1 - n_test)
    return n_eval, min(n_test, n_images - n_eval)


def _take(ordered: Sequence[Sequence[str]], n_wanted: int, most: int) -> int:
    """Return how many of the first groups, at most `most`, have together closest to `n_wanted` images."""
    n_taken, n_images = 0, 0
    while n_taken < most and n_images + len(ordered[n_taken]) / 2 <= n_wanted and n_images < n_wanted:
        n_images += len(ordered[n_taken])
        n_taken += 1
    return n_taken


def _count(splits: Mapping[str, str], name: str) -> int:
    return sum(split == name for split in splits.values())


def cut_groups(splits: Mapping[str, str], groups: Mapping[str, str]) -> list[tuple[str, ...]]:
    """Return the groups with images in more than one set, each as sorted paths."""
    members: dict[str, list[str]] = {}
    for path in sorted(splits):
        if path in groups:
            members.setdefault(groups[path], []).append(path)
    return [tuple(paths) for paths in members.values() if len({splits[path] for path in paths}) > 1]


def warn_of_cut_groups(splits: Mapping[str, str], groups: Mapping[str, str]) -> None:
    """Log a warning, with examples, if near-duplicates are in different sets, which makes figures too good."""
    cut = cut_groups(splits, groups)
    if cut:
        log.warning(
            "%d groups of near-duplicate images are divided between sets, so that eval and test figures are too good "
            "(%s); make a new split, which keeps them together, with --ignore_existing_split",
            len(cut),
            "; ".join(" = ".join(paths[:3]) for paths in cut[:3]),
        )


def read_split_file(file: Path) -> dict[str, str]:
    """Return path -> split from a file `{"sub/a.png": "train", ...}` or `{"train": ["sub/a.png", ...], ...}`.

    Raises UserError for a file that cannot be read or has other content.
    """
    try:
        data = file.read_bytes()
        content = json.loads(data.decode(encoding_of(data), "surrogateescape"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(
            f"split file {file} cannot be read: {error}; fix it, or make a new split with --ignore_existing_split"
        ) from None
    if not isinstance(content, dict):
        raise UserError(f"split file {file} is not a JSON object of path and split; fix or delete it")
    return {path.replace("\\", "/"): name for path, name in _assigned(file, content)}


def _assigned(file: Path, content: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield checked pairs of path and split from either form of a split file."""
    is_listed = bool(content) and all(isinstance(value, list) for value in content.values())
    pairs = ((path, name) for name, paths in content.items() for path in paths) if is_listed else content.items()
    for path, name in pairs:
        if not isinstance(path, str):
            raise UserError(f"split file {file}: {_short(path)} in {name} is not the path of an image; remove it")
        if name not in NAMES:
            raise UserError(
                f"split file {file}: {printable(path)} is in split {_short(name)}; choose from {', '.join(NAMES)}"
            )
        yield path, name


def _short(value: Any) -> str:
    """Return a value from a file as short text; for lists and objects only the type."""
    return f"a {type(value).__name__}" if isinstance(value, dict | list) else printable(repr(value), 60)


def write_split_file(file: Path, splits: Mapping[str, str]) -> None:
    """Write path -> split atomically as JSON, with one image per line."""
    write_atomically(file, json_bytes(json.dumps(splits, indent=1, ensure_ascii=False)))
