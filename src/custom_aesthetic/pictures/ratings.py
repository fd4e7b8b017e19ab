"""Write star ratings for photo programs, to the sidecars that each of them reads.

- darktable, Immich, and where no program is named: `photo.jpg.xmp`. If only `photo.xmp` exists, it is updated instead,
  because a new file of the longer name would hide it from these programs.
- digiKam: `photo.jpg.xmp`. It reads `photo.xmp` only if set up to do so.
- Lightroom: `photo.xmp`, for raw files only. It ignores sidecars of JPEG, TIFF, PNG, WEBP and DNG. With `embed`, JPEG,
  TIFF, PNG and WEBP get the rating inside.

Sidecars that exist under the other name are updated too, so that they do not contradict.

Files that differ in their suffix only share `photo.xmp`. Its stars are those of the raw file, or, if no raw file is
rated, those of the first picture beside it. Where several pictures share it without a raw file, it belongs to none of
them. A rating that the user set, in any of these places or inside the picture, is kept.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from custom_aesthetic.base.errors import UserError
from custom_aesthetic.base.files import is_file, write_atomically
from custom_aesthetic.pictures.companions import Companions, is_raw_name
from custom_aesthetic.pictures.embedding import EMBEDDABLE_SUFFIXES, replace_content, sha256_of, with_packet
from custom_aesthetic.pictures.rating_undo import Change, UndoFile
from custom_aesthetic.pictures.xmp import (
    embedded_packet,
    is_rated_by_user,
    lightroom_sidecar_of,
    packets_of,
    read_sidecar,
    sidecar_of,
    with_stars,
)

LIGHTROOM, DIGIKAM = "lightroom", "digikam"


@dataclass(frozen=True)
class Rating:
    """The stars to write for one picture."""

    path: str
    """Relative to the directory."""
    stars: int
    sidecars: tuple[Path, ...]
    """Files to write to; each exists or is new."""
    inside: Path | None = None
    """The picture, if the stars are also to be written inside it."""


@dataclass(frozen=True)
class RatingPlan:
    """What is to be written, and for which pictures nothing is; all of them are relative paths."""

    ratings: list[Rating] = field(default_factory=list)
    rated_by_user: list[str] = field(default_factory=list)
    out_of_reach: list[str] = field(default_factory=list)
    """Pictures that Lightroom would have to read the stars inside of."""
    failures: list[str] = field(default_factory=list)
    """A message for each picture whose sidecar cannot be read."""


def plan_ratings(
    directory: Path, stars: Mapping[str, int], *, program: str | None = None, embed: bool = False
) -> RatingPlan:
    """Return what to write, for relative paths with their stars, 1 ... 5; `program` is one of XMP_PROGRAMS or None."""
    plan, companions = RatingPlan(), Companions(directory)
    for path, n_stars in stars.items():
        picture, sharing = directory / path, companions.of(path)
        inside = picture if embed and path.lower().endswith(EMBEDDABLE_SUFFIXES) else None
        has_shorter = _describes(path, sharing, stars.keys())
        for_raw = has_shorter and any(map(is_raw_name, sharing))
        try:
            if any(map(is_rated_by_user, packets_of(picture))):
                plan.rated_by_user.append(path)
            elif program == LIGHTROOM and inside is None and not for_raw:
                plan.out_of_reach.append(path)
            else:
                sidecars = _sidecars_to_write(picture, program, has_shorter=has_shorter, for_raw=for_raw)
                plan.ratings.append(Rating(path, n_stars, sidecars, inside))
        except UserError as error:
            plan.failures.append(str(error))
    return plan


def write_rating(rating: Rating, undo_file: UndoFile | None = None) -> bool:
    """Write the stars; return False, with nothing written, if the user has just rated the picture.

    Everything else in the files is kept. The undo file gets a line before each change. Raises UserError if a file
    cannot be read or written, or is not XMP; NotEmbedded if the picture has to stay as it is.
    """
    old = {sidecar: read_sidecar(sidecar) for sidecar in rating.sidecars}
    packet_inside = embedded_packet(rating.inside).rstrip(b"\0") if rating.inside is not None else b""
    if any(map(is_rated_by_user, [packet_inside, *(packet or b"" for packet in old.values())])):
        return False
    new = {sidecar: _with_stars(packet, rating.stars, f"the sidecar {sidecar}") for sidecar, packet in old.items()}
    if rating.inside is not None:
        _write_inside(rating.inside, packet_inside or None, rating.stars, undo_file)
    for sidecar, packet in new.items():
        _write_sidecar(sidecar, old[sidecar], packet, undo_file)
    return True


def _with_stars(packet: bytes | None, stars: int, whose: str) -> bytes:
    new = with_stars(packet, stars)
    if new is None:
        raise UserError(f"{whose} is not XMP that stars can be written to; repair it or move it away")
    return new


def _write_inside(picture: Path, before: bytes | None, stars: int, undo_file: UndoFile | None) -> None:
    packet = _with_stars(before, stars, f"what is inside {picture}")
    if packet == before:
        return
    new = with_packet(picture, packet)
    if undo_file is not None:
        after = sha256_of(new.content)
        undo_file.add(Change(new.file, True, before, new.sha256_before, after, new.mtime_ns_before))
    replace_content(new)


def _write_sidecar(sidecar: Path, before: bytes | None, packet: bytes, undo_file: UndoFile | None) -> None:
    if packet == before:
        return
    if undo_file is not None:
        sha256_before = None if before is None else sha256_of(before)
        undo_file.add(Change(sidecar.absolute(), False, before, sha256_before, sha256_of(packet), None))
    write_atomically(sidecar, packet)


def _sidecars_to_write(picture: Path, program: str | None, *, has_shorter: bool, for_raw: bool) -> tuple[Path, ...]:
    """Return the sidecars that get the stars of a picture: those that exist, and those that the program reads.

    `has_shorter` says whether `photo.xmp` is the picture's, and `for_raw` whether it is a raw file's too.
    """
    longer, shorter = sidecar_of(picture), lightroom_sidecar_of(picture)
    existing = [longer] * is_file(longer) + [shorter] * (has_shorter and is_file(shorter))
    if program == LIGHTROOM:
        return tuple(dict.fromkeys([*existing, *([shorter] * for_raw)]))
    return tuple(dict.fromkeys([*existing, *([longer] * (program == DIGIKAM or not existing))]))


def _describes(path: str, sharing: Iterable[str], rated: Iterable[str]) -> bool:
    """Return whether `photo.xmp` gets the stars of this path, among the files that share it."""
    everyone = sorted(sharing)
    raw = [one for one in everyone if is_raw_name(one)]
    if len(everyone) == 1:
        return True
    speakers = [one for one in raw if one in rated] or [one for one in everyone if one in rated and raw]
    return speakers[:1] == [path]
