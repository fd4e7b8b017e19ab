"""What the folder scorer does with the selected pictures: write, print, show, rate, copy, link or move them."""

import logging
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import chain
from pathlib import Path

import numpy as np

from custom_aesthetic.base.errors import UserError
from custom_aesthetic.base.text import printable
from custom_aesthetic.pictures import transfers
from custom_aesthetic.pictures.ratings import plan_ratings, write_rating
from custom_aesthetic.pictures.transfers import Group
from custom_aesthetic.report.contact_sheet import SheetPicture, write_sheet
from custom_aesthetic.scores.score_files import ScoreTable, name_some, write_csv, write_json
from custom_aesthetic.scores.selection import stars
from custom_aesthetic.settings.scorers import ActionSettings, FolderArguments

log = logging.getLogger(__name__)

LONGEST_NAME = 10_000
"""Maximum length of a printed path; no system allows longer paths."""


@dataclass(frozen=True)
class ScoredFolder:
    """Pictures with their scores; arrays are (n_images,)."""

    directory: Path
    paths: tuple[str, ...]
    scores: np.ndarray
    sigmas: np.ndarray | None
    """Standard deviation of each score as the model estimates it; None if the model has no such output."""
    domain_distances: np.ndarray | None
    """Above 1: far from all pictures the model was trained on. None if the model file has no domain data."""
    groups: Sequence[str] | None = None
    """The name of each picture's group of near-duplicates; None if they were not looked for."""

    def is_unfamiliar(self, row: int) -> bool:
        return self.domain_distances is not None and bool(self.domain_distances[row] > 1)


def act(scored: ScoredFolder, rows: np.ndarray, arguments: FolderArguments) -> None:
    """Do everything that the arguments ask with the selected rows; without any action, print them."""
    action, output = arguments.action, arguments.folder.output
    if output is not None:
        write_scores(Path(output), scored, rows)
    if action.sheet is not None:
        first = "best" if arguments.selection.worst is None else "worst"
        make_sheet(Path(action.sheet), scored, rows, f"{first} first")
    if action.write_xmp:
        rate(scored, rows, action)
    if output is None and action == ActionSettings():
        print_list(scored, rows)
    transfer_pictures([scored.paths[row] for row in rows], scored.directory, action)


def check_actions(arguments: FolderArguments, directory: Path) -> None:
    """Raise UserError for actions that cannot work."""
    given, output = transfer_options(arguments.action), arguments.folder.output
    if len(given) > 1:
        raise UserError(f"{' and '.join(given)} cannot be combined; give only one")
    if output is not None and Path(output).suffix.lower() not in WRITERS:
        raise UserError(
            f"-o {output}: scores are written as CSV or JSON; end the file name with {' or '.join(WRITERS)}"
        )
    if arguments.action.xmp_for is not None and not arguments.action.write_xmp:
        raise UserError(f"--xmp_for={arguments.action.xmp_for} goes with --write_xmp; add that")
    for option in given:
        transfers.plan_transfers(directory, [], Path(getattr(arguments.action, option.removeprefix("--"))))


def transfer_options(action: ActionSettings) -> list[str]:
    """Return the options given of `--copy_to`, `--link_to` and `--move_to`."""
    return [f"--{kind}_to" for kind in transfers.KINDS if getattr(action, f"{kind}_to") is not None]


def write_scores(file: Path, scored: ScoredFolder, rows: np.ndarray) -> None:
    """Write the selected pictures in order: path, score, and sigma, domain distance and group where they are known."""
    columns: dict[str, Sequence] = {"score": [round(float(scored.scores[row]), 6) for row in rows]}
    if scored.sigmas is not None:
        columns["sigma"] = [round(float(scored.sigmas[row]), 6) for row in rows]
    if scored.domain_distances is not None:
        columns["domain_distance"] = [round(float(scored.domain_distances[row]), 4) for row in rows]
        columns["out_of_domain"] = [int(scored.is_unfamiliar(row)) for row in rows]
    if scored.groups is not None:
        columns["group"] = [scored.groups[row] for row in rows]
    table = ScoreTable(tuple(scored.paths[row] for row in rows), columns)
    WRITERS[file.suffix.lower()](file, table)
    log.info("%d scores written to %s", len(rows), file)


