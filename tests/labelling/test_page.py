"""The A/B page in a real browser, served by the script: clicks are logged and scored."""

import math
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from custom_aesthetic.scores.choice_log import ComparisonLog
from custom_aesthetic.scores.score_files import read_scores

ROOT = Path(__file__).resolve().parents[2]


class Script:
    """The script, running on a folder, in the folder above it, where a training begins its database."""

    def __init__(self, directory: Path, *options: str, port: int = 0) -> None:
        command = [sys.executable, "-u", str(ROOT / "aesthetic_ab_scorer.py"), "-d", str(directory), "--no_browser"]
        self.process = subprocess.Popen(
            [*command, f"--port={port}", *options],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=directory.parent,
        )
        self.output = ""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.output += line
            found = re.search(r"http://127\.0\.0\.1:(\d+)/", line)
            if found:
                self.address, self.port = found[0], int(found[1])
                return
        raise AssertionError(f"the script ended: {self.output}")

    def end(self, sign: int = signal.SIGKILL) -> int:
        self.process.send_signal(sign)
        return self.wait()

    def wait(self) -> int:
        self.output += self.process.communicate(timeout=30)[0]
        return self.process.returncode


@pytest.fixture
def start(colour_pictures) -> Iterator:
    """Start the script on the folder of 24 colours; it is killed at the end."""
    started: list[Script] = []

    def begin(*options: str, port: int = 0) -> Script:
        started.append(Script(colour_pictures, *options, port=port))
        return started[-1]

    yield begin
    for script in started:
        if script.process.poll() is None:
            script.end()


@pytest.fixture
def open_page(browser) -> Iterator:
    """Open a page; at the end, its console must contain only messages that the test expects."""
    contexts, heard = [], []

    def begin(address: str, context=None, selector: str = ".choice img", **options):
        if context is None:
            context = browser.new_context(**{"viewport": {"width": 1000, "height": 700}, **options})
            context.set_default_timeout(15_000)
            contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: heard.append(message.text))
        page.on("pageerror", lambda error: heard.append(str(error)))
        page.goto(address)
        page.wait_for_selector(selector)
        return page

    begin.heard = heard  # type: ignore[attr-defined]
    yield begin
    for context in contexts:
        context.close()
    assert heard == []


def shown(page) -> list[str]:
    return page.eval_on_selector_all(".choice img", "images => images.map(image => image.dataset.path)")


def next_group(page, before: list[str]) -> None:
    page.wait_for_function(
        "before => { const now = [...document.querySelectorAll('.choice img')].map(image => image.dataset.path);"
        " return now.length > 1 && now.join() !== before.join(); }",
        arg=before,
    )


def number_of(path: str) -> int:
    return int(Path(path).stem)


def choose_redder(page, how: str) -> list[tuple[str, str]]:
    """Choose the picture with the highest number and wait for the next pair; return (winner, loser)."""
    pictures = shown(page)
    place = max(range(len(pictures)), key=lambda k: number_of(pictures[k]))
    if how == "digit":
        page.keyboard.press(str(place + 1))
    elif how == "arrow":
        page.keyboard.press("ArrowRight" if place else "ArrowLeft")
    elif how == "tap":
        page.wait_for_timeout(300)  # a second tap at once would be a double tap, which counts once
        page.tap(f".choice >> nth={place}")
    else:
        page.click(f".choice >> nth={place}")
    next_group(page, pictures)
    return [(pictures[place], path) for path in pictures if path != pictures[place]]


def finish(page) -> None:
    page.keyboard.press("q")
    page.keyboard.press("q")
    page.wait_for_selector(".summary")


def all_saved(page) -> None:
    page.wait_for_function("() => sessionStorage.getItem('unsent') === '[]'")


def logged(directory: Path) -> list[tuple[str, str]]:
    return [(row.winner, row.loser) for row in ComparisonLog(directory / "comparisons.csv").choices()]


