"""The server of the page refuses other hosts, other origins, other paths, and choices without the token."""

import io
import json
import os
import socket
import threading
import warnings
from pathlib import Path

import pytest
from PIL import Image, ImageFile

from custom_aesthetic.base.errors import UserError
from custom_aesthetic.base.local_server import open_socket
from custom_aesthetic.commands.score_pairs import open_session
from custom_aesthetic.labelling.phone import addresses, qr_code
from custom_aesthetic.labelling.pictures import PictureCache
from custom_aesthetic.labelling.server import ABServer, MoreOfThePage, serve
from custom_aesthetic.labelling.web import Windows
from custom_aesthetic.pictures.images import BadImage
from custom_aesthetic.scores.choice_log import ComparisonLog
from custom_aesthetic.settings.arguments import parse_arguments
from custom_aesthetic.settings.scorers import ABArguments
from tests.mutations import mutations

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    httpx = pytest.importorskip("httpx")
    testclient = pytest.importorskip("starlette.testclient", reason="starlette's test client needs httpx")

HOME = "http://127.0.0.1:8111"
CHOICE = {"pictures": ["cold/00.png", "warm/01.png"], "winner": "warm/01.png", "drawn": "adaptive", "seconds": 1.5}


@pytest.fixture
def server(colour_pictures):
    arguments, _ = parse_arguments(ABArguments, ["-d", str(colour_pictures)], description="")
    return ABServer(open_session(arguments), colour_pictures, token="secret")


@pytest.fixture
def client(server):
    return testclient.TestClient(server.app(), base_url=HOME)


def post(client, name, body, **headers):
    return client.post(f"/api/{name}", json={"window": "one", **body}, headers={"X-Token": "secret", **headers})


def test_the_page_carries_the_token_and_a_strict_policy(client):
    answer = client.get("/")
    assert 'content="secret"' in answer.text
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert "access-control-allow-origin" not in answer.headers
    for name in ("/style.css", "/main.js"):
        assert client.get(name).status_code == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8111", "127.0.0.1.evil.example:8111", "0.0.0.0:8111", ""]
)
def test_other_hosts_are_refused_everywhere(client, host):
    for path in ("/", "/main.js", "/picture?path=cold/00.png"):
        assert client.get(path, headers={"Host": host}).status_code == 403
    assert post(client, "choice", CHOICE, Host=host).status_code == 403


@pytest.mark.parametrize("host", ["127.0.0.1:8111", "localhost:8111", "localhost"])
def test_this_machine_by_number_or_name_is_served(client, host):
    assert client.get("/", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    "origin",
    ["http://evil.example", "http://localhost:8111", "http://127.0.0.1:9999", "null", "https://127.0.0.1:8111"],
)
def test_other_origins_are_refused(client, colour_pictures, origin):
    assert post(client, "choice", CHOICE, Origin=origin).status_code == 403
    assert not (colour_pictures / "comparisons.csv").exists()


def test_pictures_are_not_served_into_other_sites_pages(client):
    assert client.get("/picture?path=cold/00.png", headers={"Sec-Fetch-Site": "cross-site"}).status_code == 403
    assert client.get("/picture?path=cold/00.png", headers={"Sec-Fetch-Site": "same-origin"}).status_code == 200


@pytest.mark.parametrize("token", ["", "wrong", "secret2", "sécret"])
def test_a_choice_without_the_token_is_refused(client, colour_pictures, token):
    answer = client.post("/api/choice", json=CHOICE, headers={"X-Token": token.encode()})
    assert answer.status_code == 403
    assert not (colour_pictures / "comparisons.csv").exists()


def test_a_choice_with_the_token_is_logged(client, colour_pictures):
    answer = post(client, "choice", CHOICE, Origin=HOME)
    assert answer.status_code == 200
    assert answer.json()["progress"]["choices"] == 1
    (row,) = ComparisonLog(colour_pictures / "comparisons.csv").choices()
    assert (row.winner, row.loser, row.seconds) == ("warm/01.png", "cold/00.png", 1.5)


