"""Copy, link or move pictures without overwriting any file; moves can be undone.

A picture keeps its path relative to the directory, so pictures of the same name do not collide. With it go, all or
none, the RAW file of the same shot, and the sidecars of both (`photo.jpg.xmp`, Lightroom's `photo.xmp`, and the caption
`photo.txt`). A picture whose target exists is left out and reported.
"""

import contextlib
import filecmp
import json
import logging
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby
from pathlib import Path

from custom_aesthetic.base.errors import UserError
from custom_aesthetic.base.processes import aside_name, sweep
from custom_aesthetic.pictures.captions import caption_of
from custom_aesthetic.pictures.companions import Companions
from custom_aesthetic.pictures.xmp import lightroom_sidecar_of, sidecar_of

log = logging.getLogger(__name__)

KINDS = ("copy", "link", "move")

FEWEST_DIGITS = 3
"""Fewest digits of a rank before the name of a file; leading zeros keep folders in the right order."""


@dataclass(frozen=True)
class Transfer:
    """One file and its new place; both paths are absolute."""

    source: Path
    target: Path
    link: str | None = None
    """If the target is to become a symbolic link, the path that it points to."""


Group = tuple[Transfer, ...]
"""A picture, the RAW file of the same shot, and their sidecars, which are transferred together."""


def plan_transfers(
    directory: Path, paths: Sequence[str], target: Path, *, kind: str = "copy", ranked: bool = False
) -> tuple[list[Group], list[str]]:
    """Return the transfers to make, and the paths left out because their target exists.

    With `ranked`, the names of the new files begin with the rank of the picture, its place in `paths`: `001_photo.jpg`.
    What belongs to a picture has the same rank.

    `kind` is one of KINDS. Links are made to pictures only, not to RAW files beside them or sidecars. A sidecar
    `photo.xmp` or a caption `photo.txt` is not moved while another picture or raw file called `photo` stays behind,
    because it describes that file too.
    Raises UserError if the target is inside the directory or is not a directory.
    """
    source, destination = directory.resolve(), target.resolve()
    if destination == source or source in destination.parents:
        raise UserError(f"{target} lies inside {directory}, so its pictures would be scored again; choose one outside")
    if destination.exists() and not destination.is_dir():
        raise UserError(f"{target} exists and is not a directory; choose another")
    companions = Companions(source)
    raws = {path: companions.raws_of(path) for path in paths} if kind != "link" else {}
    going = set(paths).union(*raws.values())
    groups: list[Group] = []
    in_the_way: list[str] = []
    planned: set[Path] = set()
    for rank, path in enumerate(paths, 1):
        prefix = f"{rank:0{max(FEWEST_DIGITS, len(str(len(paths))))}}_" if ranked else ""
        files = [
            Transfer(source / one, (destination / one).with_name(f"{prefix}{Path(one).name}"))
            for one in (path, *raws.get(path, ()))
        ]
        if kind != "link":
            files += _sidecars(files, planned, may_go=kind == "copy" or companions.of(path) <= going)
        if any(os.path.lexists(one.target) for one in files):
            in_the_way.append(path)
        else:
            groups.append(tuple(files))
            planned.update(one.target for one in files)
    return groups, in_the_way


def _sidecars(pictures: Sequence[Transfer], planned: set[Path], *, may_go: bool) -> list[Transfer]:
    """Return the sidecars of the files of one shot; `may_go` says whether those that it may share are among them."""
    places = [sidecar_of, *([lightroom_sidecar_of, caption_of] if may_go else [])]
    found = dict.fromkeys(Transfer(place(one.source), place(one.target)) for one in pictures for place in places)
    return [one for one in found if one.source.exists() and one.target not in planned]


def copy(groups: Sequence[Group]) -> None:
    """Copy the files with their times. An interrupted copy leaves no partial file and no picture without sidecars."""
    _sweep_targets(groups)
    for group in groups:
        _guarded(_put_all, group, _copy_one)


def link(groups: Sequence[Group]) -> None:
    """Make a symbolic link to each file."""
    for group in groups:
        _guarded(_put_all, group, _link_one)


def move(groups: Sequence[Group], undo_file: Path) -> None:
    """Move the files; each move is recorded in the undo file, and synced to the disk, before it is made.

    If one file of a group cannot be moved, the whole group stays. The error, or after Ctrl-C the log, then names the
    undo file.
    """
    n_moved = 0
    try:
        undo_file.parent.mkdir(parents=True, exist_ok=True)
        _sweep_targets(groups)
        with undo_file.open("x", encoding="utf-8") as stream:
            for number, group in enumerate(groups):
                stream.write("".join(_undo_line(one, number) for one in group))
                stream.flush()
                os.fsync(stream.fileno())
                _guarded(_move_all, group)
                n_moved += len(group)
    except FileExistsError:
        raise UserError(f"{undo_file} exists already; wait a second and start again") from None
    except OSError as error:
        reason = f"{undo_file} cannot be written: {error.strerror}; choose another directory"
        raise UserError(reason + _how_to_undo(n_moved, undo_file)) from None
    except UserError as error:
        raise UserError(f"{error}{_how_to_undo(n_moved, undo_file)}") from None
    except KeyboardInterrupt:
        log.warning("interrupted%s", _how_to_undo(n_moved, undo_file))
        raise


def _how_to_undo(n_moved: int, undo_file: Path) -> str:
    return f"; {n_moved} files were moved before, --undo={undo_file} moves them back"


