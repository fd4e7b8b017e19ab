"""Choose the folder of the feature cache: beside the pictures, or in the user's cache folder."""

import hashlib
import logging
import os
import sys
import tempfile
from pathlib import Path

from custom_aesthetic.base.errors import UserError
from custom_aesthetic.pictures.folders import CACHE_FOLDER_NAME

logger = logging.getLogger(__name__)


def cache_folders(directory: Path) -> tuple[Path, ...]:
    """Return the cache folders of a picture directory: the first is written to, the others are only read.

    The first is the folder beside the pictures or, if that cannot be written, one in the user's cache folder; this is
    logged. Raises UserError if neither can be written, or if there is no such directory.
    """
    if not directory.is_dir():
        raise UserError(f"the directory {directory} does not exist; check --directory")
    beside = directory / CACHE_FOLDER_NAME
    identity = hashlib.sha256(str(directory.resolve()).encode("utf-8", "surrogatepass")).hexdigest()[:16]
    elsewhere = user_cache_folder() / "custom-aesthetic-training" / f"{directory.resolve().name}-{identity}"
    error = _writing_error(beside)
    if error is None:
        return (beside, elsewhere) if _is_searchable(elsewhere) else (beside,)
    if _writing_error(elsewhere) is not None:
        raise UserError(
            f"features can be written neither to {beside} ({error.strerror}) nor to {elsewhere}; "
            "make one of the two writable"
        )
    logger.warning(
        "features cannot be written to %s (%s): the feature cache goes to %s", beside, error.strerror, elsewhere
    )
    return elsewhere, beside


def user_cache_folder() -> Path:
    """Return the folder in which programs of this user keep their caches."""
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData" / "Local"))
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")


def _is_searchable(folder: Path) -> bool:
    """Return whether the folder exists and this user may read it."""
    return os.access(folder, os.R_OK | os.X_OK)


def _writing_error(folder: Path) -> OSError | None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return None
    except OSError as error:
        return error
