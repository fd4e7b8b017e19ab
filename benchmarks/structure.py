"""The structure of the code in numbers: modules, floors, imports, lengths of functions, and three walks through it.

    python -m benchmarks.structure [--source src]

The floor of a module is the length of the longest chain of imports below it. A walk counts the modules and packages
that are involved in one thing: the setting `--max_dropout` (modules that contain `dropout`), one picture (modules
whose functions run while a picture is opened and its features are computed, after everything is loaded), and one click
(the same for one choice on the server side of the A/B page).
"""

import argparse
import ast
import json
import re
import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

PICTURE = """
import sys, tempfile, pathlib, json
from PIL import Image
folder = pathlib.Path(tempfile.mkdtemp())
for number in range(2):
    Image.new("RGB", (300, 260), (90 * number, 128, 200)).save(folder / f"{number}.png")
import torch
build = find("extractors.build.build_extractors")
load = find("features.table.load_features", "features.load_features")
extractors = build("efficientnet-lite0", torch.device("cpu"))
load(folder, ["0.png"], extractors, hidden_states=None, views=("centre",), fp16=False)
with watched():
    load(folder, ["1.png"], extractors, hidden_states=None, views=("centre",), fp16=False)
"""
"""Program that computes the features of one picture; an earlier picture has loaded the weights."""

CLICK = """
import pathlib, tempfile, warnings
from PIL import Image
warnings.simplefilter("ignore")
from starlette.testclient import TestClient
folder = pathlib.Path(tempfile.mkdtemp())
for number in range(6):
    Image.new("RGB", (30, 26), (40 * number, 128, 200)).save(folder / f"{number}.png")
parse = find("settings.arguments.parse_arguments", "arguments.parse_arguments")
wanted = find("settings.scorers.ABArguments", "scorer_settings.ABArguments")
open_session = find("commands.score_pairs.open_session", "ab_pipeline.open_session")
server = find("labelling.server.ABServer", "ab_server.ABServer")
arguments, _ = parse(wanted, ["-d", str(folder)], description="")
session = open_session(arguments)
client = TestClient(server(session, folder, token="secret").app(), base_url="http://127.0.0.1:8111")
def click(winner, loser):
    choice = {"window": "one", "pictures": [winner, loser], "winner": winner, "drawn": "adaptive", "seconds": 1.5}
    assert client.post("/api/choice", json=choice, headers={"X-Token": "secret"}).status_code == 200
click("0.png", "1.png")
with watched():
    click("2.png", "3.png")
    session.update()
"""
"""Program that logs one choice, including the fit that follows it."""

WATCH = """
import contextlib, importlib, json, sys, threading
entered = set()
def find(*paths):
    for path in paths:
        module, _, name = path.rpartition(".")
        for root in ("custom_aesthetic", "src"):
            try:
                return getattr(importlib.import_module(f"{root}.{module}"), name)
            except (ImportError, AttributeError):
                pass
def note(frame, event, argument):
    if event == "call":
        entered.add(frame.f_code.co_filename)
@contextlib.contextmanager
def watched():
    threading.setprofile(note)
    sys.setprofile(note)
    try:
        yield
    finally:
        sys.setprofile(None)
        threading.setprofile(None)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", type=Path, default=Path("src"))
    source = parser.parse_args().source.resolve()
    files = {name(file, source): file for file in sorted(source.rglob("*.py")) if file.name != "__init__.py"}
    arrows = {module: set(imports(file, set(files))) - {module} for module, file in files.items()}
    lengths = sorted(length for file in files.values() for length in function_lengths(file))
    folders = [str(file.parent) for file in files.values()]
    print(f"modules {len(files)}, floors {max(floors(arrows).values())}, imports {sum(map(len, arrows.values()))}")
    print(f"packages {len(set(folders))}, modules in the fullest {max(map(folders.count, folders))}")
    print(
        f"functions {len(lengths)}: lines median {statistics.median(lengths):.0f}, "
        f"90th percentile {lengths[int(0.9 * len(lengths))]}, longest {lengths[-1]}"
    )
    job = next(module for module in ("commands.train", "pipeline") if module in files)
    print(f"the main job imports {len(arrows[job])} modules of the program")
    naming = [module for module, file in files.items() if re.search(r"\bdropout\b", file.read_text(encoding="utf-8"))]
    print(f"--max_dropout: {walk(naming)}")
    print(f"one picture: {walk(entered(PICTURE, source, files))}")
    print(f"one click: {walk(entered(CLICK, source, files))}")


def name(file: Path, source: Path) -> str:
    parts = file.relative_to(source).with_suffix("").parts
    return ".".join(parts[1:] if parts[0] == "custom_aesthetic" else parts)


def imports(file: Path, modules: set[str]) -> Iterator[str]:
    """Yield the modules of the program that a file imports, at its top or inside a function."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        found = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom) and node.module:
            found = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        for full in found:
            module = re.sub(r"^(custom_aesthetic|src)\.", "", full)
            if module != full and module in modules:
                yield module


def floors(arrows: dict[str, set[str]]) -> dict[str, int]:
    """Return for each module 1 + the highest floor among those it imports."""
    known: dict[str, int] = {}
    while len(known) < len(arrows):
        ready = {module for module, below in arrows.items() if module not in known and below <= set(known)}
        assert ready, "modules import each other in a circle"
        known |= {module: 1 + max((known[each] for each in arrows[module]), default=0) for module in ready}
    return known


def function_lengths(file: Path) -> Iterator[int]:
    """Yield the number of lines of every function and method."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.end_lineno - node.lineno + 1 if node.end_lineno else 1


def entered(program: str, source: Path, files: dict[str, Path]) -> list[str]:
    """Return the modules whose functions run in the watched part of a program."""
    code = WATCH + program + "\nprint(json.dumps(sorted(entered)))"
    start = f"import sys; sys.path[:0] = {[str(source), str(source.parent)]!r}\n"
    done = subprocess.run(
        [sys.executable, "-c", start + code],
        capture_output=True,
        text=True,
        check=True,
    )
    names = set(json.loads(done.stdout.splitlines()[-1]))
    return [module for module, file in files.items() if str(file) in names]


def walk(modules: list[str]) -> str:
    packages = sorted({module.rpartition(".")[0] or "(flat)" for module in modules})
    return f"{len(modules)} modules ({', '.join(modules)}) in {len(packages)} packages ({', '.join(packages)})"


if __name__ == "__main__":
    main()
