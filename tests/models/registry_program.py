"""A real OCI registry, Debian's docker-registry, on 127.0.0.1; models pushed to it, and a wire that can be cut."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import shutil
import socket
import subprocess
import threading
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.support import free_port, listening, wait_until

DOCKER = "application/vnd.docker.ai."
CNCF = "application/vnd.cncf.model."
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"


@dataclass(frozen=True)
class Layer:
    data: bytes
    media: str
    path: str | None = None

    @property
    def descriptor(self) -> dict[str, Any]:
        described: dict[str, Any] = {"mediaType": self.media, "size": len(self.data), "digest": digest(self.data)}
        return described | ({"annotations": {"org.cncf.model.filepath": self.path}} if self.path else {})


def digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def manifest_of(layers: Sequence[Layer], config: Layer) -> bytes:
    document = {"schemaVersion": 2, "mediaType": MANIFEST, "config": config.descriptor}
    return json.dumps({**document, "layers": [layer.descriptor for layer in layers]}).encode()


def config_layer(media: str = f"{DOCKER}model.config.v0.1+json", **config: Any) -> Layer:
    return Layer(json.dumps({"config": {"format": "gguf", **config}, "descriptor": {}}).encode(), media)


@dataclass
class Program:
    """A running registry; `root` is where its blobs are."""

    port: int
    root: Path
    tokens: TokenServer | None = None

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.port}"

    def push(self, name: str, layers: Sequence[Layer], config: Layer | None = None, *, tag: str = "latest") -> str:
        """Its manifest's digest."""
        config = config or config_layer()
        for blob in {each.data for each in (*layers, config)}:
            self._upload(name, blob)
        manifest = manifest_of(layers, config)
        self._request("PUT", f"/v2/{name}/manifests/{tag}", manifest, {"Content-Type": MANIFEST}, name)
        return digest(manifest)

    def push_index(self, name: str, manifests: Sequence[Mapping[str, Any]], *, tag: str = "latest") -> None:
        """An index of manifests that were pushed before, each `{"digest": …}` with what else is said of it."""
        found = [{"mediaType": MANIFEST, "size": self._size(name, each["digest"]), **each} for each in manifests]
        index = json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": found}).encode()
        self._request("PUT", f"/v2/{name}/manifests/{tag}", index, {"Content-Type": INDEX}, name)

    def _size(self, name: str, digest: str) -> int:
        headers = self._request("GET", f"/v2/{name}/manifests/{digest}", None, {"Accept": MANIFEST}, name)
        return int(headers["Content-Length"])

    def _upload(self, name: str, data: bytes) -> None:
        location = self._request("POST", f"/v2/{name}/blobs/uploads/", b"", {}, name)["Location"]
        path = urlsplit(location)
        query = f"{path.query}&digest={digest(data)}"
        self._request("PUT", f"{path.path}?{query}", data, {"Content-Type": "application/octet-stream"}, name)

    def _request(self, method: str, path: str, data: bytes | None, headers: Mapping[str, str], name: str) -> Any:
        auth = {"Authorization": f"Bearer {self.tokens.issue(name, ['pull', 'push'])}"} if self.tokens else {}
        request = urllib.request.Request(f"http://{self.host}{path}", data, {**headers, **auth}, method=method)
        with urllib.request.urlopen(request, timeout=10) as response:  # noqa: S310 - on this machine
            return response.headers

    def damage(self, data: bytes) -> None:
        """Change the last byte of a blob in the registry's own storage."""
        hexadecimal = hashlib.sha256(data).hexdigest()
        path = self.root / "docker/registry/v2/blobs/sha256" / hexadecimal[:2] / hexadecimal / "data"
        path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))


@contextmanager
def registry_program(root: Path, *, tokens: TokenServer | None = None) -> Iterator[Program]:
    program = shutil.which("docker-registry")
    if program is None:
        pytest.skip("docker-registry is not installed (apt-get install docker-registry)")
    port = free_port()
    config: dict[str, Any] = {
        "version": 0.1,
        "log": {"level": "error", "accesslog": {"disabled": True}},
        "storage": {"filesystem": {"rootdirectory": str(root)}},
        "http": {"addr": f"127.0.0.1:{port}"},
    }
    if tokens:
        config["auth"] = {"token": tokens.settings}
    file = root / "config.yml"
    root.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(config))  # JSON is YAML
    with (
        (root / "log").open("wb") as log,
        subprocess.Popen([program, "serve", str(file)], stdout=log, stderr=log) as it,
    ):
        try:
            wait_until(lambda: it.poll() is not None or listening(port), what="the registry listens")
            assert it.poll() is None, (root / "log").read_text()
            yield Program(port, root, tokens)
        finally:
            it.terminate()


