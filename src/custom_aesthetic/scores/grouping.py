"""What splits and folds share: an order of images that no listing can change, and groups that stay together."""

import hashlib
from collections.abc import Iterable, Mapping

from custom_aesthetic.base.text import hashable


def rank(path: str, seed: int) -> bytes:
    """Return where an image stands in the seeded order: a hash of seed and path."""
    return hashlib.sha256(hashable(f"{seed}:{path}")).digest()


def gather(paths: Iterable[str], groups: Mapping[str, str] | None) -> dict[str, list[str]]:
    """Return the sorted members of each group, by its least path, so that another name for the group changes nothing.

    `groups` is path -> what its group is called; paths that it does not name stand alone.
    """
    if not groups:
        return {path: [path] for path in sorted(paths)}
    by_group: dict[tuple[bool, str], list[str]] = {}
    for path in sorted(paths):
        by_group.setdefault((path in groups, groups.get(path, path)), []).append(path)
    return {members[0]: members for members in by_group.values()}
