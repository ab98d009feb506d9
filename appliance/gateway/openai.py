"""OpenAI's API: what engines speak themselves passes through, and the list of models is the gateway's own."""

from __future__ import annotations

import json
from functools import partial
from typing import Any

from starlette.types import Receive

from appliance.gateway.auth import allows
from appliance.gateway.call import Call
from appliance.gateway.errors import unknown_model
from appliance.gateway.passthrough import Target, forward
from appliance.gateway.port import Port
from appliance.gateway.proxy import Proxy
from appliance.gateway.routes import Endpoint, Routes

TARGETS = (
    Target("/v1/chat/completions", "max_tokens"),
    Target("/v1/completions", "max_tokens"),
    Target("/v1/responses", "max_output_tokens"),
    Target("/v1/embeddings"),
)


def routes(port: Port, proxy: Proxy, *, created: int) -> Routes:
    """`created` is the moment that every model is said to be made at."""
    models = Models(port, created)
    passed = {target.path: {"POST": Endpoint(partial(forward, proxy=proxy, target=target))} for target in TARGETS}
    return {
        **passed,
        "/v1/models": {"GET": Endpoint(models.list)},
        "/v1/models/*": {"GET": Endpoint(models.retrieve)},
    }


class Models:
    """The models that a key may use: every name that can be asked for, but for the endless ones of a glob."""

    def __init__(self, port: Port, created: int) -> None:
        self._port = port
        self._created = created

    async def list(self, call: Call, _: Receive) -> None:
        routing = self._port.routing()
        names = {name: name for name in routing.routes} | dict(routing.aliases)
        cards = [self._card(name, model) for name, model in names.items() if allows(call.key, model)]
        await send_json(call, {"object": "list", "data": cards})

    async def retrieve(self, call: Call, _: Receive) -> None:
        name = call.path.removeprefix("/v1/models/")
        model = self._port.routing().resolve(name)
        if model is None or not allows(call.key, model):
            raise unknown_model(name)
        await send_json(call, self._card(name, model))

    def _card(self, name: str, model: str) -> dict[str, Any]:
        return {"id": name, "object": "model", "created": self._created, "owned_by": "appliance", "root": model}


async def send_json(call: Call, value: Any, *, status: int = 200) -> None:
    body = json.dumps(value).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    await call.answer(status, headers, body)
