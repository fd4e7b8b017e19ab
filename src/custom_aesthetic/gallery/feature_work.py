"""The process that computes features for the quick model: progress as lines of JSON, the result in two files.

Lines: `{"missing": 5, "pictures": 240}` first; `{"done": 3, "missing": 5}` while computing; `{"basis": true}` when the
basis is written, `{"groups": true}` when the groups are; `{"error": "..."}` for a mistake the user can correct.
"""

import json
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from custom_aesthetic.base.errors import UserError
from custom_aesthetic.base.extras import missing_package
from custom_aesthetic.base.files import write_atomically
from custom_aesthetic.scores.bradley_terry import PRIOR_VARIANCE, feature_basis
from custom_aesthetic.scores.prior import FEATURE_SHARE

BASIS_FILE = "basis.npz"
GROUPS_FILE = "groups.json"
FIRST_PART = 16
MOST_IN_A_PART = 256
"""Pictures between two lines of progress; it begins with FIRST_PART and doubles."""

MOST_TO_GROUP = 20_000
"""Pictures up to which near-duplicates are looked for; beyond, that takes minutes."""


def main() -> int:
    """Do what the JSON in the first argument says; return the exit status."""
    try:
        work(json.loads(sys.argv[1]))
    except (UserError, ModuleNotFoundError) as error:
        missing = missing_package(error, "train") if isinstance(error, ModuleNotFoundError) else error
        if missing is None:
            raise
        tell(error=str(missing))
        return 2
    return 0


def work(asked: dict[str, Any]) -> None:
    """Compute what is missing, unless `only_if_cached`, and write the files to the folder `output`.

    Other entries: `directory`, `extractor` (as in --feature_extractor_model), `device`, `offline`, `threads`.
    """
    from custom_aesthetic.features.cache_folders import CACHE_FOLDER_NAME
    from custom_aesthetic.pictures.folders import find_images

    directory, output = Path(asked["directory"]), Path(asked["output"])
    if asked["only_if_cached"] and not (directory / CACHE_FOLDER_NAME).is_dir() and os.access(directory, os.W_OK):
        n_pictures = len(find_images(directory))
        tell(missing=n_pictures, pictures=n_pictures)
        return
    import torch

    from custom_aesthetic.base.machine import choose_device
    from custom_aesthetic.extractors import build_extractors
    from custom_aesthetic.features.table import load_features

    torch.set_num_threads(asked["threads"])
    extractors = build_extractors(asked["extractor"], choose_device(asked["device"]), asked["offline"])
    paths = find_images(directory)
    missing = missing_pictures(directory, paths, extractors)
    tell(missing=len(missing), pictures=len(paths))
    if missing and asked["only_if_cached"]:
        return
    done = 0
    for part in in_parts(missing):
        load_features(directory, part, extractors, show_progress=False)
        done += len(part)
        tell(done=done, missing=len(missing))
    table = load_features(directory, paths, extractors, show_progress=False)
    values = table.values.numpy()
    basis = feature_basis(values, PRIOR_VARIANCE * FEATURE_SHARE)
    with (output / BASIS_FILE).open("wb") as stream:
        np.savez(stream, paths=np.array(json.dumps(table.paths)), basis=basis.astype(np.float32))
    tell(basis=True)
    if len(table.paths) <= MOST_TO_GROUP:
        from custom_aesthetic.features.picture_groups import picture_groups

        groups = dict(zip(table.paths, picture_groups(directory, table.paths, values), strict=True))
        write_atomically(output / GROUPS_FILE, json.dumps(groups).encode())
        tell(groups=True)


def missing_pictures(directory: Path, paths: Sequence[str], extractors: Sequence[Any]) -> list[str]:
    """Return the pictures of which the cache lacks a feature that an extractor gives by default."""
    from custom_aesthetic.features.cache import open_feature_set
    from custom_aesthetic.features.cache_folders import cache_folders
    from custom_aesthetic.features.picture_keys import Pictures

    folders, pictures = cache_folders(directory), Pictures(directory, paths)
    lacking = np.zeros(len(paths), dtype=bool)
    for extractor in extractors:
        for state in extractor.default_hidden_states:
            cached = open_feature_set(
                folders,
                name=extractor.name,
                fingerprint=extractor.fingerprint,
                hidden_state=state,
                view="centre",
                precision="float32",
            )
            lacking |= cached.locate(pictures).shard_of < 0
    return [path for path, is_missing in zip(paths, lacking, strict=True) if is_missing]


def in_parts(paths: Sequence[str]) -> Iterator[list[str]]:
    """Yield the paths in parts that grow to MOST_IN_A_PART, so that the first progress comes soon."""
    start, size = 0, FIRST_PART
    while start < len(paths):
        yield list(paths[start : start + size])
        start, size = start + size, min(2 * size, MOST_IN_A_PART)


def tell(**message: object) -> None:
    """Print a line of JSON."""
    print(json.dumps(message), flush=True)
