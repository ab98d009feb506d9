"""What runs and how, as `docker model ps` and `docker model status` ask for it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qs

from starlette.types import Receive

from appliance.gateway.auth import allows
from appliance.gateway.call import Call
from appliance.gateway.docker.store import digest
from appliance.gateway.openai import Models
from appliance.gateway.port import Port
from appliance.routing import Route, normal_form

Json = dict[str, Any]


class Engines:
    def __init__(self, port: Port, models: Models) -> None:
        self._port = port
        self._models = models

    async def running(self, call: Call, _: Receive) -> None:
        await call.json([_runner(model, route) for model, route in self._allowed(call) if _is_active(model, route)])

    async def status(self, call: Call, _: Receive) -> None:
        """Each backend, with its models. Its container's health check reads no more than that somebody answers."""
        found: dict[str, list[tuple[str, str]]] = {}
        for model, route in self._allowed(call):
            state = "ready" if route else str(model.get("state", "stopped"))
            found.setdefault(model.get("backend", ""), []).append((model["name"], state))
        await call.json({backend: _told(states) for backend, states in found.items()})

    async def configurations(self, call: Call, _: Receive) -> None:
        """What the file says of each model, or of the one that is asked about."""
        asked = parse_qs(call.scope.get("query_string", b"").decode("latin-1")).get("model")
        only = self._models.card(asked[0], call.key)["root"] if asked else None
        found = [_configuration(model, route) for model, route in self._allowed(call) if only in (None, model["name"])]
        await call.json(found)

    def _allowed(self, call: Call) -> Iterator[tuple[Json, Route | None]]:
        routes = self._port.routing().routes
        for model in self._port.status()["models"]:
            if allows(call.key, model["name"]):
                yield model, routes.get(model["name"])


def _told(states: list[tuple[str, str]]) -> str:
    failed = any(state == "failed" for _, state in states) and not any(state == "ready" for _, state in states)
    return f"{'Error' if failed else 'Running'}: {', '.join(f'{name} ({state})' for name, state in states)}"


def _is_active(model: Json, route: Route | None) -> bool:
    return route is not None or model.get("state") == "starting"


def _runner(model: Json, route: Route | None) -> Json:
    lease = route.lease if route else None
    idle = asyncio.get_running_loop().time() - lease.last_used if lease and lease.last_used else 0.0
    return {
        "backend_name": model.get("backend", ""),
        "model_name": normal_form(model["name"]),
        "mode": _mode(route),
        "last_used": (datetime.now(UTC) - timedelta(seconds=idle)).isoformat().replace("+00:00", "Z"),
        "in_use": lease is not None and lease.in_flight > 0,
        "loading": route is None,
        **_kept(route),
    }


def _configuration(model: Json, route: Route | None) -> Json:
    context = {"context-size": route.context} if route and route.context else {}
    return {
        "Backend": model.get("backend", ""),
        "Model": normal_form(model["name"]),
        "ModelID": digest(str(model.get("source", model["name"]))),
        "Mode": _mode(route),
        "Config": {**context, **_kept(route)},
    }


def _mode(route: Route | None) -> str:
    return "embedding" if route and "embedding" in route.capabilities else "completion"


def _kept(route: Route | None) -> Json:
    """How long a loaded model stays, as a duration that Go reads; -1 is for ever."""
    if route is None:
        return {}
    return {"keep_alive": "-1" if route.idle_unload is None else f"{route.idle_unload:g}s"}
