"""The gallery's part of the server: the same protections, bounded requests, and a report that can do nothing."""

import socket
import warnings
from concurrent.futures import ThreadPoolExecutor
from time import monotonic, sleep

import numpy as np
import pytest

from custom_aesthetic.base import local_server
from custom_aesthetic.commands import page_gallery
from custom_aesthetic.commands.page_gallery import REPORT, make_gallery
from custom_aesthetic.commands.score_pairs import open_session, score_by_comparisons
from custom_aesthetic.gallery.model_work import Learnt
from custom_aesthetic.labelling.server import ABServer
from custom_aesthetic.scores.choice_log import ComparisonLog
from custom_aesthetic.settings.arguments import parse_arguments
from custom_aesthetic.settings.scorers import ABArguments

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    testclient = pytest.importorskip("starlette.testclient", reason="starlette's test client needs httpx")

HOME = "http://127.0.0.1:8111"
APIS = (
    *("learner", "learner/extract", "learner/cancel", "learner/decline", "gallery", "mark", "disagreements", "settle"),
    *("choose/count", "choose/plan", "choose/do", "choose/undo", "training", "training/start", "training/cancel"),
)


@pytest.fixture
def parts(colour_pictures):
    arguments, _ = parse_arguments(ABArguments, ["-d", str(colour_pictures)], description="")
    made = make_gallery(open_session(arguments), arguments)
    yield made
    made.stop()


@pytest.fixture
def client(parts, colour_pictures):
    server = ABServer(parts.gallery.session, colour_pictures, token="secret", more=parts.page())
    return testclient.TestClient(server.app(), base_url=HOME)


def post(client, name, body, **headers):
    return client.post(f"/api/{name}", json={"window": "one", **body}, headers={"X-Token": "secret", **headers})


def learn(parts, liked=lambda number: float(number)) -> None:
    """Let the model have learnt a score for each picture."""
    row_of = parts.gallery.session.scores.row_of
    scores = np.zeros(len(row_of))
    for number, path in enumerate(parts.gallery.session.plan.paths[:24]):
        scores[number] = liked(int(path[-6:-4]))
    parts.learner.learnt = Learnt(scores, np.linspace(1, 2, len(scores)), scores, np.eye(len(scores)))
    parts.learner.version = 1


@pytest.mark.parametrize("name", APIS)
def test_every_request_needs_the_token_and_the_own_page(client, name):
    assert client.post(f"/api/{name}", json={}).status_code == 403
    assert post(client, name, {}, Origin="http://evil.example").status_code == 403
    assert post(client, name, {}, Host="evil.example").status_code == 403
    assert client.get(f"/api/{name}", headers={"X-Token": "secret"}).status_code == 405


def test_a_page_that_cannot_be_opened_leaves_no_temporary_folder(colour_pictures, monkeypatch):
    def interrupted(address):
        raise KeyboardInterrupt

    made = []
    real = page_gallery.make_gallery
    monkeypatch.setattr(page_gallery, "make_gallery", lambda *both: made.append(real(*both)) or made[0])
    monkeypatch.setattr("webbrowser.open", interrupted)
    arguments, _ = parse_arguments(ABArguments, ["-d", str(colour_pictures), "--port=0"], description="")
    monkeypatch.setattr(local_server, "open_socket", lambda *given, **named: listener)
    with socket.create_server(("127.0.0.1", 0)) as listener, pytest.raises(KeyboardInterrupt):
        score_by_comparisons(arguments)
    assert not made[0].learner.folder.exists()


def test_the_page_loads_the_gallery_and_may_frame_only_its_own_report(client):
    page = client.get("/")
    assert 'src="gallery.js"' in page.text
    assert "frame-src 'self'" in page.headers["content-security-policy"]
    for name in ("gallery.js", "gallery.css", "grid.js", "train.js"):
        assert client.get(f"/{name}").status_code == 200