def test_forty_pairs_by_keyboard_and_click_are_logged_and_scored_as_chosen(start, open_page, colour_pictures):
    script = start()
    page = open_page(script.address)
    made = []
    for i in range(40):
        made += choose_redder(page, ("digit", "arrow", "click")[i % 3])
    finish(page)
    assert "40 answers" in page.inner_text(".summary h1")
    assert "scores.json" in page.inner_text(".summary")
    best = [
        number_of(text) for text in page.eval_on_selector_all(".row >> nth=0 >> li", "all => all.map(li => li.title)")
    ]
    page.keyboard.press("q")
    assert script.wait() == 0, script.output
    assert logged(colour_pictures) == made
    table = read_scores(colour_pictures / "scores.json")
    assert sum(table.columns["comparisons"]) == 80
    wins = {path: sum(path == winner for winner, _ in made) for path in table.paths}
    order = sorted(table.paths, key=dict(zip(table.paths, table.scores, strict=True)).get)
    assert wins[order[-1]] > wins[order[0]]
    assert number_of(order[-1]) == best[0]
    assert "40 answers" in script.output


def test_undo_removes_a_choice_and_shows_its_pair_again(start, open_page, colour_pictures):
    page = open_page(start().address)
    kept = choose_redder(page, "digit")
    pair = shown(page)
    choose_redder(page, "digit")
    page.keyboard.press("u")
    page.wait_for_function("pair => document.querySelector('.choice img').dataset.path === pair[0]", arg=pair)
    assert shown(page) == pair
    kept += choose_redder(page, "click")
    choose_redder(page, "arrow")
    page.keyboard.press("Backspace")
    page.click("#undo")
    page.wait_for_function("pair => document.querySelector('.choice img').dataset.path === pair[0]", arg=pair)
    all_saved(page)
    assert logged(colour_pictures) == kept[:1]
    assert len(ComparisonLog(colour_pictures / "comparisons.csv").rows) == 7


def test_skipping_logs_nothing_and_shows_another_pair(start, open_page, colour_pictures):
    page = open_page(start().address)
    for key in ("0", "s", "0"):
        pictures = shown(page)
        page.keyboard.press(key)
        next_group(page, pictures)
    pictures = shown(page)
    page.click("#skip")
    next_group(page, pictures)
    assert not (colour_pictures / "comparisons.csv").exists()


def test_a_reload_in_the_middle_loses_nothing_and_undo_still_works(start, open_page, colour_pictures):
    page = open_page(start().address)
    made = [pair for _ in range(5) for pair in choose_redder(page, "digit")]
    page.reload()
    page.wait_for_selector(".choice img")
    assert page.inner_text("#count").startswith("5 answers")
    made += choose_redder(page, "digit")
    page.keyboard.press("u")
    page.keyboard.press("u")
    page.wait_for_function(
        "wanted => wanted.includes(document.querySelector('.choice img').dataset.path)", arg=list(made[4])
    )
    all_saved(page)
    assert logged(colour_pictures) == made[:4]


def test_a_killed_server_loses_no_choice_and_the_page_continues_with_the_next_server(start, open_page, colour_pictures):
    script = start()
    page = open_page(script.address)
    made = [pair for _ in range(3) for pair in choose_redder(page, "digit")]
    all_saved(page)
    page.wait_for_timeout(500)  # the next pairs are loaded
    script.end(signal.SIGKILL)
    made += choose_redder(page, "digit")  # from the pairs loaded before
    page.wait_for_selector("#message:not([hidden])")
    assert "does not answer" in page.inner_text("#message")
    assert "This page keeps 1 unsaved answer" in page.inner_text("#message")
    with page.expect_navigation(timeout=30_000):  # the new server has a new token, so the page is reloaded
        start(port=script.port)
    page.wait_for_selector(".choice img")
    all_saved(page)
    made += choose_redder(page, "click")
    all_saved(page)
    assert logged(colour_pictures) == made
    assert page.is_hidden("#message")
    expected = [text for text in open_page.heard if "ERR_CONNECTION" in text or "403" in text]
    assert open_page.heard == expected
    open_page.heard.clear()


