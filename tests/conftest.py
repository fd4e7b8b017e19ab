"""Fixtures for many tests: the real photographs if available, and pictures small enough to check by eye."""

import os
import shutil
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest
import torch
from PIL import Image

# The checkout holds an __init__.py, for ComfyUI. Where its folder's name is an identifier, pytest calls this package by
# that name first; the tests then still mean these modules by `tests`, and no second copy of them.
sys.modules.setdefault("tests", sys.modules[__package__])
sys.modules.setdefault("tests.conftest", sys.modules[__name__])

ROOT = Path(__file__).resolve().parent.parent
DATA = Path(os.environ.get("AESTHETIC_TEST_DATA", ROOT.parent / "shared" / "data"))

MUST_RUN = "AESTHETIC_TESTS_MUST_RUN" in os.environ
"""If set, as in CI, a skipped test counts as failed, unless only the photographs are missing."""

NO_DATA = "no test data"

os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT / "src"), os.environ.get("PYTHONPATH")]))
os.environ.setdefault("OMP_NUM_THREADS", "1")  # for the scripts that tests start: threads that spin starve each other
torch.set_num_threads(1)

hypothesis.settings.register_profile("any machine", deadline=None)  # a busy machine is not a failure
hypothesis.settings.load_profile("any machine")

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # Started in the background, as CI may be; the scripts that tests interrupt would inherit it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # started by nohup


SLOW = (
    *("benchmarks", "base/process_group", "cluster/ray"),
    *("commands/records", "commands/results", "commands/run_report", "commands/spotlight"),
    *("extractors/checkpoint", "extractors/extractors", "extractors/strangers", "extractors/towers", "features/table"),
    *("heads/scorer", "hub/hub", "integrations/comfyui", "integrations/http_service", "integrations/immich"),
    "scripts/every_model",
    *("labelling/page", "labelling/page_access", "labelling/page_answers", "labelling/server"),
    *("scripts/analysis", "scripts/browser", "scripts/camera_folder", "scripts/installing", "scripts/odd_names"),
    *("scripts/prior", "scripts/real_environment", "scripts/scorer", "scripts/tables", "scripts/training"),
    *("search/dashboard", "search/postgresql", "search/run", "search/storage", "search/workers"),
)
"""Folders and files of tests that start processes, browsers, servers or real networks; `make fast` leaves them out."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        place = item.path.relative_to(ROOT / "tests")
        if place.parent.name in SLOW or f"{place.parent.name}/{place.stem.removeprefix('test_')}" in SLOW:
            item.add_marker("slow")


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport() -> Iterator[None]:
    outcome = yield
    report = outcome.get_result()
    # What a test prints of names that are not UTF-8 would break the channel between the processes of pytest-xdist.
    report.sections = [(name, text.encode("utf-8", "backslashreplace").decode()) for name, text in report.sections]
    if MUST_RUN and report.skipped and NO_DATA not in str(report.longrepr) and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"skipped where it must run: {report.longrepr}"


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """The folder of real photographs, reference features and older models; the test is skipped where it is absent."""
    if not DATA.is_dir():
        pytest.skip(f"{NO_DATA} in {DATA}; name its folder by AESTHETIC_TEST_DATA")
    return DATA


@pytest.fixture
def colour_pictures(tmp_path: Path) -> Path:
    """A folder of 24 small pictures of one colour each, in two sub-directories, redder by number: 00 ... 23."""
    for number in range(24):
        file = tmp_path / "pictures" / ("warm" if number % 2 else "cold") / f"{number:02}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (40, 30), (10 * number, 128 - number, 255 - 10 * number)).save(file)
    return tmp_path / "pictures"


BROWSER_FLAGS = (
    *("--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync"),
)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Chromium without a window; the test is skipped where it is missing."""
    playwright = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        pytest.skip("the browser chromium is not installed")
    with playwright.sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=chromium, args=list(BROWSER_FLAGS))
        yield started
        started.close()