def test_the_report_is_shown_without_any_right(client, colour_pictures):
    assert client.get("/report").status_code == 404
    (colour_pictures / REPORT).write_text("<script>alert(1)</script><style>p{}</style>")
    answer = client.get("/report")
    policy = answer.headers["content-security-policy"]
    assert answer.status_code == 200
    assert policy.endswith("sandbox") and "script-src" not in policy and "default-src 'none'" in policy
    assert client.get("/report", headers={"Host": "evil.example"}).status_code == 403
    assert client.get("/report", headers={"Sec-Fetch-Site": "cross-site"}).status_code == 403


def test_the_gallery_comes_in_parts_in_every_order(client, parts):
    learn(parts)
    best = post(client, "gallery", {"order": "best", "start": 0, "count": 5}).json()
    assert [item["path"][-6:-4] for item in best["items"]] == ["23", "22", "21", "20", "19"]
    assert (best["total"], best["source"], best["sources"]) == (24, "model", ["model"])
    last = post(client, "gallery", {"order": "best", "start": 23, "count": 500}).json()
    assert [item["path"] for item in last["items"]] == ["cold/00.png"]
    worst = post(client, "gallery", {"order": "worst", "start": 0, "count": 1}).json()
    assert worst["items"][0]["path"] == "cold/00.png"
    unsure = post(client, "gallery", {"order": "unsure", "start": 0, "count": 24}).json()
    sigmas = [item["sigma"] for item in unsure["items"]]
    assert sigmas == sorted(sigmas, reverse=True)
    answers = post(client, "gallery", {"order": "best", "start": 0, "count": 1, "source": "answers"}).json()
    assert answers["source"] == "answers"


@pytest.mark.parametrize(
    ("name", "body"),
    [
        ("gallery", {"order": "best", "start": -1, "count": 5}),
        ("gallery", {"order": "best", "start": 0, "count": True}),
        ("gallery", {"order": "other", "start": 0, "count": 5}),
        ("gallery", {"order": "best", "start": 0, "count": 5, "source": "other"}),
        ("mark", {"picture": "../secret.png", "mark": "keep"}),
        ("mark", {"picture": "cold/00.png", "mark": "love"}),
        ("settle", {"answer": "2026-01-01T00:00:00+00:00", "change": True}),
        ("choose/do", {"name": "guessed"}),
        ("choose/undo", {}),
    ],
)
def test_what_makes_no_sense_is_refused_and_logs_nothing(client, colour_pictures, name, body):
    answer = post(client, name, body)
    assert answer.status_code == 400 and answer.json()["error"]
    assert not (colour_pictures / "comparisons.csv").exists()


def test_an_answer_that_the_model_disagrees_with_is_kept_or_changed(client, parts, colour_pictures):
    session = parts.gallery.session
    odd = [session.choose(["cold/02.png", "warm/21.png"], "cold/02.png", seconds=1, drawn="model", time=None)]
    odd.append(session.choose(["cold/04.png", "warm/11.png"], "cold/04.png", seconds=1, drawn="model", time=None))
    session.choose(["cold/00.png", "warm/23.png"], "warm/23.png", seconds=1, drawn="model", time=None)
    learn(parts)
    told = post(client, "disagreements", {}).json()["answers"]
    assert [(one["chosen"], one["other"]) for one in told] == [
        ("cold/02.png", "warm/21.png"),
        ("cold/04.png", "warm/11.png"),
    ]
    assert post(client, "settle", {"answer": odd[0], "change": True}).status_code == 200
    assert post(client, "settle", {"answer": odd[1], "change": False}).status_code == 200
    assert post(client, "disagreements", {}).json()["answers"] == []
    answers = {(row.winner, row.loser) for row in ComparisonLog(colour_pictures / "comparisons.csv").answers()}
    assert answers == {
        ("warm/21.png", "cold/02.png"),
        ("cold/04.png", "warm/11.png"),
        ("warm/23.png", "cold/00.png"),
    }


