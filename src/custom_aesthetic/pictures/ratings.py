"""Write star ratings for photo programs, to the sidecars that each of them reads.

- darktable, Immich, and where no program is named: `photo.jpg.xmp`. If only `photo.xmp` exists, it is updated instead,
  because a new file of the longer name would hide it from these programs.
- digiKam: `photo.jpg.xmp`. It reads `photo.xmp` only if set up to do so.
- Lightroom: `photo.xmp`, for raw files only. It ignores sidecars of JPEG, TIFF, PNG, WEBP and DNG.

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
from custom_aesthetic.pictures.xmp import (
    embedded_packet,
    is_rated_by_user,
    lightroom_sidecar_of,
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


@dataclass(frozen=True)
class RatingPlan:
    """What is to be written, and for which pictures nothing is; all of them are relative paths."""

    ratings: list[Rating] = field(default_factory=list)
    rated_by_user: list[str] = field(default_factory=list)
    out_of_reach: list[str] = field(default_factory=list)
    """Pictures of which Lightroom reads no sidecar."""
    failures: list[str] = field(default_factory=list)
    """A message for each picture whose sidecar cannot be read."""


def plan_ratings(directory: Path, stars: Mapping[str, int], *, program: str | None = None) -> RatingPlan:
    """Return what to write, for relative paths with their stars, 1 ... 5; `program` is one of XMP_PROGRAMS or None."""
    plan, companions = RatingPlan(), Companions(directory)
    for path, n_stars in stars.items():
        sidecars = _sidecars_to_write(directory, path, companions.of(path), stars.keys(), program)
        try:
            if any(map(is_rated_by_user, _packets(directory / path))):
                plan.rated_by_user.append(path)
            elif not sidecars:
                plan.out_of_reach.append(path)
            else:
                plan.ratings.append(Rating(path, n_stars, sidecars))
        except UserError as error:
            plan.failures.append(str(error))
    return plan


def write_rating(rating: Rating) -> bool:
    """Write the stars to the sidecars, whose other content is kept; return False if the user has just rated them.

    Raises UserError if a sidecar cannot be read or written, or is not XMP.
    """
    old = [read_sidecar(sidecar) for sidecar in rating.sidecars]
    if any(packet is not None and is_rated_by_user(packet) for packet in old):
        return False
    new = {sidecar: with_stars(packet, rating.stars) for sidecar, packet in zip(rating.sidecars, old, strict=True)}
    for sidecar, packet in new.items():
        if packet is None:
            raise UserError(f"the sidecar {sidecar} is not XMP that stars can be written to; repair it or move it away")
    for sidecar, packet in new.items():
        write_atomically(sidecar, packet or b"")
    return True


def _packets(picture: Path) -> Iterable[bytes]:
    """Yield every XMP packet of a picture, the quickest to read first."""
    for sidecar in (sidecar_of(picture), lightroom_sidecar_of(picture)):
        yield read_sidecar(sidecar) or b""
    yield embedded_packet(picture)


def _sidecars_to_write(
    directory: Path, path: str, sharing: Iterable[str], rated: Iterable[str], program: str | None
) -> tuple[Path, ...]:
    """Return the sidecars that get the stars of a picture; none if the program reads none."""
    longer, shorter = sidecar_of(directory / path), lightroom_sidecar_of(directory / path)
    may_write_shorter = _describes(path, sharing, rated)
    existing = [longer] * is_file(longer) + [shorter] * (may_write_shorter and is_file(shorter))
    if program == LIGHTROOM:
        reads_it = may_write_shorter and any(map(is_raw_name, sharing))
        return tuple(dict.fromkeys([*existing, shorter])) if reads_it else ()
    if program == DIGIKAM:
        return tuple(dict.fromkeys([longer, *existing]))
    return tuple(existing or [longer])


def _describes(path: str, sharing: Iterable[str], rated: Iterable[str]) -> bool:
    """Return whether `photo.xmp` gets the stars of this path, among the files that share it."""
    everyone = sorted(sharing)
    raw = [one for one in everyone if is_raw_name(one)]
    if len(everyone) == 1:
        return True
    speakers = [one for one in raw if one in rated] or [one for one in everyone if one in rated and raw]
    return speakers[:1] == [path]
