"""The folder scorer by Ray: from its arguments to a folder of parquet parts."""

import contextlib
import hashlib
import json
import logging
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from custom_aesthetic.base.errors import UserError
from custom_aesthetic.base.extras import require
from custom_aesthetic.base.files import in_folder_or_here
from custom_aesthetic.base.progress import SECONDS_BETWEEN_LINES, is_terminal, status_line
from custom_aesthetic.base.text import printable
from custom_aesthetic.heads.model_file import load_model
from custom_aesthetic.heads.scorer import find_model_file
from custom_aesthetic.settings.scorers import ActionSettings, FolderArguments, SelectionSettings

if TYPE_CHECKING:
    from custom_aesthetic.cluster.engine import ClusterWork
    from custom_aesthetic.cluster.parts import Outcome
    from custom_aesthetic.cluster.places import FilePlace

log = logging.getLogger(__name__)

EXTRA = "cluster"

RUN_FILE = "_run.json"
"""Describes the run that the parts in a folder belong to; readers of parquet folders skip names with this beginning."""


def score_on_cluster(arguments: FolderArguments) -> None:
    """Score the pictures by Ray into parts; raise UserError for mistakes the user can correct."""
    check_arguments(arguments)
    for package in ("ray", "pyarrow", "fsspec"):
        require(package, EXTRA, "--engine=ray")
    from custom_aesthetic.cluster.engine import ClusterWork

    folder = arguments.folder
    assert folder.directory is not None and folder.model is not None and folder.output is not None
    model_file = find_model_file(in_folder_or_here(Path(folder.directory), folder.model), offline=folder.offline)
    work = ClusterWork(
        folder.directory if "://" in folder.directory else str(Path(folder.directory).absolute()),
        folder.output if "://" in folder.output else str(Path(folder.output).absolute()),
        load_model(model_file),
        arguments.cluster.part_pictures,
        device=arguments.device.device,
        extractor_model=folder.feature_extractor_model,
        offline=folder.offline,
        with_features=arguments.cluster.with_features,
    )
    run_work(work, hashlib.sha256(model_file.read_bytes()).hexdigest(), arguments.cluster.ray_address)


def check_arguments(arguments: FolderArguments) -> None:
    """Raise UserError for arguments that do not go with `--engine=ray`."""
    folder = arguments.folder
    if folder.directory is None or folder.model is None:
        raise UserError("-d/--directory and -m/--model are required")
    if folder.output is None or Path(folder.output).suffix.lower() in (".csv", ".json", ".parquet"):
        raise UserError(f"--engine=ray writes a folder of parquet parts, not -o={folder.output}; name one, -o scores/")
    alone = {"features": folder.features, "export_features": folder.export_features}
    used = [name for name, value in alone.items() if value is not None]
    for given, usual in ((arguments.selection, SelectionSettings()), (arguments.action, ActionSettings())):
        used += [name for name, value in vars(given).items() if value != getattr(usual, name)]
    used += ["serve"] if arguments.service.serve else []
    if used:
        advice = "add --with_features" if used[0] == "export_features" else "leave it away"
        raise UserError(f"--{used[0]} does not go with --engine=ray, which writes scores alone; {advice}")


def run_work(work: "ClusterWork", model_digest: str, address: str) -> None:
    """Make the parts that are missing, remove those whose pictures have changed or gone, and say what there is."""
    from custom_aesthetic.cluster.engine import connected, outcomes
    from custom_aesthetic.cluster.listing import check_target
    from custom_aesthetic.cluster.places import open_place, shown_place

    target = open_place(work.target)
    with reachable(work.source, "-d"):
        check_target(work.source, work.target)
    with connected(address):
        with reachable(work.target, "-o"):
            claim(target, describe_run(work, model_digest), shown_place(work.target))
        kept, is_all_listed = count(outcomes(work, address), work)
        if is_all_listed:
            with reachable(work.target, "-o"):
                remove_others(target, kept)
        else:
            log.warning("no part of an earlier run is removed, because some folders cannot be read; see above")


