"""The HTTP service: other programs send pictures, or name some below a folder, and get the model's scores."""

import asyncio
import ipaddress
import logging
import math
import os
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

from PIL import Image
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from custom_aesthetic.base.errors import ImageError, UserError
from custom_aesthetic.base.extras import require
from custom_aesthetic.base.files import in_folder_or_here
from custom_aesthetic.base.local_server import (
    HEADERS,
    HOSTS,
    AsciiJSON,
    OwnPageOnly,
    Server,
    bounded,
    make_server,
    open_socket,
    read_json,
)
from custom_aesthetic.base.text import may_name_a_file
from custom_aesthetic.heads.scorer import Scorer
from custom_aesthetic.integrations.batches import Batches, ImageRating
from custom_aesthetic.integrations.http_description import Limits, as_html, describe
from custom_aesthetic.pictures.folders import is_image_name
from custom_aesthetic.pictures.images import MAX_PIXELS, BadImage, count_pixels
from custom_aesthetic.settings.scorers import ActionSettings, FolderArguments, SelectionSettings

log = logging.getLogger(__name__)

PAGE = Path(__file__).parent / "assets"
LIMITS = Limits(n_bytes=64 * 2**20, n_images=64, n_pixels=MAX_PIXELS)
"""Of one request."""

MOST_JSON_BYTES = 2**20
MOST_NAME_LETTERS = 4096
MOST_SECONDS = 30.0
"""How long a client may send nothing in the middle of a request."""

MOST_CONNECTIONS = 64
"""With the limit of bytes, this bounds the memory that clients can fill."""

TOKEN_VARIABLE = "AESTHETIC_TOKEN"
LEAST_TOKEN_LETTERS = 16


@dataclass(frozen=True)
class SentImage:
    """One image of a request: the bytes of a file or a path, or the reason why it is refused."""

    name: str
    image: bytes | Path | None
    reason: str | None = None


