"""Takes a question to the engine of its model, and has it answered from there."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from time import perf_counter
from typing import Any

from starlette.types import Receive

from appliance.errors import RequestError
from appliance.gateway import body as bodies
from appliance.gateway import usage
from appliance.gateway.admission import Admission
from appliance.gateway.auth import allows
from appliance.gateway.call import Call
from appliance.gateway.connection import Connection, EngineGone, Silence
from appliance.gateway.errors import engine_failed, engine_unavailable, from_engine, unknown_model
from appliance.gateway.limits import Grant, Limiter, LimitReached
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
    def __init__(
        self,
        admission: Admission,
        limiter: Limiter,
        port: Port,
        upstream: Upstream,
        *,
        max_body: int,
        metered: Callable[[], bool],
        keep_alive: float,
    ) -> None:
        """`metered` says whether somebody wants to know what every answer used now, `keep_alive` for how many seconds a
        stream may be silent."""
        self.keep_alive = keep_alive
        self._admission = admission
        self._limiter = limiter
        self._port = port
        self._upstream = upstream
        self._metered = metered
        self.max_body = max_body

    async def read(self, call: Call, receive: Receive) -> bytes:
        """The request's body. All of it is read before `ask`, which listens for the client's going away."""
        body = await bodies.read(receive, call.headers, self.max_body)
        call.received = len(body)
        return body

    def silence(self, call: Call, stream: Stream | None) -> Silence | None:
        """What is said on a stream while its engine says nothing: a long prompt takes minutes to read."""
        return None if stream is None else Silence(self.keep_alive, partial(call.bridge, stream))

    def meters(self, call: Call) -> bool:
        """Whether this answer's usage is wanted, whatever its client asked for."""
        return self._metered() or (call.key is not None and call.key.limits.tokens_per_minute is not None)

    async def ask(self, call: Call, receive: Receive, question: Question) -> None:
        """Raises RequestError; a client that goes away calls the request off, which ends the generation.

        An engine that has crashed is routed to until that is noticed: it has seen nothing, so another may be asked.
        """
        watch = _watch(call, receive)
        try:
            model = self._resolve(call, question.model)
            grant = self._grant(call)
            try:
                await self._send(call, model, question)
            finally:
                if grant is not None:
                    grant.settle(call.usage.total if call.usage else 0, perf_counter())
        finally:
            watch.cancel()

    async def load(self, call: Call, receive: Receive, name: str, stream: Stream | None) -> Route:
        """Have an engine of this model ready, and ask it nothing. Raises RequestError."""
        watch = _watch(call, receive)
        try:
            route = await self._admission.admit(call, self._resolve(call, name), stream)
            self._admission.release(route)
            return route
        finally:
            watch.cancel()

    async def _send(self, call: Call, model: str, question: Question) -> None:
        give_up = perf_counter() + PATIENCE
        again = False
        while True:
            if question.route is None:
                route = await self._admission.admit(call, model, question.stream, again=again)
            else:
                route = self._admission.pin(call, question.route)
            try:
                return await self._exchange(call, question, route)
            except RequestError as error:
                if question.refused is None or (following := question.refused(error)) is None:
                    raise
                question, again = following, True
                continue
            except Unreachable as error:
                if perf_counter() > give_up:
                    raise engine_unavailable(route.model) from error
            finally:
                self._admission.release(route)
            again = True
            await asyncio.sleep(RECONNECT)

    def _grant(self, call: Call) -> Grant | None:
        if call.key is None:
            return None
        now = perf_counter()
        account = self._limiter.account(call.key, now)
        try:
            return account.admit(call.received // usage.BYTES_PER_TOKEN, now)
        except LimitReached as error:
            call.limited = error.limit
            raise
        finally:
            call.told = account.headers(call.dialect, now)

    async def get(self, route: Route, path: str) -> tuple[int, bytes]:
        """Ask an engine on the gateway's own behalf. Raises EngineGone."""
        head = request_head(path, {b"authorization": b"Bearer " + route.key.encode()}, 0, "GET")
        connection = await self._upstream.request(address(route), head)
        try:
            return connection.status, await read_all(connection)
        finally:
            connection.release()

    def _resolve(self, call: Call, name: str) -> str:
        model = self._port.routing().resolve(name)
        if model is None or not allows(call.key, model):
            raise unknown_model(name)
        call.model = model
        return model

    async def _exchange(self, call: Call, question: Question, route: Route) -> None:
        body = question.body(route)
        parts = body if isinstance(body, tuple) else (body,)
        head = request_head(question.path, _headers(call, question, route), sum(map(len, parts)), question.method)
        try:
            try:
                silence = self.silence(call, question.stream)
                connection = await self._upstream.request(address(route), head, *parts, silence=silence)
            except asyncio.CancelledError:
                # Its client has left without a byte of the answer, and the engine has worked on the prompt at least.
                call.usage = usage.estimate(call.received, 0, b"")
                raise
            try:
                if connection.status >= 400:
                    raise await _engine_error(connection, route, question.path)
                await question.answer(connection, route)
            finally:
                _count(call, connection)
                connection.release()
        except Unreachable:
            raise
        except EngineGone as error:
            call.dropped = route.lease.cut
            raise engine_failed(route.model) from error


def _count(call: Call, connection: Connection) -> None:
    """Add what the engine says that this exchange used, or a guess where it had no time to say it."""
    if connection.status >= 400:
        return
    end = b"".join(connection.end)
    found = usage.find(end)
    # Some clients leave at `[DONE]`, before the connection's own end: that answer was complete.
    if found is None and not connection.complete and b"data: [DONE]" not in end:
        found = usage.estimate(call.received, connection.taken, connection.end[-1] if connection.end else b"")
    if found is not None:
        call.usage = found if call.usage is None else call.usage + found


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


def address(route: Route) -> str | int:
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
    retry_after = float(given) if given.isdigit() and len(given) < 10 else None  # or a date, or no time at all
    return from_engine(connection.status, body, model=route.model, path=path, retry_after=retry_after)
