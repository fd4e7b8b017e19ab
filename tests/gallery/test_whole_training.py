"""A complete training that is started, watched and shown on the page, in a real browser."""

import threading

import pytest

from custom_aesthetic.base.local_server import open_socket
from custom_aesthetic.commands import page_gallery
from custom_aesthetic.commands.score_pairs import open_session
from custom_aesthetic.labelling.server import ABServer, serve
from custom_aesthetic.settings.arguments import parse_arguments
from custom_aesthetic.settings.scorers import ABArguments
from tests.labelling.test_page import open_page

__all__ = ["open_page"]  # a fixture

pytestmark = pytest.mark.slow
pytest.importorskip("matplotlib", reason="the report needs matplotlib")

SHORT = ("--feature_extractor_model=efficientnet-lite2", "--views=centre", "--name=recommended", "--trials=1")


@pytest.fixture
def served(colour_pictures, monkeypatch):
    """The page of 24 colours with 60 answers for red, whose training is short; the address, and the gallery's parts."""
    monkeypatch.setattr(page_gallery, "RECOMMENDED", (*SHORT, "--savefile=model_scores.csv"))
    arguments, _ = parse_arguments(ABArguments, ["-d", str(colour_pictures)], description="")
    session = open_session(arguments)
    for _ in range(60):
        pictures = session.group()["pictures"]
        session.choose(pictures, max(pictures, key=lambda path: path[-6:]), seconds=1, drawn="random", time=None)
    parts = page_gallery.make_gallery(session, arguments)
    server = ABServer(session, colour_pictures, more=parts.page())
    listener = open_socket(0)
    listener.listen()
    thread = threading.Thread(target=serve, args=(server, listener))
    thread.start()
    yield server.address(listener.getsockname()[1]), parts
    parts.stop()
    thread.join(30)
    assert not thread.is_alive()


def test_a_training_on_the_page_ends_with_its_verdict_its_report_and_its_scores_in_the_gallery(
    served, open_page, colour_pictures
):
    address, parts = served
    page = open_page(address, viewport={"width": 1440, "height": 900})
    page.click("#views button:has-text('Train')")
    page.click(".train-buttons button.main")
    page.wait_for_selector(".train-buttons button:has-text('Stop')")
    page.wait_for_selector(".verdict:has-text('The gallery shows its scores.')", timeout=150_000)
    assert parts.training.status()["verdict"]
    assert page.frame_locator(".report").locator("h1").first.is_visible()
    for name in ("model.safetensors", "report.html", "model_scores.csv"):
        assert (colour_pictures / name).exists()
    page.click("#views button:has-text('Gallery')")
    page.wait_for_function("() => document.querySelectorAll('.cell:not(.empty)').length === 24")
    assert page.input_value("#gallery select[aria-label='Scores by']") == "trained"
    best = parts.gallery.page("best", 0, 24)["items"]
    reds = [int(item["path"][-6:-4]) for item in best]
    assert sum(reds[:8]) > sum(reds[-8:])
    page.click("#views button:has-text('Score')")
    page.wait_for_selector(".choice img")
    for key in ("q", "q"):
        page.keyboard.press(key)
    page.wait_for_selector(".summary")
    page.click("#end")
    page.wait_for_selector(".closing:has-text('has ended')")
