"""Answers of every kind on the page, their undo, 100 %, the keys, and the end, in a real browser."""

import signal

import pytest

from custom_aesthetic.scores.choice_log import ComparisonLog
from tests.labelling.test_page import all_saved, finish, logged, next_group, open_page, shown, start

__all__ = ["open_page", "start"]  # fixtures

DESK = {"viewport": {"width": 1440, "height": 900}, "color_scheme": "light"}
PHONE = {"viewport": {"width": 390, "height": 844}, "color_scheme": "dark", "has_touch": True, "is_mobile": True}


def kinds(directory) -> list[str]:
    return [row.kind for row in ComparisonLog(directory / "comparisons.csv").answers()]


def press(page, *keys: str) -> None:
    for key in keys:
        before = shown(page)
        page.keyboard.press(key)
        next_group(page, before)


def group_shown(page) -> list[str]:
    return page.eval_on_selector_all(".group .frame > img", "images => images.map(image => image.dataset.path)")


def test_equal_is_a_tie_by_key_space_and_button_and_skip_asks_something_else(start, open_page, colour_pictures):
    page = open_page(start().address, **DESK)
    pair = shown(page)
    press(page, "3", " ")
    before = shown(page)
    page.click("#equal")
    next_group(page, before)
    skipped = frozenset(shown(page))
    seen = []
    for key in ("0", *"sssss"):
        press(page, key)
        seen.append(frozenset(shown(page)))
    assert skipped not in seen
    all_saved(page)
    rows = ComparisonLog(colour_pictures / "comparisons.csv").answers()
    assert [row.kind for row in rows] == ["tie"] * 3
    assert (rows[0].winner, rows[0].loser) == tuple(pair)


def test_digits_count_by_their_place_on_the_keyboard_as_on_a_french_one(start, open_page, colour_pictures):
    page = open_page(start().address)
    pair = shown(page)
    page.evaluate("document.dispatchEvent(new KeyboardEvent('keydown', { key: 'é', code: 'Digit2' }))")
    next_group(page, pair)
    all_saved(page)
    assert logged(colour_pictures) == [(pair[1], pair[0])]


def test_among_three_the_key_3_is_the_third_picture_and_space_is_equal(start, open_page, colour_pictures):
    page = open_page(start("--number_to_compare=3").address)
    third = shown(page)[2]
    press(page, "3", " ")
    all_saved(page)
    rows = ComparisonLog(colour_pictures / "comparisons.csv").answers()
    assert [row.kind for row in rows] == ["choice", "choice", "tie", "tie"]
    assert rows[0].winner == third


def test_a_double_click_counts_once_and_q_alone_does_not_finish(start, open_page, colour_pictures):
    page = open_page(start().address)
    pair = shown(page)
    page.dblclick(".choice >> nth=0")
    next_group(page, pair)
    all_saved(page)
    assert len(kinds(colour_pictures)) == 1
    page.keyboard.press("q")
    assert "again" in page.inner_text("#message")
    page.wait_for_timeout(2100)
    page.keyboard.press("q")
    page.wait_for_timeout(300)
    assert page.locator(".summary").count() == 0


@pytest.mark.slow
@pytest.mark.parametrize("screen", [DESK, PHONE], ids=["desk", "phone"])
def test_sixty_answers_of_stars_are_logged_as_given_and_undone(start, open_page, colour_pictures, screen):
    page = open_page(start("--mode=stars").address, selector=".single img", **screen)
    given = []
    for number in range(60):
        (picture,) = group_shown(page)
        given.append((picture, f"stars{1 + number % 5}"))
        page.keyboard.press(str(1 + number % 5))
        page.wait_for_function(
            "before => (document.querySelector('.single img')?.dataset.path ?? before) !== before",
            arg=picture,
        )
    assert page.evaluate("document.documentElement.scrollWidth") <= screen["viewport"]["width"]
    page.keyboard.press("u")
    page.wait_for_function("before => document.querySelector('.single img')?.dataset.path === before", arg=given[-1][0])
    all_saved(page)
    rows = ComparisonLog(colour_pictures / "comparisons.csv").answers()
    assert [(row.winner, row.kind) for row in rows] == given[:-1]


