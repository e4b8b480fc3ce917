"""A small Hugging Face hub on this machine: the routes that huggingface_hub uses for models, and simulated failures."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import pytest

TOKEN = "hf_of-ada"
_LARGE = (".safetensors", ".onnx", ".data")
_LOST = {"RepoNotFound": 401, "RevisionNotFound": 404, "EntryNotFound": 404, "GatedRepo": 403}


def git_oid(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


@dataclass
class Repository:
    """Files by commit, commits by branch."""

    private: bool = False
    gated: bool = False
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    messages: list[str] = field(default_factory=list)

    def commit(self, branch: str, tree: dict[str, bytes], message: str = "") -> str:
        text = json.dumps([len(self.commits), sorted((path, git_oid(data)) for path, data in tree.items())])
        oid = hashlib.sha1(text.encode()).hexdigest()
        self.commits[oid] = dict(tree)
        self.branches[branch] = oid
        self.messages.append(message)
        return oid

    @property
    def files(self) -> dict[str, bytes]:
        """The files of "main", except the hub's own file."""
        return {path: data for path, data in self.tree("main").items() if path != ".gitattributes"}

    def tree(self, revision: str) -> dict[str, bytes]:
        return self.commits[self.branches.get(revision, revision)]

    def oid(self, revision: str) -> str | None:
        found = self.branches.get(revision, revision)
        return found if found in self.commits else None


class Refused(Exception):
    def __init__(self, status: int, message: str, code: str | None = None) -> None:
        self.status, self.message, self.code = status, message, code


class LocalHub:
    """Serves until it is closed.

    Attributes:
        repositories: by name.
        objects: large files by SHA-256, also if they were never committed.
        served: method, path and bytes of each answer's body.
        sent: method, path and bytes of each request's body.
        before: called with method and path before anything is answered.
        ignored: paths that the repositories' .gitignore names.
        broken: paths whose first answer is cut off in the middle.
    """

    def __init__(self) -> None:
        self.repositories: dict[str, Repository] = {}
        self.objects: dict[str, bytes] = {}
        self.served: list[tuple[str, str, int]] = []
        self.sent: list[tuple[str, str, int]] = []
        self.ranges: list[str] = []
        self.before: Callable[[str, str], None] = lambda method, path: None
        self.ignored: set[str] = set()
        self.broken: set[str] = set()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": self}))
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def environment(self, cache: Path, token: str | None = TOKEN) -> dict[str, str]:
        """Environment variables of a process that uses this hub."""
        own = {
            "HF_ENDPOINT": self.url,
            "HF_HUB_OFFLINE": "0",
            "HF_HOME": str(cache),
            "HF_HUB_CACHE": str(cache / "hub"),
            "HF_HUB_DISABLE_XET": "1",  # Xet is a separate protocol, to another server
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        }
        return own | ({"HF_TOKEN": token} if token else {})

    @contextmanager
    def used_by(self, monkeypatch: pytest.MonkeyPatch, cache: Path) -> Iterator[None]:
        """Let this process use it, although huggingface_hub has already read its settings."""
        from huggingface_hub import constants
        from huggingface_hub.utils import disable_progress_bars

        with monkeypatch.context() as patch:
            patch.setattr(constants, "ENDPOINT", self.url)
            template = self.url + "/{repo_id}/resolve/{revision}/{filename}"
            patch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
            patch.setattr(constants, "HF_HUB_OFFLINE", False)
            patch.setattr(constants, "HF_HUB_DISABLE_XET", True)
            patch.setattr(constants, "HF_HUB_CACHE", str(cache / "hub"))
            patch.setattr(constants, "HF_TOKEN_PATH", str(cache / "token"))
            patch.setenv("HF_TOKEN", TOKEN)
            disable_progress_bars()
            yield


