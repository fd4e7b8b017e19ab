"""A hub on this machine: the part of its HTTP interface that publishing and fetching a model needs."""

import base64
import hashlib
import json
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

import yaml

TOKEN = "hf_of_the_user"
TASKS = {"image-classification", "image-feature-extraction", "text-generation"}
LICENCES = {"mit", "apache-2.0", "cc-by-4.0", "cc0-1.0", "other"}


@dataclass
class Repository:
    private: bool = False
    revisions: dict[str, dict[str, bytes]] = field(default_factory=dict)
    """Commit -> its files, oldest first."""

    @property
    def newest(self) -> str:
        return list(self.revisions)[-1]

    def commit(self, files: dict[str, bytes]) -> str:
        known = self.revisions[self.newest] if self.revisions else {}
        commit = hashlib.sha1(f"{len(self.revisions)}".encode()).hexdigest()
        self.revisions[commit] = {**known, **files}
        return commit

    def files(self, revision: str) -> tuple[str, dict[str, bytes]] | None:
        commit = self.newest if revision == "main" else revision
        return (commit, self.revisions[commit]) if commit in self.revisions else None


class Hub(ThreadingHTTPServer):
    """`repositories` by name; `requests` holds the method and path of everything that was asked."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.repositories: dict[str, Repository] = {}
        self.uploads: dict[str, bytes] = {}
        self.requests: list[str] = []
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        threading.Thread(target=self.serve_forever, daemon=True).start()


def problems_of_card(content: str) -> list[str]:
    """What the hub's validation refuses of the YAML header of a model card, as far as its documentation says it."""
    parts = content.split("---\n")
    if parts[0] or len(parts) < 3:
        return ["no YAML header"]
    header = yaml.safe_load(parts[1])
    if not isinstance(header, dict):
        return ["the header is no mapping"]
    wrong = []
    if "license" in header and header["license"] not in LICENCES:
        wrong.append('"license" must be one of the known ones')
    if header.get("pipeline_tag") not in {None, *TASKS}:
        wrong.append('"pipeline_tag" must be one of the known tasks')
    for key in ("tags", "metrics", "base_model"):
        values = header.get(key, [])
        if not all(isinstance(value, str) for value in ([values] if isinstance(values, str) else values)):
            wrong.append(f'"{key}" must be text or a list of it')
    for entry in header.get("model-index", []):
        wrong += [] if isinstance(entry.get("name"), str) else ['"model-index" needs a name']
        for result in entry.get("results") or [{}]:
            for part, keys in (("task", ["type"]), ("dataset", ["type", "name"])):
                missing = [key for key in keys if not isinstance(result.get(part, {}).get(key), str)]
                wrong += [f'"model-index" needs {part}.{key}' for key in missing]
            for metric in result.get("metrics") or [{}]:
                if not isinstance(metric.get("type"), str) or not isinstance(metric.get("value"), int | float):
                    wrong.append('"model-index" needs the type and value of a metric')
    return wrong


class Answer(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Hub

    def log_message(self, *_: Any) -> None:
        pass

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = self._begin()
        match path.split("/"):
            case ["", "api", "whoami-v2"]:
                self._json({"name": "user", "type": "user", "orgs": []}) if self._is_user() else self._error(401)
            case ["", "api", "models", user, repo, "tree", revision]:
                found = self._files(f"{user}/{repo}", revision)
                if found is not None:
                    entries = [{"type": "file", "path": name, "size": len(content), "oid": "0" * 40}
                               for name, content in found[1].items()]  # fmt: skip
                    self._json(entries)
            case ["", user, repo, "resolve", revision, *name]:
                self._resolve(f"{user}/{repo}", revision, "/".join(name))
            case _:
                self._error(404)

    def do_PUT(self) -> None:
        content = self._body()
        oid = self._begin().rpartition("/")[2]
        assert hashlib.sha256(content).hexdigest() == oid
        self.server.uploads[oid] = content
        self._send(200, b"")

    def do_POST(self) -> None:
        content = self._body()
        path = self._begin()
        if path == "/api/validate-yaml":
            wrong = [{"message": problem} for problem in problems_of_card(json.loads(content)["content"])]
            self._json({"errors": wrong, "warnings": []}, 400 if wrong else 200)
        elif not self._is_user():
            self._error(401)
        elif path == "/api/repos/create":
            self._create(json.loads(content))
        elif path.endswith("/info/lfs/objects/batch"):
            self._batch(json.loads(content))
        elif "/preupload/" in path:
            files = json.loads(content)["files"]
            modes = [
                {
                    "path": file["path"],
                    "uploadMode": "lfs" if file["path"].endswith(".safetensors") else "regular",
                    "shouldIgnore": False,
                }
                for file in files
            ]
            self._json({"files": modes})
        elif "/commit/" in path:
            self._commit("/".join(path.split("/")[3:5]), [json.loads(line) for line in content.splitlines()])
        else:
            self._error(404)

    def _create(self, wanted: dict[str, Any]) -> None:
        name = f"{wanted.get('organization') or 'user'}/{wanted['name']}"
        if not name.startswith("user/"):
            self._error(403)
        elif name in self.server.repositories:
            self._json({"error": "You already created this model repo", "url": f"{self.server.url}/{name}"}, 409)
        else:
            private = wanted.get("visibility") == "private" or bool(wanted.get("private"))
            self.server.repositories[name] = Repository(private)
            self._json({"url": f"{self.server.url}/{name}", "name": name})

    def _batch(self, wanted: dict[str, Any]) -> None:
        objects = [
            {**own, "actions": {"upload": {"href": f"{self.server.url}/upload/{own['oid']}"}}}
            for own in wanted["objects"]
        ]
        self._json({"transfer": "basic", "objects": objects})

    def _commit(self, name: str, lines: list[dict[str, Any]]) -> None:
        files = {}
        for line in lines:
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.server.uploads[value["oid"]]
        commit = self.server.repositories[name].commit(files)
        self._json({"commitUrl": f"{self.server.url}/{name}/commit/{commit}", "commitOid": commit, "success": True})

    def _files(self, name: str, revision: str) -> tuple[str, dict[str, bytes]] | None:
        repository = self.server.repositories.get(name)
        if repository is None or (repository.private and not self._is_user()):
            self._error(404, "RepoNotFound")
            return None
        found = repository.files(revision)
        if found is None:
            self._error(404, "RevisionNotFound")
        return found

    def _resolve(self, name: str, revision: str, file: str) -> None:
        found = self._files(name, revision)
        if found is None:
            return
        commit, files = found
        if file not in files:
            self._error(404, "EntryNotFound", commit)
            return
        etag = f'"{hashlib.sha256(files[file]).hexdigest()}"'
        self._send(200, files[file], {"ETag": etag, "X-Repo-Commit": commit, "Accept-Ranges": "bytes"})

    def _begin(self) -> str:
        self.server.requests.append(f"{self.command} {self.path}")
        return unquote(urlsplit(self.path).path)

    def _is_user(self) -> bool:
        return self.headers.get("Authorization") == f"Bearer {TOKEN}"

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            parts = []
            while size := int(self.rfile.readline(), 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def _json(self, content: Any, status: int = 200) -> None:
        self._send(status, json.dumps(content).encode(), {"Content-Type": "application/json"})

    def _error(self, status: int, code: str = "", commit: str = "") -> None:
        headers = {"X-Error-Code": code} if code else {}
        self._send(status, b'{"error": "refused"}', {**headers, **({"X-Repo-Commit": commit} if commit else {})})

    def _send(self, status: int, content: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)
