"""A gateway on a real socket in a thread of its own, in front of real fake engines."""

from __future__ import annotations

import asyncio
import http.client
import json
import socket
import threading
from collections.abc import Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from email.message import Message
from pathlib import Path
from typing import Any

import structlog
import uvloop
from openai.types.chat import ChatCompletionUserMessageParam

from appliance.config.models import Key
from appliance.errors import ApplianceError, NotReady
from appliance.gateway.activity import Activity
from appliance.gateway.app import create_app
from appliance.gateway.docker.store import Disk
from appliance.gateway.keys import digest
from appliance.gateway.protocol import Deadlines
from appliance.gateway.server import DEADLINES, bind, serving
from appliance.routing import Lease, Route, Routing

ENGINE_KEY = "engine-key-that-no-client-may-see"
QUESTION: list[ChatCompletionUserMessageParam] = [{"role": "user", "content": "what is the capital of France?"}]


@dataclass
class FakePort:
    """The reconciler's side as plain data. `coming` is what a model that is not ready turns into when asked for."""

    table: Routing
    coming: dict[str, Route | ApplianceError] = field(default_factory=dict)
    load: dict[str, str] = field(default_factory=dict)
    states: dict[str, str] = field(default_factory=dict)
    """Of models that are not ready; `stopped` where it is not said."""
    delay: float = 0.0
    """Seconds that a model that is not ready takes to become what is coming."""

    def routing(self) -> Routing:
        return self.table

    async def changed(self, seen: Routing) -> Routing:
        while self.table is seen:  # noqa: ASYNC110 - tests change it from another thread
            await asyncio.sleep(0.01)
        return self.table

    async def ready(self, model: str, *, within: float) -> Route:
        await asyncio.sleep(min(self.delay, within))
        found = self.coming.get(model) or NotReady(f"model `{model}` is not ready yet", retry_after=5.0)
        if isinstance(found, ApplianceError):
            raise found
        self.table = replace(self.table, routes={**self.table.routes, model: found})
        return found

    def status(self) -> Mapping[str, Any]:
        return {
            "problem": None,
            "generation": 1,
            "observed_generation": 1,
            "reloads": {"applied": 2},
            "rollouts": {"ready": 1},
            "memory": {"budget": 1000, "taken": 600},
            "models": [self._status(name, route) for name, route in self.table.routes.items()],
        }

    def _status(self, name: str, route: Route | None) -> dict[str, Any]:
        engines = [{"memory": 600, "in_flight": route.lease.in_flight}] if route else []
        state = (
            {"ready": True, "state": "ready"} if route else {"ready": False, "state": self.states.get(name, "stopped")}
        )
        about = {"backend": "vllm", "source": f"pypi:{name}==1.0"}
        return {
            "name": name,
            **about,
            "load": self.load.get(name, "startup"),
            "restarts": 3,
            "engines": engines,
            **state,
        }


def route(
    socket: Path | None, model: str = "tiny", served: str | None = None, port: int | None = None, **defaults: Any
) -> Route:
    where = str(socket) if socket else None
    return Route(model, served or model, ENGINE_KEY, "rev-1", Lease(), socket=where, port=port, defaults=defaults)


def key(name: str, clear: str, **more: Any) -> Key:
    return Key(name=name, sha256=digest(clear.encode()), **more)


@dataclass
class Answer:
    status: int
    headers: Message
    content: bytes

    def json(self) -> Any:
        return json.loads(self.content)

    def error(self) -> dict[str, Any]:
        found: dict[str, Any] = self.json()["error"]
        return found


@dataclass
class Served:
    port: int
    state: FakePort
    log: list[MutableMapping[str, Any]]

    @property
    def base(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def change(self, **fields: Any) -> None:
        self.state.table = replace(self.state.table, **fields)

    def lines(self) -> list[MutableMapping[str, Any]]:
        return [line for line in self.log if line["event"] == "request"]

    def ask(self, method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None) -> Answer:
        """One request with the standard library, on a connection of its own."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            data = body if isinstance(body, bytes | None) else json.dumps(body).encode()
            connection.request(method, path, data, dict(headers or {}))
            answer = connection.getresponse()
            return Answer(answer.status, answer.headers, answer.read())
        finally:
            connection.close()

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=20)


def chat(**more: Any) -> dict[str, Any]:
    return {"model": "tiny", "messages": QUESTION, **more}


def raw_post(path: str, body: Any, **headers: str) -> bytes:
    data = json.dumps(body).encode()
    lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
    head = f"POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-length: {len(data)}\r\n{lines}\r\n"
    return head.encode() + data


@contextmanager
def serve(
    state: FakePort,
    *,
    max_body: int = 1 << 20,
    loopback: bool = True,
    grace: float = 1,
    keep_alive: float = 5,
    deadlines: Deadlines = DEADLINES,
    metrics: bool = False,
    activity: Activity | None = None,
    environ: Mapping[str, str] | None = None,
) -> Iterator[Served]:
    listener = bind("127.0.0.1", 0)
    port = listener.getsockname()[1]
    stop: asyncio.Event | None = None
    loop: asyncio.AbstractEventLoop | None = None
    up = threading.Event()

    async def main() -> None:
        nonlocal stop, loop
        stop, loop = asyncio.Event(), asyncio.get_running_loop()
        app = create_app(
            state,
            max_body=max_body,
            loopback=loopback,
            keep_alive=keep_alive,
            metrics=metrics,
            activity=activity,
            environ=environ,
            disk=lambda: Disk(models=1000, environments=5000),
        )
        async with serving(app, [listener], close_timeout=grace, deadlines=deadlines):
            up.set()
            await stop.wait()

    def run() -> None:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(main())

    with structlog.testing.capture_logs() as log:
        thread = threading.Thread(target=run)
        thread.start()
        up.wait()
        try:
            yield Served(port, state, log)
        finally:
            assert loop is not None
            assert stop is not None
            loop.call_soon_threadsafe(stop.set)
            thread.join()
