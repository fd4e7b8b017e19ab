"""Copies, links and moves of pictures: nothing is ever overwritten, and moves can be taken back.

A picture keeps its path relative to the folder, so two of one name do not meet. Its sidecars (`photo.jpg.xmp`, and
Lightroom's `photo.xmp`) go with it: all of them or none. What is in the way is named and left out.
"""

import contextlib
import filecmp
import json
import logging
import os
import shutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby
from pathlib import Path, PurePosixPath

from custom_aesthetic.base.errors import UserError
from custom_aesthetic.base.processes import aside_name, sweep
from custom_aesthetic.pictures.images import RAW_SUFFIXES, is_image_name
from custom_aesthetic.pictures.xmp import lightroom_sidecar_of, sidecar_of

log = logging.getLogger(__name__)

KINDS = ("copy", "link", "move")


@dataclass(frozen=True)
class Transfer:
    """One file and where it goes; both absolute."""

    source: Path
    target: Path
    link: str | None = None
    """Where the target is to be a symbolic link, what it says."""


Group = tuple[Transfer, ...]
"""A picture and its sidecars, which stay together."""


def plan_transfers(
    directory: Path, paths: Sequence[str], target: Path, *, kind: str = "copy"
) -> tuple[list[Group], list[str]]:
    """Return what would go where, and the paths left out because something is there already.

    `kind` is one of KINDS. Links are made to the pictures alone. A sidecar `photo.xmp` is not moved while another
    picture or a raw file of that name stays, as it describes that one too.
    """
    source, destination = directory.resolve(), target.resolve()
    if destination == source or source in destination.parents:
        raise UserError(f"{target} lies inside {directory}, so its pictures would be scored again; choose one outside")
    if destination.exists() and not destination.is_dir():
        raise UserError(f"{target} is there and is no directory; choose another")
    sharing = _Sharing(source, paths if kind == "move" else ())
    groups: list[Group] = []
    in_the_way: list[str] = []
    planned: set[Path] = set()
    for path in paths:
        files = [Transfer(source / path, destination / path)]
        if kind != "link":
            files += _sidecars(files[0], planned, may_go=kind == "copy" or sharing.all_go(path))
        if any(os.path.lexists(one.target) for one in files):
            in_the_way.append(path)
        else:
            groups.append(tuple(files))
            planned.update(one.target for one in files)
    return groups, in_the_way


def _sidecars(picture: Transfer, planned: set[Path], *, may_go: bool) -> list[Transfer]:
    """Return the sidecars that go with a picture; `may_go` says it of the one that others of its name may share."""
    places = [sidecar_of] + [lightroom_sidecar_of] * may_go
    found = [Transfer(place(picture.source), place(picture.target)) for place in places]
    return [one for one in found if one.source.exists() and one.target not in planned]


class _Sharing:
    """Which pictures and raw files of one folder share a name but for the suffix, and whether all of them go."""

    def __init__(self, directory: Path, going: Iterable[str]) -> None:
        self._directory = directory
        self._going = set(going)
        self._names: dict[str, dict[str, list[str]]] = {}

    def all_go(self, path: str) -> bool:
        """Return whether no picture or raw file stays that shares `photo.xmp` with this picture."""
        whole = PurePosixPath(path)
        folder = "" if whole.parent == PurePosixPath() else f"{whole.parent}/"
        return all(folder + name in self._going for name in self._in_folder(folder).get(whole.stem, ()))

    def _in_folder(self, folder: str) -> dict[str, list[str]]:
        if folder not in self._names:
            by_stem: dict[str, list[str]] = {}
            self._names[folder] = by_stem
            with os.scandir(self._directory / folder) as entries:
                for entry in entries:
                    if is_image_name(entry.name) or entry.name.lower().endswith(RAW_SUFFIXES):
                        by_stem.setdefault(PurePosixPath(entry.name).stem, []).append(entry.name)
        return self._names[folder]


def copy(groups: Sequence[Group]) -> None:
    """Copy the files with their times; each is whole or not there, and a picture is not there without its sidecars."""
    _sweep_targets(groups)
    for group in groups:
        _guarded(_put_all, group, _copy_one)


def link(groups: Sequence[Group]) -> None:
    """Make a symbolic link to each file."""
    for group in groups:
        _guarded(_put_all, group, _link_one)


