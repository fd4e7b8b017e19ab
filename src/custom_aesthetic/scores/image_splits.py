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
    def place(self) -> str:
        """Where the existing split comes from, in words."""
        return "the score file's column split" if self.own else str(self.file)

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
    """Return the table with the column `split`; UserError if the train, eval or wanted test set is empty."""
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
    if settings.fraction_for_test > 0 and "test" not in splits.values():
        raise UserError(
            f"--fraction_for_test={settings.fraction_for_test} asks for test images, but {known.place} assigns "
            f"{len(set(splits) & set(known.assigned))} of {len(splits)} images and none to test; leave it away, or "
            "make a new split with --ignore_existing_split (and a new study with --name)"
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
    """Return the table with its final split; nothing is written yet.

    `features` (n_images, n_features) tell near-duplicates: a new split keeps them together, an existing one is left
    alone, with a warning where it does not.
    """
    groups = near_duplicates(table, settings, features)
    if groups and is_new(table, known):
        table = _keep_together(table, known, settings, groups)
    splits = dict(zip(table.paths, table.columns["split"], strict=True))
    warn_of_cut_groups(splits, groups)
    n_test, n_wanted = list(splits.values()).count("test"), round(settings.fraction_for_test * len(splits))
    if known.assigned and n_test < 0.9 * n_wanted:
        log.warning(
            "%d test images, not the %d of --fraction_for_test=%g: what %s assigns stays; --ignore_existing_split "
            "makes a new split",
            *(n_test, n_wanted, settings.fraction_for_test, known.place),
        )
    return table


def is_new(table: ScoreTable, known: KnownSplit) -> bool:
    """Return whether the table's split assigns an image that was not assigned before."""
    assigned = known.assigned
    return any(path not in assigned for path in table.paths)


def record_split(table: ScoreTable, known: KnownSplit) -> None:
    """Write what is new of the table's split to the split file; nothing if nothing is."""
    if is_new(table, known):
        write_split_file(known.file, known.recorded | dict(zip(table.paths, table.columns["split"], strict=True)))