@pytest.mark.parametrize(
    "path",
    [
        "../secret.png",
        "cold/../../secret.png",
        "..%2Fsecret.png",
        "/etc/passwd",
        "cold\\..\\..\\secret.png",
        "comparisons.csv",
        "cold/00.png/",
        "",
        "cold/00.png%00",
    ],
)
def test_only_the_pictures_of_the_directory_are_served(client, colour_pictures, path):
    Image.new("RGB", (9, 9)).save(colour_pictures.parent / "secret.png")
    answer = client.get(f"/picture?path={path}")
    assert answer.status_code == 404
    assert client.get("/picture?path=cold/00.png").status_code == 200
    assert client.get("/../secret.png").status_code == 404


@pytest.mark.parametrize(
    "body",
    [
        {"pictures": "cold/00.png"},
        {"pictures": [1, 2]},
        {"winner": "cold/02.png"},
        {"winner": None},
        {"drawn": "undo"},
        {"time": "yesterday"},
        {"time": "2026-01-01T00:00:00"},
        {"time": 5},
        {"time": "2026-01-01T00:00:00+00:00\n1,a,b,1,,random"},
    ],
)
def test_a_malformed_choice_is_refused_and_not_logged(client, colour_pictures, body):
    assert post(client, "choice", {**CHOICE, **body}).status_code == 400
    assert not (colour_pictures / "comparisons.csv").exists()


@pytest.mark.parametrize("seconds, logged", [(-1, 0.0), ("x", 0.0), (None, 0.0), (1e9, 3600.0), (True, 0.0)])
def test_invalid_seconds_do_not_prevent_a_choice(client, colour_pictures, seconds, logged):
    assert post(client, "choice", {**CHOICE, "seconds": seconds}).status_code == 200
    assert ComparisonLog(colour_pictures / "comparisons.csv").choices()[0].seconds == logged


@pytest.mark.parametrize(
    "content, kind, status",
    [
        (b"{}", "text/plain", 415),
        (b"{", "application/json", 400),
        (b"[]", "application/json", 400),
        (b"x" * 70_000, "application/json", 413),
    ],
)
def test_requests_other_than_small_json_objects_are_refused(client, content, kind, status):
    headers = {"X-Token": "secret", "Content-Type": kind}
    assert client.post("/api/choice", content=content, headers=headers).status_code == status


def test_a_full_disk_is_reported_to_the_page_which_tries_again(client, server, monkeypatch):
    def full(rows):
        raise UserError("comparisons.csv cannot be written: the disk is full; free space")

    monkeypatch.setattr(server.session._log, "append", full)
    answer = post(client, "choice", CHOICE)
    assert answer.status_code == 503
    assert "disk is full" in answer.json()["error"]


def test_the_server_ends_when_the_last_window_has_finished(client, server):
    for window in ("one", "two"):
        post(client, "open", {"window": window})
    assert post(client, "finish", {"window": "one"}).json()["others"] == 1
    post(client, "leave", {"window": "one"})
    assert not server.windows.all_gone()
    assert post(client, "finish", {"window": "two"}).json()["others"] == 0
    post(client, "leave", {"window": "two"})
    assert server.windows.all_gone()


def test_a_broken_picture_is_left_out_of_the_session(client, server, colour_pictures):
    (colour_pictures / "cold" / "00.png").write_bytes(b"no picture")
    assert client.get("/picture?path=cold/00.png").status_code == 422
    assert server.session.progress()["unusable"] == 1


def test_the_socket_is_bound_to_this_machine_alone():
    listener = open_socket(0)
    try:
        assert listener.getsockname()[0] == "127.0.0.1"
        listener.listen()
        with pytest.raises(UserError, match="--port"):
            open_socket(listener.getsockname()[1])
    finally:
        listener.close()
    assert isinstance(listener, socket.socket)


