"""The folder scorer from its arguments to scores, a selection, and what is done with it."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import chain
from pathlib import Path

import numpy as np

from custom_aesthetic.base.errors import UserError
from custom_aesthetic.base.text import printable
from custom_aesthetic.commands.selection import check_selected, select, stars
from custom_aesthetic.heads.scorer import Scorer
from custom_aesthetic.pictures import transfers
from custom_aesthetic.pictures.images import find_images
from custom_aesthetic.pictures.transfers import Group
from custom_aesthetic.pictures.xmp import write_stars
from custom_aesthetic.report.contact_sheet import write_sheet
from custom_aesthetic.scores.score_files import ScoreTable, name_some, write_csv, write_json
from custom_aesthetic.settings.scorers import ActionSettings, FolderArguments, SelectionSettings

log = logging.getLogger(__name__)

LONGEST_NAME = 10_000
"""Characters of a path that are shown: longer than any that a system allows."""


@dataclass(frozen=True)
class ScoredFolder:
    """Pictures with their scores; arrays are (n_images,)."""

    directory: Path
    paths: tuple[str, ...]
    scores: np.ndarray
    sigmas: np.ndarray | None
    """What the model says of its own uncertainty; None where it says nothing."""
    domain_distances: np.ndarray | None
    """Above 1: far from everything the model was trained on. None where the model file does not tell."""

    def is_unfamiliar(self, row: int) -> bool:
        return self.domain_distances is not None and bool(self.domain_distances[row] > 1)


def score_folder(arguments: FolderArguments) -> None:
    """Score the folder and do what is asked; UserError for what the user can mend."""
    if arguments.action.undo is not None:
        take_back(Path(arguments.action.undo))
        return
    check_arguments(arguments)
    scored = load_scores(arguments)
    describe(scored)
    rows = select(scored.scores, **vars(arguments.selection))
    acts = any([arguments.action.copy_to, arguments.action.link_to, arguments.action.move_to])
    if acts or is_selective(arguments.selection):
        check_selected(len(rows), len(scored.paths))
    if arguments.folder.output is not None:
        write_scores(Path(arguments.folder.output), scored, rows)
    if arguments.action.sheet is not None:
        make_sheet(Path(arguments.action.sheet), scored, rows)
    if arguments.action.write_xmp:
        rate(scored, rows, arguments.action.dry_run)
    if arguments.folder.output is None and arguments.action == ActionSettings():
        print_list(scored, rows)
    act([scored.paths[row] for row in rows], scored.directory, arguments.action)


def check_arguments(arguments: FolderArguments) -> None:
    """Raise UserError for what cannot be done, before any work."""
    action, output = arguments.action, arguments.folder.output
    if arguments.folder.directory is None or arguments.folder.model is None:
        raise UserError("-d/--directory and -m/--model are required")
    given = [f"--{kind}_to" for kind in transfers.KINDS if getattr(action, f"{kind}_to") is not None]
    if len(given) > 1:
        raise UserError(f"{' and '.join(given)} exclude each other; give one of them")
    if given and not is_selective(arguments.selection):
        raise UserError(f"{given[0]} needs to know which pictures: add --top, --above or --percentile")
    if output is not None and Path(output).suffix.lower() not in (".csv", ".json"):
        raise UserError(f"-o {output}: the scores are written as .csv or .json; end the name in one of them")
    if not Path(arguments.folder.directory).is_dir():
        raise UserError(f"folder {arguments.folder.directory} is not there or not a directory; check -d")
    for kind in transfers.KINDS:
        if getattr(action, f"{kind}_to") is not None:
            transfers.plan_transfers(Path(arguments.folder.directory), [], Path(getattr(action, f"{kind}_to")))


def is_selective(selection: SelectionSettings) -> bool:
    return selection != SelectionSettings()


def load_scores(arguments: FolderArguments) -> ScoredFolder:
    """Return the model's scores of every readable picture under the folder."""
    assert arguments.folder.directory is not None and arguments.folder.model is not None
    directory, name = Path(arguments.folder.directory), arguments.folder.model
    scorer = Scorer.load(
        directory / name if (directory / name).is_file() else Path(name),
        device=arguments.device.device,
        extractor_model=arguments.folder.feature_extractor_model,
        offline=arguments.folder.offline,
    )
    paths = find_images(directory)
    if not paths:
        raise UserError(f"no pictures in {directory}; check -d")
    found = scorer.score_folder(directory, paths)
    return ScoredFolder(directory, found.paths, found.scores, found.sigmas, found.domain_distances)


