"""The Hugging Face hub's protocol, as far as downloads go, from memory on 127.0.0.1; with faults on request."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

_LARGE = (".safetensors", ".gguf", ".bin")


@dataclass(frozen=True)
class Seen:
    """One request."""

    method: str
    path: str
    range: str | None
    authorization: str | None


@dataclass
class Hub:
    """Repositories by name, each commit's files by commit, and what went over the wire.

    `cut`: bytes of a large file after which the connection is dropped, once for each entry. `stall` set: large files
    stop in the middle until it is cleared. `corrupt`: large files arrive with their last byte changed.
    `lie`: the digest that it claims for every file.
    """

    files: dict[str, dict[str, dict[str, bytes]]] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    token: str | None = None
    gated: bool = False
    corrupt: bool = False
    lie: str | None = None
    status: int | None = None
    cut: list[int] = field(default_factory=list)
    stall: threading.Event = field(default_factory=threading.Event)
    seen: list[Seen] = field(default_factory=list)
    port: int = 0

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def add(self, name: str, files: Mapping[str, bytes], *, branch: str = "main") -> str:
        commit = hashlib.sha1(repr(sorted(files.items())).encode(), usedforsecurity=False).hexdigest()
        self.files.setdefault(name, {})[commit] = dict(files)
        self.branches[f"{name}@{branch}"] = commit
        return commit

    def ranges(self) -> list[str]:
        return [each.range for each in self.seen if each.range]

    def large_transfers(self) -> list[Seen]:
        return [each for each in self.seen if each.path.startswith("/cdn/")]


@contextmanager
def hub_double() -> Iterator[Hub]:
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub}))
    server.daemon_threads = True
    hub.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield hub
    finally:
        hub.stall.clear()
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.hub.seen.append(Seen(self.command, path, self.headers["Range"], self.headers["Authorization"]))
        if self.hub.status is not None:
            return self._error(self.hub.status, "", "out of order")
        if path.startswith("/cdn/"):
            return self._large(path.removeprefix("/cdn/"))
        if self.hub.token and self.headers["Authorization"] != f"Bearer {self.hub.token}":
            return self._error(401, "RepoNotFound", "Invalid username or password.")
        if path.startswith("/api/models/"):
            return self._listing(path.removeprefix("/api/models/"))
        return self._file(path)

    def do_HEAD(self) -> None:
        self.do_GET()

    def _listing(self, path: str) -> None:
        name, _, revision = path.partition("/revision/")
        if name not in self.hub.files:
            return self._error(404, "RepoNotFound", "Repository not found")
        if self.hub.gated:
            return self._error(403, "GatedRepo", "Access to this model is restricted")
        commit = self._commit(name, revision or "main")
        if commit is None:
            return self._error(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        siblings = [_sibling(file, data, self.hub.lie) for file, data in self.hub.files[name][commit].items()]
        body = {"id": name, "modelId": name, "sha": commit, "siblings": siblings, "private": False, "tags": []}
        return self._answer(200, json.dumps(body).encode(), {"Content-Type": "application/json"})

    def _commit(self, name: str, revision: str) -> str | None:
        return revision if revision in self.hub.files[name] else self.hub.branches.get(f"{name}@{revision}")

    def _file(self, path: str) -> None:
        name, _, rest = path.lstrip("/").partition("/resolve/")
        revision, _, file = rest.partition("/")
        commit = self._commit(name, revision)
        data = self.hub.files[name][commit].get(file) if commit else None
        if data is None or commit is None:
            return self._error(404, "EntryNotFound", "Entry not found")
        headers = {"X-Repo-Commit": commit, "ETag": f'"{_blob(data)}"', "Accept-Ranges": "bytes"}
        if file.endswith(_LARGE):
            # Another host, as the real hub's is: a token must not follow.
            location = f"http://localhost:{self.hub.port}/cdn/{name}/{commit}/{file}"
            return self._answer(302, b"", headers | {"Location": location, "X-Linked-Size": str(len(data))})
        return self._ranged(data, headers)

    def _large(self, path: str) -> None:
        owner, name, commit, file = path.split("/", 3)
        data = self.hub.files[f"{owner}/{name}"][commit][file]
        self._ranged(data[:-1] + b"\xaa" if self.hub.corrupt else data, {"Accept-Ranges": "bytes"}, faulty=True)

    def _ranged(self, data: bytes, headers: dict[str, str], *, faulty: bool = False) -> None:
        first, _, last = (self.headers["Range"] or "bytes=0-").removeprefix("bytes=").partition("-")
        start, end = int(first), min(int(last) + 1 if last else len(data), len(data))
        status = 206 if self.headers["Range"] else 200
        headers = headers | ({"Content-Range": f"bytes {start}-{end - 1}/{len(data)}"} if status == 206 else {})
        self._answer(status, data[start:end], headers, faulty=faulty)

    def _error(self, status: int, code: str, message: str) -> None:
        self._answer(status, b"{}", {"X-Error-Code": code, "X-Error-Message": message})

    def _answer(self, status: int, body: bytes, headers: Mapping[str, str], *, faulty: bool = False) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "HEAD":
            return
        try:
            self._send(body, faulty)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    def _send(self, body: bytes, faulty: bool) -> None:
        if faulty and self.hub.cut:
            self.wfile.write(body[: self.hub.cut.pop(0)])
            self.close_connection = True
            return
        half = len(body) // 2
        self.wfile.write(body[:half])
        self.wfile.flush()
        while faulty and self.hub.stall.is_set():
            threading.Event().wait(0.01)
        self.wfile.write(body[half:])


def _blob(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()


def _sibling(file: str, data: bytes, lie: str | None) -> dict[str, Any]:
    sibling: dict[str, Any] = {"rfilename": file, "size": len(data), "blobId": lie or _blob(data)}
    if file.endswith(_LARGE):
        sibling["lfs"] = {"sha256": lie or hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 134}
    return sibling
