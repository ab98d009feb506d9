"""OpenAI's API: what engines speak themselves passes through, and the list of models is the gateway's own."""

from __future__ import annotations

from functools import partial
from typing import Any

from starlette.types import Receive

from appliance.config.models import Key
from appliance.gateway import chat
from appliance.gateway.auth import allows
from appliance.gateway.call import Call
from appliance.gateway.errors import unknown_model
from appliance.gateway.passthrough import Target, forward
from appliance.gateway.port import Port
from appliance.gateway.proxy import Proxy
from appliance.gateway.responses import Responses
from appliance.gateway.routes import Endpoint, Routes
from appliance.gateway.transcription import transcribe

TARGETS = (
    Target("/v1/chat/completions", "max_tokens", asks_for_usage=True, adapt=chat.adapt, reasons=True),
    Target("/v1/completions", "max_tokens", asks_for_usage=True),
    Target("/v1/embeddings"),
    Target("/v1/rerank"),
    Target("/rerank"),
    Target("/v1/score"),
    Target("/score"),
    Target("/tokenize"),
    Target("/detokenize"),
)


def routes(proxy: Proxy, models: Models, responses: Responses) -> Routes:
    passed = {target.path: {"POST": Endpoint(partial(forward, proxy=proxy, target=target))} for target in TARGETS}
    return {
        **passed,
        "/v1/responses": {"POST": Endpoint(responses.create)},
        "/v1/responses/*": {"GET": Endpoint(responses.retrieve), "POST": Endpoint(responses.cancel)},
        "/v1/audio/transcriptions": {"POST": Endpoint(partial(transcribe, proxy=proxy))},
        "/v1/models": {"GET": Endpoint(models.list)},
        "/v1/models/*": {"GET": Endpoint(models.retrieve)},
    }


Card = dict[str, Any]


class Models:
    """The models that a key may use: every name that can be asked for, but for the endless ones of a glob.

    `created` is the moment that every model is said to be made at, in seconds since 1970.
    """

    def __init__(self, port: Port, created: int) -> None:
        self._port = port
        self._created = created

    async def list(self, call: Call, _: Receive) -> None:
        await call.json({"object": "list", "data": self.cards(call.key)})

    async def retrieve(self, call: Call, _: Receive) -> None:
        await call.json(self.card(call.route.removeprefix("/v1/models/"), call.key))

    def cards(self, key: Key | None) -> tuple[Card, ...]:
        routing = self._port.routing()
        names = {name: name for name in routing.routes} | dict(routing.aliases)
        return tuple(self._card(name, model) for name, model in names.items() if allows(key, model))

    def card(self, name: str, key: Key | None) -> Card:
        """Raises RequestError."""
        model = self._port.routing().resolve(name)
        if model is None or not allows(key, model):
            raise unknown_model(name)
        return self._card(name, model)

    def _card(self, name: str, model: str) -> Card:
        return {"id": name, "object": "model", "created": self._created, "owned_by": "appliance", "root": model}