class ScoringService:
    """The pages and the interface of one scorer; `app()` is the web application."""

    def __init__(self, scorer: Scorer, directory: Path | None = None, *, token: str | None = None) -> None:
        """Paths below `directory` may be scored. With a `token`, other machines are served, and have to send it."""
        self.batches = Batches(scorer)
        self._card = scorer.card
        self._directory = None if directory is None else directory.resolve()
        self._token = token

    def app(self) -> Starlette:
        """Return the web application."""
        routes = [
            Route("/", self._page),
            Route("/style.css", self._style),
            Route("/docs", self._docs),
            Route("/openapi.json", self._openapi),
            Route("/card", self._show_card),
            Route("/score", self._score, methods=["POST"]),
        ]
        guard = Middleware(
            OwnPageOnly,
            token=self._token or "",
            token_below=() if self._token is None else ("/score", "/card"),
            hosts=HOSTS if self._token is None else (),
            advice="send the token that the service printed, as the header Authorization: Bearer TOKEN",
        )
        handlers: dict[Any, Any] = {HTTPException: _refuse, Exception: _fail}
        return Starlette(routes=routes, middleware=[guard], exception_handlers=handlers)

    async def _page(self, request: Request) -> Response:
        return HTMLResponse((PAGE / "index.html").read_bytes(), headers=HEADERS)

    async def _style(self, request: Request) -> Response:
        return Response((PAGE / "style.css").read_bytes(), media_type="text/css", headers=HEADERS)

    async def _docs(self, request: Request) -> Response:
        return HTMLResponse(as_html(self._description()), headers=HEADERS)

    async def _openapi(self, request: Request) -> Response:
        return AsciiJSON(self._description(), headers=HEADERS)

    async def _show_card(self, request: Request) -> Response:
        return AsciiJSON(self._card, headers=HEADERS)

    def _description(self) -> dict[str, Any]:
        return describe(LIMITS, needs_token=self._token is not None, takes_paths=self._directory is not None)

    async def _score(self, request: Request) -> Response:
        images = await self._images(request)
        await run_in_threadpool(check_pixels, images)
        waiting = [
            asyncio.wrap_future(self.batches.submit(sent.image, sent.name)) for sent in images if sent.image is not None
        ]
        found = iter(await asyncio.gather(*waiting, return_exceptions=True))
        results = [answer(sent, ImageError("", sent.reason) if sent.image is None else next(found)) for sent in images]
        return AsciiJSON({"results": results}, headers=HEADERS)

    async def _images(self, request: Request) -> list[SentImage]:
        """Return the images of a request; HTTPException if it has none or too many, or another form."""
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind == "application/json":
            images = await run_in_threadpool(self._named, await read_json(request, MOST_JSON_BYTES, MOST_SECONDS))
        elif kind == "multipart/form-data":
            images = await read_form(request)
        elif kind.startswith("image/") or kind == "application/octet-stream":
            content = b"".join([part async for part in bounded(request, LIMITS.n_bytes, MOST_SECONDS)])
            images = [SentImage(request.query_params.get("name", "image")[:MOST_NAME_LETTERS], content)]
        else:
            raise HTTPException(415, "send a form (multipart/form-data), a picture (image/...), or JSON")
        if not 0 < len(images) <= LIMITS.n_images:
            raise HTTPException(413 if images else 400, f"{len(images)} images; send 1 to {LIMITS.n_images}")
        return images

    def _named(self, asked: dict[str, Any]) -> list[SentImage]:
        """Return the images whose paths a request names."""
        paths = asked.get("paths")
        if not isinstance(paths, list) or not all(isinstance(path, str) for path in paths):
            raise HTTPException(400, 'JSON is {"paths": ["one.jpg", "sub/two.jpg"]}')
        if self._directory is None:
            raise HTTPException(400, "no folder is served; start the service with -d FOLDER to score paths below it")
        if len(paths) > LIMITS.n_images:
            return [SentImage("", None)] * len(paths)  # refused for their number, without a look at the disk
        return [self._below(self._directory, path) for path in paths]

    @staticmethod
    def _below(directory: Path, path: str) -> SentImage:
        """Return the picture of that path if it lies below the directory, also after all links are followed."""
        name = path[:MOST_NAME_LETTERS]
        if len(path) > MOST_NAME_LETTERS or not may_name_a_file(path) or not is_image_name(PurePath(path).name):
            return SentImage(name, None, "not the name of a picture")
        try:
            file = (directory / path).resolve()
        except (OSError, RuntimeError):  # RuntimeError: before Python 3.13, a loop of links
            return SentImage(name, None, "cannot be read")
        if directory not in file.parents:
            return SentImage(name, None, "outside the folder that is served")
        return SentImage(name, file)


async def read_form(request: Request) -> list[SentImage]:
    """Return the files of a form; fields without a file name are left out."""
    parts = bounded(request, LIMITS.n_bytes, MOST_SECONDS)
    parser = MultiPartParser(request.headers, parts, max_files=LIMITS.n_images)  # type: ignore[arg-type]
    try:
        form = await parser.parse()
    except MultiPartException as error:
        raise HTTPException(400, f"the form cannot be read: {error.message}") from None
    except KeyError:
        raise HTTPException(400, "the form cannot be read: its type names no boundary") from None
    except ValueError as error:  # older versions of the parser
        raise HTTPException(400, f"the form cannot be read: {error}") from None
    try:
        files = [value for _, value in form.multi_items() if isinstance(value, UploadFile)]
        return [SentImage((file.filename or "image")[:MOST_NAME_LETTERS], await file.read()) for file in files]
    finally:
        await form.close()


def check_pixels(images: Sequence[SentImage]) -> None:
    """Raise HTTPException 413 if the images have too many pixels together."""
    n_pixels = sum(_pixels_of(sent) for sent in images)
    if n_pixels > LIMITS.n_pixels:
        raise HTTPException(
            413, f"{n_pixels / 1e6:.0f} million pixels; a request has at most {LIMITS.n_pixels / 1e6:.0f} million"
        )


def _pixels_of(sent: SentImage) -> int:
    if sent.image is None:
        return 0
    try:
        if isinstance(sent.image, bytes):
            return count_pixels(sent.name, content=sent.image)
        return count_pixels(sent.image)
    except BadImage:  # said of the image itself later
        return 0