def test_a_page_without_the_key_of_the_next_script_keeps_its_answers_until_the_new_address_is_opened(
    start, open_page, colour_pictures
):
    def with_key(script: Script) -> str:
        return re.findall(r"http://127\.0\.0\.1:\d+/\?key=\S+", script.output)[-1]

    script = start("--host=0.0.0.0")
    page = open_page(with_key(script))
    made = choose_redder(page, "digit")
    all_saved(page)
    page.wait_for_timeout(500)  # the next pairs are loaded
    script.end(signal.SIGKILL)
    made += choose_redder(page, "digit")
    script = start("--host=0.0.0.0", port=script.port)
    page.wait_for_function("() => document.querySelector('#message').textContent.includes('open its new address')")
    assert "This page keeps 1 unsaved answer" in page.inner_text("#message")
    with page.expect_navigation():
        open_page(with_key(script), context=page.context)
    page.wait_for_selector(".choice img")
    all_saved(page)
    assert logged(colour_pictures) == made
    open_page.heard[:] = [text for text in open_page.heard if "ERR_CONNECTION" not in text and "403" not in text]


def test_a_duplicated_tab_is_a_window_of_its_own_so_closing_it_does_not_end_the_script(
    start, open_page, colour_pictures
):
    script = start()
    page = open_page(script.address)
    with page.expect_popup() as opened:
        page.evaluate("() => { window.open(location.href); }")  # it gets a copy of what the page has stored
    opened.value.wait_for_selector(".choice img")
    opened.value.close(run_before_unload=True)
    page.wait_for_timeout(6000)
    assert script.process.poll() is None


def test_two_tabs_can_be_open_at_once(start, open_page, colour_pictures):
    script = start()
    left = open_page(script.address)
    right = open_page(script.address, context=left.context)
    made = []
    for _ in range(8):
        made += choose_redder(left, "digit") + choose_redder(right, "digit")
    all_saved(left)
    all_saved(right)
    assert sorted(logged(colour_pictures)) == sorted(made)
    finish(left)
    assert "Another window is open" in left.inner_text(".summary")
    made += choose_redder(right, "digit")
    left.keyboard.press("q")
    left.wait_for_function("() => document.querySelector('.closing').innerText.includes('has ended')")
    finish(right)
    right.keyboard.press("q")
    assert script.wait() == 0
    assert sorted(logged(colour_pictures)) == sorted(made)


def test_on_a_screen_360_pixels_wide_everything_fits_and_touch_chooses(start, open_page, colour_pictures):
    script = start()
    page = open_page(
        script.address, viewport={"width": 360, "height": 640}, has_touch=True, is_mobile=True, color_scheme="dark"
    )
    made = [pair for _ in range(3) for pair in choose_redder(page, "tap")]
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    boxes = [page.locator(".choice").nth(k).bounding_box() for k in range(2)]
    assert all(box["width"] > 320 and box["height"] > 200 for box in boxes)
    assert boxes[1]["y"] >= boxes[0]["y"] + boxes[0]["height"]
    assert max(box["y"] + box["height"] for box in boxes) <= 640
    for name in ("#undo", "#skip", "#finish"):
        box = page.locator(name).bounding_box()
        assert box["height"] >= 40 and box["x"] >= 0 and box["x"] + box["width"] <= 360
    page.tap("#undo")
    all_saved(page)
    assert logged(colour_pictures) == made[:2]


def test_four_pictures_are_shown_in_a_square_and_one_choice_beats_three(start, open_page, colour_pictures):
    page = open_page(start("--number_to_compare=4").address)
    made = choose_redder(page, "digit")
    all_saved(page)
    assert len(made) == 3
    assert sorted(logged(colour_pictures)) == sorted(made)
    boxes = [page.locator(".choice").nth(k).bounding_box() for k in range(4)]
    assert boxes[0]["y"] == boxes[1]["y"] < boxes[2]["y"] == boxes[3]["y"]


