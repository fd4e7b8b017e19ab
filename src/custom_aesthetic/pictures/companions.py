"""Pictures and raw files that differ in their suffix only, such as IMG_1.CR2 and IMG_1.JPG: they share IMG_1.xmp."""

import os
from pathlib import Path, PurePosixPath

from custom_aesthetic.pictures.camera import HEIC_SUFFIXES, RAW_SUFFIXES
from custom_aesthetic.pictures.folders import is_image_name, raws_in_pairs

_NO_SIDECAR = (".dng",)
"""Raw files that Lightroom writes metadata into, as it does for JPEG: it reads no sidecar of theirs."""


def is_raw_name(name: str) -> bool:
    """Return whether Lightroom keeps the metadata of such a file in `photo.xmp`: a raw file; HEIC is taken for one."""
    return name.lower().endswith(RAW_SUFFIXES + HEIC_SUFFIXES) and not name.lower().endswith(_NO_SIDECAR)


class Companions:
    """Lists each folder below a directory once, to find the files that share a Lightroom sidecar."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._stems: dict[str, dict[str, list[str]]] = {}

    def of(self, path: str) -> set[str]:
        """Return the relative paths of all pictures and raw files that share `photo.xmp` with this path."""
        whole, folder = _split(path)
        return {path} | {folder + name for name in self._in_folder(folder).get(whole.stem, ())}

    def raws_of(self, path: str) -> list[str]:
        """Return the RAW files that count as one with this JPEG or HEIC file, as relative paths."""
        whole, folder = _split(path)
        pairs = raws_in_pairs(self._in_folder(folder).get(whole.stem, ()))
        return [folder + raw for raw, developed in sorted(pairs.items()) if developed == whole.name]

    def _in_folder(self, folder: str) -> dict[str, list[str]]:
        if folder not in self._stems:
            by_stem: dict[str, list[str]] = {}
            self._stems[folder] = by_stem
            with os.scandir(self._directory / folder) as entries:
                for entry in entries:
                    if is_image_name(entry.name) or entry.name.lower().endswith(RAW_SUFFIXES + HEIC_SUFFIXES):
                        by_stem.setdefault(PurePosixPath(entry.name).stem, []).append(entry.name)
        return self._stems[folder]


def _split(path: str) -> tuple[PurePosixPath, str]:
    """Return a relative path, and its folder with a slash, empty for the top."""
    whole = PurePosixPath(path)
    return whole, "" if whole.parent == PurePosixPath() else f"{whole.parent}/"
