"""The report, Spotlight and the dashboard of a finished demo run, opened in a real browser.

Screenshots are kept in pytest's temporary folder (`--basetemp` names it), under `screenshots`.
"""

import contextlib
import csv
import io
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
from PIL import Image

from custom_aesthetic.search.dashboard import free_port, start_dashboard
from tests.base.test_process_group import is_gone
from tests.conftest import ROOT

PATIENCE_MILLISECONDS = 120_000
SPOTLIGHTS_OWN_ERROR = "process is not defined"
"""Spotlight 1.8.2 throws this in one of its workers (relevanceWorker) at every start."""

DESKTOP, PHONE = {"width": 1600, "height": 1000}, {"width": 390, "height": 844}
ONE_THREAD = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}


@dataclass
class Watched:
    """A page, and the errors and requests seen on it."""

    page: Any
    screenshots: Path
    errors: list[str] = field(default_factory=list)
    hosts: set[str] = field(default_factory=set)

    def keep(self, name: str) -> None:
        self.page.screenshot(path=self.screenshots / f"{name}.png", full_page=True)


Open = Callable[..., Watched]


@pytest.fixture
def open_page(browser: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Open]:
    """Open an address; at the end of the test, there must be no errors and no requests to other machines."""
    screenshots = tmp_path_factory.getbasetemp() / "screenshots"
    screenshots.mkdir(exist_ok=True)
    opened: list[Watched] = []

    def open_address(address: str, *, size: dict[str, int] = DESKTOP, colours: str = "light") -> Watched:
        page = browser.new_page(viewport=size, color_scheme=colours)
        page.set_default_timeout(PATIENCE_MILLISECONDS)
        watched = Watched(page, screenshots)
        page.on("console", lambda message: message.type == "error" and watched.errors.append(message.text))
        page.on("pageerror", lambda error: watched.errors.append(str(error)))
        page.on("request", lambda request: watched.hosts.add(urlsplit(request.url).hostname or ""))
        page.on("requestfailed", lambda request: watched.errors.append(f"failed: {request.url[:200]}"))
        page.goto(address)
        opened.append(watched)
        return watched

    yield open_address
    for watched in opened:
        watched.page.close()
        assert [error for error in watched.errors if error != SPOTLIGHTS_OWN_ERROR] == []
        assert watched.hosts <= {"", "127.0.0.1"}


