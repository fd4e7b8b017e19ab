"""The folder scorer: from its arguments to scores, a selection of pictures, and actions on them."""

import logging
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from custom_aesthetic.base.errors import UserError
from custom_aesthetic.base.extras import require
from custom_aesthetic.base.files import in_folder_or_here, is_file
from custom_aesthetic.commands.folder_actions import ScoredFolder, act, check_actions, take_back, transfer_options
from custom_aesthetic.features.picture_groups import picture_groups, rows_of
from custom_aesthetic.features.precomputed import PrecomputedTable, blocks_of, read_table
from custom_aesthetic.features.table import StoredFeatures
from custom_aesthetic.features.table_files import PARQUET, find_table
from custom_aesthetic.heads.model_file import Model
from custom_aesthetic.heads.prediction import model_input, predict_stored, predict_table
from custom_aesthetic.heads.scorer import Scorer
from custom_aesthetic.pictures.folders import find_images
from custom_aesthetic.scores.score_files import name_some
from custom_aesthetic.scores.selection import check_conditions, check_selected, select
from custom_aesthetic.settings.scorers import ActionSettings, FolderArguments, SelectionSettings

log = logging.getLogger(__name__)

MOST_TO_GROUP = 60_000
"""Rows of a table up to which near-duplicates are looked for unasked; beyond, that takes minutes and a copy on disk."""


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
    exported = arguments.folder.export_features
    if exported is not None:
        if Path(exported).suffix.lower() != PARQUET:
            raise UserError(f"--export_features={exported}: features are written as parquet; end the name in {PARQUET}")
        require("pyarrow", "tables", "--export_features")


def check_selection(selection: SelectionSettings, transfers: Sequence[str]) -> None:
    """Raise UserError for conditions that contradict each other, or are missing for the transfers."""
    if transfers and not conditions(selection):
        raise UserError(
            f"{transfers[0]} needs a selection of pictures: add --top, --worst, --above, --below, --percentile or "
            "--per_group"
        )
    check_conditions(top=selection.top, worst=selection.worst, above=selection.above, below=selection.below)


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
    if arguments.folder.features is not None:
        table = read_table(find_table(directory, arguments.folder.features), directory)
        return score_table(scorer.model, table, directory, arguments)
    paths = find_images(directory)
    if not paths:
        raise UserError(f"no pictures in {directory}; check -d")
    stored = scorer.open_features(directory, paths)
    scored_paths, prediction = predict_stored(scorer.model, stored)
    parts = (
        (part.paths[start : start + len(values)], values)
        for part in stored.tables()
        for start, values in blocks_of(model_input(scorer.model, part))
    )
    export(arguments.folder.export_features, len(scored_paths), parts)
    groups = find_groups(directory, scored_paths, stored) if needs_groups(arguments) else None
    return ScoredFolder(directory, scored_paths, *prediction, groups)


def score_table(model: Model, table: PrecomputedTable, directory: Path, arguments: FolderArguments) -> ScoredFolder:
    """Return the model's scores of all rows of a table; where there are actions, of those whose picture exists.

    The features are in memory a block at a time, or all at once where near-duplicates are looked for among few.
    """
    prediction = predict_table(model, table)
    parts = ((table.paths[start : start + len(values)], values) for start, values in table.blocks(fp16=model.fp16))
    export(arguments.folder.export_features, len(table.paths), parts)
    groups = None
    if arguments.selection.per_group is not None or (needs_groups(arguments) and len(table.paths) <= MOST_TO_GROUP):
        groups = find_groups(directory, table.paths, table)
    elif needs_groups(arguments):
        log.info("more than %s pictures: near-duplicates are grouped for --per_group only", f"{MOST_TO_GROUP:,}")
    scored = ScoredFolder(directory, table.paths, *prediction, groups)
    return scored if arguments.action == ActionSettings() else keep_existing(scored)


def needs_groups(arguments: FolderArguments) -> bool:
    """Return whether the arguments ask for something that depends on which pictures are alike."""
    return any(
        value is not None for value in (arguments.selection.per_group, arguments.folder.output, arguments.action.sheet)
    )


def find_groups(directory: Path, paths: Sequence[str], source: StoredFeatures | PrecomputedTable) -> list[str]:
    """Return the group of each picture."""
    with rows_of(source, paths) as features:
        return picture_groups(directory, paths, features)


def export(name: str | None, n_pictures: int, parts: Iterable[tuple[Sequence[str], NDArray[Any]]]) -> None:
    """Write the features of these pictures, paths and features a part, as parquet; nothing if no file is named."""
    if name is None:
        return
    from custom_aesthetic.features.parquet_parts import write_features

    write_features(Path(name), parts)
    log.info("features of %d pictures written to %s", n_pictures, name)


def keep_existing(scored: ScoredFolder) -> ScoredFolder:
    """Return the pictures that exist, as actions need them, and name the others; UserError if none exists."""
    there = np.array([is_file(scored.directory / path) for path in scored.paths])
    missing = [path for path, found in zip(scored.paths, there, strict=True) if not found]
    if not there.any():
        raise UserError(f"none of the {len(missing)} pictures in the table is in {scored.directory}; check -d")
    if missing:
        log.warning("left out %d pictures that are not in %s: %s", len(missing), scored.directory, name_some(missing))
    return ScoredFolder(
        scored.directory,
        tuple(path for path, found in zip(scored.paths, there, strict=True) if found),
        scored.scores[there],
        None if scored.sigmas is None else scored.sigmas[there],
        None if scored.domain_distances is None else scored.domain_distances[there],
        None if scored.groups is None else [group for group, found in zip(scored.groups, there, strict=True) if found],
    )


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
