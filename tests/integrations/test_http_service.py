"""The HTTP service as other programs use it: a real server, asked by a real client, with a model of mean colours."""

import contextlib
import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from custom_aesthetic import Scorer, UserError
from custom_aesthetic.heads.model_file import save_model
from custom_aesthetic.heads.predictor import from_layers
from custom_aesthetic.settings.arguments import parse_arguments
from custom_aesthetic.settings.scorers import FolderArguments
from tests.camera_files import dng_bytes, heic_bytes
from tests.conftest import ROOT
from tests.mean_colour import MeanColour

httpx = pytest.importorskip("httpx")
pytest.importorskip("python_multipart")
pytest.importorskip("starlette")

from custom_aesthetic.base.local_server import open_socket  # noqa: E402
from custom_aesthetic.integrations import http_service  # noqa: E402
from custom_aesthetic.integrations.http_description import describe  # noqa: E402
from custom_aesthetic.integrations.http_service import LIMITS, ScoringService, make_model_server, serve_model  # noqa: E402

TOKEN = "a token of many letters"
UNFINISHED = b"POST /score HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: image/jpeg\r\nContent-Length: 9999\r\n\r\nx"


@pytest.fixture
def extractors(monkeypatch: pytest.MonkeyPatch) -> list[MeanColour]:
    made: list[MeanColour] = []

    def build(names: str, *_: object) -> list[MeanColour]:
        made.append(MeanColour(names))
        return made

    monkeypatch.setattr("custom_aesthetic.heads.prediction.build_extractors", build)
    return made


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A model whose score is ten times the mean red, 0 ... 1, and whose sigma is a fifth of that."""
    first = torch.zeros(2, 3)
    first[0, 0] = 1
    last = torch.tensor([[10 / 255, 0.0], [2 / 255, 0.0]])
    layers = [(first, torch.zeros(2)), (torch.eye(2), torch.zeros(2)), (last, torch.zeros(2))]
    save_model(tmp_path / "red.safetensors", from_layers(layers), {"feature_extractor_model": "mean-colour"})
    return tmp_path / "red.safetensors"


@pytest.fixture
def scorer(extractors: list[MeanColour], model: Path) -> Scorer:
    return Scorer.load(model, device="cpu")


Serve = Callable[..., str]


@pytest.fixture
def serve(scorer: Scorer) -> Iterator[Serve]:
    """Serve a scorer at a free port, in a thread, and return the address."""
    with contextlib.ExitStack() as ends:

        def begin(service: ScoringService) -> str:
            listener = open_socket(0)
            listener.listen()
            server = make_model_server(service)
            thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
            thread.start()
            ends.callback(listener.close)
            ends.callback(thread.join)
            ends.callback(setattr, server, "should_exit", True)
            return f"http://127.0.0.1:{listener.getsockname()[1]}"

        yield begin


@pytest.fixture
def service(scorer: Scorer, colour_pictures: Path) -> ScoringService:
    return ScoringService(scorer, colour_pictures)


@pytest.fixture
def client(serve: Serve, service: ScoringService) -> Iterator[Any]:
    with httpx.Client(base_url=serve(service), timeout=30) as client:
        yield client


def jpeg(seed: int = 0, size: tuple[int, int] = (120, 80)) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (*size[::-1], 3), np.uint8)
    pixels[:, :, 0] = seed * 20 % 256
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG")
    return stream.getvalue()


def form(*contents: bytes) -> list[tuple[str, tuple[str, bytes]]]:
    return [("images", (f"{number}.jpg", content)) for number, content in enumerate(contents)]


def results(answer: Any) -> list[dict[str, Any]]:
    assert answer.status_code == 200, answer.text
    return answer.json()["results"]


def scores(answer: Any) -> list[float]:
    return [result["score"] for result in results(answer)]


def test_one_picture_as_the_body_scores_as_its_file_does(client: Any, scorer: Scorer, tmp_path: Path) -> None:
    (tmp_path / "large.jpg").write_bytes(jpeg(3, (400, 300)))  # large enough to be decoded at half its size
    rated = scorer.rate(tmp_path / "large.jpg")
    assert rated.sigmas is not None

    answer = client.post(
        "/score",
        params={"name": "large.jpg"},
        content=(tmp_path / "large.jpg").read_bytes(),
        headers={"Content-Type": "image/jpeg"},
    )

    (result,) = results(answer)
    assert result["name"] == "large.jpg"
    assert result["score"] == pytest.approx(rated.scores[0], abs=1e-6)
    assert result["sigma"] == pytest.approx(rated.sigmas[0], abs=1e-6)
    assert (result["domain_distance"], result["error"]) == (None, None)


def test_several_pictures_in_a_form_keep_their_order_and_a_broken_one_has_its_error(
    client: Any, scorer: Scorer
) -> None:
    good = [jpeg(seed) for seed in range(40)]
    sent = [*good[:20], b"no picture", good[20][: len(good[20]) // 2], b"", *good[20:]]

    found = results(client.post("/score", files=form(*sent)))

    assert [result["name"] for result in found] == [f"{number}.jpg" for number in range(43)]
    reasons = ["not an image in a known format", "truncated image file", "empty file (0 bytes)"]
    assert [result["error"] for result in found if result["error"]] == reasons
    assert [found[place]["score"] for place in (20, 21, 22)] == [None] * 3
    expected = scorer.score(good)
    assert [result["score"] for result in found if not result["error"]] == pytest.approx(expected, abs=1e-6)


def test_heic_and_raw_files_are_scored_like_the_files(client: Any, scorer: Scorer, colour_pictures: Path) -> None:
    pytest.importorskip("rawpy", reason="rawpy is not installed")
    image = Image.new("RGB", (60, 40), (150, 80, 80))
    (colour_pictures / "a.heic").write_bytes(heic_bytes(image))
    (colour_pictures / "b.dng").write_bytes(dng_bytes(image))
    files = [colour_pictures / "a.heic", colour_pictures / "b.dng"]
    expected = pytest.approx(scorer.score(files), abs=1e-6)

    assert scores(client.post("/score", json={"paths": ["a.heic", "b.dng"]})) == expected
    sent = [("images", (file.name, file.read_bytes())) for file in files]
    assert scores(client.post("/score", files=sent)) == expected


def test_paths_below_the_folder_are_scored_like_the_files(client: Any, scorer: Scorer, colour_pictures: Path) -> None:
    asked = ["cold/00.png", "warm/13.png", str(colour_pictures / "warm" / "23.png")]

    assert scores(client.post("/score", json={"paths": asked})) == pytest.approx(
        scorer.score([colour_pictures / path for path in asked]), abs=1e-6
    )


def test_paths_that_lead_out_of_the_folder_are_refused(client: Any, colour_pictures: Path) -> None:
    secret = colour_pictures.parent / "secret.png"
    Image.new("RGB", (9, 9)).save(secret)
    (colour_pictures / "out.png").symlink_to(secret)
    (colour_pictures / "up").symlink_to(colour_pictures.parent)
    (colour_pictures / "loop.png").symlink_to(colour_pictures / "loop.png")
    outside = ["../secret.png", "cold/../../secret.png", str(secret), "out.png", "up/secret.png", "../nothing.png"]
    odd = ["cold", "", "cold/00.png\0", "comparisons.csv", "\ud800.png", "x" * 5000 + ".png", "x" * 300 + ".png"]

    asked = {"paths": [*outside, *odd, "loop.png", "gone.png", "cold/00.png"]}

    found = results(
        client.post("/score", content=json.dumps(asked), headers={"Content-Type": "application/json; charset=utf-8"})
    )

    assert [result["error"] for result in found[:6]] == ["outside the folder that is served"] * 6
    assert all(result["error"] and str(colour_pictures) not in result["error"] for result in found[6:-1])
    assert found[-2]["error"] == "file not found"
    assert found[-1]["error"] is None


def test_without_a_folder_no_path_is_read(serve: Serve, scorer: Scorer) -> None:
    answer = httpx.post(f"{serve(ScoringService(scorer))}/score", json={"paths": ["cold/00.png"]})

    assert answer.status_code == 400
    assert "-d FOLDER" in answer.json()["error"]


@pytest.mark.parametrize(
    ("options", "status", "words"),
    [
        ({"content": b"x", "headers": {"Content-Type": "text/plain"}}, 415, "multipart"),
        ({"content": b"x"}, 415, "multipart"),
        ({"data": {"images": "x"}}, 415, "multipart"),
        ({"content": b"x", "headers": {"Content-Type": "multipart/form-data"}}, 400, "boundary"),
        ({"content": b"x", "headers": {"Content-Type": "multipart/form-data; boundary=b"}}, 400, "form"),
        ({"files": {"field": (None, "no file")}}, 400, "0 images"),
        ({"content": b"{", "headers": {"Content-Type": "application/json"}}, 400, "not JSON"),
        ({"json": {}}, 400, "paths"),
        ({"json": {"paths": "cold/00.png"}}, 400, "paths"),
        ({"json": {"paths": [1]}}, 400, "paths"),
        ({"json": {"paths": []}}, 400, "0 images"),
        ({"json": {"paths": ["a.png"] * (LIMITS.n_images + 1)}}, 413, "65 images"),
        ({"json": {"paths": ["a" * 2**20]}}, 413, "too long"),
    ],
)
def test_what_is_no_request_for_scores_is_refused_in_one_line(
    client: Any, options: dict[str, Any], status: int, words: str
) -> None:
    answer = client.post("/score", **options)

    assert answer.status_code == status
    assert list(answer.json()) == ["error"]
    assert words in answer.json()["error"] and "\n" not in answer.json()["error"]


@pytest.mark.parametrize("announced", [True, False])
def test_too_many_bytes_are_refused_even_where_their_number_is_not_announced(
    client: Any, monkeypatch: pytest.MonkeyPatch, announced: bool
) -> None:
    monkeypatch.setattr(http_service, "LIMITS", replace(LIMITS, n_bytes=100_000))
    body = jpeg(1, (600, 400))
    content = body if announced else iter([body[:50_000], body[50_000:]])

    answer = client.post("/score", content=content, headers={"Content-Type": "image/jpeg"})

    assert (answer.status_code, "100,000 bytes" in answer.text) == (413, True)
    assert client.post("/score", files=form(body)).status_code == 413
    assert len(results(client.post("/score", files=form(jpeg())))) == 1


def test_too_many_pictures_or_pixels_are_refused(client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    assert client.post("/score", files=form(*[b"x"] * (LIMITS.n_images + 1))).status_code in (400, 413)
    monkeypatch.setattr(http_service, "LIMITS", replace(LIMITS, n_pixels=20_000))

    answer = client.post("/score", files=form(jpeg(1), jpeg(2), jpeg(3)))

    assert (answer.status_code, "pixels" in answer.text) == (413, True)
    assert len(results(client.post("/score", files=form(jpeg(1), jpeg(2))))) == 2


def test_clients_at_once_get_the_scores_of_the_scorer_in_few_calls_of_the_model(
    client: Any, service: ScoringService, scorer: Scorer, extractors: list[MeanColour]
) -> None:
    pictures = [jpeg(seed) for seed in range(8)]
    expected = scorer.score(pictures)
    extractors[0].calls.clear()
    extractors[0]._seconds = lambda _: 0.05  # so that others arrive while the first is rated

    def ask(number: int) -> list[float]:
        with httpx.Client(base_url=client.base_url, timeout=30) as one:
            return [scores(one.post("/score", files=form(pictures[number])))[0] for _ in range(5)]

    with ThreadPoolExecutor(8) as clients:
        found = list(clients.map(ask, range(8)))

    assert found == [pytest.approx([value] * 5, abs=1e-6) for value in expected]
    assert extractors[0].n_computed == 40
    assert len(extractors[0].calls) == service.batches.n_calls < 25
    assert max(n_pictures for _, n_pictures in extractors[0].calls) > 1


def test_clients_that_are_slow_or_break_off_keep_nobody_waiting(client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_service, "MOST_SECONDS", 0.5)
    address = (client.base_url.host, client.base_url.port)
    with contextlib.ExitStack() as open_ones:
        slow = [open_ones.enter_context(socket.create_connection(address, timeout=20)) for _ in range(20)]
        for one in slow:
            one.sendall(UNFINISHED)
        for one in slow[:10]:
            one.close()

        assert len(scores(client.post("/score", files=form(jpeg())))) == 1
        assert slow[-1].recv(4096).startswith(b"HTTP/1.1 408")


def test_a_model_that_fails_is_said_to_those_who_wait_and_the_next_batch_is_rated(
    client: Any, extractors: list[MeanColour], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as broken:

        def fail(*_: object) -> None:
            raise UserError("mean-colour does not fit the device's memory; choose a smaller one")

        broken.setattr(MeanColour, "features", fail)
        answer = client.post("/score", files=form(jpeg()))
        assert (answer.status_code, "memory" in answer.json()["error"]) == (503, True)
    assert scores(client.post("/score", files=form(jpeg()))) != [None]


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "evil.example"},
        {"Host": "0.0.0.0:8112"},
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "cross-site"},
    ],
)
def test_other_hosts_and_other_pages_are_refused_everywhere(
    client: Any, extractors: list[MeanColour], headers: dict[str, str]
) -> None:
    for path in ("/", "/docs", "/openapi.json", "/card"):
        assert client.get(path, headers=headers).status_code == 403
    assert client.post("/score", files=form(jpeg()), headers=headers).status_code == 403
    assert not extractors


def test_with_a_token_any_host_name_is_served_and_nobody_without_it(serve: Serve, scorer: Scorer) -> None:
    address = serve(ScoringService(scorer, token=TOKEN))
    with httpx.Client(base_url=address, headers={"Host": "studio.local:8112"}) as client:
        for token in ({}, {"Authorization": "Bearer wrong"}, {"X-Token": ""}, {"Authorization": f"Basic {TOKEN}"}):
            assert client.post("/score", files=form(jpeg()), headers=token).status_code == 403
            assert client.get("/card", headers=token).status_code == 403
        for token in ({"Authorization": f"Bearer {TOKEN}"}, {"X-Token": TOKEN}):
            assert len(scores(client.post("/score", files=form(jpeg()), headers=token))) == 1
        assert client.post("/score", files=form(jpeg()), headers={**token, "Origin": "http://x"}).status_code == 403
        assert TOKEN not in client.get("/").text + client.get("/docs").text


def test_the_pages_say_what_this_is_and_ask_nothing_of_the_network(client: Any) -> None:
    for path in ("/", "/docs"):
        answer = client.get(path)
        assert answer.status_code == 200
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        assert not re.search(r"(src|href)=.(https?:)?//", answer.text)
        assert "POST /score" in answer.text or "/score" in answer.text
    assert client.get("/style.css").headers["content-type"].startswith("text/css")
    assert client.get("/card").json()["feature_extractor_model"] == "mean-colour"
    assert (client.get("/nothing").status_code, client.get("/score").status_code) == (404, 405)


@pytest.mark.parametrize("takes_paths", [True, False])
@pytest.mark.parametrize("needs_token", [True, False])
def test_the_description_keeps_the_rules_of_openapi(needs_token: bool, takes_paths: bool) -> None:
    validator = pytest.importorskip("openapi_spec_validator")

    described = describe(LIMITS, needs_token=needs_token, takes_paths=takes_paths)

    validator.validate(described, cls=validator.OpenAPIV31SpecValidator)
    assert ("application/json" in described["paths"]["/score"]["post"]["requestBody"]["content"]) == takes_paths


def test_the_description_is_that_of_the_answers(client: Any, service: ScoringService) -> None:
    described = client.get("/openapi.json").json()
    (result,) = results(client.post("/score", files=form(jpeg())))

    assert set(described["components"]["schemas"]["Result"]["required"]) == set(result)
    served = {route.path for route in service.app().routes}
    assert set(described["paths"]) <= served


# --- the command ------------------------------------------------------------------------------------------------


@pytest.fixture
def arguments(model: Path) -> Callable[..., FolderArguments]:
    def parse(*options: str) -> FolderArguments:
        return parse_arguments(FolderArguments, ["--serve", f"--model={model}", *options], description="")[0]

    return parse


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--top=3"], "--serve takes no"),
        (["--write_xmp"], "--serve takes no"),
        (["-o", "x.csv"], "--serve takes no"),
        (["--host=no.such.host.invalid"], "--host=no.such.host.invalid"),
        (["--host=192.0.2.1"], "not available"),
    ],
)
def test_what_makes_no_sense_is_refused(
    arguments: Callable[..., FolderArguments], options: list[str], words: str
) -> None:
    with pytest.raises(UserError, match=words):
        serve_model(arguments(*options))


def test_a_port_that_is_taken_is_one_line(arguments: Callable[..., FolderArguments]) -> None:
    with contextlib.closing(open_socket(0)) as taken:
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match=f"port {port} is not available.*--port=0"):
            serve_model(arguments(f"--port={port}"))


def test_a_short_token_is_refused(arguments: Callable[..., FolderArguments], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(http_service.TOKEN_VARIABLE, "short")
    with pytest.raises(UserError, match="16 or more"):
        serve_model(arguments("--host=0.0.0.0", "--port=0"))


SCRIPT = """
import sys, time
sys.path.insert(0, {root!r})
import custom_aesthetic.heads.prediction as prediction
from custom_aesthetic.scripts.scorer import run
from custom_aesthetic.settings.console import run_script
from tests.mean_colour import MeanColour
prediction.build_extractors = lambda name, *_: [MeanColour(name, seconds=lambda _: {seconds})]
sys.argv[1:] = {argv!r}
sys.exit(run_script(run))
"""


@contextlib.contextmanager
def command(*argv: str, seconds: float = 0) -> Iterator[tuple[subprocess.Popen[str], list[str]]]:
    """Run the script in a process; yields it, and the lines that it has printed up to its address."""
    code = SCRIPT.format(root=str(ROOT), argv=list(argv), seconds=seconds)
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    with subprocess.Popen([sys.executable, "-u", "-c", code], cwd=ROOT, **pipes) as process:
        try:
            assert process.stdout is not None
            lines: list[str] = []
            while not lines or "http://" not in lines[-1]:
                lines.append(process.stdout.readline())
                assert lines[-1], "".join(lines)
            yield process, lines
        finally:
            process.kill()


@pytest.mark.skipif(os.name == "nt", reason="Ctrl-C is not sent to a process alone")
def test_ctrl_c_ends_in_the_middle_of_a_batch_and_of_a_request(model: Path) -> None:
    with command("--serve", "-m", str(model), "--port=0", seconds=1) as (process, lines):
        address = re.search(r"127\.0\.0\.1:(\d+)", lines[-1])
        assert address
        with socket.create_connection(("127.0.0.1", int(address[1]))) as slow, ThreadPoolExecutor() as clients:
            slow.sendall(UNFINISHED)
            waiting = clients.submit(httpx.post, f"http://{address[0]}/score", files=form(*[jpeg()] * 64), timeout=60)
            time.sleep(0.3)
            process.send_signal(signal.SIGINT)
            assert process.wait(20) == 130
            assert not isinstance(waiting.exception(), AssertionError)
        assert process.stdout is not None
        assert process.stdout.read() == "stopped; the same command goes on from here\n"


def test_a_service_for_others_says_what_it_exposes_and_its_token(model: Path, colour_pictures: Path) -> None:
    options = ["--serve", "-m", str(model), "-d", str(colour_pictures), "--host=0.0.0.0", "--port=0"]
    with command(*options) as (process, lines):
        assert process.stdout is not None
        said = process.stdout.readline()
        assert "other machines" in said and str(colour_pictures.resolve()) in said and "not" in said
        token = said.rpartition("Token: ")[2].strip()
        port = re.search(r":(\d+)/", lines[-1])
        assert port
        asked = {"json": {"paths": ["warm/23.png"]}}
        url = f"http://127.0.0.1:{port[1]}/score"
        assert httpx.post(url, **asked).status_code == 403
        answer = httpx.post(url, **asked, headers={"Authorization": f"Bearer {token}"})
        assert scores(answer) == pytest.approx([10 * 230 / 255], abs=1e-4)
        assert json.loads(answer.text)