def rows_of(directory) -> list[tuple[str, frozenset[str], str]]:
    """Return kind, pictures and, of a choice, the winner, of each answer."""
    rows = ComparisonLog(directory / "comparisons.csv").answers()
    return [(row.kind, frozenset({row.winner, row.loser}) - {""}, row.winner * (row.kind == "choice")) for row in rows]


def given_to(page, key: str) -> tuple[str, frozenset[str], str]:
    """Answer the pair on screen; return what is to be logged."""
    pair = shown(page)
    press(page, key)
    kind, winner = ("tie", "") if key == "3" else ("choice", pair[int(key) - 1])
    return kind, frozenset(pair), winner


@pytest.mark.slow
def test_sixty_answers_of_a_phone_with_ties_marks_and_another_window_are_logged_and_undone_over_kinds(
    start, open_page, colour_pictures
):
    script = start()
    page = open_page(script.address, **PHONE)
    given = [given_to(page, "123"[number % 3]) for number in range(60)]
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    for kind, pictures, _ in (given.pop(), given.pop(), given.pop()):  # a tie and two choices
        press(page, "u")
        assert frozenset(shown(page)) == pictures, kind
    all_saved(page)
    assert rows_of(colour_pictures) == given

    other = open_page(script.address, context=page.context)
    other.click("#views button:has-text('Gallery')")
    other.wait_for_selector(".cell .open img.there")
    for key in ("ArrowDown", " ", "ArrowRight", "x"):
        other.keyboard.press(key)
    other.wait_for_selector(".cell[data-mark=reject]")
    assert [kind for kind, *_ in rows_of(colour_pictures)[-2:]] == ["keep", "reject"]
    other.click("#views button:has-text('Score')")
    for mark in ("reject", "keep"):
        other.keyboard.press("u")
        other.wait_for_selector(f"#message:has-text('Undone: {mark} for')")
    press(other, "u")
    _, pictures, _ = given.pop()  # an answer of the first window
    assert frozenset(shown(other)) == pictures
    assert rows_of(colour_pictures) == given

    for key in "123":
        given += [given_to(page, key)]
        all_saved(page)
        given += [given_to(other, key)]
        all_saved(other)
    assert rows_of(colour_pictures) == given
    assert page.inner_text("#count").startswith(f"{len(given) - 1} answers")


def pick(page, places: list[int]) -> list[str]:
    """Pick these pictures of the grid on screen, by keys, and go on; return the grid's pictures."""
    pictures = group_shown(page)
    page.wait_for_timeout(260)  # a second press at once would be that of a double click
    for place in places:
        page.locator(".choice").nth(place).press(" ")
    page.keyboard.press("Enter")
    next_group(page, pictures)
    return pictures


def picks_in(directory) -> list[tuple[frozenset[str], frozenset[str]]]:
    """Return the picked pictures and the others of each grid, by the log alone."""
    grids: dict[str, tuple[set[str], set[str]]] = {}
    for row in ComparisonLog(directory / "comparisons.csv").answers():
        assert row.kind == "pick"
        picked, others = grids.setdefault(row.time, (set(), set()))
        picked.add(row.winner)
        others.add(row.loser)
    return [(frozenset(picked), frozenset(others)) for picked, others in grids.values()]


