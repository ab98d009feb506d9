"""/api/embed, and /api/embeddings, which came before it."""

from __future__ import annotations

from time import perf_counter
from typing import Any

from starlette.types import Receive

from appliance.gateway import answers
from appliance.gateway import body as bodies
from appliance.gateway.call import Call
from appliance.gateway.connection import Connection
from appliance.gateway.fields import checked, invalid, optional, required
from appliance.gateway.ollama.options import check_context, check_keep_alive, sampling
from appliance.gateway.proxy import Proxy
from appliance.gateway.question import Question
from appliance.routing import Route

Json = dict[str, Any]


class Embeddings:
    def __init__(self, proxy: Proxy) -> None:
        self._proxy = proxy

    async def embed(self, call: Call, receive: Receive) -> None:
        body = bodies.parse(await self._proxy.read(call, receive))
        given = body.get("input")
        texts = [given] if isinstance(given, str) else checked(given, list, "input")
        if not texts:
            raise invalid("input", "must have at least one text")

        async def answer(connection: Connection, route: Route) -> None:
            found = await answers.whole(connection, route)
            await call.json(
                {
                    "model": body["model"],
                    "embeddings": _vectors(found),
                    "total_duration": round((perf_counter() - call.started) * 1e9),
                    "load_duration": round(call.held * 1e9),
                    "prompt_eval_count": (found.get("usage") or {}).get("prompt_tokens", 0),
                }
            )

        await self._ask(call, receive, body, [checked(text, str, "input") for text in texts], answer)

    async def embed_one(self, call: Call, receive: Receive) -> None:
        body = bodies.parse(await self._proxy.read(call, receive))

        async def answer(connection: Connection, route: Route) -> None:
            await call.json({"embedding": _vectors(await answers.whole(connection, route))[0]})

        await self._ask(call, receive, body, [required(body, "prompt", str)], answer)

    async def _ask(self, call: Call, receive: Receive, body: Json, texts: list[str], answer: Any) -> None:
        options = optional(body, "options", dict) or {}
        sampling(options)  # an embedding is not sampled, but what is refused elsewhere is refused here
        request: Json = {"model": body["model"], "input": texts, "encoding_format": "float"}
        if optional(body, "truncate", bool) is not False:
            request["truncate_prompt_tokens"] = -1  # vLLM's word for: to what the model takes
        if (dimensions := optional(body, "dimensions", int)) is not None:
            request["dimensions"] = dimensions

        def make(route: Route) -> bytes:
            check_keep_alive(body.get("keep_alive"), route)
            check_context(options, route)
            return bodies.for_engine(request, None, None, route)

        await self._proxy.ask(call, receive, Question("/v1/embeddings", body["model"], make, answer))


def _vectors(found: Json) -> list[Any]:
    return [row["embedding"] for row in sorted(found["data"], key=lambda row: row["index"])]