# --- pictures ---------------------------------------------------------------------------------------------------


def decoded(content: bytes) -> Image.Image:
    return Image.open(io.BytesIO(content))


def test_large_pictures_are_sent_no_larger_than_requested(tmp_path):
    Image.new("RGB", (3000, 1500), (200, 30, 30)).save(tmp_path / "large.png")
    content, kind = PictureCache(tmp_path).get("large.png", 900)
    assert (kind, decoded(content).size) == ("image/jpeg", (1024, 512))


def test_a_jpeg_decoded_smaller_is_not_resized_where_that_gives_nearly_what_was_asked_for(tmp_path):
    Image.effect_noise((4000, 3000), 60).convert("RGB").save(tmp_path / "camera.jpg")
    sizes = {
        size: decoded(PictureCache(tmp_path).get("camera.jpg", size)[0]).width for size in (320, 640, 720, 1500, 3000)
    }
    assert sizes == {320: 320, 640: 640, 720: 1000, 1500: 2000, 3000: 4000}


def test_small_jpegs_are_sent_unchanged_and_rotated_ones_upright(tmp_path):
    image = Image.new("RGB", (200, 100), (10, 200, 30))
    image.save(tmp_path / "plain.jpg")
    exif = Image.Exif()
    exif[0x0112] = 6
    image.save(tmp_path / "turned.jpg", exif=exif)
    cache = PictureCache(tmp_path)
    assert cache.get("plain.jpg", 320)[0] == (tmp_path / "plain.jpg").read_bytes()
    assert decoded(cache.get("turned.jpg", 320)[0]).size == (100, 200)


@pytest.mark.parametrize(
    "mode, suffix", [("RGBA", "png"), ("P", "png"), ("CMYK", "jpg"), ("L", "tiff"), ("I;16", "png"), ("1", "bmp")]
)
def test_every_kind_of_picture_is_sent_in_a_format_that_browsers_show(tmp_path, mode, suffix):
    Image.new(mode, (60, 40)).save(tmp_path / f"odd.{suffix}")
    content, kind = PictureCache(tmp_path).get(f"odd.{suffix}", 320)
    assert kind == "image/jpeg"
    assert decoded(content).size == (60, 40)


def test_a_changed_picture_is_sent_again_and_the_cache_stays_bounded(tmp_path, monkeypatch):

    cache = PictureCache(tmp_path)
    Image.new("RGB", (50, 50), "red").save(tmp_path / "a.png")
    red = cache.get("a.png", 320)
    assert cache.get("a.png", 320) is red
    Image.new("RGB", (50, 50), "blue").save(tmp_path / "a.png")
    os.utime(tmp_path / "a.png", ns=(1, 1))
    assert cache.get("a.png", 320) != red
    monkeypatch.setattr("custom_aesthetic.labelling.pictures.CACHE_BYTES", 1)
    cache.get("a.png", 640)
    assert len(cache._ready) == 1
    with pytest.raises(BadImage):
        cache.get("missing.png", 320)


TIME = "2026-01-02T03:04:05.123456+00:00"


@pytest.mark.parametrize(
    "time",
    [
        *("2026-01-02\n03:04:05+00:00", TIME + "\n", "2026-01-02 03:04:05+00:00", "2026-01-02T03:04:05"),
        *("0001-01-01T00:00:00+23:59", "9" * 400, "x", "", 5, 1e300, True, [TIME], {"a": TIME}),
    ],
)
def test_a_time_in_another_format_is_refused_and_nothing_is_written(client, server, time):
    assert post(client, "choice", {**CHOICE, "time": time}).status_code == 400
    assert post(client, "undo", {"time": time}).status_code == 400
    assert not server.session.files.log.exists() or len(server.session.files.log.read_bytes().splitlines()) <= 1


