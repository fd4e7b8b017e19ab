"""A complete training that is started, watched and shown on the page, in a real browser."""

import os
import re
import signal
import threading
from pathlib import Path

import pytest

from custom_aesthetic.base.local_server import open_socket
from custom_aesthetic.commands import page_gallery
from custom_aesthetic.commands.score_pairs import open_session, score_by_comparisons
from custom_aesthetic.labelling.server import ABServer, serve
from custom_aesthetic.settings.arguments import parse_arguments
from custom_aesthetic.settings.scorers import ABArguments
from tests.gallery.test_training import wait_for
from tests.labelling.test_page import Script, open_page

__all__ = ["open_page"]  # a fixture

pytestmark = pytest.mark.slow
pytest.importorskip("matplotlib", reason="the report needs matplotlib")

SHORT = ("--feature_extractor_model=efficientnet-lite2", "--views=centre", "--name=recommended", "--trials=1")


@pytest.fixture
def scored(colour_pictures, monkeypatch):
    """The arguments of the page of 24 colours with 60 answers for red, whose training is short; and its session."""
    monkeypatch.chdir(colour_pictures.parent)
    monkeypatch.setattr(page_gallery, "RECOMMENDED", (*SHORT, "--savefile=model_scores.csv"))
    options = ["-d", str(colour_pictures), "--no_browser", "--port=0"]
    arguments, _ = parse_arguments(ABArguments, options, description="")
    session = open_session(arguments)
    for _ in range(60):
        pictures = session.group()["pictures"]
        session.choose(pictures, max(pictures, key=lambda path: path[-6:]), seconds=1, drawn="random", time=None)
    return arguments, session


@pytest.fixture
def served(scored, colour_pictures):
    """The page of `scored`: its address, and the gallery's parts."""
    arguments, session = scored
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


def test_a_training_goes_on_after_the_page_is_closed_and_the_terminal_says_how_good_its_model_is(
    scored, open_page, colour_pictures, caplog
):
    arguments, _ = scored
    caplog.set_level("INFO", logger="custom_aesthetic")
    thread = threading.Thread(target=score_by_comparisons, args=(arguments,))
    thread.start()
    wait_for(lambda: "open http" in caplog.text)
    page = open_page(re.findall(r"open (http\S+)", caplog.text)[-1])
    page.click("#views button:has-text('Train')")
    page.click(".train-buttons button.main")
    page.wait_for_selector(".verdict:has-text('You can close this page')")
    page.close(run_before_unload=True)
    thread.join(240)
    assert not thread.is_alive()
    assert "the page is closed; the training goes on" in caplog.text
    said = caplog.text.partition("the page is closed")[2]
    assert "times in 100" in said
    assert f"the trained model is in {colour_pictures / 'model.safetensors'}" in said
    assert (colour_pictures / "model.safetensors").exists()


@pytest.mark.skipif(os.name != "posix", reason="signals and /proc")
def test_ctrl_c_stops_a_training_that_goes_on_after_the_page_is_closed(scored, open_page, colour_pictures):
    script = Script(colour_pictures)
    page = open_page(script.address)
    page.click("#views button:has-text('Train')")
    page.click(".train-buttons button.main")
    page.wait_for_selector(".verdict:has-text('You can close this page')")
    page.close(run_before_unload=True)
    assert script.process.stdout is not None
    for line in script.process.stdout:
        script.output += line
        if "the training goes on" in line:
            break
    assert script.end(signal.SIGINT) == 130, script.output
    assert "the training was stopped; the next one goes on from the trials that it has finished" in script.output

    def is_trained() -> bool:
        commands = [file.read_bytes() for file in Path("/proc").glob("[0-9]*/cmdline") if file.exists()]
        return any(os.fsencode(colour_pictures) in one and b"scripts.training" in one for one in commands)

    wait_for(lambda: not is_trained())
