"""Takes a question to the engine of its model, and has it answered from there."""

from __future__ import annotations

import asyncio
from time import perf_counter
from typing import Any

from starlette.types import Receive

from appliance.errors import ApplianceError, RequestError
from appliance.gateway import body as bodies
from appliance.gateway.auth import allows
from appliance.gateway.call import Call
from appliance.gateway.connection import Connection, EngineGone
from appliance.gateway.errors import engine_failed, engine_unavailable, from_engine, unavailable, unknown_model
from appliance.gateway.hold import Hold
from appliance.gateway.port import Port
from appliance.gateway.question import Question, Stream
from appliance.gateway.upstream import Unreachable, Upstream, request_head
from appliance.routing import Route

FORWARDED = (b"traceparent", b"tracestate")
"""The client's headers that an engine sees. A list of what passes can't leak a credential nobody thought of."""

ERROR_LIMIT = 64 * 1024
PATIENCE = 5.0
"""Seconds that an engine may refuse connections before its clients hear of it: a crash is noticed within one."""
RECONNECT = 0.05


class Proxy:
    def __init__(self, hold: Hold, port: Port, upstream: Upstream, *, max_body: int) -> None:
        self._hold = hold
        self._port = port
        self._upstream = upstream
        self._max_body = max_body

    async def read(self, call: Call, receive: Receive) -> bytes:
        """The request's body. All of it is read before `ask`, which listens for the client's going away."""
        return await bodies.read(receive, call.headers, self._max_body)

    async def ask(self, call: Call, receive: Receive, question: Question) -> None:
        """Raises RequestError; a client that goes away calls the request off, which ends the generation.

        An engine that has crashed is routed to until that is noticed: it has seen nothing, so another may be asked.
        """
        watch = _watch(call, receive)
        try:
            model = self._resolve(call, question.model)
            give_up = perf_counter() + PATIENCE
            while True:
                route = await self._route(call, model, question.stream)
                route.lease.acquire()
                try:
                    return await self._exchange(call, question, route)
                except Unreachable as error:
                    if perf_counter() > give_up:
                        raise engine_unavailable(route.model) from error
                finally:
                    route.lease.release()
                await asyncio.sleep(RECONNECT)
        finally:
            watch.cancel()

    def _resolve(self, call: Call, name: str) -> str:
        model = self._port.routing().resolve(name)
        if model is None or not allows(call.key, model):
            raise unknown_model(name)
        call.model = model
        return model

    async def _route(self, call: Call, model: str, stream: Stream | None) -> Route:
        """An engine that takes this request. Nothing may be awaited between the snapshot that has it and its lease.

        So what was waited for is looked up again: another save may have replaced it before its waiter had its turn.
        """
        while (route := self._port.routing().routes.get(model)) is None:
            try:
                await self._hold.until_ready(call, model, stream)
            except ApplianceError as error:
                raise unavailable(error) from error
        call.revision = route.revision
        return route

    async def _exchange(self, call: Call, question: Question, route: Route) -> None:
        body = question.body(route)
        head = request_head(question.path, _headers(call, question, route), len(body))
        try:
            connection = await self._upstream.request(_address(route), head, body)
            try:
                if connection.status >= 400:
                    raise await _engine_error(connection, route, question.path)
                await question.answer(connection, route)
            finally:
                connection.release()
        except Unreachable:
            raise
        except EngineGone as error:
            raise engine_failed(route.model) from error


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


def _headers(call: Call, question: Question, route: Route) -> dict[bytes, bytes]:
    headers = {
        b"authorization": b"Bearer " + route.key.encode(),
        b"content-type": question.content_type,
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


async def read_all(connection: Connection, limit: int | None = None) -> bytes:
    """The whole body, or its beginning once that is `limit` bytes long. Raises EngineGone."""
    pieces = [await connection.read()]
    while not connection.complete and (limit is None or sum(map(len, pieces)) < limit):
        pieces.append(await connection.read())
    return b"".join(pieces)


async def _engine_error(connection: Connection, route: Route, path: str) -> RequestError:
    body = await read_all(connection, ERROR_LIMIT)
    given = dict(connection.headers).get(b"retry-after", b"")
    retry_after = float(given) if given.isdigit() else None
    return from_engine(connection.status, body, model=route.model, path=path, retry_after=retry_after)