def test_any_number_of_seconds_is_converted_to_a_valid_time(client):
    for seconds in ("9" * 4000, "1e999", "NaN", "-1", "true", "[]", '"x"', "-Infinity"):
        body = (
            '{"window": "w", "pictures": ["cold/00.png", "warm/01.png"], "winner": "cold/00.png", "drawn": "random", '
        )
        headers = {"X-Token": "secret", "Content-Type": "application/json"}
        answer = client.post("/api/choice", content=f'{body}"seconds": {seconds}}}', headers=headers)
        assert answer.status_code == 200


@pytest.mark.parametrize("name", ["open", "group", "choice", "undo", "finish", "leave"])
def test_damaged_and_hostile_requests_are_answered_and_never_end_the_server(client, name):
    body = {"window": "one", **CHOICE, "time": TIME}
    whole = json.dumps(body).encode()
    deep = [b"[" * 60_000, b'{"a":' * 10_000, b'{"window": ' + b"[" * 30_000 + b"]" * 30_000 + b"}"]
    wrong = [
        json.dumps({**body, key: value}).encode()
        for key in body
        for value in (None, 1, -1.5, True, [], {}, [[]], "\udcff", "x" * 5000, ["\udcff"] * 3, [None], 10**400)
    ]
    headers = {"X-Token": "secret", "Content-Type": "application/json"}
    statuses = set()
    for content in (*mutations(whole, 300 if name == "choice" else 60), *deep, *wrong):
        answer = client.post(f"/api/{name}", content=content, headers=headers)
        statuses.add(answer.status_code)
        if answer.status_code in (200, 400) and "json" in answer.headers["content-type"]:
            answer.json()
    assert statuses <= {200, 400, 413}
    assert 400 in statuses


def test_a_huge_body_is_refused(client):
    headers = {"X-Token": "secret", "Content-Type": "application/json"}
    assert client.post("/api/choice", content=b" " * 10_000_000, headers=headers).status_code == 413


def test_a_name_that_is_not_utf_8_survives_the_way_to_the_page_and_back(client, server, monkeypatch):
    odd = "cold/\udcff.png"
    monkeypatch.setattr(server.session, "holds", lambda path: path == odd)
    monkeypatch.setattr(server.pictures, "get", lambda path, _size: (repr(path).encode(), "image/png"))
    monkeypatch.setattr(server.session, "group", lambda: {"pictures": [odd, "b.png"], "drawn": "random"})
    assert post(client, "group", {}).json()["group"]["pictures"][0] == odd
    assert client.get("/picture", params={"path": json.dumps(odd)}).content == repr(odd).encode()
    assert client.get("/picture", params={"path": '"' + "[" * 9999}).status_code == 404


@pytest.fixture
def shared(colour_pictures):
    arguments, _ = parse_arguments(ABArguments, ["-d", str(colour_pictures)], description="")
    return ABServer(open_session(arguments), colour_pictures, token="secret", host="192.168.1.5")


def test_on_the_network_nothing_is_served_without_the_key_in_the_address_or_the_cookie(shared, colour_pictures):
    home = "http://192.168.1.5:8111"
    client = testclient.TestClient(shared.app(), base_url=home, follow_redirects=False)
    for path in ("/", "/?key=wrong", "/main.js", "/picture?path=cold/00.png"):
        answer = client.get(path)
        assert answer.status_code == 403
        assert "secret" not in answer.text
    assert post(client, "choice", CHOICE).status_code == 403
    assert not (colour_pictures / "comparisons.csv").exists()
    entry = client.get(shared.address(8111, "192.168.1.5").removeprefix(home))
    assert (entry.status_code, entry.headers["location"]) == (303, "/")
    assert {"HttpOnly", "SameSite=Lax"} <= set(entry.headers["set-cookie"].split("; "))
    assert 'content="secret"' in client.get("/").text
    assert client.get("/picture?path=cold/00.png").status_code == 200
    assert post(client, "choice", CHOICE).status_code == 200
    assert client.post("/api/choice", json=CHOICE).status_code == 403, "the token is needed as well"
    for headers in ({"Host": "evil.example"}, {"Origin": "http://evil.example"}, {"Sec-Fetch-Site": "cross-site"}):
        assert post(client, "choice", CHOICE, **headers).status_code == 403


