"""/v1/messages: asked of an engine as a chat completion, answered as Anthropic would."""

from __future__ import annotations

import re
from dataclasses import replace
from functools import partial

from starlette.types import Receive

from appliance.errors import RequestError
from appliance.gateway import answers
from appliance.gateway import body as bodies
from appliance.gateway.anthropic.request import Asked, translate, translate_count
from appliance.gateway.anthropic.stream import PING, MessageStream
from appliance.gateway.anthropic.whole import message_of
from appliance.gateway.call import Call
from appliance.gateway.connection import Connection
from appliance.gateway.fields import invalid
from appliance.gateway.proxy import Proxy
from appliance.gateway.question import Question, Stream
from appliance.routing import Route

EVENTS = Stream(b"text/event-stream; charset=utf-8", PING)


class Messages:
    def __init__(self, proxy: Proxy) -> None:
        self._proxy = proxy

    async def create(self, call: Call, receive: Receive) -> None:
        asked = translate(bodies.parse(await self._proxy.read(call, receive)))
        try:
            await self._proxy.ask(call, receive, self._question(call, asked))
        except RequestError as error:
            raise _too_long(error) from error

    async def count(self, call: Call, receive: Receive) -> None:
        """The engine's own count of what `create` would send it."""
        model, request = translate_count(bodies.parse(await self._proxy.read(call, receive)))

        async def answer(connection: Connection, route: Route) -> None:
            count = (await answers.whole(connection, route)).get("count")
            if not isinstance(count, int):
                raise invalid("model", f"the engine of `{route.model}` does not count tokens")
            await call.json({"input_tokens": count})

        body = partial(bodies.for_engine, request, None, None)
        await self._proxy.ask(call, receive, Question("/tokenize", model, body, answer))

    def _question(self, call: Call, asked: Asked, *, unlimited: bool = False) -> Question:
        """Agents ask for as many tokens as their own models could give. Anthropic lets the context end such an answer;
        vLLM refuses it, unless it is asked for no number at all."""

        def refused(error: RequestError) -> Question | None:
            again = call.first_byte is None and _beyond_context(error)
            return self._question(call, asked, unlimited=True) if again else None

        return Question(
            "/v1/chat/completions",
            asked.model,
            partial(_body, asked, unlimited),
            partial(self._stream if asked.stream else _whole, call, asked, unlimited),
            EVENTS if asked.stream else None,
            refused=None if unlimited else refused,
        )

    async def _stream(self, call: Call, asked: Asked, unlimited: bool, connection: Connection, route: Route) -> None:
        stream = MessageStream(asked, unlimited=unlimited)
        async for chunks in answers.chunks(connection, route, call, EVENTS, keep_alive=self._proxy.keep_alive):
            if events := b"".join(map(stream.feed, chunks)):
                await call.event(EVENTS, events)
        await call.event(EVENTS, stream.end(), last=True)


async def _whole(call: Call, asked: Asked, unlimited: bool, connection: Connection, route: Route) -> None:
    completion = await answers.whole(connection, route)
    await call.json(message_of(completion, asked, unlimited=unlimited))


def _body(asked: Asked, unlimited: bool, route: Route) -> bytes:
    request = asked.request
    if unlimited:
        request = {name: value for name, value in request.items() if name != "max_tokens"}
        route = replace(route, defaults={k: v for k, v in route.defaults.items() if k != "max_tokens"})
    return bodies.for_engine(request, None, "max_tokens", route)


def _beyond_context(error: RequestError) -> bool:
    """Whether the engine refused the prompt and `max_tokens` together."""
    return error.status == 400 and (error.code == "context_length_exceeded" or error.param == "max_tokens")


def _too_long(error: RequestError) -> RequestError:
    """In the words by which agents know that it is time to compact."""
    if error.code != "context_length_exceeded":
        return error
    numbers = [int(number) for number in re.findall(r"\d+", error.message)]
    told = f": {max(numbers)} tokens > {min(numbers)} maximum" if len(numbers) == 2 else ""
    return RequestError(f"prompt is too long{told}", status=400, code=error.code)
