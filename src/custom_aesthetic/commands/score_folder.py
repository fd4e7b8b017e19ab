"""The folder scorer: from its arguments to scores, a selection of pictures, and actions on them."""

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from custom_aesthetic.base.errors import UserError
from custom_aesthetic.base.extras import missing_package, require
from custom_aesthetic.base.files import in_folder_or_here
from custom_aesthetic.commands.folder_actions import ScoredFolder, act, check_actions, take_back, transfer_options
from custom_aesthetic.features.table import FeatureTable
from custom_aesthetic.heads.scorer import Scorer
from custom_aesthetic.pictures.images import find_images
from custom_aesthetic.scores.score_files import name_some
from custom_aesthetic.scores.selection import check_conditions, check_selected, select
from custom_aesthetic.settings.scorers import FolderArguments, SelectionSettings

log = logging.getLogger(__name__)


def score_folder(arguments: FolderArguments) -> None:
    """Score the folder and do what the arguments ask; raise UserError for mistakes the user can correct."""
    if arguments.action.undo is not None:
        take_back(Path(arguments.action.undo))
        return
    check_arguments(arguments)
    scored = load_scores(arguments)
    describe(scored)
    act(scored, select_rows(scored, arguments.selection), arguments)


def check_arguments(arguments: FolderArguments) -> None:
    """Raise UserError for arguments that cannot work, before any picture is scored."""
    if arguments.folder.directory is None or arguments.folder.model is None:
        raise UserError("-d/--directory and -m/--model are required")
    if not Path(arguments.folder.directory).is_dir():
        raise UserError(f"folder {arguments.folder.directory} does not exist or is not a directory; check -d")
    check_selection(arguments.selection, transfer_options(arguments.action))
    check_actions(arguments, Path(arguments.folder.directory))


def check_selection(selection: SelectionSettings, transfers: Sequence[str]) -> None:
    """Raise UserError for conditions that contradict each other, are missing for the transfers, or lack a package."""
    if transfers and not conditions(selection):
        raise UserError(
            f"{transfers[0]} needs a selection of pictures: add --top, --worst, --above, --below, --percentile or "
            "--per_group"
        )
    check_conditions(top=selection.top, worst=selection.worst, above=selection.above, below=selection.below)
    if selection.per_group is not None:
        require("scipy", "train", "--per_group")


def conditions(selection: SelectionSettings) -> list[str]:
    """Return the options given that select pictures."""
    return [f"--{name}" for name, value in vars(selection).items() if value is not None]


def select_rows(scored: ScoredFolder, selection: SelectionSettings) -> np.ndarray:
    """Return the rows of the selected pictures, in order; UserError if a selection was asked for and is empty."""
    rows = select(scored.scores, **vars(selection), groups=scored.groups or ())
    if conditions(selection):
        check_selected(len(rows), len(scored.paths), ", ".join(conditions(selection)))
    return rows


def load_scores(arguments: FolderArguments) -> ScoredFolder:
    """Return the model's scores of all readable pictures in the folder and its sub-folders."""
    assert arguments.folder.directory is not None and arguments.folder.model is not None
    directory, name = Path(arguments.folder.directory), arguments.folder.model
    scorer = Scorer.load(
        in_folder_or_here(directory, name),
        device=arguments.device.device,
        extractor_model=arguments.folder.feature_extractor_model,
        offline=arguments.folder.offline,
    )
    paths = find_images(directory)
    if not paths:
        raise UserError(f"no pictures in {directory}; check -d")
    found = scorer.score_folder(directory, paths)
    groups = find_groups(directory, found.features) if needs_groups(arguments) else None
    return ScoredFolder(directory, found.paths, found.scores, found.sigmas, found.domain_distances, groups)


def needs_groups(arguments: FolderArguments) -> bool:
    """Return whether the arguments ask for something that depends on which pictures are alike."""
    return any(
        value is not None for value in (arguments.selection.per_group, arguments.folder.output, arguments.action.sheet)
    )


def find_groups(directory: Path, features: FeatureTable) -> list[str] | None:
    """Return the group of each picture; None, and why in the log, if a package for that is not installed."""
    try:
        from custom_aesthetic.features.picture_groups import picture_groups
    except ModuleNotFoundError as error:
        missing = missing_package(error, "train")
        if missing is None:
            raise
        log.info("near-duplicates are not grouped: %s", missing)
        return None
    return picture_groups(directory, features)


def describe(scored: ScoredFolder) -> None:
    low, median, high = np.percentile(scored.scores, [5, 50, 95])
    log.info("%d pictures scored: median %.3f, 90 %% between %.3f and %.3f", len(scored.paths), median, low, high)
    if scored.domain_distances is None:
        log.info("the model file does not describe its training pictures, so unfamiliar pictures are not flagged")
        return
    unfamiliar = [path for row, path in enumerate(scored.paths) if scored.is_unfamiliar(row)]
    if unfamiliar:
        log.info(
            "%d unfamiliar to the model, so their scores are unreliable: %s", len(unfamiliar), name_some(unfamiliar)
        )