def test_two_pages_of_one_machine_keep_their_keys_apart_beside_cookies_of_other_programs(shared, colour_pictures):
    home = "http://192.168.1.5:8111"
    client = testclient.TestClient(shared.app(), base_url=home, follow_redirects=False)
    key = client.get(f"/?key={shared.key}").headers["set-cookie"].partition(";")[0]
    client.cookies.clear()
    odd = 'a[b]={"c": 1}; '
    assert client.get("/", headers={"Cookie": odd + key}).status_code == 200
    other = testclient.TestClient(shared.app(), base_url="http://192.168.1.5:8112", follow_redirects=False)
    assert other.get("/", headers={"Cookie": key}).status_code == 403


def test_an_open_page_is_told_that_it_lacks_the_key_of_a_script_that_was_started_again(shared):
    client = testclient.TestClient(shared.app(), base_url="http://192.168.1.5:8111")
    answer = post(client, "choice", CHOICE)
    assert (answer.status_code, answer.json()["needs"]) == (403, "key")


def test_on_this_machine_alone_the_address_needs_no_key(server):
    assert server.address(8111) == HOME + "/"
    assert server.key is None


def test_every_address_of_this_machine_is_served_on_the_network_and_the_code_can_be_drawn():
    assert addresses("0.0.0.0")[-2:] == ["127.0.0.1", "localhost"]
    assert addresses("192.168.1.5") == ["192.168.1.5", "127.0.0.1", "localhost"]
    assert addresses("MyPC.local")[0] == "mypc.local", "as a browser writes it"
    assert addresses("fd00::5")[0] == "[fd00::5]"
    code = qr_code("http://192.168.1.5:8111/?key=x")
    assert code == "" or "▀" in code or "█" in code


def test_a_closed_window_ends_the_script_after_a_while_and_a_reload_does_not():
    now = [0.0]
    windows, one, two = Windows(lambda: now[0]), {"window": "one"}, {"window": "two"}
    assert not windows.all_gone(), "no window yet"
    windows.opened(one)
    windows.opened(two)
    windows.left(one, finished=False)
    now[0] = 60
    assert not windows.all_gone()
    windows.left(two, finished=False)
    windows.heard_from(two)
    assert windows.open() == [], "a request on its way when a window closes does not open it again"
    now[0] += 4
    windows.expected()
    now[0] += 4
    assert not windows.all_gone(), "the page was asked for"
    windows.opened(two)
    now[0] += 60
    assert not windows.all_gone()
    windows.left(two, finished=False)
    now[0] += 5
    assert windows.all_gone()


def test_a_window_that_is_not_heard_from_has_gone_but_a_hidden_one_may_be_silent_for_longer():
    now = [0.0]
    windows = Windows(lambda: now[0])
    windows.opened({"window": "one"})
    now[0] = 100
    windows.heard_from({"window": "one", "hidden": True})
    now[0] = 1000
    assert not windows.all_gone()
    windows.heard_from({"window": "one"})
    now[0] = 1181
    assert windows.all_gone()


def test_a_closed_window_says_so_without_headers_but_with_the_token(client, server):
    post(client, "open", {})
    assert client.post("/closed", json={"window": "one", "token": "wrong"}).status_code == 403
    assert server.windows.open() == ["one"]
    assert client.post("/closed", json={"window": "one", "token": "secret"}).status_code == 204
    assert server.windows.open() == []


ANSWERS = {
    "choice": CHOICE,
    "tie": {"pictures": CHOICE["pictures"], "drawn": "repeat"},
    "stars": {"picture": "cold/00.png", "stars": 4, "drawn": "random"},
    "pick": {"pictures": ["cold/00.png", "warm/01.png", "cold/02.png"], "picked": ["cold/02.png"], "drawn": "adaptive"},
}


