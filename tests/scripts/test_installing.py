"""The installed wheel, scripts without the packages that they need, and an environment with older packages."""

import json
import os
import shutil
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

from tests.conftest import MUST_RUN, ROOT

SCRIPTS = sorted(file.stem for file in ROOT.glob("aesthetic_*.py"))

COMFYUI = {
    "torch": "2.13.0",
    "transformers": "4.57.1",
    "numpy": "2.2.6",
    "pillow": "11.3.0",
    "safetensors": "0.6.2",
    "tqdm": "4.67.1",
}
"""Packages of a typical environment for ComfyUI."""


def run(*command: str | Path, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env={**clean, **environment},
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this checkout, built from a copy, as pip does it: with the build backend from the index."""
    folder = tmp_path_factory.mktemp("wheel")
    for name in ("src", "pyproject.toml", "README.md", "LICENSE"):
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, folder / name)
    done = run(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "-w", "made", ".", cwd=folder)
    if done.returncode and not MUST_RUN and "hatchling" in done.stderr:
        pytest.skip("the build backend needs a package index")
    assert done.returncode == 0, done.stderr
    (made,) = (folder / "made").glob("*.whl")
    return made


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A virtual environment with nothing in it but pip."""
    folder = tmp_path_factory.mktemp("bare")
    venv.create(folder, with_pip=True, symlinks=os.name != "nt")
    return folder


def program(environment: Path, name: str) -> Path:
    return environment / ("Scripts" if os.name == "nt" else "bin") / name


def test_the_wheel_holds_the_package_with_its_assets_and_says_what_it_is(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        (metadata,) = (archive.read(name).decode() for name in names if name.endswith("/METADATA"))
    package = ROOT / "src"
    files = [file for file in package.rglob("*") if file.is_file() and "__pycache__" not in file.parts]
    assert {file.relative_to(package).as_posix() for file in files} <= names
    assert not {name for name in names if not name.startswith(("custom_aesthetic/", "custom_aesthetic_training-"))}
    for line in ("Version: 0.2.0", "License-Expression: MIT", "Description-Content-Type: text/markdown"):
        assert f"\n{line}\n" in metadata
    assert "# Custom Aesthetic Training" in metadata


def test_the_installed_commands_give_their_help_with_nothing_else_installed(wheel: Path, bare: Path) -> None:
    python = program(bare, "python")
    installed = run(python, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", wheel, cwd=bare)
    assert installed.returncode == 0, installed.stderr
    for name in SCRIPTS:
        shown = run(program(bare, name), "--help", cwd=bare)
        assert shown.returncode == 0, shown.stderr
        assert shown.stdout.startswith(f"usage: {name}")
    (bare / "m.safetensors").touch()  # a missing file is refused before heavy imports
    refused = run(program(bare, "aesthetic_scorer"), "-d", ".", "-m", "m.safetensors", cwd=bare)
    assert refused.returncode == 2
    assert refused.stderr.startswith("error: the package ")
    assert "run: pip install custom-aesthetic-training " in refused.stderr
    assert refused.stderr.count("\n") == 1


BLOCKED = [
    ("training", "optuna", "train"),
    ("training", "sklearn", "train"),
    ("training", "efficientnet_lite_pytorch", "packaged"),
    ("ab_scorer", "starlette", "label"),
    ("ab_scorer", "uvicorn", "label"),
    ("ab_scorer", "scipy", "label"),
    ("analysis", "scipy", "report"),
    ("spotlight", "renumics", "view"),
    ("spotlight", "pandas", "view"),
]


@pytest.mark.parametrize(("script", "module", "extra"), BLOCKED)
def test_a_missing_package_is_reported_with_the_command_that_installs_it(
    colour_pictures: Path, script: str, module: str, extra: str
) -> None:
    rows = [f"{file.relative_to(colour_pictures).as_posix()},{file.stem}" for file in colour_pictures.rglob("*.png")]
    (colour_pictures / "scores.csv").write_text("\n".join(["relative_path,score", *rows]))
    argv = ["-d=pictures", "--feature_extractor_model=efficientnet-lite0"]
    more = {"training": ["--trials=1", "--workers=1"], "ab_scorer": ["--no_browser"]}
    argv += more.get(script, ["--model_scores=scores.csv"])
    code = (
        f"import sys; sys.modules[{module!r}] = None; sys.argv = {['script', *argv]!r}\n"
        f"from custom_aesthetic.scripts.{script} import main\nsys.exit(main())"
    )
    done = run(sys.executable, "-c", code, cwd=colour_pictures.parent, PYTHONPATH=str(ROOT / "src"))
    assert done.returncode == 2, done.stderr
    assert done.stderr.splitlines()[-1].startswith(f"error: the package {module} is not installed; run: pip install")
    assert f'"custom-aesthetic-training[{extra}]"' in done.stderr
    assert "Traceback" not in done.stderr


def hold(environment: Path, packages: dict[str, str]) -> None:
    """Put the metadata of packages into the environment, so that pip considers them installed."""
    code = "import sysconfig; print(sysconfig.get_paths()['purelib'])"
    site = Path(run(program(environment, "python"), "-c", code, cwd=environment).stdout.strip())
    for name, version in packages.items():
        record = site / f"{name}-{version}.dist-info"
        record.mkdir()
        (record / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        (record / "INSTALLER").write_text("pip\n")
        (record / "RECORD").write_text("")


@pytest.mark.parametrize(("numpy", "is_kept"), [(COMFYUI["numpy"], True), ("1.25.2", False)])
def test_installing_replaces_nothing_in_an_environment_for_comfyui(
    wheel: Path, tmp_path: Path, numpy: str, is_kept: bool
) -> None:
    """pip without an index must keep the installed packages, or fail if a range excludes them."""
    venv.create(tmp_path, with_pip=True, symlinks=os.name != "nt")
    hold(tmp_path, {**COMFYUI, "numpy": numpy})
    plan = tmp_path / "plan.json"
    command = (program(tmp_path, "python"), "-m", "pip", "install", "--dry-run", "--quiet", "--no-index")
    done = run(*command, f"--report={plan}", wheel, cwd=tmp_path, PIP_FIND_LINKS="", PIP_CONFIG_FILE=os.devnull)
    assert (done.returncode == 0) is is_kept, done.stderr
    if is_kept:
        planned = [item["metadata"]["name"] for item in json.loads(plan.read_text())["install"]]
        assert planned == ["custom-aesthetic-training"]
    else:
        assert "No matching distribution found for numpy" in done.stderr
