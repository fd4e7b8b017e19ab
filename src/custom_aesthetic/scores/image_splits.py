"""The split of scored images: from their own column, else the split file, else new, near-duplicates together."""

import logging
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from custom_aesthetic.base.errors import UserError
from custom_aesthetic.scores.duplicates import describe_groups, group_duplicates
from custom_aesthetic.scores.score_files import ScoreTable
from custom_aesthetic.scores.splits import NAMES, assign_splits, read_split_file, warn_of_cut_groups, write_split_file
from custom_aesthetic.settings.training import SplitSettings

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class KnownSplit:
    """What is known of a split before anything new is chosen."""

    file: Path
    recorded: dict[str, str]
    """Path -> split in the split file."""
    own: dict[str, str]
    """Path -> split in the score file's column, which goes before the split file."""

    @property
    def assigned(self) -> dict[str, str]:
        return self.recorded | self.own


def known_split(table: ScoreTable, file: Path, settings: SplitSettings) -> KnownSplit:
    """Return what column and split file say; nothing if existing splits are to be ignored."""
    if settings.ignore_existing_split:
        return KnownSplit(file, {}, {})
    return KnownSplit(file, read_split_file(file) if file.exists() else {}, split_column(table))


def split_column(table: ScoreTable) -> dict[str, str]:
    """Return path -> split of the rows whose column `split` names one; UserError for a name that is none."""
    column = table.columns.get("split", [""] * len(table))
    splits = {path: str(name).strip().lower() for path, name in zip(table.paths, column, strict=True) if name}
    for path, name in splits.items():
        if name not in NAMES:
            raise UserError(f"the split of {path} in the score file is {name!r}; it must be train, eval or test")
    return splits


def with_split(
    table: ScoreTable, known: KnownSplit, settings: SplitSettings, groups: dict[str, str] | None = None
) -> ScoreTable:
    """Return the table with the column `split`; UserError if the train or the eval set is empty."""
    splits = assign_splits(
        table.paths,
        known.assigned,
        fraction_for_eval=settings.fraction_for_eval,
        fraction_for_test=settings.fraction_for_test,
        seed=settings.eval_pick_seed,
        groups=groups,
    )
    for name in ("train", "eval"):
        if name not in splits.values():
            raise UserError(
                f"the {name} set is empty: {len(splits)} images, --fraction_for_eval={settings.fraction_for_eval}; "
                f"change it, or the split in {known.file}, or make a new split with --ignore_existing_split"
            )
    return table.with_column("split", [splits[path] for path in table.paths])


def near_duplicates(table: ScoreTable, settings: SplitSettings, features: Tensor) -> dict[str, str]:
    """Return path -> the first path of its group, for images that have a near-duplicate; nothing if that is off."""
    return group_duplicates(table.paths, features.numpy()) if settings.group_duplicates == "on" else {}


def _keep_together(table: ScoreTable, known: KnownSplit, settings: SplitSettings, groups: dict[str, str]) -> ScoreTable:
    """Return the table split by groups; as it is where too few groups would leave a set empty."""
    try:
        together = with_split(table, known, settings, groups)
    except UserError:
        log.warning("%s: too few apart to keep each group in one set", describe_groups(groups))
        return table
    log.info("%s: the new split keeps them together (--group_duplicates=off does not)", describe_groups(groups))
    return together


def settle_split(table: ScoreTable, known: KnownSplit, settings: SplitSettings, features: Tensor) -> ScoreTable:
    """Return the table with its final split, and write what is new of it to the split file.

    `features` (n_images, n_features) tell near-duplicates: a new split keeps them together, an existing one is left
    alone, with a warning where it does not.
    """
    groups = near_duplicates(table, settings, features)
    is_new = any(path not in known.assigned for path in table.paths)
    if groups:
        table = _keep_together(table, known, settings, groups) if is_new else table
    splits = dict(zip(table.paths, table.columns["split"], strict=True))
    warn_of_cut_groups(splits, groups)
    if is_new:
        write_split_file(known.file, known.recorded | splits)
    return table
