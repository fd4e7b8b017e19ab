"""The gallery in a real browser: a model learns beside the scoring; pictures are marked, chosen, moved and restored."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from custom_aesthetic.scores.choice_log import ComparisonLog
from tests.labelling.test_page import Script, next_group, open_page  # noqa: F401 - a fixture

pytestmark = pytest.mark.slow

WIDE, PHONE = {"width": 1440, "height": 900}, {"width": 390, "height": 844}


@pytest.fixture
def textures(tmp_path: Path) -> Path:
    """A folder of 36 small pictures, the redder the higher their number, with some noise."""
    generator = np.random.default_rng(0)
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number in range(36):
        pixels = np.clip(generator.normal([7 * number, 120, 250 - 7 * number], 20, size=(48, 64, 3)), 0, 255)
        Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{number:02}.png")
    return folder


@pytest.fixture
def start(textures):
    started: list[Script] = []

    def begin(*options: str, folder: Path = textures) -> Script:
        started.append(Script(folder, *options))
        return started[-1]

    yield begin
    for script in started:
        if script.process.poll() is None:
            script.end()


def answer_redder(page, n_answers: int) -> None:
    for _ in range(n_answers):
        paths = page.eval_on_selector_all(".choice img", "all => all.map(image => image.dataset.path)")
        before = page.eval_on_selector_all(".choice img", "all => all.map(image => image.alt)")
        page.keyboard.press("1" if paths[0] > paths[1] else "2")
        next_group(page, before)


def to_view(page, name: str) -> None:
    page.click(f"#views button:has-text('{name}')")
    page.wait_for_selector(f"#{name.lower()}:not([hidden])")


def first_paths(page, count: int) -> list[str]:
    cells = page.eval_on_selector_all(
        ".cell:not(.empty)", "all => all.map(cell => [cell.place, cell.item.path]).sort((a, b) => a[0] - b[0])"
    )
    return [path for _, path in cells[:count]]


def test_a_model_learns_beside_the_scoring_after_the_page_has_asked(start, open_page, textures):  # noqa: F811
    page = open_page(start().address, viewport=WIDE)
    page.wait_for_selector("#model[data-state=asking]:not([hidden])", timeout=60_000)
    assert "features of 36 pictures (efficientnet-lite2)" in page.inner_text("#model")
    assert not (textures / ".aesthetic_features").exists()
    page.click("#model button:has-text('Compute them')")
    answer_redder(page, 24)
    page.wait_for_selector("#beside:not([hidden]) li img", timeout=120_000)
    page.wait_for_function("() => document.querySelector('#learned').textContent.includes('of 100 pairs right')")
    to_view(page, "Gallery")
    page.wait_for_function("() => document.querySelectorAll('.cell:not(.empty)').length === 36")
    best = first_paths(page, 36)
    assert np.mean([int(path[:2]) for path in best[:12]]) > np.mean([int(path[:2]) for path in best[24:]]) + 12
    assert page.locator(".segments [aria-checked=true]").inner_text() == "Best"
    page.keyboard.press("w")
    page.wait_for_function(
        "path => [...document.querySelectorAll('.cell')].some(cell => cell.place === 0 && cell.item?.path === path)",
        arg=best[-1],
    )


def test_pictures_are_marked_chosen_moved_and_brought_back_by_keyboard_alone(start, open_page, textures, tmp_path):  # noqa: F811
    page = open_page(start().address, viewport=PHONE, color_scheme="dark")
    for _ in range(20):
        page.keyboard.press("Shift+Tab")
        if page.evaluate("document.activeElement.textContent") == "Gallery":
            break
    page.keyboard.press("Enter")
    page.wait_for_selector(".cell .open img.there")
    page.keyboard.press("ArrowDown")
    first, second = first_paths(page, 2)
    assert page.get_by_role("radiogroup", name="Order of the pictures").get_by_role("radio", checked=True).count() == 1
    assert page.get_by_role("list", name="Pictures").get_by_role("listitem").count() > 8
    assert page.get_by_role("slider", name="Number of best pictures").get_attribute("aria-valuetext") == "20 pictures"
    assert page.get_by_role("form", name="Choose pictures").get_by_role("status").count() == 1
    page.keyboard.press(" ")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("x")
    page.wait_for_selector(".cell[data-mark=reject]")
    marks = ComparisonLog(textures / "comparisons.csv").answers()
    assert [(row.winner, row.kind) for row in marks] == [(first, "keep"), (second, "reject")]
    assert page.get_by_role("button", name=f"1: {first}, kept").count() == 1
    page.keyboard.press("Enter")
    page.wait_for_selector(".lightbox[open]")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Escape")
    page.wait_for_selector(".lightbox", state="detached")
    page.focus(".more")
    page.keyboard.press("Enter")
    heights = {name: page.locator(name).bounding_box()["height"] for name in (".grid", ".chooser")}
    assert heights[".grid"] > 300 and heights[".chooser"] < 260, "the pictures stay in sight"
    count = page.locator(".chosen").bounding_box()
    assert count["x"] + count["width"] <= PHONE["width"]
    page.select_option(".deed select", "move")
    page.fill(".deed input", str(tmp_path / "best"))
    page.keyboard.press("Enter")
    page.wait_for_selector(".dry-run[open]")
    assert "would move" in page.inner_text(".dry-run .lines")
    assert len(list(textures.glob("*.png"))) == 36
    page.keyboard.press("Enter")
    page.wait_for_selector(".dry-run", state="detached")
    page.wait_for_function("() => document.querySelector('.chosen').textContent.includes('of 16 chosen')")
    assert len(list((tmp_path / "best").glob("*.png"))) == 20
    assert (tmp_path / "best" / first).exists() and (textures / second).exists()
    page.click(".chooser button:has-text('Undo')")
    page.wait_for_function("() => document.querySelector('.chosen').textContent.includes('of 36 chosen')")
    assert len(list(textures.glob("*.png"))) == 36


def test_a_change_of_mind_that_fails_says_so_and_can_be_tried_again(start, open_page):  # noqa: F811
    page = open_page(start().address, viewport=WIDE)
    told = {"time": "2026-01-01T00:00:00+00:00", "chosen": "00.png", "other": "35.png", "lead": 2.0}
    page.route("**/api/disagreements", lambda route: route.fulfill(json={"answers": [told]}))
    page.route("**/api/settle", lambda route: route.fulfill(status=503, json={"error": "the disk is full"}))
    to_view(page, "Gallery")
    page.get_by_role("radio", name="Disagrees").click()
    page.click("text=Change my mind")
    page.wait_for_selector("#message:has-text('the disk is full')")
    assert page.locator(".disagreement").count() == 1
    page.unroute("**/api/settle")
    page.route("**/api/settle", lambda route: route.fulfill(json={}))
    page.route("**/api/disagreements", lambda route: route.fulfill(json={"answers": []}))
    page.click("text=Change my mind")
    page.wait_for_selector("#message:has-text('Your answer is changed.')")
    open_page.heard[:] = [text for text in open_page.heard if "503" not in text]


def test_undo_takes_back_marks_and_changed_answers_of_the_gallery_in_their_turn(start, open_page, textures):  # noqa: F811
    page = open_page(start().address, viewport=WIDE)
    answer_redder(page, 2)
    page.wait_for_function("() => sessionStorage.getItem('unsent') === '[]'")
    first, second = ComparisonLog(textures / "comparisons.csv").answers()
    told = {"time": second.time, "chosen": second.winner, "other": second.loser, "lead": 2.0}
    page.route("**/api/disagreements", lambda route: route.fulfill(json={"answers": [told]}))
    to_view(page, "Gallery")
    page.get_by_role("radio", name="Disagrees").click()
    page.click("text=Change my mind")
    page.wait_for_selector("#message:has-text('Your answer is changed.')")
    page.get_by_role("radio", name="Best").click()
    page.click(".cell .open")
    for name in ("Reject", "Keep"):  # the second takes the place of the first
        page.click(f".lightbox button:has-text('{name}')")
        page.wait_for_selector(f".lightbox button:has-text('{name}')[aria-pressed=true]")
    page.keyboard.press("Escape")
    log = ComparisonLog(textures / "comparisons.csv")
    assert [(row.kind, row.winner) for row in log.answers()][:2] == [("choice", first.winner), ("choice", second.loser)]
    assert [row.kind for row in log.answers()][2:] == ["keep"]
    to_view(page, "Score")
    page.keyboard.press("u")
    page.wait_for_selector("#message:has-text('Undone: keep for')")
    before = page.eval_on_selector_all(".choice img", "all => all.map(image => image.alt)")
    page.keyboard.press("u")
    next_group(page, before)
    shown = page.eval_on_selector_all(".choice img", "all => all.map(image => image.dataset.path)")
    assert shown == [second.winner, second.loser]
    page.wait_for_function("() => sessionStorage.getItem('unsent') === '[]'")
    assert ComparisonLog(textures / "comparisons.csv").answers() == [first]


def test_a_picture_shown_large_takes_the_keys_of_the_gallery_below(start, open_page):  # noqa: F811
    page = open_page(start().address, viewport=WIDE)
    to_view(page, "Gallery")
    page.click(".cell .open")
    page.wait_for_selector(".lightbox[open]")
    assert page.get_attribute(".lightbox a", "href").endswith("size=100000"), "the original size"
    page.keyboard.press("w")
    assert page.get_by_role("radio", name="Best", include_hidden=True).get_attribute("aria-checked") == "true"
    page.keyboard.press("Escape")
    page.wait_for_selector(".lightbox", state="detached")
    page.keyboard.press("w")
    assert page.get_by_role("radio", name="Worst").get_attribute("aria-checked") == "true"


def test_arrows_move_the_slider_and_the_gallery_says_in_words_when_the_server_does_not_answer(start, open_page):  # noqa: F811
    page = open_page(start().address, viewport=WIDE)
    to_view(page, "Gallery")
    page.wait_for_selector(".cell .open img.there")
    slider = page.get_by_role("slider", name="Number of best pictures")
    slider.press("ArrowRight")
    page.wait_for_selector(".chosen:has-text('21 of 36 chosen')")
    page.route("**/api/*/**", lambda route: route.abort())
    slider.press("ArrowRight")
    page.wait_for_selector("#message:has-text('The server does not answer')")
    open_page.heard[:] = [text for text in open_page.heard if "ERR_FAILED" not in text]


def test_what_the_model_does_is_still_shown_beside_the_page_at_the_end(start, open_page):  # noqa: F811
    page = open_page(start().address, viewport=WIDE)
    answer_redder(page, 1)
    page.keyboard.press("q")
    page.keyboard.press("q")
    page.wait_for_selector(".summary")
    with page.expect_request("**/api/learner", timeout=12_000):
        page.click(".next button:has-text('Look at the best')")


def test_a_key_that_is_held_does_not_carry_out_what_nobody_has_looked_at(start, open_page, textures, tmp_path):  # noqa: F811
    page = open_page(start().address, viewport=WIDE)
    to_view(page, "Gallery")
    page.wait_for_selector(".cell .open img.there")
    if page.is_visible(".more"):
        page.click(".more")
    page.select_option(".deed select", "move")
    page.fill(".deed input", str(tmp_path / "best"))
    page.keyboard.down("Enter")
    page.wait_for_selector(".dry-run[open]")
    page.keyboard.down("Enter")
    page.wait_for_timeout(300)
    page.keyboard.up("Enter")
    assert page.locator(".dry-run[open]").count() == 1 and len(list(textures.glob("*.png"))) == 36
    page.keyboard.press("Enter")
    page.wait_for_selector(".dry-run", state="detached")
    assert len(list(textures.glob("*.png"))) == 16


def test_the_page_at_the_end_leads_to_the_best_and_to_the_training(start, open_page):  # noqa: F811
    page = open_page(start().address, viewport=WIDE)
    answer_redder(page, 2)
    page.keyboard.press("q")
    page.keyboard.press("q")
    page.wait_for_selector(".summary")
    next_steps = page.get_by_role("group", name="What next").get_by_role("button")
    assert [text.split(" k")[0] for text in next_steps.all_inner_texts()][:4] == [
        *("Keep scoring", "Look at the best", "Train", "Copy the commands"),
    ]
    page.click(".next button:has-text('Train')")
    page.wait_for_selector("#train:not([hidden]) .train-buttons button")
    assert "aesthetic_predictor_training.py" in page.text_content(".commands")
    page.click(".train-buttons button:has-text('Keep scoring')")
    page.click(".next button:has-text('Look at the best')")
    page.wait_for_selector("#gallery:not([hidden]) .cell")


def test_thousands_of_pictures_scroll_with_few_of_them_in_the_page(start, open_page, tmp_path):  # noqa: F811
    folder = tmp_path / "many"
    folder.mkdir()
    for number in range(5000):
        Image.new("RGB", (8, 6), (number % 256, number // 20 % 256, 90)).save(folder / f"{number:04}.png")
    page = open_page(start(folder=folder).address, viewport=WIDE)
    to_view(page, "Gallery")
    page.wait_for_selector(".cell .open img.there")
    page.focus(".cell .open")
    page.keyboard.press("End")
    page.wait_for_function("() => document.activeElement.closest('.cell')?.place === 4999")
    assert page.evaluate("document.querySelectorAll('.cell').length") < 120
    page.wait_for_function("() => document.activeElement.querySelector('img').classList.contains('there')")
    item = page.locator(".cell:focus-within")
    assert (item.get_attribute("aria-setsize"), item.get_attribute("aria-posinset")) == ("5000", "5000")
    page.keyboard.press("Home")
    page.wait_for_function("() => document.activeElement.closest('.cell')?.place === 0")
