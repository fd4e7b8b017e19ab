"""Ratings and an album in Immich, against a stand-in that checks each request against the schema."""

import json
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from custom_aesthetic.base.errors import UserError
from custom_aesthetic.integrations import immich as immich_module
from custom_aesthetic.integrations.immich import RECORD_NAME, OurRatings, add_to_album
from custom_aesthetic.integrations.immich_client import ImmichClient, check_address
from custom_aesthetic.integrations.immich_job import make_client, rate_in_immich
from tests.integrations.immich_stand_in import KEY, Immich, problems, send, serve

STARS = {"a.jpg": 1, "b.jpg": 3, "sub/c.jpg": 5}


@pytest.fixture
def immich() -> Iterator[Immich]:
    state = Immich()
    server = serve(state)
    state.address = f"http://127.0.0.1:{server.server_port}"
    yield state
    server.shutdown()
    server.server_close()
    assert state.problems == []


@pytest.fixture
def client(immich) -> ImmichClient:
    return ImmichClient(immich.address, KEY, wait=lambda _: None)


@pytest.fixture
def folder(tmp_path, immich) -> Path:
    """Three pictures, which Immich has under other names."""
    immich.ids = {}
    for path in STARS:
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_bytes(path.encode() * 1000)
        immich.ids[path] = immich.upload((tmp_path / path).read_bytes())
    return tmp_path


def ratings(immich) -> dict[str, int | None]:
    return {path: immich.rating(asset) for path, asset in immich.ids.items()}


def albums(immich) -> dict[str, int]:
    return {album["albumName"]: len(album["ids"]) for album in immich.albums.values()}


def test_stars_and_an_album_are_written_once_and_a_second_run_changes_nothing(immich, client, folder):
    immich.upload(b"a picture that is not in the folder")
    rate_in_immich(client, folder, STARS, "Best")
    assert ratings(immich) == STARS
    assert albums(immich) == {"Best": 3}
    immich.requests.clear()
    rate_in_immich(client, folder, STARS, "Best")
    assert "PUT /assets" not in immich.requests
    assert "POST /albums" not in immich.requests
    assert albums(immich) == {"Best": 3}


def test_many_pictures_go_in_few_requests(immich, client, folder, monkeypatch):
    monkeypatch.setattr(immich_module, "_AT_ONCE", 2)
    rate_in_immich(client, folder, dict.fromkeys(STARS, 4), "Best")
    assert ratings(immich) == dict.fromkeys(STARS, 4)
    for name in ("POST /assets/bulk-upload-check", "PUT /assets", "PUT /albums/{id}/assets"):
        assert immich.requests.count(name) == 2
    assert albums(immich) == {"Best": 3}


def test_ratings_of_the_user_are_kept_and_ours_are_renewed(immich, client, folder, caplog):
    caplog.set_level(logging.INFO)
    immich.assets[immich.ids["a.jpg"]]["exifInfo"]["rating"] = -1
    immich.assets[immich.ids["b.jpg"]]["exifInfo"]["rating"] = 0
    rate_in_immich(client, folder, STARS, None)
    assert ratings(immich) == {"a.jpg": -1, "b.jpg": 3, "sub/c.jpg": 5}
    assert "1 not changed because they have a rating in Immich that is not ours: a.jpg" in caplog.text
    immich.assets[immich.ids["sub/c.jpg"]]["exifInfo"]["rating"] = 2
    rate_in_immich(client, folder, {"a.jpg": 4, "b.jpg": 4, "sub/c.jpg": 4}, None)
    assert ratings(immich) == {"a.jpg": -1, "b.jpg": 4, "sub/c.jpg": 2}
    (folder / RECORD_NAME).unlink()
    rate_in_immich(client, folder, dict.fromkeys(STARS, 5), None)
    assert ratings(immich) == {"a.jpg": -1, "b.jpg": 4, "sub/c.jpg": 2}


def test_after_a_kill_between_any_two_requests_the_same_command_finishes(immich, client, folder, monkeypatch):
    rate_in_immich(client, folder, dict.fromkeys(STARS, 2), None)
    whole = ImmichClient.request
    for n_requests in range(1, 20):
        left = [n_requests]

        def request(self, *arguments, left=left, **options):
            left[0] -= 1
            if left[0] < 0:
                raise KeyboardInterrupt
            return whole(self, *arguments, **options)

        monkeypatch.setattr(ImmichClient, "request", request)
        try:
            rate_in_immich(client, folder, STARS, "Best")
        except KeyboardInterrupt:
            continue
        break
    assert ratings(immich) == STARS
    assert albums(immich) == {"Best": 3}


