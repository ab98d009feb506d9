"""Models as `docker model list` and `docker model inspect` show them."""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from starlette.types import Receive

from appliance.gateway.call import Call
from appliance.gateway.openai import Models
from appliance.gateway.port import Port
from appliance.routing import normal_form

Json = dict[str, Any]

_ID = re.compile(r"(?:sha256:)?([0-9a-f]{12,64})")


@dataclass(frozen=True, slots=True)
class Disk:
    """Bytes on disk."""

    models: int
    environments: int


def digest(source: str) -> str:
    """Identifies a source, as its own ids identify a manifest."""
    return f"sha256:{hashlib.sha256(source.encode()).hexdigest()}"


class Store:
    def __init__(self, port: Port, models: Models) -> None:
        self._port = port
        self._models = models

    async def list(self, call: Call, _: Receive) -> None:
        await call.json([*self._all(call).values()])

    async def retrieve(self, call: Call, _: Receive) -> None:
        """By any of its names, or by its id or the beginning of that."""
        name = call.route.removeprefix("/models/")
        found = self._all(call)
        if (given := _ID.fullmatch(name)) and (matches := _with_id(found, given[1])):
            await call.json(matches[0])
            return
        await call.json(found[self._models.card(name, call.key)["root"]])

    def usage(self, disk: Callable[[], Disk]) -> Callable[[Call, Receive], Awaitable[None]]:
        async def answer(call: Call, _: Receive) -> None:
            taken = await asyncio.to_thread(disk)
            await call.json({"models_disk_usage": taken.models, "default_backend_disk_usage": taken.environments})

        return answer

    def _all(self, call: Call) -> dict[str, Json]:
        """Each model once, with all of its names as tags."""
        sources = {model["name"]: str(model.get("source", model["name"])) for model in self._port.status()["models"]}
        routes = self._port.routing().routes
        found: dict[str, Json] = {}
        for card in self._models.cards(call.key):
            model, tag = card["root"], normal_form(card["id"])
            if model not in found:
                route = routes.get(model)
                config = {"context_size": route.context} if route and route.context else {}
                identity = digest(sources.get(model) or model)
                found[model] = {"id": identity, "tags": [], "created": card["created"], "config": config}
            if tag not in found[model]["tags"]:
                found[model]["tags"].append(tag)
        return found


def _with_id(found: dict[str, Json], given: str) -> list[Json]:
    return [model for model in found.values() if model["id"].removeprefix("sha256:").startswith(given)]
