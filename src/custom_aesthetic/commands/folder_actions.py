"""What the folder scorer does with the selected pictures: write, show, rate, caption, copy, link or move them."""

import logging
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import chain
from pathlib import Path

import numpy as np

from custom_aesthetic.base.errors import UserError
from custom_aesthetic.base.extras import require
from custom_aesthetic.base.text import LONGEST_PATH, printable
from custom_aesthetic.integrations.caption_job import tag_captions
from custom_aesthetic.integrations.immich_job import make_client, rate_in_immich
from custom_aesthetic.pictures import transfers
from custom_aesthetic.pictures.embedding import need_exiv2
from custom_aesthetic.pictures.rating_undo import (
    UndoFile,
    is_rating_undo,
    undo_file_of_ratings,
    undo_ratings,
)
from custom_aesthetic.pictures.ratings import LIGHTROOM, Rating, RatingPlan, plan_ratings, write_rating
from custom_aesthetic.pictures.transfers import Group
from custom_aesthetic.report.contact_sheet import SheetPicture, write_sheet
from custom_aesthetic.scores.score_files import ScoreTable, name_some, write_csv, write_json
from custom_aesthetic.scores.selection import score_tags, stars
from custom_aesthetic.settings.scorers import ActionSettings, FolderArguments, SelectionSettings

log = logging.getLogger(__name__)


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
        make_sheet(Path(action.sheet), scored, rows, f"{first} first", action)
    if action.immich is not None:  # before --embed, which changes the content by which Immich finds a picture
        rate_there(scored, rows, arguments)
    if action.write_xmp:
        rate(scored, rows, action)
    if action.captions:
        caption(scored, rows, action.dry_run)
    if output is None and action == ActionSettings():
        print_list(scored, rows)
    transfer_pictures([scored.paths[row] for row in rows], scored.directory, action)


def check_actions(arguments: FolderArguments, directory: Path) -> None:
    """Raise UserError for actions that cannot work."""
    given, output = transfer_options(arguments.action), arguments.folder.output
    if len(given) > 1:
        raise UserError(f"{' and '.join(given)} cannot be combined; give only one")
    if arguments.action.rank_prefix and not given:
        raise UserError("--rank_prefix goes with --copy_to, --link_to or --move_to; add one")
    if output is not None and Path(output).suffix.lower() not in WRITERS:
        raise UserError(
            f"-o {output}: scores are written as CSV, JSON or Parquet; end the file name with {' or '.join(WRITERS)}"
        )
    if output is not None and Path(output).suffix.lower() == ".parquet":
        require("pyarrow", "tables", f"-o {output}")
    check_rating(arguments.action)
    for option in given:
        transfers.plan_transfers(directory, [], Path(getattr(arguments.action, option.removeprefix("--"))))


def check_rating(action: ActionSettings) -> None:
    """Raise UserError for options of `--write_xmp` and `--immich` that cannot work."""
    if action.xmp_for is not None and not action.write_xmp:
        raise UserError(f"--xmp_for={action.xmp_for} goes with --write_xmp; add that")
    if action.embed and action.xmp_for != LIGHTROOM:
        raise UserError(f"--embed goes with --write_xmp --xmp_for={LIGHTROOM}, the program that needs it; add these")
    if action.embed and not action.dry_run:
        need_exiv2()
    if action.immich is not None:
        make_client(action.immich)
    elif action.immich_album is not None:
        raise UserError("--immich_album goes with --immich, the address of the server; add that")


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
        log.info("%8.4f  %s%s", scored.scores[row], printable(scored.paths[row], LONGEST_PATH), flag)


def write_parquet(file: Path, table: ScoreTable) -> None:
    from custom_aesthetic.integrations import score_parquet

    score_parquet.write_parquet(file, table)


WRITERS: dict[str, Callable[[Path, ScoreTable], None]] = {
    ".csv": write_csv,
    ".json": write_json,
    ".parquet": write_parquet,
}
"""Suffix of the file for the scores -> what writes it."""


def make_sheet(file: Path, scored: ScoredFolder, rows: np.ndarray, order: str, action: ActionSettings) -> None:
    """Write the contact sheet; `order` says in words how the rows are sorted.

    Its pictures open the originals, where `action` leaves them.
    """
    groups = scored.paths if scored.groups is None else scored.groups
    pictures = [
        SheetPicture(scored.paths[row], float(scored.scores[row]), scored.is_unfamiliar(row), groups[row])
        for row in rows
    ]
    title = f"{scored.directory.resolve().name}: {len(rows)} of {len(scored.paths)} pictures, {order}"
    moved = moved_places([picture.path for picture in pictures], scored.directory, action)
    sizes = Counter(groups)
    missing = write_sheet(file, scored.directory, pictures, title=title, group_sizes=sizes, moved=moved)
    log.info("contact sheet written to %s", file)
    if missing:
        log.warning("not on the sheet because they cannot be read: %s", name_some(missing))


def moved_places(paths: Sequence[str], directory: Path, action: ActionSettings) -> dict[str, Path]:
    """Return where each picture will be that the action moves."""
    if action.move_to is None or action.dry_run:
        return {}
    ranked = action.rank_prefix
    planned, _ = transfers.plan_transfers(directory, paths, Path(action.move_to), kind="move", ranked=ranked)
    places = {group[0].source: group[0].target for group in planned}
    source = directory.resolve()
    return {path: places[source / path] for path in paths if source / path in places}


