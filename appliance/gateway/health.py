"""Live and ready, for whoever restarts this appliance or routes to it. No key is needed, so none names no model."""

from __future__ import annotations

from typing import Any

from starlette.types import Receive

from appliance.errors import RequestError
from appliance.gateway.auth import allows, authorise
from appliance.gateway.call import Call
from appliance.gateway.port import Port
from appliance.gateway.routes import Endpoint, Routes

PATHS = frozenset(("/healthz", "/readyz"))


def routes(port: Port) -> Routes:
    async def live(call: Call, _: Receive) -> None:
        await call.json({"status": "live"})

    async def ready(call: Call, _: Receive) -> None:
        startup = [model for model in port.status()["models"] if model["load"] == "startup"]
        waiting = [model["name"] for model in startup if not model["ready"]]
        state: dict[str, Any] = {"status": "not ready" if waiting else "ready"}
        state |= {"models": len(startup), "ready": len(startup) - len(waiting)}
        await call.json(state | _named(port, call, waiting), status=503 if waiting else 200)

    return {
        "/healthz": {"GET": Endpoint(live, scope=None)},
        "/readyz": {"GET": Endpoint(ready, scope=None)},
    }


def _named(port: Port, call: Call, waiting: list[str]) -> dict[str, Any]:
    try:
        key = authorise(port.routing().keys, call.headers, "inference")
    except RequestError:
        return {}
    return {"waiting": [name for name in waiting if allows(key, name)]}