def move(groups: Sequence[Group], undo_file: Path) -> None:
    """Move the files; each move is written to the undo file, and that to the disk, before it is made.

    Where a file of a group cannot be moved, the whole group stays. The error then names the undo file, as does the
    log after Ctrl-C.
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
        raise UserError(f"{undo_file} is there already; wait a second and start again") from None
    except OSError as error:
        reason = f"{undo_file} cannot be written: {error.strerror}; choose another directory"
        raise UserError(reason + _how_to_undo(n_moved, undo_file)) from None
    except UserError as error:
        raise UserError(f"{error}{_how_to_undo(n_moved, undo_file)}") from None
    except KeyboardInterrupt:
        log.warning("interrupted%s", _how_to_undo(n_moved, undo_file))
        raise


def _how_to_undo(n_moved: int, undo_file: Path) -> str:
    return f"; {n_moved} files were moved before, --undo={undo_file} takes them back"


def undo(undo_file: Path) -> tuple[int, list[str]]:
    """Move everything that an undo file lists back; return how many, and what could not be because of what is there.

    Moves that were never made, or were taken back before, are passed over. What was a link becomes that link again,
    unless the file has been changed since or what the link leads to is gone: then the file itself comes back.
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
    """Return the undo file's place for moves made at that time."""
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
        raise UserError(f"{one.source} -> {one.target}: {reason}; what was done before this file stands") from None


def _put_all(group: Group, put: Callable[[Transfer], None]) -> None:
    """Put every file of the group in its place, or none."""
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
    """Give every file of the group its new name and then remove the old ones; after an error all is as before."""
    _put_all(group, _arrive)
    try:
        for one in group:
            one.source.unlink(missing_ok=True)
    except BaseException:
        for one in reversed(group):
            _take_back(one)
        raise


def _arrive(one: Transfer) -> None:
    """Give the file its new name; on another disk by a copy. The old name stays, where both can be."""
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
    """Leave the file at its old place alone."""
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
    """Give a file a second name, which fails if the name is taken; by a rename where there are no hard links."""
    try:
        os.link(file, target)
    except FileExistsError:
        raise
    except OSError:
        if os.path.lexists(target):
            raise FileExistsError(17, "something is there already", str(target)) from None
        file.rename(target)


def _are_same(one: Transfer) -> bool:
    """Return whether both names lead to the same content, as after a kill between a new name and the old one's end."""
    if one.target.is_symlink() and (one.link is None or str(one.target.readlink()) != one.link):
        return False
    return _has_same_content(one.source, one.target)


def _leads_to_the_same(one: Transfer) -> bool:
    """Return whether the link that is to be made again leads to what the file holds."""
    assert one.link is not None
    return _has_same_content(one.source, one.target.parent / one.link)


def _has_same_content(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other) or filecmp.cmp(one, other, shallow=False)
    except OSError:
        return False


def _sweep_targets(groups: Sequence[Group]) -> None:
    """Remove half-written copies that killed runs have left where these files go."""
    for folder in {one.target.parent for group in groups for one in group}:
        sweep(folder)


def _undo_line(one: Transfer, number: int) -> str:
    row: dict[str, str | int] = {"from": str(one.source), "to": str(one.target), "group": number}
    with contextlib.suppress(OSError):
        row["link"] = str(one.source.readlink())
    return json.dumps(row) + "\n"


def _read_undo(undo_file: Path) -> list[Group]:
    """Return the moves that take those of a file back, the last one first; a line that a crash tore counts as none."""
    try:
        lines = undo_file.read_text(encoding="utf-8").split("\n")
        rows = [json.loads(line) for line in lines[:-1]]
        moves = [(row.get("group", -1 - i), _way_back(row)) for i, row in enumerate(rows)]
    except OSError as error:
        raise UserError(f"--undo={undo_file} cannot be read: {error.strerror}; name the undo file of a move") from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise UserError(f"--undo={undo_file} is not the undo file of a move; name one") from None
    groups = [tuple(move for _, move in group) for _, group in groupby(moves, key=lambda numbered: numbered[0])]
    return groups[::-1]


def _way_back(row: dict[str, str]) -> Transfer:
    link = row.get("link")
    if not isinstance(link, str | None):
        raise TypeError
    return Transfer(Path(row["to"]), Path(row["from"]), link)