@pytest.fixture(scope="module")
def demo_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run on the demo's pictures, with a model, a savefile, a study and a report."""
    folder = tmp_path_factory.mktemp("demo")
    shutil.copytree(ROOT / "demo" / "images", folder / "images")
    options = ["--loss_model=nll", "--metric_for_scoring=ab", "--calculate_spearman", "--trials=4", "--model_seed=1"]
    files = ["--savefile=out.csv", "--report=report.html"]
    command = [sys.executable, str(ROOT / "aesthetic_predictor_training.py"), "-d=images", "--workers=1"]
    command += ["--feature_extractor_model=efficientnet-lite0", *options, *files]
    done = subprocess.run(command, cwd=folder, env=ONE_THREAD, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture
def spotlight(demo_run: Path) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """Spotlight on the finished run, served by the script: its address and process."""
    port = free_port(8900)
    command = [sys.executable, str(ROOT / "aesthetic_spotlight.py"), "-d=images", "-m=model.safetensors"]
    command += ["--no_browser", f"--port={port}", "--save=table.csv", "--trials=4"]
    process = subprocess.Popen(
        command, cwd=demo_run, env=ONE_THREAD, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert process.stdout is not None
    output = ""
    for line in process.stdout:
        output += line
        if "running on" in line:
            break
    try:
        assert f"http://127.0.0.1:{port}/" in output, output
        assert "press Ctrl-C to stop it" in output
        yield f"http://127.0.0.1:{port}/", process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
        process.wait(timeout=30)
        process.stdout.close()


@pytest.fixture
def dashboard(demo_run: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of optuna-dashboard on the finished run."""
    monkeypatch.chdir(demo_run)
    process, address = start_dashboard("sqlite:///db.sqlite", 8950)  # not the port of another test that runs now
    deadline = time.monotonic() + 60
    port = urlsplit(address).port
    while time.monotonic() < deadline:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port or 0)) == 0:
                break
        time.sleep(0.2)
    yield address
    process.terminate()
    process.wait()


def n_coloured_pixels(element: Any) -> int:
    """Return how many pixels of an element on the screen are neither grey, white nor black."""
    pixels = np.asarray(Image.open(io.BytesIO(element.screenshot())).convert("RGB")).astype(int)
    return int((np.ptp(pixels, axis=2) > 60).sum())


@pytest.mark.parametrize(
    ("name", "size", "colours"),
    [
        ("desktop", DESKTOP, "light"),
        ("dark", DESKTOP, "dark"),
        ("phone", PHONE, "light"),
        ("dark-phone", PHONE, "dark"),
    ],
)
def test_the_report_is_readable_in_a_browser(
    demo_run: Path, open_page: Open, name: str, size: dict[str, int], colours: str
) -> None:
    watched = open_page((demo_run / "report.html").as_uri(), size=size, colours=colours)
    page = watched.page
    watched.keep(f"report-{name}")
    shown = page.eval_on_selector_all("img", "all => all.map(one => one.complete && one.naturalWidth > 50)")
    assert len(shown) > 30
    assert all(shown)
    judged = page.locator(".points.eval circle, .points.out_of_fold circle")
    assert judged.count() in (2 * 38, 2 * 152), "the evaluation pictures, or all pictures with folds"
    assert page.locator(".study svg").count() >= 4
    assert all(n_coloured_pixels(page.locator("figure svg").nth(number)) > 500 for number in range(3))
    too_wide = page.evaluate("document.documentElement.scrollWidth - window.innerWidth")
    assert too_wide <= 0, "the page itself never scrolls sideways"
    widths = page.eval_on_selector_all(".strip li", "all => all.map(one => one.getBoundingClientRect().width)")
    assert max(widths) - min(widths) < 1, "a long name does not stretch its picture"
    overflow = page.eval_on_selector_all(
        ".scores", "all => all.filter(one => one.scrollWidth > one.clientWidth).length"
    )
    assert overflow == 0
    heights = page.eval_on_selector_all(".scores", "all => all.map(one => one.getBoundingClientRect().height)")
    assert max(heights) < 30, "both scores are on one line"
    text, ground = page.evaluate(
        "[getComputedStyle(document.body).color, getComputedStyle(document.body).backgroundColor]"
    )
    assert (brightness(text) > brightness(ground)) == (colours == "dark")
    assert abs(brightness(text) - brightness(ground)) > 150
    clipped = page.eval_on_selector_all(
        ".cards svg text",
        """all => all.filter(one => { const box = one.getBoundingClientRect();
           const frame = one.ownerSVGElement.getBoundingClientRect();
           return box.left < frame.left - 1 || box.right > frame.right + 1 || box.bottom > frame.bottom + 1; }
           ).map(one => one.textContent)""",
    )
    assert clipped == [], "no label is cut off"


def brightness(colour: str) -> float:
    """Return the mean of a colour `rgb(r, g, b)`, 0 ... 255."""
    return float(np.mean([float(part) for part in colour.strip("rgba()").split(",")[:3]]))


def test_spotlight_opens_ready_to_use(
    spotlight: tuple[str, subprocess.Popen[str]], demo_run: Path, open_page: Open
) -> None:
    address, process = spotlight
    watched = open_page(address)
    page = watched.page
    rows = [row for row in csv.DictReader((demo_run / "table.csv").read_text().splitlines()) if row["error"]]
    worst = sorted(rows, key=lambda row: -abs(float(row["error"])))
    picture = page.locator("img[src^='blob:']:visible").first
    picture.wait_for()
    wait_until(lambda: picture.evaluate("one => one.complete && one.naturalWidth > 50"))
    for row in worst[:3]:
        assert page.get_by_text(row["relative_path"], exact=True).count() == 2, "in the pictures and in the table"
    for column in ("path", "split", "score", "model_score", "error", "rank_error"):
        assert page.get_by_text(column, exact=True).count() >= 1, column
    assert page.get_by_text("against score", exact=False).count() >= 1
    for widget in ("Table", "Similarity", "Issues", "Scores", "Pictures"):
        assert page.get_by_text(widget, exact=True).count() >= 1, widget
    for plot in (page.locator("canvas").first, page.locator("canvas").last):
        wait_until(lambda plot=plot: n_coloured_pixels(plot) > 300)  # type: ignore[misc]
    assert page.get_by_text("Computing").count() == 0, "the similarity map is there"
    assert page.get_by_text("/ 152 rows").count() == 1
    watched.keep("spotlight")
    assert (demo_run / "table.csv").read_text().count("\n") == 153
    page.close()
    started = descendants(process.pid)
    assert len(started) > 2, "its child, Spotlight's server and at least one worker"
    process.send_signal(signal.SIGTERM)
    process.wait(timeout=30)
    wait_until(lambda: all(is_gone(number) for number in started))
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", urlsplit(address).port)) != 0, "the server has ended with the script"


def descendants(number: int) -> list[int]:
    """Return all descendants of a process."""
    parents = {}
    for file in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            parents[int(file.parent.name)] = int(file.read_text().rpartition(")")[2].split()[1])
    children = [child for child, parent in parents.items() if parent == number]
    return children + [one for child in children for one in descendants(child)]


def wait_until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_MILLISECONDS / 1000
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.3)


def test_the_dashboard_describes_the_study(dashboard: str, open_page: Open) -> None:
    watched = open_page(dashboard)
    page = watched.page
    page.get_by_text("aesthetic", exact=False).first.click()
    page.wait_for_selector("text=Hyperparameter Importance")
    page.wait_for_selector("g.points path, .scatterlayer path")
    watched.keep("dashboard")
    page.goto(f"{dashboard}dashboard/studies/1/note")
    for words in ("efficientnet-lite0", "Loss nll", "152 scored images", "--metric_for_scoring=ab"):
        page.get_by_text(words, exact=False).first.wait_for()
    text = page.inner_text("body")
    assert text.index("times in 100") < text.index("152 scored images"), "the note begins with the verdict"
    watched.keep("dashboard-note")
    page.goto(f"{dashboard}dashboard/studies/1/trials")
    page.get_by_text("Trial 0", exact=False).first.wait_for()
    page.get_by_text("Best Trial").first.click()
    page.get_by_text("images/model.safetensors", exact=False).first.wait_for()
    text = page.inner_text("body")
    for attribute in ("eval_ab", "train_nll", "full_spearman", "seconds", "best_epoch", "first_layer_size"):
        assert attribute in text
    watched.keep("dashboard-trial")
