"""Ratings and an album in Immich, for pictures that it has: they are found by the checksum of their content.

A rating that the user gave in Immich is kept. Which ratings are ours is written to a file in the directory of the
pictures; without it, all ratings that are there count as the user's. Running the same command again changes nothing.
"""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from custom_aesthetic.base.errors import UserError
from custom_aesthetic.base.files import write_atomically
from custom_aesthetic.base.progress import progress_of
from custom_aesthetic.integrations.immich_client import ImmichClient

RECORD_NAME = ".aesthetic_immich.json"

_AT_ONCE = 500
"""Assets in one request."""
_UUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_T = TypeVar("_T")


@dataclass(frozen=True)
class ImmichPlan:
    """What is to be written to Immich, and for which pictures nothing is; paths are relative to the directory."""

    assets: dict[str, str] = field(default_factory=dict)
    """Path -> the id of its asset, for every picture that Immich has."""
    ratings: dict[str, int] = field(default_factory=dict)
    """Path -> stars to write."""
    rated_already: list[str] = field(default_factory=list)
    """Pictures that have these stars."""
    rated_by_user: list[str] = field(default_factory=list)
    not_there: list[str] = field(default_factory=list)
    """Pictures that Immich does not have; those of an external library too, as Immich knows no checksum of these."""
    in_bin: list[str] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)


class OurRatings:
    """The ratings that were written by us: a file in the directory of the pictures, for any number of servers."""

    def __init__(self, directory: Path, server: str) -> None:
        self._file, self._server = directory / RECORD_NAME, server
        self._servers: dict[str, dict[str, list[int]]] = {}
        if self._file.exists():
            self._servers = self._read()
        self._stars = self._servers.setdefault(server, {})

    def holds(self, asset: str, stars: int) -> bool:
        """Return whether we gave the asset these stars."""
        return stars in self._stars.get(asset, ())

    def will_write(self, assets: Sequence[str], stars: int) -> None:
        """Note stars before they are written; the earlier ones stay ours until `have_written`."""
        for asset in assets:
            self._stars[asset] = sorted({*self._stars.get(asset, ()), stars})
        self._save()

    def have_written(self, assets: Sequence[str], stars: int) -> None:
        """Note that these stars have replaced all earlier ones."""
        self._stars.update({asset: [stars] for asset in assets})
        self._save()

    def _save(self) -> None:
        write_atomically(self._file, json.dumps(self._servers, indent=0).encode("utf-8"))

    def _read(self) -> dict[str, dict[str, list[int]]]:
        with suppress(OSError, ValueError, AttributeError, TypeError, RecursionError):
            content = json.loads(self._file.read_bytes())
            return {
                str(server): {str(asset): [int(each) for each in stars] for asset, stars in ratings.items()}
                for server, ratings in content.items()
            }
        raise UserError(
            f"{self._file}, which says what ratings in Immich are ours, is damaged; move it away to keep them all"
        )


def plan_immich(
    client: ImmichClient, directory: Path, stars: Mapping[str, int], ours: OurRatings, *, show_progress: bool = True
) -> ImmichPlan:
    """Return what to write to Immich for relative paths with their stars, 1 ... 5; nothing is written yet."""
    plan = ImmichPlan()
    checksums = _checksums(directory, list(stars), plan, show_progress)
    _find(client, checksums, plan)
    with progress_of(len(plan.assets), "ratings in Immich", "pictures", is_shown=show_progress) as progress:
        for path, asset in plan.assets.items():
            rating = _rating_of(client, asset)
            if rating == stars[path]:
                plan.rated_already.append(path)
            elif rating and not ours.holds(asset, rating):
                plan.rated_by_user.append(path)
            else:
                plan.ratings[path] = stars[path]
            progress.update()
    return plan


def write_immich(client: ImmichClient, plan: ImmichPlan, ours: OurRatings) -> None:
    """Write the ratings of the plan, many pictures in each request."""
    for stars in sorted(set(plan.ratings.values())):
        assets = sorted({plan.assets[path] for path, given in plan.ratings.items() if given == stars})
        for some in _batches(assets):
            ours.will_write(some, stars)
            client.request("PUT", "/assets", {"ids": some, "rating": stars})
            ours.have_written(some, stars)


