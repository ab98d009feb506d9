"""/v1/complete, which came before messages: text in, text out."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from starlette.types import Receive

from appliance.gateway import answers
from appliance.gateway import body as bodies
from appliance.gateway.anthropic import reply
from appliance.gateway.anthropic.messages import EVENTS
from appliance.gateway.anthropic.request import sampling
from appliance.gateway.anthropic.stream import event
from appliance.gateway.call import Call
from appliance.gateway.connection import Connection
from appliance.gateway.fields import checked, invalid, optional, required
from appliance.gateway.proxy import Proxy
from appliance.gateway.question import Question
from appliance.routing import Route

Json = dict[str, Any]

HUMAN = "\n\nHuman:"
"""The turn that is not the model's to write: where a prompt has turns, this always ends the answer."""


class Completions:
    def __init__(self, proxy: Proxy) -> None:
        self._proxy = proxy

    async def create(self, call: Call, receive: Receive) -> None:
        request = translate(bodies.parse(await self._proxy.read(call, receive)))
        head = {
            "type": "completion",
            "id": reply.new_id("compl"),
            "model": request["model"],
            "log_id": call.id.decode(),
        }
        answer = partial(self._stream if request["stream"] else _whole, call, head)
        body = partial(bodies.for_engine, request, None, "max_tokens")
        stream = EVENTS if request["stream"] else None
        await self._proxy.ask(call, receive, Question("/v1/completions", request["model"], body, answer, stream))

    async def _stream(self, call: Call, head: Json, connection: Connection, route: Route) -> None:
        ended: Json = {}
        async for chunks in answers.chunks(connection, route, call, EVENTS, keep_alive=self._proxy.keep_alive):
            choices = [choice for chunk in chunks for choice in chunk.get("choices") or ()]
            ended = next((choice for choice in choices if choice.get("finish_reason")), ended)
            if text := "".join(choice.get("text") or "" for choice in choices):
                await call.event(EVENTS, event(**head, completion=text, stop_reason=None, stop=None))
        await call.event(EVENTS, event(**head, completion="", **_ending(ended)), last=True)


async def _whole(call: Call, head: Json, connection: Connection, route: Route) -> None:
    choice = ((await answers.whole(connection, route)).get("choices") or [{}])[0]
    await call.json({**head, "completion": choice.get("text") or "", **_ending(choice)})


def translate(body: Mapping[str, Any]) -> Json:
    """A request to /v1/complete as one to /v1/completions. Raises RequestError."""
    prompt = required(body, "prompt", str)
    # The newer spelling is what clients of /v1/anthropic/completions send.
    name = "max_tokens" if "max_tokens" in body else "max_tokens_to_sample"
    if (limit := required(body, name, int)) < 1:
        raise invalid(name, "must be at least 1")
    stops = [checked(stop, str, "stop_sequences") for stop in optional(body, "stop_sequences", list) or ()]
    if HUMAN in prompt and HUMAN not in stops:
        stops.append(HUMAN)
    stream = optional(body, "stream", bool) or False
    request: Json = {"model": body["model"], "prompt": prompt, "max_tokens": limit, "stream": stream}
    if stream:
        request["stream_options"] = {"include_usage": True}
    return {**request, **sampling(body), "stop": stops} if stops else {**request, **sampling(body)}


def _ending(choice: Json) -> Json:
    """This API has two reasons: an answer that came to its own end is said to have met a stop sequence."""
    if choice.get("finish_reason") in {"abort", "error"}:
        raise reply.failed("the engine gave up this generation")
    stop = choice.get("stop_reason")
    cut = choice.get("finish_reason") == "length"
    return {"stop_reason": "max_tokens" if cut else "stop_sequence", "stop": stop if isinstance(stop, str) else None}