@pytest.mark.parametrize("screen", [DESK, PHONE], ids=["desk", "phone"])
def test_sixty_answers_of_picks_are_logged_as_given_and_undone(start, open_page, colour_pictures, screen):
    page = open_page(start("--mode=pick").address, **screen)
    given = []
    for number in range(60):
        places = [(number + step) % 12 for step in range(0, 4 * (1 + number % 3), 4)]
        pictures = pick(page, places)
        picked = frozenset(pictures[place] for place in places)
        given.append((picked, frozenset(pictures) - picked))
    all_saved(page)
    assert picks_in(colour_pictures) == given
    assert page.inner_text("#count").startswith("60 answers")
    assert page.evaluate("document.documentElement.scrollWidth") <= screen["viewport"]["width"]
    for picked, others in reversed(given[-2:]):
        press(page, "u")
        assert frozenset(group_shown(page)) == picked | others
    all_saved(page)
    assert picks_in(colour_pictures) == given[:-2]


@pytest.mark.parametrize("screen", [DESK, PHONE], ids=["desk", "phone"])
def test_the_picked_pictures_of_a_grid_are_logged_above_the_others(start, open_page, colour_pictures, screen):
    page = open_page(start("--mode=pick").address, **screen)
    pictures = group_shown(page)
    assert len(pictures) == 12
    page.keyboard.press("ArrowRight")
    page.keyboard.press(" ")
    page.click(".choice >> nth=5")
    assert page.get_attribute(".choice >> nth=0", "aria-pressed") == "true"
    page.wait_for_timeout(300)
    page.keyboard.press("Enter")
    next_group(page, pictures)
    all_saved(page)
    rows = ComparisonLog(colour_pictures / "comparisons.csv").answers()
    assert {row.winner for row in rows} == {pictures[0], pictures[5]}
    assert (len(rows), {row.kind for row in rows}) == (20, {"pick"})


def test_undo_goes_back_over_answers_of_other_kinds_given_before(start, open_page, colour_pictures):
    script = start("--mode=stars")
    page = open_page(script.address, selector=".single img")
    (picture,) = group_shown(page)
    page.keyboard.press("4")
    all_saved(page)
    page.context.close()
    script.end(signal.SIGKILL)
    script = start("--mode=pick")
    page = open_page(script.address)
    pick(page, [2])
    all_saved(page)
    page.context.close()
    script.end(signal.SIGKILL)
    page = open_page(start().address)
    press(page, "3", "1")
    all_saved(page)
    assert kinds(colour_pictures) == ["stars4", *["pick"] * 11, "tie", "choice"]
    press(page, "u", "u")
    all_saved(page)
    for said in ("pick for", f"stars4 for {picture.split('/')[-1]}"):
        page.keyboard.press("u")
        page.wait_for_selector(f"#message:has-text('Undone: {said}')")
    all_saved(page)
    assert kinds(colour_pictures) == []
    page.keyboard.press("u")
    page.wait_for_selector("#message:has-text('There is nothing to undo.')")


def test_an_answer_that_another_window_has_undone_is_not_shown_as_undone_again(start, open_page, colour_pictures):
    page = open_page(start().address)
    press(page, "1", "2")
    all_saved(page)
    other = open_page(page.url, context=page.context)
    press(other, "u")
    all_saved(other)
    before = shown(page)
    page.keyboard.press("u")
    page.wait_for_selector("#message:has-text('undone already, in another window')")
    assert shown(page) == before
    assert len(kinds(colour_pictures)) == 1
    press(page, "u")  # the answer before that
    all_saved(page)
    assert kinds(colour_pictures) == []
    assert len(ComparisonLog(colour_pictures / "comparisons.csv").rows) == 4


def test_an_undo_while_the_server_is_away_shows_the_pair_again_and_is_kept(start, open_page, colour_pictures):
    script = start()
    page = open_page(script.address)
    pair = shown(page)
    press(page, "1")
    all_saved(page)
    page.wait_for_timeout(500)  # the next pairs are loaded
    script.end(signal.SIGKILL)
    page.keyboard.press("u")
    page.wait_for_function("pair => document.querySelector('.choice img')?.dataset.path === pair[0]", arg=pair)
    with page.expect_navigation(timeout=30_000):
        start(port=script.port)
    page.wait_for_selector(".choice img")
    all_saved(page)
    assert kinds(colour_pictures) == []
    open_page.heard[:] = [text for text in open_page.heard if "ERR_CONNECTION" not in text and "403" not in text]


