"""Copies, links and moves of pictures: nothing is ever overwritten, and moves can be taken back.

A picture keeps its path relative to the folder, so two of one name do not meet. Its sidecar (`photo.jpg.xmp`) goes
with it. What is in the way is named and left out.
"""

import json
import logging
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from custom_aesthetic.base.errors import UserError
from custom_aesthetic.pictures.xmp import sidecar_of

log = logging.getLogger(__name__)

KINDS = ("copy", "link", "move")


@dataclass(frozen=True)
class Transfer:
    """One file and where it goes; both absolute."""

    source: Path
    target: Path


def plan_transfers(
    directory: Path, paths: Sequence[str], target: Path, *, with_sidecars: bool = True
) -> tuple[list[Transfer], list[str]]:
    """Return what would go where, and the paths left out because something is there already."""
    source, destination = directory.resolve(), target.resolve()
    if destination == source or source in destination.parents:
        raise UserError(f"{target} lies inside {directory}, so its pictures would be scored again; choose one outside")
    if destination.exists() and not destination.is_dir():
        raise UserError(f"{target} is there and is no directory; choose another")
    transfers, in_the_way = [], []
    for path in paths:
        files = [Transfer(source / path, destination / path)]
        sidecar = sidecar_of(source / path)
        if with_sidecars and sidecar.exists():
            files.append(Transfer(sidecar, sidecar_of(destination / path)))
        if any(os.path.lexists(one.target) for one in files):
            in_the_way.append(path)
        else:
            transfers += files
    return transfers, in_the_way


def copy(transfers: Sequence[Transfer]) -> None:
    """Copy the files with their times; each is whole or not there."""
    for one in transfers:
        _guarded(_copy_one, one)


def link(transfers: Sequence[Transfer]) -> None:
    """Make a symbolic link to each file."""
    for one in transfers:
        _guarded(_link_one, one)


def move(transfers: Sequence[Transfer], undo_file: Path) -> None:
    """Move the files; each move is written to the undo file, and that to the disk, before it is made."""
    try:
        undo_file.parent.mkdir(parents=True, exist_ok=True)
        with undo_file.open("x", encoding="utf-8") as stream:
            for one in transfers:
                stream.write(json.dumps({"from": str(one.source), "to": str(one.target)}) + "\n")
                stream.flush()
                os.fsync(stream.fileno())
                _guarded(_move_one, one)
    except FileExistsError:
        raise UserError(f"{undo_file} is there already; wait a second and start again") from None
    except OSError as error:
        raise UserError(f"{undo_file} cannot be written: {error.strerror}; choose another directory") from None


def undo(undo_file: Path) -> tuple[int, list[str]]:
    """Move everything that an undo file lists back; return how many, and what could not be because of what is there.

    Moves that were never made, or were taken back before, are passed over.
    """
    back, in_the_way = 0, []
    for source, target in reversed(_read_undo(undo_file)):
        if not os.path.lexists(target):
            continue
        if os.path.lexists(source):
            in_the_way.append(str(source))
            continue
        _guarded(_move_one, Transfer(target, source))
        back += 1
    return back, in_the_way


def undo_file_in(directory: Path, now: datetime) -> Path:
    """Return the undo file's place for moves made at that time."""
    return directory / f"undo-{now:%Y%m%d-%H%M%S}.jsonl"


def _guarded(action: Callable[[Path, Path], None], one: Transfer) -> None:
    try:
        one.target.parent.mkdir(parents=True, exist_ok=True)
        action(one.source, one.target)
    except OSError as error:
        reason = error.strerror or str(error)
        raise UserError(f"{one.source} -> {one.target}: {reason}; what was done before this file stands") from None


def _copy_one(source: Path, target: Path) -> None:
    aside = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        shutil.copy2(source, aside)
        _take_name(aside, target)
    finally:
        aside.unlink(missing_ok=True)


def _link_one(source: Path, target: Path) -> None:
    target.symlink_to(source)


def _move_one(source: Path, target: Path) -> None:
    """Give the file its new name; to another disk by a copy, and only then is the old one removed."""
    if source.is_symlink() or source.stat().st_dev != target.parent.stat().st_dev:
        _copy_one(source, target)
        with target.open("rb+") as stream:
            os.fsync(stream.fileno())
    else:
        _take_name(source, target)
    source.unlink(missing_ok=True)


def _take_name(file: Path, target: Path) -> None:
    """Give a file a second name, which fails if the name is taken; by a rename where there are no hard links."""
    try:
        os.link(file, target)
    except FileExistsError:
        raise
    except OSError:
        if os.path.lexists(target):
            raise FileExistsError(17, "something is there already", str(target)) from None
        file.rename(target)


def _read_undo(undo_file: Path) -> list[tuple[Path, Path]]:
    """Return the moves that a file lists, one a line; a last line that a crash tore names a move never made."""
    try:
        lines = undo_file.read_text(encoding="utf-8").split("\n")
        rows = [json.loads(line) for line in lines[:-1]]
        return [(Path(row["from"]), Path(row["to"])) for row in rows]
    except OSError as error:
        raise UserError(f"--undo={undo_file} cannot be read: {error.strerror}; name the undo file of a move") from None
    except (ValueError, KeyError, TypeError):
        raise UserError(f"--undo={undo_file} is not the undo file of a move; name one") from None