class _Handler(BaseHTTPRequestHandler):
    hub: LocalHub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        """Nothing."""

    def do_GET(self) -> None:
        self._answer("GET")

    def do_HEAD(self) -> None:
        self._answer("HEAD")

    def do_POST(self) -> None:
        self._answer("POST")

    def do_PUT(self) -> None:
        self._answer("PUT")

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        found = b""
        while size := int(self.rfile.readline(), 16):
            found += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return found

    def _answer(self, method: str) -> None:
        body = self._body()
        path = urlsplit(self.path).path
        self.hub.sent.append((method, unquote(path), len(body)))
        try:
            self.hub.before(method, unquote(path))
            for pattern, routed in _ROUTES.items():
                wanted, _, rest = pattern.partition(" ")
                found = re.fullmatch(rest, path)
                if found and (wanted == method or (wanted, method) == ("GET", "HEAD")):
                    routed(self, body, *(unquote(part or "") for part in found.groups()))
                    return
            raise Refused(404, f"no route {method} {path}")
        except Refused as refused:
            code = {"X-Error-Code": refused.code} if refused.code else {}
            headers = {**code, "X-Error-Message": refused.message}
            self._send(refused.status, json.dumps({"error": refused.message}).encode(), headers)

    def _send(self, status: int, data: bytes, headers: dict[str, str], told: int | None = None) -> None:
        self.hub.served.append((self.command, unquote(urlsplit(self.path).path), len(data)))
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data) if told is None else told))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def _json(self, value: Any) -> None:
        self._send(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _known(self) -> bool:
        given = self.headers.get("Authorization")
        if given not in (None, f"Bearer {TOKEN}"):
            raise Refused(401, "Invalid credentials in Authorization header")
        return given is not None

    def _repository(self, name: str, write: bool = False) -> Repository:
        known = self._known()
        found = self.hub.repositories.get(name)
        if found is None or (found.private and not known):
            raise Refused(401, "Repository not found", "RepoNotFound")
        if found.gated:
            raise Refused(403, "Access to this model is restricted", "GatedRepo")
        if write and not known:
            raise Refused(401, "Invalid username or password.")
        return found

    def _oid(self, repository: Repository, revision: str) -> str:
        oid = repository.oid(revision)
        if oid is None:
            raise Refused(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return oid

    def info(self, body: bytes, name: str, revision: str) -> None:
        repository = self._repository(name)
        oid = self._oid(repository, revision or "main")
        told = {"_id": "1", "id": name, "sha": oid, "private": repository.private}
        if "expand" not in parse_qs(urlsplit(self.path).query):
            told["siblings"] = [{"rfilename": path} for path in repository.commits[oid]]
        self._json(told)

    def tree(self, body: bytes, name: str, revision: str, folder: str) -> None:
        repository = self._repository(name)
        files = repository.commits[self._oid(repository, revision)]
        inside = {path: data for path, data in files.items() if not folder or path.startswith(f"{folder}/")}
        if folder and not inside:
            raise Refused(404, f"{folder} does not exist", "EntryNotFound")
        self._json([_entry(path, data) for path, data in inside.items()])

    def paths_info(self, body: bytes, name: str, revision: str) -> None:
        repository = self._repository(name)
        files = repository.commits[self._oid(repository, revision)]
        paths = parse_qs(body.decode()).get("paths", [])
        self._json([_entry(path, files[path]) for path in paths if path in files])

    def resolve(self, body: bytes, name: str, revision: str, path: str) -> None:
        repository = self._repository(name)
        oid = self._oid(repository, revision)
        data = repository.commits[oid].get(path)
        if data is None:
            raise Refused(404, f"{path} does not exist", "EntryNotFound")
        etag = hashlib.sha256(data).hexdigest() if path.endswith(_LARGE) else git_oid(data)
        headers = {"ETag": f'"{etag}"', "X-Repo-Commit": oid, "Accept-Ranges": "bytes"}
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if asked:
            self.hub.ranges.append(f"{path} {asked[0]}")
            begin, end = int(asked[1]), int(asked[2] or len(data) - 1)
            if begin >= len(data):
                raise Refused(416, "Range Not Satisfiable")
            headers["Content-Range"] = f"bytes {begin}-{end}/{len(data)}"
            self._send(206, data[begin : end + 1], headers)
        elif path in self.hub.broken and self.command == "GET":
            self.hub.broken.discard(path)
            self._send(200, data[: len(data) // 2], headers, told=len(data))
            self.close_connection = True
        else:
            self._send(200, data, headers)

    def preupload(self, body: bytes, name: str, revision: str) -> None:
        repository = self._repository(name, write=True)
        files = repository.commits[self._oid(repository, revision)]
        answers = []
        for file in json.loads(body)["files"]:
            path = file["path"]
            old = files.get(path)
            large = path.endswith(_LARGE)
            answers.append(
                {
                    "path": path,
                    "uploadMode": "lfs" if large else "regular",
                    "shouldIgnore": path in self.hub.ignored,
                    "oid": None if old is None else hashlib.sha256(old).hexdigest() if large else git_oid(old),
                }
            )
        self._json({"files": answers})

    def batch(self, body: bytes, name: str) -> None:
        self._repository(name, write=True)
        objects = []
        for one in json.loads(body)["objects"]:
            href = f"{self.hub.url}/objects/{one['oid']}"
            actions = {} if one["oid"] in self.hub.objects else {"actions": {"upload": {"href": href}}}
            objects.append({**one, **actions})
        self._json({"transfer": "basic", "objects": objects})

    def put_object(self, body: bytes, oid: str) -> None:
        if hashlib.sha256(body).hexdigest() != oid:
            raise Refused(400, "these bytes have another SHA-256")
        self.hub.objects[oid] = body
        self._send(200, b"", {})

    def commit(self, body: bytes, name: str, branch: str) -> None:
        repository = self._repository(name, write=True)
        if branch not in repository.branches:
            raise Refused(404, f"Invalid rev id: {branch}", "RevisionNotFound")
        lines = [json.loads(line) for line in body.splitlines()]
        header = lines[0]["value"]
        if header.get("parentCommit") not in (None, repository.branches[branch]):
            raise Refused(412, "A commit has happened since. Please refresh and try again.")
        tree = dict(repository.tree(branch))
        for line in lines[1:]:
            value = line["value"]
            match line["key"]:
                case "file":
                    tree[value["path"]] = base64.b64decode(value["content"])
                case "lfsFile":
                    tree[value["path"]] = self.hub.objects[value["oid"]]
                case "deletedFile":
                    del tree[value["path"]]
        oid = repository.commit(branch, tree, header["summary"])
        self._json({"commitUrl": f"{self.hub.url}/{name}/commit/{oid}", "commitOid": oid, "success": True})

    def create(self, body: bytes) -> None:
        if not self._known():
            raise Refused(401, "Invalid username or password.")
        asked = json.loads(body)
        name = f"{asked['organization']}/{asked['name']}"
        if asked["organization"] != "ada":
            raise Refused(403, f"You don't have the rights to create a model under the namespace {name}")
        if name in self.hub.repositories:
            raise Refused(409, "You already created this model repo")
        made = self.hub.repositories[name] = Repository(private=asked.get("visibility") == "private")
        made.commit("main", {".gitattributes": b"*.safetensors filter=lfs\n"}, "initial commit")
        self._json({"url": f"{self.hub.url}/{name}", "name": name})

    def branch(self, body: bytes, name: str, branch: str) -> None:
        repository = self._repository(name, write=True)
        asked = json.loads(body or b"{}")
        repository.branches[branch] = self._oid(repository, asked.get("startingPoint", "main"))
        self._json({})

    def validate(self, body: bytes) -> None:
        from huggingface_hub import ModelCardData  # its own reading of a card's head
        from huggingface_hub.repocard import RepoCard

        card = RepoCard(json.loads(body)["content"])
        if not isinstance(card.data, ModelCardData | object) or "library_name" not in card.data.to_dict():
            raise Refused(400, "no metadata")
        self._json({"errors": [], "warnings": []})


def _entry(path: str, data: bytes) -> dict[str, Any]:
    large = {"lfs": {"oid": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 130}}
    return {"type": "file", "path": path, "oid": git_oid(data), "size": len(data)} | (
        large if path.endswith(_LARGE) else {}
    )


_NAME = "([^/]+/[^/]+)"
_ROUTES: dict[str, Callable[..., None]] = {
    f"GET /api/models/{_NAME}(?:/revision/([^/]+))?": _Handler.info,
    f"GET /api/models/{_NAME}/tree/([^/]+)(?:/(.+))?": _Handler.tree,
    f"POST /api/models/{_NAME}/paths-info/([^/]+)": _Handler.paths_info,
    f"POST /api/models/{_NAME}/preupload/([^/]+)": _Handler.preupload,
    f"POST /api/models/{_NAME}/commit/([^/]+)": _Handler.commit,
    f"POST /api/models/{_NAME}/branch/([^/]+)": _Handler.branch,
    "POST /api/repos/create": _Handler.create,
    "POST /api/validate-yaml": _Handler.validate,
    f"POST /{_NAME}\\.git/info/lfs/objects/batch": _Handler.batch,
    "PUT /objects/([0-9a-f]{64})": _Handler.put_object,
    f"GET /{_NAME}/resolve/([^/]+)/(.+)": _Handler.resolve,
}
