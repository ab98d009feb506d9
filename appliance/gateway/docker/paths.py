"""/engines/v1/… and /engines/BACKEND/v1/…, which are other names for /v1/…"""

from __future__ import annotations

from starlette.types import Receive

from appliance.gateway import body as bodies
from appliance.gateway.call import Call
from appliance.gateway.docker.refusals import Refusals
from appliance.gateway.errors import unknown_route
from appliance.gateway.port import Port
from appliance.gateway.proxy import Proxy
from appliance.gateway.routes import Routes, find

BACKENDS = frozenset(("llama.cpp", "vllm", "vllm-metal", "sglang", "mlx", "diffusers"))
"""Names that its clients put in a path. Which backend serves a model is the file's to say, so any of them will do."""

WITHOUT_VERSION = frozenset(("rerank", "score", "responses"))


class Beneath:
    def __init__(self, port: Port, proxy: Proxy, served: Routes, refusals: Refusals) -> None:
        self._port = port
        self._proxy = proxy
        self._served = served
        self._refusals = refusals

    async def answer(self, call: Call, receive: Receive) -> None:
        rest = self._without_backend(call.route.removeprefix("/engines/"))
        if rest == "_configure" and call.method == "POST":
            call.dialect, call.route = "docker", "/engines/_configure"
            await self._refusals.refuse(call, receive)
            return
        if not rest.startswith("v1/") and rest not in WITHOUT_VERSION:
            call.dialect = "docker"
            raise unknown_route(call.path)
        call.route = f"/{rest}" if rest.startswith("v1/") else f"/v1/{rest}"
        endpoint = find(self._served, call.method, call.route)
        call.dialect = endpoint.dialect
        if call.headers.get(b"x-preload-only", b"").lower() == b"true":
            await self._preload(call, receive)
        else:
            await endpoint.answer(call, receive)

    def _without_backend(self, rest: str) -> str:
        first, slash, further = rest.partition("/")
        known = BACKENDS | {model["backend"] for model in self._port.status()["models"] if "backend" in model}
        return further if slash and first in known else rest

    async def _preload(self, call: Call, receive: Receive) -> None:
        """Its client's way of loading a model: a request that is not answered."""
        request = bodies.parse(await self._proxy.read(call, receive))
        await self._proxy.load(call, receive, request["model"], None)
        await call.answer(200, [(b"content-length", b"0")], b"")
