"""What engines speak themselves: the request goes to them, and their answer back byte for byte as it arrives."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from starlette.types import Receive

from appliance.gateway import body as bodies
from appliance.gateway.call import Call
from appliance.gateway.connection import Connection
from appliance.gateway.errors import Header
from appliance.gateway.proxy import Proxy, read_all
from appliance.gateway.question import Question, Stream
from appliance.gateway.rename import Rename
from appliance.routing import Route

EVENTS = Stream(b"text/event-stream", b": waiting for the model\n\n")

DROPPED = frozenset(
    (
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
        b"date",
        b"server",
        b"set-cookie",
        b"x-request-id",
    )
)
"""The engine's headers that a client doesn't see: hop by hop, or said by the gateway itself."""


@dataclass(frozen=True, slots=True)
class Target:
    """What an engine is asked, and how the model's sampling defaults apply to it."""

    path: str
    limit_name: str | None = None
    """What this API calls `max_tokens`; None where sampling means nothing."""


async def forward(call: Call, receive: Receive, proxy: Proxy, target: Target) -> None:
    body = await proxy.read(call, receive)
    request = bodies.parse(body)
    asked = request["model"]
    question = Question(
        target.path,
        asked,
        partial(bodies.for_engine, request, body, target.limit_name),
        partial(relay, call, asked),
        EVENTS if request.get("stream") is True else None,
    )
    await proxy.ask(call, receive, question)


async def relay(call: Call, asked: str, connection: Connection, route: Route) -> None:
    """The engine's answer as it is, but for the name in it where the client asked for the model by another."""
    rename = None if asked == route.served else Rename(route.served, asked)
    headers = [header for header in connection.headers if header[0] not in DROPPED]
    begun = bool(call.status)  # while it was held
    call.streaming = any(name == b"content-type" and b"event-stream" in value for name, value in headers)
    if call.streaming:
        headers.append((b"x-accel-buffering", b"no"))
    if rename is not None and not call.streaming:
        await _answer_renamed(call, connection, rename, headers)
        return
    if not begun:
        await call.start(connection.status, headers)
    await (connection.pour(call.write) if rename is None else _stream_renamed(call, connection, rename))


async def _stream_renamed(call: Call, connection: Connection, rename: Rename) -> None:
    while not call.ended:
        data = rename.feed(await connection.read())
        if connection.complete:
            await call.write(data + rename.flush(), more=False)
        elif data:
            await call.write(data, more=True)


async def _answer_renamed(call: Call, connection: Connection, rename: Rename, headers: list[Header]) -> None:
    data = await read_all(connection)
    data = rename.feed(data) + rename.flush()
    headers = [header for header in headers if header[0] != b"content-length"]
    await call.answer(connection.status, [*headers, (b"content-length", b"%d" % len(data))], data)
