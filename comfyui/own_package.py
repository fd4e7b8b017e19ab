"""Import `src/custom_aesthetic` as a sub-package of this checkout, so that it meets no other package of that name.

All nodes of ComfyUI share one process, in which `custom_aesthetic` may be an older version that pip installed, another
checkout, or a stranger's module. ComfyUI names a checkout by its folder; the package becomes that module's
`custom_aesthetic`, and its own absolute imports are read as imports of the same copy. `sys.path` stays as it is.
"""

import ast
import importlib
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from pathlib import Path
from types import ModuleType
from typing import Any

PACKAGE = "custom_aesthetic"
SOURCE = Path(__file__).resolve().parent.parent / "src"


def import_own(module: str, parent: str) -> ModuleType:
    """Return a module of the package, such as `integrations.comfyui`, as a sub-module of the imported `parent`."""
    own_name = f"{parent}.{PACKAGE}"
    if not any(isinstance(finder, _Finder) and finder.own_name == own_name for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder(own_name))
    return importlib.import_module(f"{own_name}.{module}")


class _Finder:
    """Finds the package and its modules under the name of this copy, and no other module."""

    def __init__(self, own_name: str) -> None:
        self.own_name = own_name

    def find_spec(self, name: str, path: Sequence[str] | None = None, target: Any = None) -> ModuleSpec | None:
        if name == self.own_name:
            path = [str(SOURCE)]
        elif not name.startswith(f"{self.own_name}."):
            return None
        spec = PathFinder.find_spec(name, path, target)
        if spec is not None and spec.origin is not None:
            spec.loader = _Loader(name, spec.origin, self.own_name)
        return spec


class _Loader(SourceFileLoader):
    """Loads a module in which `from custom_aesthetic...` means this copy."""

    def __init__(self, name: str, file: str, own_name: str) -> None:
        super().__init__(name, file)
        self.own_name = own_name

    def path_stats(self, path: Any) -> Any:
        """Refuse, by which the bytecode on disk is left alone: it is that of the unchanged imports."""
        raise OSError("compiled from the source each time")

    def source_to_code(self, data: Any, path: Any, *, _optimize: int = -1) -> Any:  # type: ignore[override]
        tree = ast.parse(data)
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.module and node.module.partition(".")[0] == PACKAGE:
                node.module = self.own_name + node.module.removeprefix(PACKAGE)
        return super().source_to_code(tree, path, _optimize=_optimize)
