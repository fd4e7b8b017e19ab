"""Tag the caption files of a folder, and say what was done."""

import logging
from collections.abc import Collection, Mapping
from datetime import datetime
from pathlib import Path

from custom_aesthetic.base.errors import UserError
from custom_aesthetic.base.text import LONGEST_PATH, printable
from custom_aesthetic.pictures.captions import NotACaption, plan_captions, tagged, write_tag
from custom_aesthetic.pictures.rating_undo import UndoFile, undo_file_of_captions
from custom_aesthetic.scores.score_files import name_some

log = logging.getLogger(__name__)


def tag_captions(directory: Path, tags: Mapping[str, str | None], selected: Collection[str], *, dry_run: bool) -> None:
    """Put each selected picture's tag into its caption; with `dry_run`, only log what would be done.

    `tags` has the tag of every picture below the directory, None for no tag. Captions that are not text in UTF-8 are
    named and left as they are. Raises UserError at the end if some could not be read or written.
    """
    plan = plan_captions(directory, tags, selected)
    undo_file = UndoFile(undo_file_of_captions(directory, datetime.now()))
    left_alone, failures = [], []
    for file, tag in plan.tags.items():
        try:
            if dry_run:
                _preview(file, tag)
            else:
                write_tag(file, tag, undo_file)
        except NotACaption as error:
            left_alone.append(str(error))
        except UserError as error:
            failures.append(str(error))
    if not dry_run:
        undoing = f"; --undo={undo_file.file} restores them" if undo_file.n_changes else ""
        log.info("captions changed for %d of %d pictures%s", undo_file.n_changes, len(selected), undoing)
    if plan.shared:
        count, names = len(plan.shared), name_some(plan.shared)
        log.warning("%d not tagged because pictures of other tags have the same caption: %s", count, names)
    if left_alone:
        log.warning("%d not changed because they are no captions: %s", len(left_alone), name_some(left_alone))
    if failures:
        raise UserError(name_some(failures, 3))


def _preview(file: Path, tag: str | None) -> None:
    if tagged(file, tag) is not None:
        action = "remove the tag from" if tag is None else f"write {tag} to"
        log.info("would %s %s", action, printable(str(file), LONGEST_PATH))
