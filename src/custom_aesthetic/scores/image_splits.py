"""The split of a score table: from its column `split`, from the split file, or a new one."""

import logging
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from custom_aesthetic.base.errors import UserError
from custom_aesthetic.base.machine import threads_for
from custom_aesthetic.scores.duplicates import describe_groups, group_duplicates
from custom_aesthetic.scores.score_files import ScoreTable
from custom_aesthetic.scores.splits import NAMES, assign_splits, read_split_file, warn_of_cut_groups, write_split_file
from custom_aesthetic.settings.training import SplitSettings

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class KnownSplit:
    """The existing split of images, before new images are assigned."""

    file: Path
    recorded: dict[str, str]
    """Path -> split in the split file."""
    column: dict[str, str]
    """Path -> split in the column of the score file, which takes precedence over the split file."""

    @property
    def place(self) -> str:
        """The source of the existing split, in words."""
        return "the score file's column split" if self.column else str(self.file)

    @property
    def assigned(self) -> dict[str, str]:
        return self.recorded | self.column


def known_split(table: ScoreTable, file: Path, settings: SplitSettings) -> KnownSplit:
    """Return the existing split from the column and the split file; empty with --ignore_existing_split."""
    if settings.ignore_existing_split:
        return KnownSplit(file, {}, {})
    return KnownSplit(file, read_split_file(file) if file.exists() else {}, split_column(table))


def split_column(table: ScoreTable) -> dict[str, str]:
    """Return path -> split for the rows with a value in the column `split`; UserError for an invalid value."""
    column = table.columns.get("split", [""] * len(table))
    splits = {path: str(name).strip().lower() for path, name in zip(table.paths, column, strict=True) if name}
    for path, name in splits.items():
        if name not in NAMES:
            raise UserError(f"the split of {path} in the score file is {name!r}; it must be train, eval or test")
    return splits


def with_split(
    table: ScoreTable, known: KnownSplit, settings: SplitSettings, groups: dict[str, str] | None = None
) -> ScoreTable:
    """Return the table with a complete column `split`; UserError if train, eval or a requested test set is empty."""
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
            f"{len(set(splits) & set(known.assigned))} of {len(splits)} images and none to test; remove the option, or "
            "make a new split with --ignore_existing_split (and a new study with --name)"
        )
    return table.with_column("split", [splits[path] for path in table.paths])


def near_duplicates(table: ScoreTable, settings: SplitSettings, features: Tensor) -> dict[str, str]:
    """Return path -> the first path of its group, for images that have a near-duplicate; nothing if that is off."""
    if settings.group_duplicates == "off":
        return {}
    with threads_for(len(table)):
        return group_duplicates(table.paths, features.numpy())


def _keep_together(table: ScoreTable, known: KnownSplit, settings: SplitSettings, groups: dict[str, str]) -> ScoreTable:
    """Return the table with each group in one set, or unchanged if that would leave a set empty."""
    try:
        together = with_split(table, known, settings, groups)
    except UserError:
        log.warning("%s: too few groups to keep each of them in one set", describe_groups(groups))
        return table
    log.info("%s: the new split keeps them together (unless --group_duplicates=off)", describe_groups(groups))
    return together


def settle_split(table: ScoreTable, known: KnownSplit, settings: SplitSettings, features: Tensor) -> ScoreTable:
    """Return the table with its final split, without writing the split file.

    Near-duplicates are found by `features` (n_images, n_features). A new split keeps them together; an existing split
    is not changed, but a warning is logged if it separates them.
    """
    groups = near_duplicates(table, settings, features)
    if groups and is_new(table, known):
        table = _keep_together(table, known, settings, groups)
    splits = dict(zip(table.paths, table.columns["split"], strict=True))
    warn_of_cut_groups(splits, groups)
    n_test, n_wanted = list(splits.values()).count("test"), round(settings.fraction_for_test * len(splits))
    if known.assigned and n_test < 0.9 * n_wanted:
        log.warning(
            "%d test images, not the %d of --fraction_for_test=%g: the split in %s is kept; --ignore_existing_split "
            "makes a new one",
            *(n_test, n_wanted, settings.fraction_for_test, known.place),
        )
    return table


def is_new(table: ScoreTable, known: KnownSplit) -> bool:
    """Return whether the table's split assigns an image that was not assigned before."""
    assigned = known.assigned
    return any(path not in assigned for path in table.paths)


def record_split(table: ScoreTable, known: KnownSplit) -> None:
    """Add the newly assigned images to the split file, if there are any."""
    if is_new(table, known):
        write_split_file(known.file, known.recorded | dict(zip(table.paths, table.columns["split"], strict=True)))
