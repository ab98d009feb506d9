"""The models in Anthropic's shape. Its clients ask for them at OpenAI's path and are known by a header of theirs."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

from starlette.types import Receive

from appliance.gateway.call import Call
from appliance.gateway.openai import Models

Answer = Callable[[Call, Receive], Awaitable[None]]
VERSION = b"anthropic-version"


def by_client(others: Answer, anthropics: Answer) -> Answer:
    async def answer(call: Call, receive: Receive) -> None:
        if VERSION in call.headers:
            call.dialect = "anthropic"
            await anthropics(call, receive)
        else:
            await others(call, receive)

    return answer


class ModelList:
    def __init__(self, models: Models) -> None:
        self._models = models

    async def list(self, call: Call, _: Receive) -> None:
        """All on one page: a machine serves few."""
        found = [_info(card) for card in self._models.cards(call.key)]
        ends = (
            {"first_id": found[0]["id"], "last_id": found[-1]["id"]} if found else {"first_id": None, "last_id": None}
        )
        await call.json({"data": found, "has_more": False, **ends})

    async def retrieve(self, call: Call, _: Receive) -> None:
        await call.json(_info(self._models.card(call.route.partition("/v1/models/")[2], call.key)))


def _info(card: dict[str, Any]) -> dict[str, Any]:
    created = datetime.fromtimestamp(card["created"], UTC).isoformat().replace("+00:00", "Z")
    name = card["id"]
    return {"type": "model", "id": name, "display_name": name, "created_at": created, "lifecycle": "active"}