@pytest.mark.parametrize("name", ANSWERS)
def test_an_answer_of_every_kind_is_logged_once_and_undone(client, server, name):
    for _ in range(2):
        assert post(client, name, {**ANSWERS[name], "time": TIME}).status_code == 200
    rows = server.session.answers()
    assert {(row.kind, row.time) for row in rows} == {("stars4" if name == "stars" else name, TIME)}
    assert len(rows) == (2 if name == "pick" else 1)
    undone = post(client, "undo", {"time": TIME}).json()["group"]
    assert set(undone["pictures"]) == set(ANSWERS[name].get("pictures", ["cold/00.png"]))
    assert server.session.answers() == []


@pytest.mark.parametrize(
    "name, body",
    [
        ("stars", {"stars": 6}),
        ("stars", {"stars": True}),
        ("stars", {"stars": "4"}),
        ("stars", {"picture": "../secret.png"}),
        ("tie", {"pictures": ["cold/00.png"]}),
        ("pick", {"picked": ["cold/04.png"]}),
        ("pick", {"picked": None}),
    ],
)
def test_an_answer_that_makes_no_sense_is_refused(client, colour_pictures, name, body):
    assert post(client, name, {**ANSWERS[name], **body}).status_code == 400
    assert not (colour_pictures / "comparisons.csv").exists()


def test_the_details_of_a_picture_are_its_size_and_only_of_pictures_of_the_directory(client):
    found = post(client, "details", {"picture": "cold/00.png"}).json()["details"]
    assert found["width"] > 0 and found["bytes"] > 0
    assert post(client, "details", {"picture": "../secret.png"}).status_code == 400


def test_a_large_picture_is_sent_whole_for_100_percent(tmp_path):
    Image.new("RGB", (5000, 100), "red").save(tmp_path / "wide.png")
    Image.effect_noise((1500, 1500), 100).convert("RGB").save(tmp_path / "noise.jpg", quality=95)
    cache = PictureCache(tmp_path)
    assert decoded(cache.get("wide.png", 100_000)[0]).size == (5000, 100)
    assert cache.get("noise.jpg", 100_000)[0] == (tmp_path / "noise.jpg").read_bytes()


def test_a_picture_larger_than_it_is_shown_is_never_decoded_as_a_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.new("RGB", (2000, 1000), (9, 200, 30)).save(tmp_path / "a.jpg")
    decoded: list[tuple[int, int]] = []
    load = ImageFile.ImageFile.load

    def recording(image: ImageFile.ImageFile) -> object:
        decoded.append(image.size)
        return load(image)

    monkeypatch.setattr(ImageFile.ImageFile, "load", recording)
    content, _ = PictureCache(tmp_path).get("a.jpg", 320)
    assert max(decoded) == (500, 250)
    monkeypatch.undo()
    assert Image.open(io.BytesIO(content)).size == (320, 160)


def test_the_script_waits_for_work_that_the_last_window_has_left_and_serves_until_then(server, caplog):
    work: list[str | None] = ["the training"]
    server = ABServer(server.session, server.pictures._directory, more=MoreOfThePage(waited_for=lambda: work[0]))
    listener = open_socket(0)
    listener.listen()
    thread = threading.Thread(target=serve, args=(server, listener))
    with caplog.at_level("INFO", logger="custom_aesthetic"):
        thread.start()
        for window in ("one", "two"):  # the second is opened while the script waits
            server.windows.opened({"window": window})
            server.windows.left({"window": window}, finished=True)
            thread.join(1)
            assert thread.is_alive()
            assert httpx.get(server.address(listener.getsockname()[1])).status_code == 200
        work[0] = None
        server.windows.opened({"window": "three"})
        thread.join(1)
        assert thread.is_alive(), "a window is open"
        server.windows.left({"window": "three"}, finished=True)
        thread.join(20)
    assert not thread.is_alive()
    assert "the page is closed; the training goes on" in caplog.text