def test_everything_can_be_reached_by_keyboard_and_focus_is_visible(start, open_page, colour_pictures):
    page = open_page(start().address)
    pictures = shown(page)
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.getAttribute('aria-label')").startswith("Choose picture 1")
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    page.keyboard.press("Enter")
    next_group(page, pictures)
    all_saved(page)
    assert logged(colour_pictures) == [(pictures[0], pictures[1])]
    page.locator("#undo").focus()
    page.keyboard.press("Space")
    all_saved(page)
    page.wait_for_function("pair => document.querySelector('.choice img').dataset.path === pair[0]", arg=pictures)
    assert logged(colour_pictures) == []


def test_with_reduced_motion_nothing_moves_and_dark_mode_is_dark(start, open_page):
    page = open_page(start().address, reduced_motion="reduce", color_scheme="dark")
    assert page.evaluate("getComputedStyle(document.querySelector('.group')).animationName") == "none"
    assert page.evaluate("getComputedStyle(document.querySelector('.choice')).transitionProperty") in (
        "none",
        "all",
    )
    assert page.evaluate("getComputedStyle(document.querySelector('.choice')).transitionDuration") == "0s"
    red, green, blue = map(
        int, re.findall(r"\d+", page.evaluate("getComputedStyle(document.body).backgroundColor"))[:3]
    )
    assert max(red, green, blue) < 60


def test_the_page_needs_no_network(start, browser):
    script = start()
    context = browser.new_context()
    page = context.new_page()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(script.address)
    page.wait_for_selector(".choice img")
    context.close()
    assert asked
    assert all(url.startswith(script.address) for url in asked)


def test_a_broken_picture_is_named_and_left_out(start, open_page, colour_pictures):
    for path in sorted(colour_pictures.rglob("*.png"))[4:]:
        path.unlink()
    broken = sorted(colour_pictures.rglob("*.png"))[0]
    broken.write_bytes(broken.read_bytes()[:60])
    script = start("--strategy=random")
    page = open_page(script.address)
    for _ in range(12):
        pictures = shown(page)
        assert not any(path.endswith(broken.name) for path in pictures)
        page.keyboard.press("0")
        next_group(page, pictures)
    page.close()
    script.end(signal.SIGINT)
    assert f"left out cold/{broken.name}" in script.output
    assert all("422" in text for text in open_page.heard)
    open_page.heard.clear()


def test_the_next_pair_is_on_screen_as_soon_as_the_choice_is_made(start, open_page):
    page = open_page(start().address)
    measure = """async () => {
        const taken = [];
        for (let i = 0; i < 15; i++) {
            await new Promise((done) => setTimeout(done, 250));
            const begin = performance.now();
            document.dispatchEvent(new KeyboardEvent('keydown', { key: '1', code: 'Digit1' }));
            const images = [...document.querySelectorAll('.choice img')];
            if (images.length !== 2) { taken.push(Infinity); continue; }
            await Promise.all(images.map((image) => image.decode()));
            await new Promise((done) => requestAnimationFrame(done));
            taken.push(performance.now() - begin);
        }
        return taken.sort((a, b) => a - b);
    }"""
    taken = page.evaluate(measure)
    assert max(taken) < math.inf, "the next pair was not ready when the choice was made"


def test_ctrl_c_ends_with_the_scores_written(start, open_page, colour_pictures):
    script = start()
    page = open_page(script.address)
    made = choose_redder(page, "digit")
    all_saved(page)
    page.close()
    assert script.end(signal.SIGINT) == 130
    assert set(read_scores(colour_pictures / "scores.json").paths) == set(made[0])
    assert "Traceback" not in script.output


def test_a_port_in_use_is_a_user_error(start, colour_pictures):
    taken = start()
    command = [sys.executable, str(ROOT / "aesthetic_ab_scorer.py"), "-d", str(colour_pictures), f"--port={taken.port}"]
    second = subprocess.run([*command, "--no_browser"], capture_output=True, text=True, cwd=ROOT, timeout=60)
    assert second.returncode == 2
    assert "--port" in second.stderr and second.stderr.count("\n") == 1