def test_an_answer_that_two_windows_change_at_once_is_changed_once(parts, colour_pictures, monkeypatch):
    session, gallery = parts.gallery.session, parts.gallery
    time = session.choose(["cold/02.png", "warm/21.png"], "cold/02.png", seconds=1, drawn="model", time=None)
    real = session.undo
    monkeypatch.setattr(session, "undo", lambda given: (sleep(0.2), real(given)))
    with ThreadPoolExecutor(2) as pool:
        both = [pool.submit(gallery.settle, time, True) for _ in range(2)]
    assert sum(one.exception() is None for one in both) == 1
    rows = ComparisonLog(colour_pictures / "comparisons.csv").answers()
    assert [(row.winner, row.loser) for row in rows] == [("warm/21.png", "cold/02.png")]


def test_a_picture_that_two_windows_mark_at_once_has_one_mark(parts, colour_pictures, monkeypatch):
    session, gallery = parts.gallery.session, parts.gallery
    real = session.mark
    monkeypatch.setattr(session, "mark", lambda path, keep, time: (sleep(0.2), real(path, keep=keep, time=time)))
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda mark: gallery.mark("cold/02.png", mark, None), ("keep", "reject")))
    assert len(ComparisonLog(colour_pictures / "comparisons.csv").answers()) == 1


def test_the_order_by_answers_follows_an_answer_that_was_changed(parts):
    session, gallery = parts.gallery.session, parts.gallery
    time = session.choose(["cold/02.png", "warm/21.png"], "cold/02.png", seconds=1, drawn="random", time=None)
    session.scores.update()
    before = gallery.page("best", 0, 1, "answers")
    gallery.settle(time, True)
    session.scores.update()
    after = gallery.page("best", 0, 1, "answers")
    assert [page["items"][0]["path"] for page in (before, after)] == ["cold/02.png", "warm/21.png"]
    assert before["version"] != after["version"]


def test_where_the_trained_model_does_not_say_what_is_unsure_the_model_beside_the_page_does(client, parts):
    learn(parts)
    parts.gallery.use_trained(np.arange(24.0))
    unsure = post(client, "gallery", {"order": "unsure", "start": 0, "count": 24}).json()
    sigmas = [item["sigma"] for item in unsure["items"]]
    assert unsure["source"] == "model" and sigmas == sorted(sigmas, reverse=True)
    assert post(client, "gallery", {"order": "best", "start": 0, "count": 1}).json()["source"] == "trained"


def test_stars_and_marks_teach_the_model_beside_the_page(parts):
    session, learner = parts.gallery.session, parts.learner
    paths = list(session.plan.paths[:24])
    warmth = np.array([[float(path[-6:-4])] for path in paths])
    in_order = [paths[place] for place in np.argsort(warmth[:, 0])]
    for path in (*in_order[:2], *in_order[-2:]):
        session.mark(path, keep=path in in_order[-2:], time=None)
    learner._learn_from(learner._prior_of(paths, (warmth - warmth.mean()) / warmth.std()))
    deadline = monotonic() + 60
    while learner.learnt is None and monotonic() < deadline:
        sleep(0.05)
    assert learner.learnt is not None and len(learner.learnt.scores) == len(session.plan.paths)
    assert np.corrcoef(learner.learnt.scores[:24], warmth[:, 0])[0, 1] > 0.9


def test_pairs_are_drawn_by_the_model_when_there_is_one(parts):
    learn(parts)
    parts.gallery.session.model_standing = parts.learner.standing
    groups = [parts.gallery.session.group() for _ in range(40)]
    assert {group["drawn"] for group in groups} == {"model"}


def test_the_sentence_says_what_is_known(client, parts):
    assert post(client, "learner", {}).json()["sentence"] is None
    parts.learner.worth = {"right": [0.68, 0.6, 0.75], "more": 150, "forecast": [0.73, 0.65, 0.8]}
    sentence = post(client, "learner", {}).json()["sentence"]
    assert sentence == "A first model: 68 of 100 pairs right (60\N{EN DASH}75). About 150 more answers: 73."
    parts.learner.worth = {**parts.learner.worth, "forecast": None}
    assert parts.learner.sentence() == "A first model: 68 of 100 pairs right (60\N{EN DASH}75)."