def rate_there(scored: ScoredFolder, rows: np.ndarray, arguments: FolderArguments) -> None:
    """Write stars for the selected pictures to Immich, and put them into an album."""
    assert arguments.action.immich is not None
    album = arguments.action.immich_album
    if album is None and arguments.selection != SelectionSettings():
        album = f"Selected from {scored.directory.resolve().name}"
    client = make_client(arguments.action.immich)
    rate_in_immich(client, scored.directory, stars_of(scored, rows), album, dry_run=arguments.action.dry_run)


def stars_of(scored: ScoredFolder, rows: np.ndarray) -> dict[str, int]:
    """Return the stars of the selected pictures, 1 ... 5 by fifths of all scores."""
    given = stars(scored.scores)
    return {scored.paths[row]: int(given[row]) for row in rows}


def rate(scored: ScoredFolder, rows: np.ndarray, action: ActionSettings) -> None:
    """Write stars, by fifths of all scores, for the selected pictures, where photo programs read them."""
    plan = plan_ratings(scored.directory, stars_of(scored, rows), program=action.xmp_for, embed=action.embed)
    undo_file = UndoFile(undo_file_of_ratings(scored.directory, datetime.now()))
    try:
        outcome = preview_ratings(plan) if action.dry_run else write_ratings(plan, undo_file)
    finally:
        if undo_file.n_changes:
            log.info("%d files changed; --undo=%s takes it back", undo_file.n_changes, undo_file.file)
    report_ratings(outcome)


def preview_ratings(plan: RatingPlan) -> RatingPlan:
    """Log what `write_ratings` would do, and return the plan."""
    for rating in plan.ratings:
        names = [printable(sidecar.name, LONGEST_PATH) for sidecar in rating.sidecars]
        names += ["the picture itself"] * (rating.inside is not None)
        log.info(
            "would write %d stars for %s to %s", rating.stars, printable(rating.path, LONGEST_PATH), " and ".join(names)
        )
    return plan


def write_ratings(plan: RatingPlan, undo_file: UndoFile) -> RatingPlan:
    """Write the stars, and return the plan as it turned out."""
    written: list[Rating] = []
    by_user: list[Rating] = []
    failures: list[str] = []
    for rating in plan.ratings:
        try:
            (written if write_rating(rating, undo_file) else by_user).append(rating)
        except UserError as error:
            failures.append(str(error))
    log.info("stars written for %d pictures", len(written))
    by_user_paths = [*plan.rated_by_user, *(rating.path for rating in by_user)]
    return replace(plan, ratings=written, rated_by_user=by_user_paths, failures=plan.failures + failures)


def report_ratings(plan: RatingPlan) -> None:
    """Log which pictures got no stars, and why; UserError if some could not be written."""
    if plan.rated_by_user:
        count, names = len(plan.rated_by_user), name_some(plan.rated_by_user)
        log.info("%d not changed because they already have your rating: %s", count, names)
    if plan.out_of_reach:
        log.warning(
            "%d without stars because Lightroom reads no sidecar of theirs (--embed writes the stars inside JPEG, "
            "TIFF, PNG and WEBP files): %s",
            len(plan.out_of_reach),
            name_some(plan.out_of_reach),
        )
    if plan.failures:
        raise first_messages(plan.failures)


def caption(scored: ScoredFolder, rows: np.ndarray, dry_run: bool) -> None:
    """Put tags, by tenths of all scores, into the caption files of the selected pictures."""
    tags = dict(zip(scored.paths, score_tags(scored.scores), strict=True))
    tag_captions(scored.directory, tags, [scored.paths[row] for row in rows], dry_run=dry_run)


def transfer_pictures(paths: Sequence[str], directory: Path, action: ActionSettings) -> None:
    """Copy, link or move the pictures; with `dry_run`, only log what would be done."""
    for kind in transfers.KINDS:
        name = getattr(action, f"{kind}_to")
        if name is None:
            continue
        target = Path(name)
        planned, in_the_way = transfers.plan_transfers(directory, paths, target, kind=kind, ranked=action.rank_prefix)
        if in_the_way:
            log.warning("left out because these files already exist: %s", name_some(in_the_way))
        if action.dry_run:
            for planned_file in chain.from_iterable(planned):
                log.info(
                    "would %s %s -> %s",
                    kind,
                    printable(str(planned_file.source), LONGEST_PATH),
                    printable(str(planned_file.target), LONGEST_PATH),
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
    """Take back what an undo file lists, moves, stars or captions; UserError if some of it cannot be taken back."""
    if is_rating_undo(undo_file):
        restore_files(undo_file)
        return
    back, in_the_way = transfers.undo(undo_file)
    log.info("%d files moved back", back)
    if in_the_way:
        raise UserError(
            f"not moved back because other files have their names: {name_some(in_the_way)}; move those away first"
        )


def restore_files(undo_file: Path) -> None:
    """Restore the files that an undo file lists; UserError if some are left as they are."""
    undone = undo_ratings(undo_file)
    log.info("the earlier content of %d files restored", undone.n_restored)
    if undone.n_identical < undone.n_restored:
        log.info(
            "%d of them equal the earlier files in pixels and metadata only", undone.n_restored - undone.n_identical
        )
    if undone.left:
        raise first_messages(undone.left)


def first_messages(messages: Sequence[str]) -> UserError:
    """Return one error for several messages: the first three, and how many more there are."""
    more = f"; and {len(messages) - 3} more" if len(messages) > 3 else ""
    return UserError("; ".join(messages[:3]) + more)