def answer(sent: SentImage, found: ImageRating | BaseException) -> dict[str, Any]:
    """Return the JSON for one image; raises what does not concern the image alone."""
    nothing = {"name": sent.name, "score": None, "sigma": None, "domain_distance": None}
    if isinstance(found, ImageError):
        return {**nothing, "error": found.reason}
    if isinstance(found, UserError):
        raise HTTPException(503, str(found))
    if isinstance(found, BaseException):
        raise found
    if not all(value is None or math.isfinite(value) for value in found):
        return {**nothing, "error": "the model gives no finite score for it"}
    return {"name": sent.name, **found._asdict(), "error": None}


async def _refuse(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return AsciiJSON(
        {"error": error.detail}, status_code=error.status_code, headers={**HEADERS, **(error.headers or {})}
    )


async def _fail(request: Request, error: Exception) -> Response:
    log.error("a request failed", exc_info=error)
    return AsciiJSON({"error": "the service failed; its window says why"}, status_code=500, headers=HEADERS)


def make_model_server(service: ScoringService) -> Server:
    """Return the server of the service; it is silent about requests that Ctrl-C cuts off."""
    return make_server(service.app(), most_connections=MOST_CONNECTIONS, log_level="critical")


def serve_model(arguments: FolderArguments) -> None:
    """Serve the model until Ctrl-C; UserError for what the user can correct."""
    check_arguments(arguments)
    assert arguments.folder.model is not None
    directory = None if arguments.folder.directory is None else Path(arguments.folder.directory)
    service = arguments.service
    listener = open_socket(service.port, host=service.host)
    try:
        host, port = listener.getsockname()[:2]
        token = None if ipaddress.ip_address(host).is_loopback else chosen_token()
        scorer = Scorer.load(
            in_folder_or_here(directory, arguments.folder.model),
            device=arguments.device.device,
            extractor_model=arguments.folder.feature_extractor_model,
            offline=arguments.folder.offline,
        )
        scorer.rate_prepared([scorer.prepare(Image.new("RGB", (64, 64)))])  # what cannot be used is refused now
        listener.listen()
        log.info("the model is served at http://%s:%d/ (Ctrl-C ends)", f"[{host}]" if ":" in host else host, port)
        if token is not None:
            log.warning("%s", exposure(directory, token))
        make_model_server(ScoringService(scorer, directory, token=token)).run(sockets=[listener])
    finally:
        listener.close()


def check_arguments(arguments: FolderArguments) -> None:
    """Raise UserError for what cannot be done, before any work."""
    require("python_multipart", "serve", "--serve")
    if arguments.folder.model is None:
        raise UserError("--serve needs the model: add -m MODEL")
    if arguments.folder.output is not None or (arguments.selection, arguments.action) != (
        SelectionSettings(),
        ActionSettings(),
    ):
        raise UserError("--serve takes no -o, no selection and no action: programs ask it by HTTP; leave them out")


def chosen_token() -> str:
    """Return the token from the environment, or a new one; UserError if it is too short to keep anybody out."""
    token = os.environ.get(TOKEN_VARIABLE)
    if token is None:
        return secrets.token_urlsafe(24)
    if len(token) < LEAST_TOKEN_LETTERS or not token.isascii() or not token.isprintable():
        raise UserError(f"{TOKEN_VARIABLE} has to be {LEAST_TOKEN_LETTERS} or more ASCII letters; choose a longer one")
    return token


def exposure(directory: Path | None, token: str) -> str:
    """Return a line on what `--host` lets other machines do, with the token if it is new."""
    paths = "" if directory is None else f", score the pictures below {directory.resolve()} by their paths"
    how = f"the environment variable {TOKEN_VARIABLE}" if TOKEN_VARIABLE in os.environ else token
    return (
        f"other machines reach this service: whoever sends the token can have pictures scored{paths}, and read the "
        f"model's card; nothing is encrypted, so use it in a network that you trust. Token: {how}"
    )
