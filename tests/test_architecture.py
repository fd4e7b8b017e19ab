"""The rules of the house: who imports whom, and who owns which heavy library."""

import ast
from pathlib import Path

import pytest

from tests.conftest import ROOT

SOURCES = sorted((ROOT / "src").rglob("*.py"))
SCRIPTS = sorted(ROOT.glob("aesthetic_*.py"))

OWNERS = {
    "argparse": {"arguments"},
    "csv": {"scores", "comparisons"},
    "transformers": {"extractors"},
    "efficientnet_lite_pytorch": {"extractors"},
    "renumics": {"viewer"},
    "matplotlib": {"study_plots"},
    "sklearn": {"baselines", "duplicates", "suspects", "bradley_terry"},
    "tqdm": {"features"},
}
"""Heavy or delicate libraries, and the modules of src/ that alone may import them."""


def imported(file: Path) -> set[str]:
    """Return the full names of the modules that a file imports, at its top or inside a function."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def module_name(file: Path) -> str:
    """Return the name of a module right below src: a sub-package counts as one."""
    return file.relative_to(ROOT / "src").parts[0].removesuffix(".py")


def depends_on() -> dict[str, set[str]]:
    modules = {module_name(file) for file in SOURCES}
    edges: dict[str, set[str]] = {name: set() for name in modules}
    for file in SOURCES:
        own = {name.split(".")[1] for name in imported(file) if name.startswith("src.")}
        edges[module_name(file)] |= (own & modules) - {module_name(file)}
    return edges


def test_imports_never_go_in_a_circle() -> None:
    edges = depends_on()
    settled: set[str] = set()
    while len(settled) < len(edges):
        ready = {name for name, needs in edges.items() if name not in settled and needs <= settled}
        assert ready, f"a circle among {sorted(set(edges) - settled)}"
        settled |= ready


@pytest.mark.parametrize("file", SOURCES, ids=lambda file: str(file.relative_to(ROOT)))
def test_nothing_in_src_imports_a_script(file: Path) -> None:
    assert not {name for name in imported(file) if name.startswith("aesthetic_")}


@pytest.mark.parametrize(("library", "owners"), OWNERS.items())
def test_each_heavy_library_has_its_owner(library: str, owners: set[str]) -> None:
    users = {
        module_name(file)
        for file in SOURCES
        if any(name == library or name.startswith(f"{library}.") for name in imported(file))
    }
    assert users <= owners


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda file: file.name)
def test_a_script_imports_nothing_heavy_before_it_runs(script: Path) -> None:
    tops = {
        name
        for node in ast.parse(script.read_text(encoding="utf-8")).body
        if isinstance(node, ast.ImportFrom | ast.Import)
        for name in ([node.module or ""] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names])
    }
    light = {
        "custom_aesthetic.settings.arguments",
        "custom_aesthetic.settings.console",
        "custom_aesthetic.settings.training",
        "custom_aesthetic.settings.scorers",
    }
    assert {name for name in tops if name.startswith("src.")} <= light
    assert not {name.split(".")[0] for name in tops} & {"torch", "numpy", "optuna", "PIL", "scipy"}


def test_the_map_names_every_module_once() -> None:
    rows = [line for line in (ROOT / "docs" / "map.md").read_text(encoding="utf-8").splitlines() if "| `" in line]
    folders = {folder.name for folder in (ROOT / "src").iterdir() if folder.is_dir() and folder.name != "__pycache__"}
    modules = {module_name(file) for file in SOURCES} - {"__init__"} | folders
    assert sorted(row.split("`")[1] for row in rows) == sorted(modules)
