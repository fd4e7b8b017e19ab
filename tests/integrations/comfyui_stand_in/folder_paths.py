"""What ComfyUI's module of this name does with model folders, as far as nodes rely on it; its paths are text."""

import os
from pathlib import Path

models_dir = str(Path(os.environ["COMFYUI_FOLDER"]) / "models")
folder_names_and_paths: dict[str, tuple[list[str], set[str]]] = {
    "checkpoints": ([str(Path(models_dir) / "checkpoints")], {".ckpt", ".safetensors"}),
}


def add_model_folder_path(folder_name: str, full_folder_path: str, is_default: bool = False) -> None:
    """Register a folder; a kind that is new accepts files of every suffix, which an empty set means."""
    folders = folder_names_and_paths.setdefault(folder_name, ([], set()))[0]
    folders.insert(0 if is_default else len(folders), full_folder_path)


def get_folder_paths(folder_name: str) -> list[str]:
    return list(folder_names_and_paths[folder_name][0])


def get_filename_list(folder_name: str) -> list[str]:
    """Names below all folders of the kind, relative to them; KeyError for a kind that nobody registered."""
    folders, suffixes = folder_names_and_paths[folder_name]
    files = {file.relative_to(folder) for folder in folders for file in Path(folder).rglob("*") if file.is_file()}
    return sorted(str(file) for file in files if not suffixes or file.suffix.lower() in suffixes)


def get_full_path(folder_name: str, filename: str) -> str | None:
    """The first folder that holds the file; a name cannot lead out of the folders."""
    if folder_name not in folder_names_and_paths:
        return None
    inside = os.path.normpath(f"/{filename}").lstrip("/\\")
    files = [Path(folder) / inside for folder in folder_names_and_paths[folder_name][0]]
    return next((str(file) for file in files if file.is_file()), None)
