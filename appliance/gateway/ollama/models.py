"""What is served, in Ollama's words: tags, what runs, one model's card."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from starlette.types import Receive

from appliance.gateway import body as bodies
from appliance.gateway.call import Call
from appliance.gateway.fields import invalid
from appliance.gateway.openai import Models
from appliance.gateway.port import Port
from appliance.routing import Route

Json = dict[str, Any]

VERSION = "0.12.6"
"""The version of Ollama's API that this is written after. Clients switch features on by it."""
NEVER = "9999-12-31T23:59:59Z"

DETAILS: Json = {
    "parent_model": "", "format": "", "family": "", "families": None, "parameter_size": "", "quantization_level": "",
}  # fmt: skip
"""Nothing here has read the weights; empty is what Ollama says of what it does not know."""


class Library:
    def __init__(self, port: Port, models: Models) -> None:
        self._port = port
        self._models = models

    async def tags(self, call: Call, _: Receive) -> None:
        status = self._status()
        await call.json({"models": [self._tag(card, status) for card in self._models.cards(call.key)]})

    async def running(self, call: Call, _: Receive) -> None:
        status, routes = self._status(), self._port.routing().routes
        cards = [card for card in self._models.cards(call.key) if card["id"] == card["root"]]
        ready = [(card, route) for card in cards if (route := routes.get(card["root"])) is not None]
        await call.json({"models": [{**self._tag(card, status), **_loaded(route, status)} for card, route in ready]})

    async def show(self, call: Call, receive: Receive) -> None:
        body = bodies.parse_object(await bodies.read(receive, call.headers, SHOW_LIMIT))
        name = body.get("model") or body.get("name")
        if not isinstance(name, str):
            raise invalid("model", "is required")
        card = self._models.card(name, call.key)
        route = self._port.routing().routes.get(card["root"])
        await call.json({**_shown(route), "modified_at": _time(card["created"]), "details": DETAILS})

    async def version(self, call: Call, _: Receive) -> None:
        await call.json({"version": VERSION})

    async def hello(self, call: Call, _: Receive) -> None:
        body = b"Ollama is running"  # what its clients look for
        headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", b"%d" % len(body))]
        await call.answer(200, headers, body)

    def _status(self) -> Mapping[str, Json]:
        return {model["name"]: model for model in self._port.status()["models"]}

    def _tag(self, card: Json, status: Mapping[str, Json]) -> Json:
        name = tagged(card["id"])
        source = str(status.get(card["root"], {}).get("source", card["root"]))
        return {
            "name": name,
            "model": name,
            "modified_at": _time(card["created"]),
            "size": 0,
            "digest": hashlib.sha256(source.encode()).hexdigest(),
            "details": DETAILS,
        }


SHOW_LIMIT = 64 * 1024


def tagged(name: str) -> str:
    """Every name has a tag there."""
    return name if ":" in name.rpartition("/")[2] else f"{name}:latest"


def _loaded(route: Route, status: Mapping[str, Json]) -> Json:
    engines = status.get(route.model, {}).get("engines") or [{}]
    taken = engines[0].get("memory") or 0
    return {"size": taken, "size_vram": 0, "expires_at": _expires(route), "context_length": route.context or 0}


def _expires(route: Route) -> str:
    if route.idle_unload is None:
        return NEVER
    idle = asyncio.get_running_loop().time() - route.lease.last_used if route.lease.last_used else 0.0
    left = route.idle_unload if route.lease.in_flight else max(0.0, route.idle_unload - idle)
    return (datetime.now(UTC) + timedelta(seconds=left)).isoformat().replace("+00:00", "Z")


def _shown(route: Route | None) -> Json:
    """An engine that does not run has nothing to say of itself but that it completes."""
    capabilities = sorted(route.capabilities) if route else ["completion"]
    known = {"general.architecture": "unknown"}
    context = {"unknown.context_length": route.context} if route and route.context else {}
    defaults = route.defaults if route else {}
    parameters = "\n".join(f"{name} {value}" for name, value in sorted(defaults.items()))
    return {
        "modelfile": "",
        "template": "",
        "license": "",
        "parameters": parameters,
        "model_info": {**known, **context},
        "capabilities": capabilities,
    }


def _time(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")
