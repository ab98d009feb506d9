"""/api/chat and /api/generate."""

from __future__ import annotations

from functools import partial
from time import perf_counter
from typing import Any

from starlette.types import Receive

from appliance.gateway import answers
from appliance.gateway import body as bodies
from appliance.gateway.call import Call
from appliance.gateway.connection import Connection
from appliance.gateway.ollama.lines import Kind, Lines, line
from appliance.gateway.ollama.request import Asked, translate_chat, translate_generate
from appliance.gateway.proxy import Proxy
from appliance.gateway.question import Question, Stream
from appliance.routing import Route

Json = dict[str, Any]


class Generations:
    def __init__(self, proxy: Proxy) -> None:
        self._proxy = proxy

    async def chat(self, call: Call, receive: Receive) -> None:
        asked = translate_chat(bodies.parse(await self._proxy.read(call, receive)))
        await self._answer(call, receive, asked, "chat")

    async def generate(self, call: Call, receive: Receive) -> None:
        asked = translate_generate(bodies.parse(await self._proxy.read(call, receive)))
        await self._answer(call, receive, asked, "generate")

    async def _answer(self, call: Call, receive: Receive, asked: Asked, kind: Kind) -> None:
        # A line that says nothing is the only thing that means nothing: whatever is written must be an answer's.
        stream = Stream(b"application/x-ndjson", encode(line(kind, asked.model))) if asked.stream else None
        if asked.empty:
            await self._load(call, receive, asked, kind, stream)
            return
        answer = partial(self._read, call, asked, kind, stream)
        await self._proxy.ask(call, receive, Question(asked.path, asked.model, asked.body, answer, stream))

    async def _load(self, call: Call, receive: Receive, asked: Asked, kind: Kind, stream: Stream | None) -> None:
        asked.check(await self._proxy.load(call, receive, asked.model, stream))
        last = {**line(kind, asked.model, done=True), "done_reason": "load", **_durations(call)}
        await self._write(call, stream, [last], last=True)

    async def _read(
        self, call: Call, asked: Asked, kind: Kind, stream: Stream | None, connection: Connection, route: Route
    ) -> None:
        lines = Lines(kind, asked.model, thoughts=asked.thoughts)
        began, first = perf_counter(), None
        async for chunks in answers.chunks(connection, route, call, stream, keep_alive=self._proxy.keep_alive):
            found = [each for each in map(lines.feed, chunks) if each is not None]
            if first is None and lines.begun:
                first = perf_counter()
            if found and stream is not None:
                await self._write(call, stream, found)
        durations = _durations(call, began, first)
        if stream is None:
            await call.json(lines.whole(durations))
        else:
            await self._write(call, stream, lines.end(durations), last=True)

    async def _write(self, call: Call, stream: Stream | None, found: list[Json], *, last: bool = False) -> None:
        if stream is None:
            await call.json(found[-1])
        else:
            await call.event(stream, b"".join(map(encode, found)), last=last)


def encode(value: Json) -> bytes:
    return bodies.encode(value) + b"\n"


def _durations(call: Call, began: float | None = None, first: float | None = None) -> Json:
    """In nanoseconds, seen from here: what an engine's queue took counts as its reading of the prompt."""
    now = perf_counter()
    began = now if began is None else began
    first = now if first is None else first
    return {
        "total_duration": _nanoseconds(now - call.started),
        "load_duration": _nanoseconds(call.held),
        "prompt_eval_duration": _nanoseconds(first - began),
        "eval_duration": _nanoseconds(now - first),
    }


def _nanoseconds(seconds: float) -> int:
    return round(seconds * 1e9)