def find_album(client: ImmichClient, name: str) -> str | None:
    """Return the id of the user's album with this name, the oldest if there are several; None if there is none."""
    albums = _rows(client, client.request("GET", "/albums"))
    found = [album for album in albums if album.get("albumName") == name]
    found.sort(key=lambda album: str(album.get("createdAt")))
    return _id_in(client, found[0]) if found else None


def add_to_album(client: ImmichClient, name: str, assets: Sequence[str]) -> tuple[int, int]:
    """Add assets to the user's album of this name, which is made if needed; return how many were new to it, and failed.

    What is in the album already stays there.
    """
    album = find_album(client, name)
    if album is None:
        answer = client.request("POST", "/albums", {"albumName": name}, repeatable=False)
        album = _id_in(client, answer)
    n_new, n_failed = 0, 0
    for some in _batches(sorted(set(assets))):
        for row in _rows(client, client.request("PUT", f"/albums/{album}/assets", {"ids": some})):
            n_new += row.get("success") is True
            n_failed += row.get("success") is not True and row.get("error") != "duplicate"
    return n_new, n_failed


def _checksums(directory: Path, paths: Sequence[str], plan: ImmichPlan, show_progress: bool) -> dict[str, str]:
    """Return path -> SHA-1 in hexadecimal, as Immich keeps it of the file that was uploaded."""
    checksums = {}
    with progress_of(len(paths), "checksums", "pictures", is_shown=show_progress) as progress:
        for path in paths:
            try:
                checksums[path] = _sha1(directory / path)
            except OSError:
                plan.unreadable.append(path)
            progress.update()
    return checksums


def _sha1(file: Path) -> str:
    checksum = hashlib.sha1(usedforsecurity=False)
    with file.open("rb") as stream:
        while block := stream.read(2**20):
            checksum.update(block)
    return checksum.hexdigest()


def _find(client: ImmichClient, checksums: Mapping[str, str], plan: ImmichPlan) -> None:
    """Look the checksums up, and note in the plan which pictures Immich has."""
    for some in _batches(list(checksums)):
        wanted = [{"id": str(number), "checksum": checksums[path]} for number, path in enumerate(some)]
        answer = client.request("POST", "/assets/bulk-upload-check", {"assets": wanted})
        results = _rows(client, answer.get("results") if isinstance(answer, dict) else None)
        found = {row.get("id"): row for row in results if row.get("reason") == "duplicate"}
        for number, path in enumerate(some):
            row = found.get(str(number))
            if row is None:
                plan.not_there.append(path)
            elif row.get("isTrashed") is True:
                plan.in_bin.append(path)
            else:
                plan.assets[path] = _id_in(client, row, "assetId")


def _rating_of(client: ImmichClient, asset: str) -> int:
    """Return the rating in Immich, -1 ... 5; 0 for none."""
    answer = client.request("GET", f"/assets/{asset}")
    if not isinstance(answer, dict):
        raise client.not_immich()
    exif = answer.get("exifInfo")
    rating = exif.get("rating") if isinstance(exif, dict) else None
    return int(rating) if isinstance(rating, int | float) else 0


def _rows(client: ImmichClient, answer: Any) -> list[dict[str, Any]]:
    if not isinstance(answer, list) or not all(isinstance(row, dict) for row in answer):
        raise client.not_immich()
    return answer


def _id_in(client: ImmichClient, row: Any, name: str = "id") -> str:
    """Return an id of the answer, which goes into the path of a request."""
    found = row.get(name) if isinstance(row, dict) else None
    if not isinstance(found, str) or not _UUID.fullmatch(found):
        raise client.not_immich()
    return found


def _batches(items: Sequence[_T]) -> Iterator[Sequence[_T]]:
    for begin in range(0, len(items), _AT_ONCE):
        yield items[begin : begin + _AT_ONCE]