def test_100_percent_shows_both_pictures_at_the_same_place_by_key_wheel_and_hold(start, open_page, colour_pictures):
    page = open_page(start().address)
    page.keyboard.press("z")
    page.wait_for_function("() => document.querySelectorAll('.lens.ready').length === 2")
    page.keyboard.press("Escape")
    assert page.locator(".lens").count() == 0
    page.hover(".choice >> nth=0")
    page.mouse.wheel(0, -100)
    page.wait_for_selector(".lens.ready")
    moved = page.eval_on_selector_all(".lens img", "all => all.map(image => image.style.transform)")
    assert moved[0] == moved[1]
    page.mouse.wheel(0, 100)
    page.wait_for_function("() => document.querySelectorAll('.lens').length === 0")
    page.mouse.down()
    page.wait_for_selector(".lens.ready")
    page.mouse.up()
    page.wait_for_function("() => document.querySelectorAll('.lens').length === 0")
    page.wait_for_timeout(200)
    assert kinds(colour_pictures) == [], "holding a picture is no choice"


def test_names_sizes_and_all_keys_are_shown_on_demand(start, open_page):
    page = open_page(start().address)
    assert page.locator(".caption:not([hidden])").count() == 0
    page.keyboard.press("i")
    page.wait_for_function("() => document.querySelector('.caption').textContent.includes('×')")
    page.keyboard.press("?")
    assert "both are equally good" in page.inner_text("#help")
    page.keyboard.press("1")  # not an answer while the dialog is open
    page.keyboard.press("Escape")
    assert page.locator("dialog[open]").count() == 0
    assert page.inner_text("#count").startswith("0 answers")


def test_a_screen_reader_finds_the_question_the_pictures_the_actions_and_the_progress(start, open_page):
    page = open_page(start("--question=Which is sharper?").address, **DESK)
    assert page.get_by_role("heading", name="Which is sharper?").is_visible()
    for name in ("Choose picture 1", "Choose picture 2", "Undo", "Equal", "Skip", "Finish"):
        assert page.get_by_role("button", name=name).is_visible()
    assert page.get_by_role("status", name="Progress of the model").count() == 1
    assert page.get_attribute("#learned", "aria-live") == "polite"
    assert page.title() == "Which is sharper?"


def test_closing_the_last_tab_ends_the_script_and_a_reload_does_not(start, open_page, colour_pictures):
    script = start()
    left = open_page(script.address)
    right = open_page(script.address, context=left.context)
    press(left, "1")
    all_saved(left)
    left.close(run_before_unload=True)
    right.reload()
    right.wait_for_selector(".choice img")
    right.wait_for_timeout(6000)
    assert script.process.poll() is None
    press(right, "2")
    all_saved(right)
    right.close(run_before_unload=True)
    assert script.wait() == 0
    assert len(kinds(colour_pictures)) == 2


def test_the_end_offers_to_keep_scoring(start, open_page, colour_pictures):
    script = start()
    page = open_page(script.address)
    press(page, "1")
    finish(page)
    page.keyboard.press("k")
    page.wait_for_selector(".choice img")
    press(page, "2")
    finish(page)
    assert page.inner_text(".summary h1").startswith("2 answers")
    page.click("#end")
    assert script.wait() == 0


def test_a_criterion_keeps_its_answers_and_scores_in_files_of_its_own(start, open_page, colour_pictures):
    page = open_page(start("--criterion=sharpness").address)
    assert page.inner_text("#question") == "sharpness: Which do you like more?"
    press(page, "1")
    finish(page)
    assert (colour_pictures / "comparisons-sharpness.csv").exists()
    assert (colour_pictures / "scores-sharpness.json").exists()
    assert not (colour_pictures / "comparisons.csv").exists()
