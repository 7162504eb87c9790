"""A Hub on the loopback interface: a real HTTP server with the faults that a test asks for. It logs the requests it gets."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

CHUNK = 1 << 16


@dataclass
class Faults:
    """The faults of the server. A number says how often a fault still happens. It counts down, so that the server recovers."""

    errors: int = 0  # answers with 503
    dies: int = 0  # file bodies that stop half way, where the connection closes
    garbles: int = 0  # file bodies with one byte changed
    truncates: int = 0  # file bodies of half the size, with a Content-Length to match
    ignores_range: bool = False
    gated: bool = False  # only the token hf_member may read
    lies: dict[str, str] = field(default_factory=dict)  # headers of answers about files that replace the true ones
    honest: int = 0  # true answers about files before the lies begin
    false_sha: str = ""  # the commit that the list of files names instead of its own
    elsewhere: str = ""  # the address that requests for the content of files are redirected to
    stalls: threading.Event | None = None  # file bodies wait for this event
    stalls_after: float = 0.5  # they wait after this part of the body
    stalled: threading.Event = field(default_factory=threading.Event)  # set when a file body waits


@dataclass
class Hub:
    """The repositories, as {id: {commit: {path: bytes or file}}}; the last commit of each is `main`."""

    repos: dict[str, dict[str, dict[str, bytes | Path]]] = field(default_factory=dict)
    faults: Faults = field(default_factory=Faults)
    log: list[tuple[str, str]] = field(default_factory=list)
    url: str = ""
    lock: threading.Lock = field(default_factory=threading.Lock)
    uploads: dict[str, bytes] = field(default_factory=dict)
    tokens: list[str] = field(default_factory=list)  # the tokens that came
    starts: list[int] = field(default_factory=list)  # the first byte of each file body that was asked for

    def commit(self, repo: str, files: dict[str, bytes | Path]) -> str:
        """Adds a commit with these files to a repository; returns its name of 40 hex digits."""
        commits = self.repos.setdefault(repo, {})
        name = hashlib.sha1(f"{repo}{len(commits)}".encode(), usedforsecurity=False).hexdigest()
        commits[name] = files
        return name

    def downloads(self) -> int:
        """The number of requests for the content of a file."""
        return sum(method == "GET" and "/resolve/" in path for method, path in self.log)

    def spend(self, name: str) -> bool:
        """Whether the counted fault `name` happens now; counts it down."""
        with self.lock:
            left = getattr(self.faults, name)
            setattr(self.faults, name, max(0, left - 1))
            return left > 0


@contextmanager
def serving() -> Iterator[Hub]:
    """Runs the server for the length of the block."""
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub}))
    server.daemon_threads = True
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def log_message(self, *args: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self._route()

    def do_GET(self) -> None:
        self._route()

    def do_POST(self) -> None:
        self._route()

    def do_PUT(self) -> None:
        self._route()

    def _route(self) -> None:
        path = self.path.split("?", maxsplit=1)[0]
        self.hub.log.append((self.command, path))
        self.hub.tokens += self.headers.get_all("Authorization", [])
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.hub.spend("errors"):
            return self._answer(503, b"busy")
        for pattern, answer in _ROUTES:
            match = re.fullmatch(pattern, path)
            if match:
                return answer(self, body, *match.groups())
        return self._fail(404, "RepoNotFound")

    def _resolve(self, body: bytes, repo: str, revision: str, path: str) -> None:
        commit, files = self._commit(repo, revision) or ("", {})
        if path in files and self.command == "GET" and self.hub.faults.elsewhere:
            self._answer(302, b"", {"Location": f"{self.hub.faults.elsewhere}{self.path}"})
        elif path in files:
            self._file(commit, files[path])
        elif commit:
            self._fail(404, "EntryNotFound", {"X-Repo-Commit": commit})

    def _info(self, body: bytes, repo: str, revision: str | None = None) -> None:
        commit, files = self._commit(repo, revision or "main") or ("", {})
        if not commit:
            return
        sha = self.hub.faults.false_sha or commit
        self._json(
            {
                "id": repo,
                "modelId": repo,
                "sha": sha,
                "siblings": [{"rfilename": path} for path in files],
            }
        )

    def _commit(self, repo: str, revision: str) -> tuple[str, dict[str, bytes | Path]] | None:
        commits = self.hub.repos.get(repo)
        if not commits:
            return self._fail(404, "RepoNotFound")
        if self.hub.faults.gated and self.headers.get("Authorization") != "Bearer hf_member":
            return self._fail(403, "GatedRepo")
        name = list(commits)[-1] if revision == "main" else revision
        if name not in commits:
            return self._fail(404, "RevisionNotFound")
        return name, commits[name]

    def _file(self, commit: str, content: bytes | Path) -> None:
        size = len(content) if isinstance(content, bytes) else content.stat().st_size
        start = self._range() if not self.hub.faults.ignores_range else 0
        headers = {"X-Repo-Commit": commit, "ETag": f'"{_sha256(content)}"', "Accept-Ranges": "bytes"}
        if start:
            headers["Content-Range"] = f"bytes {start}-{size - 1}/{size}"
        sent = size // 2 if self.command == "GET" and self.hub.spend("truncates") else size
        self._start(206 if start else 200, {**headers, "Content-Length": str(sent - start)})
        if self.command == "GET":
            self.hub.starts.append(start)
            self._send(content, start, sent)

    def _range(self) -> int:
        match = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        return int(match[1]) if match else 0

    def _send(self, content: bytes | Path, start: int, size: int) -> None:
        faults, half = self.hub.faults, (start + size) // 2
        dies, garbles = self.hub.spend("dies"), self.hub.spend("garbles")
        for position, good in _chunks(content, start, size):
            damaged = garbles and position <= half < position + len(good)
            chunk = bytes([*good[:-1], good[-1] ^ 1]) if damaged else good
            if faults.stalls is not None and position + len(chunk) > start + faults.stalls_after * (size - start):
                faults.stalled.set()
                faults.stalls.wait()
            try:
                self.wfile.write(chunk)
            except ConnectionError:
                self.close_connection = True
                return
            if dies and position + len(chunk) > half:
                self.wfile.flush()
                self.connection.shutdown(2)
                self.close_connection = True
                return

    def _create(self, body: bytes) -> None:
        asked = json.loads(body)
        repo = f"{asked['organization']}/{asked['name']}" if asked.get("organization") else f"me/{asked['name']}"
        self.hub.repos.setdefault(repo, {})
        self._json({"url": f"{self.hub.url}/{repo}", "id": repo, "name": repo})

    def _preupload(self, body: bytes, repo: str, revision: str) -> None:
        files = [
            {
                "path": file["path"],
                "shouldIgnore": False,
                "uploadMode": "lfs" if file["path"].endswith(".safetensors") else "regular",
            }
            for file in json.loads(body)["files"]
        ]
        self._json({"files": files})

    def _batch(self, body: bytes, repo: str) -> None:
        objects = [
            {
                "oid": entry["oid"],
                "size": entry["size"],
                "actions": {"upload": {"href": f"{self.hub.url}/upload/{entry['oid']}", "header": {}}},
            }
            for entry in json.loads(body)["objects"]
        ]
        self._json({"transfer": "basic", "objects": objects})

    def _upload(self, body: bytes, oid: str) -> None:
        self.hub.uploads[oid] = body
        self._answer(200, b"")

    def _accept(self, body: bytes, repo: str, revision: str) -> None:
        import base64

        files: dict[str, bytes | Path] = {}
        for line in map(json.loads, body.splitlines()):
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.hub.uploads[value["oid"]]
        commit = self.hub.commit(repo, files)
        url = f"{self.hub.url}/{repo}/commit/{commit}"
        self._json({"success": True, "commitOid": commit, "commitUrl": url, "hookOutput": ""})

    def _whoami(self, body: bytes) -> None:
        self._json({"type": "user", "name": "me", "orgs": []})

    def _validate(self, body: bytes) -> None:
        self._json({"errors": [], "warnings": []})

    def _fail(self, status: int, code: str, headers: dict[str, str] | None = None) -> None:
        self._answer(status, b"{}", {"X-Error-Code": code, "X-Error-Message": code, **(headers or {})})

    def _json(self, value: object) -> None:
        self._answer(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _answer(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self._start(status, {**(headers or {}), "Content-Length": str(len(body))})
        if self.command != "HEAD":
            self.wfile.write(body)

    def _start(self, status: int, headers: dict[str, str]) -> None:
        if "X-Repo-Commit" in headers and self.hub.faults.lies and not self.hub.spend("honest"):
            headers = {**headers, **self.hub.faults.lies}
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()


_REPO = r"([\w.-]+/[\w.-]+)"
_ROUTES: tuple[tuple[str, Callable[..., None]], ...] = (
    (rf"/{_REPO}/resolve/([^/]+)/(.+)", _Handler._resolve),
    (rf"/api/models/{_REPO}", _Handler._info),
    (rf"/api/models/{_REPO}/revision/([^/]+)", _Handler._info),
    (rf"/api/models/{_REPO}/preupload/([^/]+)", _Handler._preupload),
    (rf"/api/models/{_REPO}/commit/([^/]+)", _Handler._accept),
    (rf"/{_REPO}\.git/info/lfs/objects/batch", _Handler._batch),
    (r"/upload/(\w+)", _Handler._upload),
    (r"/api/repos/create", _Handler._create),
    (r"/api/whoami-v2", _Handler._whoami),
    (r"/api/validate-yaml", _Handler._validate),
)


def _chunks(content: bytes | Path, start: int, end: int) -> Iterator[tuple[int, bytes]]:
    if isinstance(content, bytes):
        for position in range(start, end, CHUNK):
            yield position, content[position : min(position + CHUNK, end)]
        return
    with content.open("rb") as file:
        file.seek(start)
        for position in range(start, end, CHUNK):
            yield position, file.read(min(CHUNK, end - position))


_digests: dict[Path, str] = {}


def _sha256(content: bytes | Path) -> str:
    if isinstance(content, bytes):
        return hashlib.sha256(content).hexdigest()
    if content not in _digests:
        with content.open("rb") as file:
            _digests[content] = hashlib.file_digest(file, "sha256").hexdigest()
    return _digests[content]