class TokenServer:
    """Issues the tokens that a registry with token authentication wants, signed by a key of its own."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._key, self._certificate = directory / "key.pem", directory / "cert.pem"
        self.asked: list[str | None] = []
        self.refuses = False
        argv = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=issuer"]
        subprocess.run(
            [*argv, "-keyout", str(self._key), "-out", str(self._certificate)], check=True, capture_output=True
        )
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _token_handler(self))
        self.port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()

    @property
    def settings(self) -> dict[str, str]:
        realm = f"http://127.0.0.1:{self.port}/token"
        return {"realm": realm, "service": "registry", "issuer": "issuer", "rootcertbundle": str(self._certificate)}

    def issue(self, name: str, actions: list[str]) -> str:
        der = "".join(self._certificate.read_text().split("-----")[2].split())
        now = int(time.time())
        claims = {
            "iss": "issuer",
            "sub": "",
            "aud": "registry",
            "exp": now + 300,
            "nbf": now - 10,
            "iat": now,
            "jti": "1",
        }
        access = [{"type": "repository", "name": name, "actions": actions}]
        parts = [{"alg": "RS256", "typ": "JWT", "x5c": [der]}, {**claims, "access": access}]
        text = ".".join(_encoded(json.dumps(part).encode()) for part in parts)
        argv = ["openssl", "dgst", "-sha256", "-sign", str(self._key)]
        signature = subprocess.run(argv, input=text.encode(), check=True, capture_output=True).stdout
        return f"{text}.{_encoded(signature)}"

    def answer(self, authorization: str | None, scope: str) -> str | None:
        self.asked.append(authorization)
        expected = "Basic " + base64.b64encode(b"user:secret").decode()
        if self.refuses or (authorization is not None and authorization != expected):
            return None
        _, name, actions = scope.split(":")
        return self.issue(name, actions.split(","))

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def _encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def _token_handler(server: TokenServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            pass

        def do_GET(self) -> None:
            scope = parse_qs(urlsplit(self.path).query)["scope"][0]
            token = server.answer(self.headers["Authorization"], scope)
            body = json.dumps({"token": token}).encode() if token else b"{}"
            self.send_response(200 if token else 401)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    return Handler


@dataclass
class Wire:
    """A TCP relay to a registry. `cuts`: bytes towards the client after which a large answer is cut, once each.

    `sent` counts the bytes that went to clients; `stall` set: answers stop after `cuts[0]` bytes until it is cleared.
    """

    port: int = 0
    cuts: list[int] = field(default_factory=list)
    stall_after: int | None = None
    sent: int = 0
    requests: list[str] = field(default_factory=list)

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.port}"


@contextmanager
def wire_to(port: int) -> Iterator[Wire]:
    listener = socket.create_server(("127.0.0.1", 0))
    wire = Wire(listener.getsockname()[1])
    closing = threading.Event()
    threads: list[threading.Thread] = []

    def relay(client: socket.socket) -> None:
        with client, socket.create_connection(("127.0.0.1", port)) as upstream, contextlib.suppress(OSError):
            up = threading.Thread(target=_up, args=(client, upstream, wire))
            up.start()
            _down(client, upstream, wire, closing)
            upstream.shutdown(socket.SHUT_RDWR)
            client.shutdown(socket.SHUT_RDWR)
            up.join()

    def accept() -> None:
        while not closing.is_set():
            with contextlib.suppress(OSError):
                client, _ = listener.accept()
                thread = threading.Thread(target=relay, args=(client,))
                threads.append(thread)
                thread.start()

    acceptor = threading.Thread(target=accept)
    acceptor.start()
    try:
        yield wire
    finally:
        closing.set()
        with contextlib.suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        acceptor.join()
        for thread in threads:
            thread.join()


def _up(client: socket.socket, upstream: socket.socket, wire: Wire) -> None:
    with contextlib.suppress(OSError):
        while data := client.recv(65536):
            wire.requests.append(data.partition(b"\r\n\r\n")[0].decode(errors="replace"))
            upstream.sendall(data)


def _down(client: socket.socket, upstream: socket.socket, wire: Wire, closing: threading.Event) -> None:
    upstream.settimeout(0.2)
    passed = 0
    while not closing.is_set():
        try:
            data = upstream.recv(16384)
        except TimeoutError:
            continue
        if not data:
            return
        passed += len(data)
        if wire.cuts and passed > wire.cuts[0]:
            wire.cuts.pop(0)
            return
        client.sendall(data)
        wire.sent += len(data)
        while wire.stall_after is not None and passed > wire.stall_after and not closing.is_set():
            closing.wait(0.01)