@contextlib.contextmanager
def reachable(where: str, option: str) -> Iterator[None]:
    """Turn what the system says of a place within the block into a UserError."""
    from custom_aesthetic.cluster.places import shown_place

    try:
        yield
    except OSError as error:
        reason = printable(" ".join(str(error).split()))
        shown = shown_place(where)
        raise UserError(
            f"{option}={shown} cannot be reached: {reason}; check the address and the access to it"
        ) from None


def describe_run(work: "ClusterWork", model_digest: str) -> dict[str, str]:
    """Return what makes parts belong together."""
    from custom_aesthetic.cluster.places import shown_place

    return {
        "pictures": shown_place(work.source),
        "model": model_digest,
        "feature_extractor_model": work.extractor_model or "",
        "features": "in the parts" if work.with_features else "not in the parts",
    }


def claim(target: "FilePlace", run: dict[str, str], shown: str) -> None:
    """Write the description of the run to its folder; UserError if the folder holds parts of another run."""
    from custom_aesthetic.cluster.places import file_info, read_all, write_once

    file = target.below(RUN_FILE)
    if file_info(file) is None:
        write_once(file, lambda stream: _write(stream, json.dumps(run, indent=1).encode()))
        return
    try:
        found = json.loads(read_all(file))
        differing = [name for name, value in run.items() if found.get(name) != value]
    except (ValueError, AttributeError):
        raise UserError(f"{RUN_FILE} in {shown} is damaged; remove it if the parts there are of this run") from None
    if differing:
        raise UserError(
            f"{shown} holds scores with other {' and '.join(differing)} than now; name another folder by -o, or remove "
            "it"
        )


def _write(stream: BinaryIO, content: bytes) -> None:
    stream.write(content)


def count(found: "Iterable[Outcome]", work: "ClusterWork") -> tuple[set[str], bool]:
    """Show how the run goes on; return the names of its parts, and whether all folders could be listed.

    UserError if it cannot go on.
    """
    from custom_aesthetic.cluster.places import shown_place

    parts: set[str] = set()
    n_pictures, n_before, n_errors, begun = 0, 0, 0, time.monotonic()
    notes: tuple[str, ...] = ()
    is_all_listed = True
    next_line = begun + SECONDS_BETWEEN_LINES
    with status_line() as status:
        for outcome in found:
            if outcome.mistake is not None:
                raise UserError(outcome.mistake)
            notes += outcome.notes
            is_all_listed &= outcome.is_all_listed
            if not outcome.part or outcome.part in parts:
                continue
            parts.add(outcome.part)
            n_pictures, n_errors = n_pictures + outcome.n_pictures, n_errors + outcome.n_errors
            n_before += 0 if outcome.is_new else outcome.n_pictures
            if is_terminal() or time.monotonic() > next_line:
                next_line = time.monotonic() + SECONDS_BETWEEN_LINES
                speed = (n_pictures - n_before) / (time.monotonic() - begun)
                status.show(f"{n_pictures:,} pictures in {len(parts):,} parts, {speed:.1f} a second")
    for line in notes:
        log.info("%s", line)
    if not parts:
        raise UserError(f"no pictures in {shown_place(work.source)}; check -d")
    before = f", {n_before:,} of them by an earlier run" if n_before else ""
    log.info("%s pictures in %s parts in %s%s", f"{n_pictures:,}", f"{len(parts):,}", shown_place(work.target), before)
    if n_errors:
        log.warning("%s of them cannot be scored: the column `error` says why", f"{n_errors:,}")
    return parts, is_all_listed


def remove_others(target: "FilePlace", parts: set[str]) -> None:
    """Remove parts of pictures that have changed or gone since an earlier run: others now hold what is left of them."""
    from custom_aesthetic.cluster.places import contents, remove

    names = [file.name for file in contents(target)[1] if file.name.startswith("part-")]
    others = [name for name in names if name not in parts and name.endswith(".parquet")]
    for name in others:
        remove(target.below(name))
    if others:
        log.info("%d parts of an earlier run removed, whose pictures have changed or gone", len(others))