def undo(undo_file: Path) -> tuple[int, list[str]]:
    """Move the files of an undo file back; return how many were moved, and the places that are occupied.

    Moves that were never made or are already undone are skipped. A file that was a link becomes that link again, unless
    the file has changed or the target of the link is gone: then the file itself is moved back.
    Raises UserError if the undo file cannot be read.
    """
    back, in_the_way = 0, []
    moved = _read_undo(undo_file)
    for group in (*(group for group in moved if group[0].link is None), *(group for group in moved if group[0].link)):
        here = [one for one in group if os.path.lexists(one.source)]
        both = [one for one in here if os.path.lexists(one.target)]
        blocked = [str(one.target) for one in both if not _are_same(one)]
        if blocked:
            in_the_way += blocked
            continue
        _guarded(_move_all, tuple(one for one in here if one not in both))
        _guarded(_remove_second_names, tuple(both))
        back += len(here)
    return back, in_the_way


def undo_file_in(directory: Path, now: datetime) -> Path:
    """Return the path of the undo file for moves that start at the time `now`."""
    return directory / f"undo-{now:%Y%m%d-%H%M%S}.jsonl"


def _guarded(action: Callable[..., None], group: Group, *arguments: object) -> None:
    if not group:
        return
    try:
        for one in group:
            one.target.parent.mkdir(parents=True, exist_ok=True)
        action(group, *arguments)
    except OSError as error:
        reason = error.strerror or str(error)
        one = group[0]
        raise UserError(f"{one.source} -> {one.target}: {reason}; the files before this one are done") from None


def _put_all(group: Group, put: Callable[[Transfer], None]) -> None:
    """Apply `put` to every file of the group; after an error, take all of them back."""
    done: list[Transfer] = []
    try:
        for one in group:
            put(one)
            done.append(one)
    except BaseException:
        for one in reversed(done):
            _take_back(one)
        raise


def _move_all(group: Group) -> None:
    """Create every file of the group at its target, then remove the sources; an error restores the group."""
    _put_all(group, _arrive)
    try:
        for one in group:
            one.source.unlink(missing_ok=True)
    except BaseException:
        for one in reversed(group):
            _take_back(one)
        raise


def _arrive(one: Transfer) -> None:
    """Create the file at its target: as the former link, as a copy if it is on another disk, or as a second name.

    The source stays, except on file systems without hard links.
    """
    if one.link is not None and _leads_to_the_same(one):
        one.target.symlink_to(one.link)
    elif one.source.is_symlink() or one.source.stat().st_dev != one.target.parent.stat().st_dev:
        _copy_one(one)
        with one.target.open("rb+") as stream:
            os.fsync(stream.fileno())
    else:
        _take_name(one.source, one.target)


def _remove_second_names(group: Group) -> None:
    for one in group:
        one.source.unlink()


def _take_back(one: Transfer) -> None:
    """Restore the source of the file and remove the target."""
    if not os.path.lexists(one.source):
        _take_name(one.target, one.source)
    one.target.unlink(missing_ok=True)


def _copy_one(one: Transfer) -> None:
    aside = one.target.with_name(aside_name(one.target.name))
    try:
        shutil.copy2(one.source, aside)
        _take_name(aside, one.target)
    finally:
        aside.unlink(missing_ok=True)


def _link_one(one: Transfer) -> None:
    one.target.symlink_to(one.source)


def _take_name(file: Path, target: Path) -> None:
    """Give a file a second name, or rename it on file systems without hard links.

    Raises FileExistsError if the name is taken.
    """
    try:
        os.link(file, target)
    except FileExistsError:
        raise
    except OSError:
        if os.path.lexists(target):
            raise FileExistsError(17, "the target exists already", str(target)) from None
        file.rename(target)


def _are_same(one: Transfer) -> bool:
    """Return whether source and target have the same content, as when a move was killed half-way."""
    if one.target.is_symlink() and (one.link is None or str(one.target.readlink()) != one.link):
        return False
    return _has_same_content(one.source, one.target)


def _leads_to_the_same(one: Transfer) -> bool:
    """Return whether the link to restore points to the content of the file."""
    assert one.link is not None
    return _has_same_content(one.source, one.target.parent / one.link)


def _has_same_content(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other) or filecmp.cmp(one, other, shallow=False)
    except OSError:
        return False


def _sweep_targets(groups: Sequence[Group]) -> None:
    """Remove the partial copies that killed runs have left in the target folders."""
    for folder in {one.target.parent for group in groups for one in group}:
        sweep(folder)


def _undo_line(one: Transfer, number: int) -> str:
    row: dict[str, str | int] = {"from": str(one.source), "to": str(one.target), "group": number}
    with contextlib.suppress(OSError):
        row["link"] = str(one.source.readlink())
    return json.dumps(row) + "\n"


def _read_undo(undo_file: Path) -> list[Group]:
    """Return the moves that undo those of a file, last one first; an incomplete last line is ignored."""
    try:
        lines = undo_file.read_text(encoding="utf-8").split("\n")
        rows = [json.loads(line) for line in lines[:-1]]
        moves = [(row.get("group", -1 - i), _way_back(row)) for i, row in enumerate(rows)]
    except OSError as error:
        raise UserError(f"--undo={undo_file} cannot be read: {error.strerror}; give the undo file of a move") from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise UserError(f"--undo={undo_file} is not the undo file of a move; give one") from None
    groups = [tuple(move for _, move in group) for _, group in groupby(moves, key=lambda numbered: numbered[0])]
    return groups[::-1]


def _way_back(row: dict[str, str]) -> Transfer:
    link = row.get("link")
    if not isinstance(link, str | None):
        raise TypeError
    return Transfer(Path(row["to"]), Path(row["from"]), link)