def test_an_answer_that_is_lost_after_the_rating_was_written_does_not_make_it_the_users(immich, client, folder):
    rate_in_immich(client, folder, dict.fromkeys(STARS, 2), None)
    ours = OurRatings(folder, client.address)
    ours.will_write([immich.ids["a.jpg"]], 4)
    for written in (2, 4):
        immich.assets[immich.ids["a.jpg"]]["exifInfo"]["rating"] = written
        rate_in_immich(client, folder, {"a.jpg": 1}, None)
        assert immich.rating(immich.ids["a.jpg"]) == 1
        ours.will_write([immich.ids["a.jpg"]], 4)


def test_pictures_that_immich_lacks_or_holds_in_its_bin_are_counted(immich, client, folder, caplog):
    caplog.set_level(logging.INFO)
    (folder / "new.jpg").write_bytes(b"new")
    (folder / "bin.jpg").write_bytes(b"bin")
    immich.upload(b"bin", is_trashed=True)
    rate_in_immich(client, folder, {"new.jpg": 1, "bin.jpg": 2, "gone.jpg": 3, "a.jpg": 4}, "Best")
    assert immich.rating(immich.ids["a.jpg"]) == 4
    assert albums(immich) == {"Best": 1}
    for line in (
        "1 not in Immich",
        "1 left out because they are in Immich's bin: bin.jpg",
        "1 cannot be read: gone.jpg",
    ):
        assert line in caplog.text


def test_a_dry_run_only_asks(immich, client, folder, caplog):
    caplog.set_level(logging.INFO)
    rate_in_immich(client, folder, STARS, "Best", dry_run=True)
    assert ratings(immich) == dict.fromkeys(STARS)
    assert albums(immich) == {}
    assert not (folder / RECORD_NAME).exists()
    assert "would write 5 stars for sub/c.jpg" in caplog.text
    assert "would put 3 pictures into the new album Best" in caplog.text
    assert {name.split()[0] for name in immich.requests} == {"POST", "GET"}


def test_the_oldest_album_of_a_name_is_the_one_and_what_is_in_it_stays(immich, client, folder):
    other = immich.upload(b"other")
    for name in ("Other", "Best", "Best"):
        client.request("POST", "/albums", {"albumName": name})
    first, second = [album for album in immich.albums.values() if album["albumName"] == "Best"]
    first["ids"].append(other)
    assert add_to_album(client, "Best", list(immich.ids.values())) == (3, 0)
    assert len(first["ids"]) == 4
    assert second["ids"] == []


@pytest.mark.parametrize("status", [429, 500, 502, 503])
def test_a_server_that_is_busy_is_asked_again(immich, client, folder, status):
    immich.answers = [lambda handler: send(handler, status, b"")] * 3
    rate_in_immich(client, folder, STARS, None)
    assert ratings(immich) == STARS
    immich.answers = [lambda handler: send(handler, status, b"")] * 4
    with pytest.raises(UserError, match=str(status)):
        rate_in_immich(client, folder, STARS, None)


def test_an_album_is_not_made_twice_because_an_answer_is_lost(immich, client, folder):
    rate_in_immich(client, folder, STARS, None)
    immich.answers = [lambda handler: send(handler, 200, []), lambda handler: send(handler, 502, b"")]
    with pytest.raises(UserError, match="502"):
        add_to_album(client, "Best", list(immich.ids.values()))
    assert immich.requests[-2:] == ["GET /api/albums", "POST /api/albums"]


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_the_key_is_not_sent_where_a_redirect_leads(immich, client, folder, status):
    other = Immich()
    server = serve(other)
    target = f"http://localhost:{server.server_port}/api/x"
    immich.answers = [lambda handler: send(handler, status, b"", Location=target)]
    with pytest.raises(UserError, match="redirects to http://localhost"):
        rate_in_immich(client, folder, STARS, None)
    assert other.requests == []
    server.shutdown()
    server.server_close()


