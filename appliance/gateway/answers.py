"""An engine's answers read by the gateway itself, which says them again in another dialect."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

from appliance.errors import RequestError
from appliance.gateway.call import Call
from appliance.gateway.connection import Connection, EngineGone
from appliance.gateway.errors import from_engine
from appliance.gateway.proxy import read_all
from appliance.gateway.question import Stream
from appliance.routing import Route

Json = dict[str, Any]


async def whole(connection: Connection, route: Route) -> Json:
    """The answer's JSON object. Raises EngineGone, and RequestError where it is none."""
    return _object(await read_all(connection), route)


async def chunks(
    connection: Connection, route: Route, call: Call, stream: Stream | None, *, keep_alive: float
) -> AsyncIterator[list[Json]]:
    """The stream's objects, as many at once as have arrived at once, up to the event that ends it.

    The client gets an idle event after `keep_alive` seconds in which nothing was written: a long prompt takes an engine
    minutes, and not every chunk is something to say. `stream` is the client's, None where it asked for none. Raises
    EngineGone, and RequestError for an error event.
    """
    loop = asyncio.get_running_loop()
    events = Events()
    sent, said = call.sent, loop.time()
    while True:
        if call.sent != sent:
            sent, said = call.sent, loop.time()
        try:
            async with asyncio.timeout_at(said + keep_alive if stream else None):
                arrived = events.feed(await connection.read())
        except TimeoutError:
            if stream is not None:
                await call.idle(stream)
            continue
        found, failure = _chunks(arrived, route)
        if found:
            yield found
        if failure is not None:
            raise failure
        if DONE in arrived:
            await _finish(connection)
            return
        if connection.complete:
            raise EngineGone


DONE = b"[DONE]"


class Events:
    """Cuts a stream into the data of its server-sent events; comments and other fields are left out."""

    def __init__(self) -> None:
        self._rest = b""
        self._data: list[bytes] = []

    def feed(self, data: bytes) -> list[bytes]:
        *lines, self._rest = (self._rest + data).split(b"\n")
        found = []
        for line in lines:
            line = line.removesuffix(b"\r")
            if line.startswith(b"data:"):
                self._data.append(line[5:].removeprefix(b" "))
            elif not line and self._data:
                found.append(b"\n".join(self._data))
                self._data.clear()
        return found


def _chunks(events: list[bytes], route: Route) -> tuple[list[Json], RequestError | None]:
    """The objects before an error, which may have arrived with them, and the error."""
    found: list[Json] = []
    for event in events:
        if event == DONE:
            break
        try:
            found.append(_chunk(event, route))
        except RequestError as error:
            return found, error
    return found, None


def _chunk(event: bytes, route: Route) -> Json:
    chunk = _object(event, route)
    if error := chunk.get("error"):
        code = error.get("code") if isinstance(error, dict) else None
        status = code if isinstance(code, int) and 400 <= code < 600 else 500
        raise from_engine(status, event, model=route.model, path="", retry_after=None)
    return chunk


def _object(data: bytes, route: Route) -> Json:
    try:
        found = json.loads(data)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise RequestError(
            f"the engine of model `{route.model}` answered what is not a JSON object",
            status=502,
            type="server_error",
            code="engine_failed",
        )
    return found


async def _finish(connection: Connection) -> None:
    """Read to the end of the response, so that the connection can be used again. The answer itself is complete."""
    try:
        await read_all(connection)
    except EngineGone:
        return
