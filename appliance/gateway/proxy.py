"""Takes a request to the engine of its model and the answer back, byte for byte as it arrives."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass
from time import perf_counter
from typing import Any

from starlette.types import Receive

from appliance.errors import ApplianceError, RequestError
from appliance.gateway import body as bodies
from appliance.gateway.auth import allows
from appliance.gateway.call import Call
from appliance.gateway.connection import Connection, EngineGone
from appliance.gateway.errors import (
    Header,
    engine_failed,
    engine_unavailable,
    from_engine,
    unavailable,
    unknown_model,
)
from appliance.gateway.hold import Hold
from appliance.gateway.port import Port
from appliance.gateway.rename import Rename
from appliance.gateway.upstream import Unreachable, Upstream, request_head
from appliance.routing import Route

FORWARDED = (b"traceparent", b"tracestate")
"""The client's headers that an engine sees. A list of what passes can't leak a credential nobody thought of."""

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

ERROR_LIMIT = 64 * 1024
PATIENCE = 5.0
"""Seconds that an engine may refuse connections before its clients hear of it: a crash is noticed within one."""
RECONNECT = 0.05


@dataclass(frozen=True, slots=True)
class Target:
    """What an engine is asked, and how the model's sampling defaults apply to it."""

    path: str
    limit_name: str | None = None
    """What this API calls `max_tokens`; None where sampling means nothing."""


class Proxy:
    def __init__(self, hold: Hold, port: Port, upstream: Upstream, *, max_body: int) -> None:
        self._hold = hold
        self._port = port
        self._upstream = upstream
        self._max_body = max_body

    async def forward(self, call: Call, receive: Receive, target: Target) -> None:
        body = await bodies.read(receive, call.headers, self._max_body)
        request = bodies.parse(body)
        watch = _watch(call, receive)
        try:
            await self._send(call, target, request, body)
        finally:
            watch.cancel()

    async def _send(self, call: Call, target: Target, request: dict[str, Any], body: bytes) -> None:
        """To an engine that takes it. One that has crashed is routed to until that is noticed: it has seen nothing."""
        model = self._resolve(call, request["model"])
        give_up = perf_counter() + PATIENCE
        while True:
            route = await self._route(call, model, stream=request.get("stream") is True)
            route.lease.acquire()
            try:
                return await self._exchange(call, route, target, request, body)
            except Unreachable as error:
                if perf_counter() > give_up:
                    raise engine_unavailable(route.model) from error
            finally:
                route.lease.release()
            await asyncio.sleep(RECONNECT)

    def _resolve(self, call: Call, name: str) -> str:
        model = self._port.routing().resolve(name)
        if model is None or not allows(call.key, model):
            raise unknown_model(name)
        call.model = model
        return model

    async def _route(self, call: Call, model: str, *, stream: bool) -> Route:
        """An engine that takes this request. Nothing may be awaited between the snapshot that has it and its lease.

        So what was waited for is looked up again: another save may have replaced it before its waiter had its turn.
        """
        while (route := self._port.routing().routes.get(model)) is None:
            try:
                await self._hold.until_ready(call, model, stream=stream)
            except ApplianceError as error:
                raise unavailable(error) from error
        call.revision = route.revision
        return route

    async def _exchange(self, call: Call, route: Route, target: Target, request: dict[str, Any], body: bytes) -> None:
        asked = request["model"]
        body = _for_engine(request, body, route, target)
        head = request_head(target.path, _headers(call, route), len(body))
        try:
            connection = await self._upstream.request(_address(route), head, body)
        except Unreachable:
            raise
        except EngineGone as error:
            raise engine_failed(route.model) from error
        try:
            if connection.status >= 400:
                raise await _engine_error(connection, route, target)
            await _relay(call, connection, None if asked == route.served else Rename(route.served, asked), route)
        finally:
            connection.release()


def _watch(call: Call, receive: Receive) -> asyncio.Task[Any]:
    """Calls off the request when its client goes away, which closes the engine's connection and ends the generation."""
    request = asyncio.current_task()

    def gone(watch: asyncio.Task[Any]) -> None:
        # An answered request hears of a disconnect too: that is how a server ends `receive`.
        if request is not None and not watch.cancelled() and not call.ended:
            call.aborted = True
            request.cancel()

    watch = asyncio.ensure_future(receive())
    watch.add_done_callback(gone)
    return watch


def _for_engine(request: dict[str, Any], body: bytes, route: Route, target: Target) -> bytes:
    """The client's own bytes, unless the name differs or the model has defaults to add."""
    added: Mapping[str, Any] = {}
    if route.defaults and target.limit_name:
        added = bodies.with_defaults(request, route.defaults, target.limit_name)
    if not added and request["model"] == route.served:
        return body
    return json.dumps({**request, **added, "model": route.served}, separators=(",", ":")).encode()


def _headers(call: Call, route: Route) -> dict[bytes, bytes]:
    headers = {
        b"authorization": b"Bearer " + route.key.encode(),
        b"content-type": b"application/json",
        b"x-request-id": call.id,
    }
    for name in FORWARDED:
        if name in call.headers:
            headers[name] = call.headers[name]
    return headers


def _address(route: Route) -> str | int:
    if route.socket is not None:
        return route.socket
    if route.port is not None:
        return route.port
    raise ValueError(f"the route to model `{route.model}` has no address")


async def _relay(call: Call, connection: Connection, rename: Rename | None, route: Route) -> None:
    headers = [header for header in connection.headers if header[0] not in DROPPED]
    begun = bool(call.status)  # while it was held
    call.streaming = any(name == b"content-type" and b"event-stream" in value for name, value in headers)
    try:
        if call.streaming:
            headers.append((b"x-accel-buffering", b"no"))
        if rename is not None and not call.streaming:
            await _answer_renamed(call, connection, rename, headers)
            return
        if not begun:
            await call.start(connection.status, headers)
        await (connection.pour(call.write) if rename is None else _stream_renamed(call, connection, rename))
    except EngineGone as error:
        raise engine_failed(route.model) from error


async def _stream_renamed(call: Call, connection: Connection, rename: Rename) -> None:
    while not call.ended:
        data = rename.feed(await connection.read())
        if connection.complete:
            await call.write(data + rename.flush(), more=False)
        elif data:
            await call.write(data, more=True)


async def _answer_renamed(call: Call, connection: Connection, rename: Rename, headers: list[Header]) -> None:
    data = await _read_all(connection)
    data = rename.feed(data) + rename.flush()
    headers = [header for header in headers if header[0] != b"content-length"]
    await call.answer(connection.status, [*headers, (b"content-length", b"%d" % len(data))], data)


async def _read_all(connection: Connection, limit: int | None = None) -> bytes:
    pieces = [await connection.read()]
    while not connection.complete and (limit is None or sum(map(len, pieces)) < limit):
        pieces.append(await connection.read())
    return b"".join(pieces)


async def _engine_error(connection: Connection, route: Route, target: Target) -> RequestError:
    try:
        body = await _read_all(connection, ERROR_LIMIT)
    except EngineGone:
        return engine_failed(route.model)
    given = dict(connection.headers).get(b"retry-after", b"")
    retry_after = float(given) if given.isdigit() else None
    return from_engine(connection.status, body, model=route.model, path=target.path, retry_after=retry_after)
