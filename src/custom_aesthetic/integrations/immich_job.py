"""The whole of `--immich`: find the pictures, write their stars and an album, and say what was done."""

import logging
import os
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from custom_aesthetic.base.errors import UserError
from custom_aesthetic.base.text import printable
from custom_aesthetic.integrations.immich import (
    ImmichPlan,
    OurRatings,
    add_to_album,
    find_album,
    plan_immich,
    write_immich,
)
from custom_aesthetic.integrations.immich_client import KEY_VARIABLE, ImmichClient
from custom_aesthetic.scores.score_files import name_some

log = logging.getLogger(__name__)


def make_client(address: str) -> ImmichClient:
    """Return a client with the key of the environment; UserError if the address or the key cannot be one."""
    return ImmichClient(address, os.environ.get(KEY_VARIABLE, ""))


def rate_in_immich(
    client: ImmichClient, directory: Path, stars: Mapping[str, int], album: str | None, *, dry_run: bool = False
) -> None:
    """Write the stars, 1 ... 5, of relative paths to Immich, and put these pictures into an album if one is named.

    With `dry_run` only say what would be done. Raises UserError if Immich does not do it; what was done before stays.
    """
    ours = OurRatings(directory, client.address)
    plan = plan_immich(client, directory, stars, ours)
    if dry_run:
        _preview(client, plan, album)
    else:
        write_immich(client, plan, ours)
        log.info("Immich: stars written for %d pictures", len(plan.ratings))
    _report(plan)
    if album is not None and not dry_run and plan.assets:
        n_new, n_failed = add_to_album(client, album, list(plan.assets.values()))
        log.info("Immich: %d pictures added to the album %s", n_new, printable(album))
        if n_failed:
            raise UserError(f"Immich did not add {n_failed} pictures to the album {printable(album)}; start again")


def _preview(client: ImmichClient, plan: ImmichPlan, album: str | None) -> None:
    for path, stars in plan.ratings.items():
        log.info("would write %d stars for %s to Immich", stars, printable(path))
    counts = ", ".join(f"{n} with {stars}" for stars, n in sorted(Counter(plan.ratings.values()).items()))
    log.info("would write stars for %d pictures to Immich%s", len(plan.ratings), f": {counts}" if counts else "")
    if album is not None:
        kind = "new" if find_album(client, album) is None else "existing"
        log.info("would put %d pictures into the %s album %s", len(plan.assets), kind, printable(album))


def _report(plan: ImmichPlan) -> None:
    """Say which pictures got no stars, and why."""
    for paths, reason in (
        (plan.rated_already, "have these stars in Immich already"),
        (plan.rated_by_user, "not changed because they have a rating in Immich that is not ours"),
        (plan.in_bin, "left out because they are in Immich's bin"),
        (plan.not_there, "not in Immich with this content (pictures of its external libraries cannot be looked up)"),
        (plan.unreadable, "cannot be read"),
    ):
        if paths:
            log.info("%d %s: %s", len(paths), reason, name_some(paths))