def test_a_wrong_key_is_one_line_without_the_key(immich, folder):
    wrong = ImmichClient(immich.address, "a-wrong-key")
    with pytest.raises(UserError) as caught:
        rate_in_immich(wrong, folder, STARS, None)
    assert "IMMICH_API_KEY" in str(caught.value)
    assert "asset.update" in str(caught.value)
    assert "wrong-key" not in str(caught.value)
    assert len(immich.requests) == 1


@pytest.mark.parametrize(
    "answer", [b"<html>", b"[" * 100_000, [], {"results": None}, {"results": [1]}, {}, None, {"results": "x"}]
)
def test_a_server_that_is_not_immich_is_named(immich, client, folder, answer):
    immich.answers = [lambda handler: send(handler, 200, answer)]
    with pytest.raises(UserError, match="not answer as Immich does"):
        rate_in_immich(client, folder, STARS, None)


def test_an_id_that_is_none_never_gets_into_an_address(immich, client, folder):
    results = [{"id": "0", "action": "reject", "reason": "duplicate", "assetId": "../../admin/users"}]
    immich.answers = [lambda handler: send(handler, 200, {"results": results})]
    with pytest.raises(UserError, match="not answer as Immich does"):
        rate_in_immich(client, folder, STARS, None)
    assert len(immich.requests) == 1


def test_what_immich_says_of_a_refusal_is_one_line(immich, client, folder):
    immich.answers = [lambda handler: send(handler, 400, {"message": ["first\nline", "\x1b[31msecond"]})]
    with pytest.raises(UserError) as caught:
        rate_in_immich(client, folder, STARS, None)
    assert "400 first" in str(caught.value)
    assert str(caught.value).isprintable()


def test_no_server_is_one_line(folder):
    client = ImmichClient("http://127.0.0.1:9", KEY, wait=lambda _: None)
    with pytest.raises(UserError, match=r"127\.0\.0\.1:9 does not answer"):
        rate_in_immich(client, folder, STARS, None)


@pytest.mark.parametrize("address", ["http://host:2283", "https://host/photos/api", "http://host:2283/api/"])
def test_an_address_is_taken_with_and_without_api(address):
    assert check_address(address) in ("http://host:2283", "https://host/photos")


@pytest.mark.parametrize(
    "address",
    ["host", "ftp://host", "http://", "http://host:99999", "file:///etc/passwd", "http://h/?a=1", "http://[x"],
)
def test_what_is_no_address_is_refused(address):
    with pytest.raises(UserError, match="is no address"):
        check_address(address)


def test_a_password_in_the_address_is_refused_and_not_shown():
    with pytest.raises(UserError) as caught:
        check_address("http://me:secret@host")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("key", ["", "two words", "line\nbreak", "schlüssel"])
def test_what_is_no_key_is_refused_and_not_shown(monkeypatch, key):
    monkeypatch.setenv("IMMICH_API_KEY", key)
    with pytest.raises(UserError) as caught:
        make_client("http://host")
    assert "IMMICH_API_KEY" in str(caught.value)
    assert not key or key not in str(caught.value)


@pytest.mark.parametrize("content", [b"[]", b"{", b'{"http://x": 3}', b'{"http://x": {"a": "b"}}', b"\xff"])
def test_a_damaged_record_of_our_ratings_is_named_before_anything_is_written(immich, client, folder, content):
    (folder / RECORD_NAME).write_bytes(content)
    with pytest.raises(UserError, match=RECORD_NAME):
        rate_in_immich(client, folder, STARS, None)
    assert immich.requests == []


def test_the_record_holds_each_server_apart(folder):
    OurRatings(folder, "http://one").have_written(["x"], 3)
    OurRatings(folder, "http://two").have_written(["x"], 4)
    assert json.loads((folder / RECORD_NAME).read_bytes()) == {"http://one": {"x": [3]}, "http://two": {"x": [4]}}
    assert not OurRatings(folder, "http://two").holds("x", 3)


def test_the_stand_in_finds_a_wrong_request():
    schema = {"type": "object", "required": ["a"], "properties": {"a": {"type": "integer", "maximum": 5}}}
    assert problems({"a": 3}, schema) == []
    for wrong in ({}, {"a": "3"}, {"a": 6}, {"a": True}, {"a": 1, "b": 2}, []):
        assert problems(wrong, schema)
