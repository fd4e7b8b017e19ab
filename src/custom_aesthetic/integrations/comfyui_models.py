"""The model files that ComfyUI offers: those in `models/customaesthetic` and in its extra model paths."""

import contextlib
import sys
from pathlib import Path
from typing import Any

from custom_aesthetic.base.errors import UserError

FOLDER = "customaesthetic"
MODEL_SUFFIX = ".safetensors"
NO_MODELS = f"no model file in models/{FOLDER} yet"
"""Stands in the list of models where there is none, because an empty list says nothing."""


def register_models_folder() -> None:
    """Add `models/customaesthetic` to the folders that ComfyUI searches; nothing happens outside ComfyUI."""
    paths = sys.modules.get("folder_paths")
    if paths is None:
        return
    folder = str(Path(paths.models_dir) / FOLDER)
    if FOLDER not in paths.folder_names_and_paths or folder not in paths.get_folder_paths(FOLDER):
        paths.add_model_folder_path(FOLDER, folder)
    with contextlib.suppress(OSError):  # a read-only installation; the extra model paths still count
        Path(folder).mkdir(exist_ok=True)


def list_models() -> list[str]:
    """Return the names of the model files, relative to their folders; a line that says so where there is none."""
    names = _folder_paths().get_filename_list(FOLDER)
    return [name for name in names if name.lower().endswith(MODEL_SUFFIX)] or [NO_MODELS]


def model_folders() -> list[Path]:
    """Return the folders that are searched for models, in the order of the search."""
    return [Path(folder) for folder in _folder_paths().get_folder_paths(FOLDER)]


def model_path(name: str) -> Path:
    """Return the file of a model in the list; UserError where it does not exist."""
    found = _folder_paths().get_full_path(FOLDER, name)
    if found is None:
        folders = " or ".join(str(folder) for folder in model_folders())
        raise UserError(f"model {name!r} does not exist; put a model file (*{MODEL_SUFFIX}) into {folders}")
    return Path(found)


def file_stamp(name: str) -> Any:
    """Return what changes whenever the model's file does; nan, which equals nothing, where there is no such file."""
    found = _folder_paths().get_full_path(FOLDER, name)
    try:
        state = None if found is None else Path(found).stat()
    except OSError:
        state = None
    return float("nan") if state is None else f"{found} {state.st_mtime_ns} {state.st_size}"


def _folder_paths() -> Any:
    import folder_paths

    return folder_paths
