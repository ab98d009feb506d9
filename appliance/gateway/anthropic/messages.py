"""/v1/messages: asked of an engine as a chat completion, answered as Anthropic would."""

from __future__ import annotations

import re
from functools import partial

from starlette.types import Receive

from appliance.errors import RequestError
from appliance.gateway import answers
from appliance.gateway import body as bodies
from appliance.gateway.anthropic.manner import Manner
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
            await self._proxy.ask(call, receive, self._question(call, asked, Manner()))
        except RequestError as error:
            if error.code != "context_length_exceeded":
                raise
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

    def _question(self, call: Call, asked: Asked, manner: Manner) -> Question:
        """What the engine is asked; in another manner where it refuses this one and has answered nothing yet."""

        def refused(error: RequestError) -> Question | None:
            other = manner.after(error) if call.first_byte is None else None
            return None if other is None else self._question(call, asked, other)

        return Question(
            "/v1/chat/completions",
            asked.model,
            partial(manner.body, asked.request),
            partial(self._stream if asked.stream else _whole, call, asked, manner),
            EVENTS if asked.stream else None,
            refused=refused,
        )

    async def _stream(self, call: Call, asked: Asked, manner: Manner, connection: Connection, route: Route) -> None:
        stream = MessageStream(asked, unlimited=manner.unlimited)
        async for chunks in answers.chunks(connection, route, call, EVENTS, keep_alive=self._proxy.keep_alive):
            if events := b"".join(map(stream.feed, chunks)):
                await call.event(EVENTS, events)
        await call.event(EVENTS, stream.end(), last=True)


async def _whole(call: Call, asked: Asked, manner: Manner, connection: Connection, route: Route) -> None:
    completion = await answers.whole(connection, route)
    await call.json(message_of(completion, asked, unlimited=manner.unlimited))


def _too_long(error: RequestError) -> RequestError:
    """In the words by which agents know that it is time to compact."""
    numbers = [int(number) for number in re.findall(r"\d+", error.message)]
    told = f": {max(numbers)} tokens > {min(numbers)} maximum" if len(numbers) == 2 else ""
    return RequestError(f"prompt is too long{told}", status=400, code=error.code)
