"""The page for those who hear it, and for those whom motion disturbs, in a real browser."""

import re

import pytest

from tests.labelling.test_page import finish, open_page, start

__all__ = ["open_page", "start"]  # fixtures

DESK = {"viewport": {"width": 1440, "height": 900}}

ALWAYS = [
    'navigation "Views"',
    *('button "Score"', 'button "Gallery"', 'button "Train"'),
    "paragraph: 0 answers · 0 of 24 pictures",
    'status "Progress of the model"',
    'toolbar "Actions"',
    'region "Score"',
    *('button "Undo u"', 'button "Skip 0"', 'button "Info i"', 'button "Finish q"', 'button "?"'),
]
MODES = {
    "pair": [
        'heading "Which do you like more?" [level=1]',
        *(r'button "Choose picture 1, \d\d.png"', r'button "Choose picture 2, \d\d.png"'),
        *(r'img "\d\d.png"', 'button "Equal 3"'),
    ],
    "stars": [
        'heading "How much do you like it?" [level=1]',
        *(r'img "\d\d.png"', 'group "Stars"', 'button "1 star"', 'button "2 stars"', 'button "5 stars"'),
    ],
    "pick": [
        'heading "Which do you like?" [level=1]',
        *(r'button "Picture 1, \d\d.png" [pressed]', r'button "Picture 12, \d\d.png"', 'button "Next (1) enter"'),
    ],
}
"""Mode -> lines of what a screen reader finds, beside those of ALWAYS; `\\d` is any digit."""


def lines_of(tree: str) -> list[str]:
    """Return the lines of Playwright's picture of the accessibility tree, without their marks and quotes."""
    return [line.strip().removeprefix("- ").replace("'", "").removesuffix(":") for line in tree.splitlines()]


def assert_found(wanted: list[str], tree: str) -> None:
    lines = lines_of(tree)
    missing = [one for one in wanted if not any(_same(one, line) for line in lines)]
    assert missing == [], tree


def _same(wanted: str, line: str) -> bool:
    """Return whether the line is the wanted one, whatever text it contains."""
    return re.fullmatch(re.escape(wanted).replace(r"\\d", r"\d") + "(: .*)?", line) is not None


@pytest.mark.parametrize("mode", MODES)
def test_a_screen_reader_finds_question_pictures_actions_and_progress_in_every_mode(start, open_page, mode):
    page = open_page(start(f"--mode={mode}").address, selector=".group img", **DESK)
    if mode == "pick":
        page.keyboard.press("ArrowRight")
        page.keyboard.press(" ")
    assert_found([*ALWAYS, *MODES[mode]], page.locator("body").aria_snapshot())
    assert page.get_attribute("#learned", "aria-live") == "polite"
    page.keyboard.press("?")
    assert_found(['dialog "Keys"', "term: u or backspace", 'button "Close"'], page.locator("body").aria_snapshot())


def test_a_screen_reader_finds_its_way_through_gallery_training_and_end(start, open_page):
    page = open_page(start().address, **DESK)
    page.keyboard.press("1")
    page.click("#views button:has-text('Gallery')")
    page.wait_for_selector(".cell .open img.there")
    page.wait_for_selector(".chosen:has-text('20 of 24 chosen')")
    assert_found(
        [
            *('radiogroup "Order of the pictures"', 'radio "Best" [checked]', 'radio "Disagrees"', 'list "Pictures"'),
            *(r'button "1: \d\d.png"', r'button "Keep \d\d.png"', r'button "Reject \d\d.png"', 'textbox "Folder"'),
            *('form "Choose pictures"', 'slider "Number of best pictures"', 'combobox "What to do"'),
            *('button "Look first…"', "status: 20 of 24 chosen"),
        ],
        page.locator("body").aria_snapshot(),
    )
    page.click(".cell .open")
    page.wait_for_selector(".lightbox[open]")
    assert_found(
        ['dialog "Picture"', 'button "Keep space"', 'button "Reject x"', 'link "Original size"', 'button "Close esc"'],
        page.locator("body").aria_snapshot().replace(" [active]", ""),
    )
    page.keyboard.press("Escape")
    page.click("#views button:has-text('Train')")
    page.wait_for_selector(".train-buttons button")
    assert_found(
        [
            'region "Train"',
            'heading "Train a model on your answers" [level=1]',
            'button "Train"',
            'button "Keep scoring"',
        ],
        page.locator("body").aria_snapshot(),
    )
    page.click("#views button:has-text('Score')")
    finish(page)
    assert_found(
        [
            *('heading "1 answer, 2 of 24 pictures seen" [level=1]', 'group "What next"', 'button "Keep scoring k"'),
            *('button "Look at the best"', 'button "Copy the commands"', 'button "End q"'),
        ],
        page.locator("body").aria_snapshot(),
    )


COUNT_MOTION = """() => {
    window.moved = [];
    for (const kind of ["animationstart", "transitionrun"])
        document.addEventListener(kind, (event) => moved.push(event.animationName ?? event.propertyName), true);
    const animate = Element.prototype.animate;
    Element.prototype.animate = function (...all) { moved.push("animate"); return animate.apply(this, all); };
}"""


@pytest.mark.parametrize("motion", ["reduce", "no-preference"])
def test_with_reduced_motion_nothing_moves_in_any_view_and_without_it_something_does(start, open_page, motion):
    page = open_page(start().address, reduced_motion=motion, **DESK)
    page.evaluate(COUNT_MOTION)
    answer = {"sources": ["model"], "source": "model", "total": 24, "version": "model-1", "start": 0}
    best = [{"path": f"cold/{number:02}.png", "score": 1.0, "sigma": 0.1, "mark": None} for number in range(0, 24, 2)]
    learnt = {
        "state": "learning",
        "version": 1,
        "sentence": "A first model: 68 of 100 pairs right (60-75).",
        "missing": 0,
    }
    page.route("**/api/gallery", lambda route: route.fulfill(json={**answer, "items": best}))
    page.route("**/api/learner", lambda route: route.fulfill(json={**learnt, "version": len(best)}))
    for key in "123u":
        page.keyboard.press(key)
        page.wait_for_timeout(350)  # a flash takes 260 ms
    page.wait_for_selector("#beside:not([hidden]) li img", timeout=20_000)
    best.reverse()
    best.pop()  # another version, in which pictures change their places
    page.wait_for_function("() => document.querySelector('#beside img').alt === '22.png'", timeout=20_000)
    for view in ("Gallery", "Train", "Score"):
        page.click(f"#views button:has-text('{view}')")
        page.wait_for_timeout(300)
    for key in ("?", "Escape", "z", "Escape", "q", "q"):
        page.keyboard.press(key)
        page.wait_for_timeout(200)
    moved = page.evaluate("moved")
    assert moved == [] if motion == "reduce" else {"animate", "flash", "appear"} <= set(moved)
