"""Helpers shared by splits and folds: a seeded order of images, and the members of groups."""

import hashlib
from collections.abc import Iterable, Mapping

from custom_aesthetic.base.text import hashable


def rank(path: str, seed: int) -> bytes:
    """Return the sort key of an image in the seeded order: a hash of seed and path."""
    return hashlib.sha256(hashable(f"{seed}:{path}")).digest()


def gather(paths: Iterable[str], groups: Mapping[str, str] | None) -> dict[str, list[str]]:
    """Return first path -> sorted members of each group; the result does not depend on the names of the groups.

    `groups` is path -> name of its group; other paths are groups of one.
    """
    if not groups:
        return {path: [path] for path in sorted(paths)}
    by_group: dict[tuple[bool, str], list[str]] = {}
    for path in sorted(paths):
        by_group.setdefault((path in groups, groups.get(path, path)), []).append(path)
    return {members[0]: members for members in by_group.values()}