def describe(scored: ScoredFolder) -> None:
    low, median, high = np.percentile(scored.scores, [5, 50, 95])
    log.info("%d pictures scored: median %.3f, nine in ten between %.3f and %.3f", len(scored.paths), median, low, high)
    if scored.domain_distances is None:
        log.info("the model file does not say what it was trained on, so unfamiliar pictures are not flagged")
        return
    strange = [path for row, path in enumerate(scored.paths) if scored.is_unfamiliar(row)]
    if strange:
        log.info("%d unfamiliar to the model, so their scores mean little: %s", len(strange), name_some(strange))


def write_scores(file: Path, scored: ScoredFolder, rows: np.ndarray) -> None:
    """Write path, score and what else is known of the selected pictures, best first."""
    columns: dict[str, Sequence] = {"score": [round(float(scored.scores[row]), 6) for row in rows]}
    if scored.sigmas is not None:
        columns["sigma"] = [round(float(scored.sigmas[row]), 6) for row in rows]
    if scored.domain_distances is not None:
        columns["domain_distance"] = [round(float(scored.domain_distances[row]), 4) for row in rows]
        columns["out_of_domain"] = [int(scored.is_unfamiliar(row)) for row in rows]
    table = ScoreTable(tuple(scored.paths[row] for row in rows), columns)
    (write_json if file.suffix.lower() == ".json" else write_csv)(file, table)
    log.info("%d scores written to %s", len(rows), file)


def print_list(scored: ScoredFolder, rows: np.ndarray) -> None:
    for row in rows:
        flag = "  (unfamiliar)" if scored.is_unfamiliar(row) else ""
        log.info("%8.4f  %s%s", scored.scores[row], printable(scored.paths[row], LONGEST_NAME), flag)


def make_sheet(file: Path, scored: ScoredFolder, rows: np.ndarray) -> None:
    pictures = [(scored.paths[row], float(scored.scores[row]), scored.is_unfamiliar(row)) for row in rows]
    title = f"{scored.directory.resolve().name}: {len(rows)} of {len(scored.paths)} pictures, best first"
    missing = write_sheet(file, scored.directory, pictures, title=title)
    log.info("contact sheet written to %s", file)
    if missing:
        log.warning("not on the sheet, as they cannot be read: %s", name_some(missing))


def rate(scored: ScoredFolder, rows: np.ndarray, dry_run: bool) -> None:
    """Write the selected pictures' stars, by fifths of all scores, to their sidecars."""
    given, own, failed = stars(scored.scores), [], []
    for row in rows:
        path = scored.paths[row]
        if dry_run:
            log.info("would write %d stars beside %s", given[row], printable(path, LONGEST_NAME))
            continue
        try:
            if write_stars(scored.directory / path, int(given[row])) is None:
                own.append(path)
        except UserError as error:
            failed.append(str(error))
    if dry_run:
        return
    log.info("stars written beside %d pictures", len(rows) - len(own) - len(failed))
    if own:
        log.info("left alone, as they have stars of yours: %s", name_some(own))
    if failed:
        raise UserError("; ".join(failed[:3]))


def act(paths: Sequence[str], directory: Path, action: ActionSettings) -> None:
    """Copy, link or move the pictures, or say what would be done."""
    for kind in transfers.KINDS:
        name = getattr(action, f"{kind}_to")
        if name is None:
            continue
        target = Path(name)
        planned, in_the_way = transfers.plan_transfers(directory, paths, target, kind=kind)
        if in_the_way:
            log.warning("left out, as something is there already: %s", name_some(in_the_way))
        if action.dry_run:
            for one in chain.from_iterable(planned):
                log.info(
                    "would %s %s -> %s",
                    kind,
                    printable(str(one.source), LONGEST_NAME),
                    printable(str(one.target), LONGEST_NAME),
                )
        else:
            transfer(kind, planned, target)


def transfer(kind: str, planned: Sequence[Group], target: Path) -> None:
    """Do it, and say what was done."""
    done = {"copy": "copied", "link": "linked", "move": "moved"}[kind]
    undoing = ""
    if kind == "move" and planned:
        undo_file = transfers.undo_file_in(target, datetime.now())
        undoing = f"; --undo={undo_file} takes it back"
        transfers.move(planned, undo_file)
    elif kind == "copy":
        transfers.copy(planned)
    elif kind == "link":
        transfers.link(planned)
    log.info("%d files %s to %s%s", sum(map(len, planned)), done, target, undoing)


def take_back(undo_file: Path) -> None:
    back, in_the_way = transfers.undo(undo_file)
    log.info("%d files moved back", back)
    if in_the_way:
        raise UserError(f"not moved back, as something is there: {name_some(in_the_way)}; move that away first")
