"""What engines speak themselves: the request goes to them, and their answer back byte for byte as it arrives."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

from starlette.types import Receive

from appliance.gateway import body as bodies
from appliance.gateway.call import Call
from appliance.gateway.connection import Connection, Silence, Write
from appliance.gateway.errors import Header
from appliance.gateway.proxy import Proxy, read_all
from appliance.gateway.question import Question, Stream
from appliance.gateway.reasoning import both_names
from appliance.gateway.rename import rename
from appliance.gateway.usage import Unasked
from appliance.gateway.whole_lines import WholeLines
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
    asks_for_usage: bool = False
    """A stream of this API tells its usage only where `stream_options.include_usage` asks for it."""
    adapt: Callable[[Mapping[str, Any], Route], Mapping[str, Any]] | None = None
    """What has to be said otherwise for this engine: the fields that change."""
    reasons: bool = False
    """Whether answers may hold the model's reasoning."""


async def forward(call: Call, receive: Receive, proxy: Proxy, target: Target) -> None:
    body = await proxy.read(call, receive)
    request = bodies.parse(body)
    asked, stream = request["model"], EVENTS if request.get("stream") is True else None
    unasked = target.asks_for_usage and stream is not None and proxy.meters(call) and not _includes_usage(request)
    question = Question(
        target.path,
        asked,
        partial(_body, target, request, body, unasked=unasked),
        partial(relay, call, asked, unasked=unasked, reasons=target.reasons, silence=proxy.silence(call, stream)),
        stream,
    )
    await proxy.ask(call, receive, question)


def _includes_usage(request: Mapping[str, Any]) -> bool:
    options = request.get("stream_options")
    # What is no object is left for the engine to refuse.
    return options is not None and (not isinstance(options, dict) or options.get("include_usage") is True)


def _body(
    target: Target, request: Mapping[str, Any], body: bytes, route: Route, *, unasked: bool
) -> bytes | tuple[bytes, memoryview]:
    given: bytes | None = body
    if target.adapt is not None and (changes := target.adapt(request, route)):
        request, given = {**request, **changes}, None
    make = bodies.with_usage if unasked else bodies.for_engine
    return make(request, given, target.limit_name, route)


async def relay(
    call: Call,
    asked: str,
    connection: Connection,
    route: Route,
    *,
    unasked: bool = False,
    reasons: bool = False,
    silence: Silence | None = None,
) -> None:
    """The engine's answer as it is, but for the name in it where the client asked for the model by another.

    `unasked` says that the gateway asked for the usage of this stream, and the client did not; `reasons` that there may
    be reasoning in it, which then gets its second name. `silence` is for a stream.
    """
    filters: list[Filter] = [] if asked == route.served else [WholeLines(rename(route.served, asked))]
    if reasons and route.reasons:
        filters.append(WholeLines(both_names))
    headers = [header for header in connection.headers if header[0] not in DROPPED]
    begun = bool(call.status)  # while it was held
    call.streaming = any(name == b"content-type" and b"event-stream" in value for name, value in headers)
    if call.streaming:
        headers.append((b"x-accel-buffering", b"no"))
    elif filters:
        await _answer_filtered(call, connection, filters, headers)
        return
    if not begun:
        await call.start(connection.status, headers)
    if unasked and call.streaming:
        filters.append(Unasked())
    await connection.pour(_filtered(call, filters) if filters else call.pour, silence if call.streaming else None)


class Filter(Protocol):
    """Changes an answer's bytes on their way. It may hold back what is not a whole line yet."""

    def feed(self, data: bytes) -> bytes: ...

    def flush(self) -> bytes: ...


def _filtered(call: Call, filters: Sequence[Filter]) -> Write:
    """What an answer's bytes go through on their way."""
    unasked = filters[0] if isinstance(filters[0], Unasked) else None
    pour = call.pour

    def write(body: bytes, *, more: bool) -> Awaitable[None] | None:
        if unasked is not None and more and unasked.leaves(body):
            return pour(body, more=True)
        for each in filters:
            body = each.feed(body) if more else each.feed(body) + each.flush()
        return pour(body, more=more) if body or not more else None

    return write


async def _answer_filtered(
    call: Call, connection: Connection, filters: Sequence[Filter], headers: list[Header]
) -> None:
    data = await read_all(connection)
    for each in filters:
        data = each.feed(data) + each.flush()
    headers = [header for header in headers if header[0] != b"content-length"]
    await call.answer(connection.status, [*headers, (b"content-length", b"%d" % len(data))], data)