def print_list(scored: ScoredFolder, rows: np.ndarray) -> None:
    for row in rows:
        flag = "  (unfamiliar)" if scored.is_unfamiliar(row) else ""
        log.info("%8.4f  %s%s", scored.scores[row], printable(scored.paths[row], LONGEST_NAME), flag)


WRITERS: dict[str, Callable[[Path, ScoreTable], None]] = {".csv": write_csv, ".json": write_json}
"""Suffix of the file for the scores -> what writes it."""


def make_sheet(file: Path, scored: ScoredFolder, rows: np.ndarray, order: str) -> None:
    """Write the contact sheet; `order` says in words how the rows are sorted."""
    groups = scored.paths if scored.groups is None else scored.groups
    pictures = [
        SheetPicture(scored.paths[row], float(scored.scores[row]), scored.is_unfamiliar(row), groups[row])
        for row in rows
    ]
    title = f"{scored.directory.resolve().name}: {len(rows)} of {len(scored.paths)} pictures, {order}"
    missing = write_sheet(file, scored.directory, pictures, title=title, group_sizes=Counter(groups))
    log.info("contact sheet written to %s", file)
    if missing:
        log.warning("not on the sheet because they cannot be read: %s", name_some(missing))


def rate(scored: ScoredFolder, rows: np.ndarray, action: ActionSettings) -> None:
    """Write stars, by fifths of all scores, for the selected pictures, to the sidecars that photo programs read."""
    given = stars(scored.scores)
    wanted = {scored.paths[row]: int(given[row]) for row in rows}
    plan = plan_ratings(scored.directory, wanted, program=action.xmp_for)
    by_user, failures, n_written = list(plan.rated_by_user), list(plan.failures), 0
    for rating in plan.ratings:
        if action.dry_run:
            names = " and ".join(printable(sidecar.name, LONGEST_NAME) for sidecar in rating.sidecars)
            log.info("would write %d stars for %s to %s", rating.stars, printable(rating.path, LONGEST_NAME), names)
            continue
        try:
            if write_rating(rating):
                n_written += 1
            else:
                by_user.append(rating.path)
        except UserError as error:
            failures.append(str(error))
    if not action.dry_run:
        log.info("stars written for %d pictures", n_written)
    if by_user:
        log.info("%d not changed because they already have your rating: %s", len(by_user), name_some(by_user))
    if plan.out_of_reach:
        log.warning(
            "%d without stars because Lightroom reads no sidecar of theirs: %s",
            len(plan.out_of_reach),
            name_some(plan.out_of_reach),
        )
    if failures:
        raise UserError("; ".join(failures[:3]))


def transfer_pictures(paths: Sequence[str], directory: Path, action: ActionSettings) -> None:
    """Copy, link or move the pictures; with `dry_run`, only log what would be done."""
    for kind in transfers.KINDS:
        name = getattr(action, f"{kind}_to")
        if name is None:
            continue
        target = Path(name)
        planned, in_the_way = transfers.plan_transfers(directory, paths, target, kind=kind)
        if in_the_way:
            log.warning("left out because these files already exist: %s", name_some(in_the_way))
        if action.dry_run:
            for planned_file in chain.from_iterable(planned):
                log.info(
                    "would %s %s -> %s",
                    kind,
                    printable(str(planned_file.source), LONGEST_NAME),
                    printable(str(planned_file.target), LONGEST_NAME),
                )
        else:
            transfer(kind, planned, target)


def transfer(kind: str, planned: Sequence[Group], target: Path) -> None:
    """Transfer the files and log what was done."""
    done = {"copy": "copied", "link": "linked", "move": "moved"}[kind]
    undoing = ""
    if kind == "move" and planned:
        undo_file = transfers.undo_file_in(target, datetime.now())
        undoing = f"; --undo={undo_file} moves them back"
        transfers.move(planned, undo_file)
    elif kind == "copy":
        transfers.copy(planned)
    elif kind == "link":
        transfers.link(planned)
    log.info("%d files %s to %s%s", sum(map(len, planned)), done, target, undoing)


def take_back(undo_file: Path) -> None:
    """Move the files listed in an undo file back; UserError if some of their old places are taken."""
    back, in_the_way = transfers.undo(undo_file)
    log.info("%d files moved back", back)
    if in_the_way:
        raise UserError(
            f"not moved back because other files have their names: {name_some(in_the_way)}; move those away first"
        )
