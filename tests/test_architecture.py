"""The rules of the architecture: which package imports which, and which modules import heavy libraries."""

import ast
from pathlib import Path

import pytest

from tests.conftest import ROOT

PACKAGE = ROOT / "src" / "custom_aesthetic"
SOURCES = sorted(PACKAGE.rglob("*.py"))
SCRIPTS = sorted(ROOT.glob("aesthetic_*.py"))

ORDER = (
    *("base", "settings", "pictures", "scores", "engines", "extractors", "features", "hub", "heads", "priors"),
    *("quality", "search", "report", "labelling", "gallery", "integrations", "cluster", "commands", "scripts"),
)
"""The packages in order: each imports only from those before it."""

MOST_MODULES = 14
"""Maximum number of modules in a package, so that a newcomer can see them at once."""

OWNERS = {
    "argparse": {"settings.arguments"},
    "csv": {"scores.csv_rows", "scores.choice_log"},
    "transformers": {"extractors"},
    "huggingface_hub": {"extractors", "hub"},
    "efficientnet_lite_pytorch": {"extractors"},
    "renumics": {"commands.spotlight"},
    "matplotlib": {"report.study_plots"},
    "optuna": {"search", "report.study_plots"},
    "sklearn": {
        *("quality.baselines", "quality.suspects", "scores.duplicates", "scores.bradley_terry", "heads.domain"),
        "report.picture_map",
    },
    "starlette": {"base.local_server", "labelling", "gallery.routes", "integrations.http_service"},
    "uvicorn": {"base.local_server"},
    "pillow_heif": {"pictures.camera"},
    "rawpy": {"pictures.camera"},
    "exiv2": {"pictures.embedding"},
    "segno": {"labelling.phone"},
    "tqdm": {"base.progress"},
    "onnxruntime": {"engines"},
    "pyarrow": {"features.parquet_parts", "integrations.preference_pairs", "integrations.score_parquet", "cluster"},
    "fsspec": {"cluster.places"},
    "ray": {"cluster.engine"},
}
"""Heavy or delicate libraries -> the only packages or modules that can import them."""


def imported(file: Path) -> set[str]:
    """Return the full names of the modules that a file imports, at its top or inside a function."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def place(file: Path) -> str:
    """Return the package and name of a module, such as `heads.losses`."""
    return ".".join(file.relative_to(PACKAGE).with_suffix("").parts)


def own_packages(file: Path) -> set[str]:
    """Return the other packages of this library that a file imports from."""
    names = [name.split(".") for name in imported(file) if name.startswith("custom_aesthetic.")]
    return {parts[1] for parts in names} - {place(file).split(".")[0]}


def test_every_package_has_its_place_in_the_order() -> None:
    folders = {folder.name for folder in PACKAGE.iterdir() if folder.is_dir() and folder.name != "__pycache__"}
    assert folders == set(ORDER)


@pytest.mark.parametrize("file", [file for file in SOURCES if file.parent != PACKAGE], ids=place)
def test_a_package_imports_only_from_those_before_it(file: Path) -> None:
    before = ORDER[: ORDER.index(place(file).split(".")[0])]
    assert own_packages(file) <= set(before)


@pytest.mark.parametrize("package", ORDER)
def test_the_modules_of_a_package_can_be_seen_at_once(package: str) -> None:
    modules = [file for file in (PACKAGE / package).glob("*.py") if file.name != "__init__.py"]
    assert 1 <= len(modules) <= MOST_MODULES


@pytest.mark.parametrize("package", ORDER)
def test_modules_of_a_package_never_import_each_other_in_a_circle(package: str) -> None:
    files = {f"custom_aesthetic.{place(file)}": file for file in (PACKAGE / package).glob("*.py")}
    needs = {name: (imported(file) & set(files)) - {name} for name, file in files.items()}
    settled: set[str] = set()
    while len(settled) < len(needs):
        ready = {name for name, wants in needs.items() if name not in settled and wants <= settled}
        assert ready, f"circular imports among {sorted(set(needs) - settled)}"
        settled |= ready


@pytest.mark.parametrize("file", SOURCES, ids=lambda file: str(file.relative_to(ROOT)))
def test_nothing_in_src_imports_a_script(file: Path) -> None:
    assert not {name for name in imported(file) if name.startswith("aesthetic_")}


@pytest.mark.parametrize(("library", "owners"), OWNERS.items())
def test_each_heavy_library_has_its_owner(library: str, owners: set[str]) -> None:
    users = [
        place(file)
        for file in SOURCES
        if any(name == library or name.startswith(f"{library}.") for name in imported(file))
    ]
    assert users
    assert not [user for user in users if user not in owners and user.split(".")[0] not in owners]


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


def test_the_map_names_every_package_in_order() -> None:
    rows = [line for line in (ROOT / "docs" / "map.md").read_text(encoding="utf-8").splitlines() if "| `" in line]
    assert [row.split("`")[1] for row in rows] == list(ORDER)


def test_a_class_name_means_one_thing() -> None:
    places: dict[str, list[str]] = {}
    for file in SOURCES:
        for node in ast.parse(file.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                places.setdefault(node.name, []).append(place(file))
    assert not {name: found for name, found in places.items() if len(found) > 1}
