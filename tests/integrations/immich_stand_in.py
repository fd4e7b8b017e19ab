"""A stand-in for an Immich server: it checks each request against the schema, and keeps assets and albums in memory."""

import base64
import hashlib
import json
import re
import threading
import uuid
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

SCHEMA = json.loads((Path(__file__).parent / "immich_schema.json").read_text(encoding="utf-8"))
KEY = "the-secret-key"
TYPES = {"object": dict, "array": list, "string": str, "integer": int, "boolean": bool}


def problems(value: Any, schema: dict[str, Any], where: str = "body") -> list[str]:
    """Return what is wrong with a value: the part of JSON schema that the file uses."""
    kind = TYPES[schema["type"]]
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        return [f"{where} is no {schema['type']}"]
    found = []
    if kind is dict:
        found += [f"{where}.{name} is missing" for name in schema.get("required", []) if name not in value]
        known = schema["properties"]
        found += [f"{where}.{name} is not known" for name in value if name not in known]
        found += [each for name in value if name in known for each in problems(value[name], known[name], name)]
    if kind is list:
        found += [each for item in value for each in problems(item, schema["items"], f"{where}[]")]
    if kind is int and not schema.get("minimum", value) <= value <= schema.get("maximum", value):
        found.append(f"{where} is out of bounds")
    if "pattern" in schema and not re.fullmatch(schema["pattern"], value):
        found.append(f"{where} does not match")
    if schema.get("format") == "uuid" and str(uuid.UUID(value)) != value:
        found.append(f"{where} is no uuid")
    return found


class Immich:
    """The server's state, and what it was asked."""

    def __init__(self) -> None:
        self.assets: dict[str, dict[str, Any]] = {}
        self.albums: dict[str, dict[str, Any]] = {}
        self.requests: list[str] = []
        self.problems: list[str] = []
        self.answers: list[Callable[[BaseHTTPRequestHandler], None]] = []
        """Answers to the next requests, in place of the right ones."""

    def upload(self, content: bytes, rating: int | None = None, *, is_trashed: bool = False) -> str:
        asset = str(uuid.uuid4())
        checksum = base64.b64encode(hashlib.sha1(content).digest()).decode("ascii")
        self.assets[asset] = {
            "id": asset,
            "checksum": checksum,
            "isTrashed": is_trashed,
            "exifInfo": {"rating": rating},
        }
        return asset

    def rating(self, asset: str) -> int | None:
        return self.assets[asset]["exifInfo"]["rating"]

    def answer(self, method: str, path: str, body: Any) -> tuple[int, Any]:
        name = re.sub(r"[0-9a-f-]{36}", "{id}", f"{method} {path}")
        self.requests.append(name)
        if name not in SCHEMA:
            self.problems.append(f"{name} is not known")
            return 404, {"message": f"Cannot {method} {path}", "statusCode": 404}
        found = problems(body, SCHEMA[name]) if SCHEMA[name] else ["a body"] * (body is not None)
        if found:
            self.problems += [f"{name}: {each}" for each in found]
            return 400, {"message": found, "statusCode": 400}
        return getattr(self, f"_{re.sub('[^a-z]+', '_', name.lower()).strip('_')}")(path.split("/"), body)

    def _post_assets_bulk_upload_check(self, _: list[str], body: Any) -> tuple[int, Any]:
        ids = {base64.b64decode(asset["checksum"]).hex(): asset for asset in self.assets.values()}
        results = []
        for one in body["assets"]:
            asset = ids.get(one["checksum"])
            if asset is None:
                results.append({"id": one["id"], "action": "accept"})
            else:
                known = {"assetId": asset["id"], "isTrashed": asset["isTrashed"], "reason": "duplicate"}
                results.append({"id": one["id"], "action": "reject", **known})
        return 200, {"results": results}

    def _get_assets_id(self, parts: list[str], _: Any) -> tuple[int, Any]:
        return 200, self.assets[parts[2]]

    def _put_assets(self, _: list[str], body: Any) -> tuple[int, Any]:
        for asset in body["ids"]:
            self.assets[asset]["exifInfo"]["rating"] = body["rating"]
        return 204, None

    def _get_albums(self, *_: Any) -> tuple[int, Any]:
        return 200, [{key: value for key, value in album.items() if key != "ids"} for album in self.albums.values()]

    def _post_albums(self, _: list[str], body: Any) -> tuple[int, Any]:
        album = {"id": str(uuid.uuid4()), "albumName": body["albumName"], "createdAt": f"2026-{len(self.albums)}"}
        self.albums[album["id"]] = {**album, "ids": list(body.get("assetIds", []))}
        return 201, album

    def _put_albums_id_assets(self, parts: list[str], body: Any) -> tuple[int, Any]:
        held, rows = self.albums[parts[2]]["ids"], []
        for asset in body["ids"]:
            rows.append({"id": asset, "success": asset not in held})
            if asset in held:
                rows[-1]["error"] = "duplicate"
            else:
                held.append(asset)
        return 200, rows


def serve(immich: Immich) -> ThreadingHTTPServer:
    """Return a server that runs in a thread, on a free port of 127.0.0.1."""

    class Handler(BaseHTTPRequestHandler):
        def _handle(self) -> None:
            content = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            if immich.answers:
                immich.requests.append(f"{self.command} {self.path}")
                immich.answers.pop(0)(self)
            elif self.headers.get("x-api-key") != KEY or not self.path.startswith("/api/"):
                immich.requests.append(f"{self.command} {self.path}")
                send(self, 401, {"message": "Invalid API key", "error": "Unauthorized", "statusCode": 401})
            else:
                body = json.loads(content) if content else None
                send(self, *immich.answer(self.command, self.path.removeprefix("/api"), body))

        do_GET = do_POST = do_PUT = _handle

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    return server


def send(handler: BaseHTTPRequestHandler, status: int, body: Any, **headers: str) -> None:
    """Answer with JSON, or with bytes as they are."""
    content = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
    handler.send_response(status)
    for name, value in {**headers, "Content-Length": str(len(content))}.items():
        handler.send_header(name, value)
    handler.end_headers()
    handler.wfile.write(content)
