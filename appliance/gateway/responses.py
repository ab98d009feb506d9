"""OpenAI's responses, beyond one exchange: an engine keeps them in its own memory, so what is asked about one goes to
the engine that made it.

Which one that was is in the response's id, so nothing has to be remembered here: it outlives this process, and where
the engine is gone, the answer says so. Engines never forget a response, so only those are kept that a client asks for.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
import secrets
from collections.abc import Mapping
from functools import partial
from itertools import takewhile
from typing import Any

from starlette.types import Receive

from appliance.errors import RequestError
from appliance.gateway import body as bodies
from appliance.gateway.admission import Admission
from appliance.gateway.auth import allows
from appliance.gateway.call import Call
from appliance.gateway.chat import as_system
from appliance.gateway.connection import Connection, EngineGone
from appliance.gateway.errors import unknown_route
from appliance.gateway.passthrough import EVENTS, relay
from appliance.gateway.port import Port
from appliance.gateway.proxy import Proxy
from appliance.gateway.question import Question
from appliance.gateway.tools import enforced
from appliance.routing import Route

PATH = "/v1/responses"
UNFINISHED = frozenset(("queued", "in_progress"))
LOOK = 1.0
"""Seconds between two looks at a response that is made in the background."""

_IDENTITY = re.compile(r"[A-Za-z0-9_-]{1,128}")
_QUERY = re.compile(r"[A-Za-z0-9_.,=&%\[\]-]*")
_PREFIX = "resp_"
_MARK = 12


class Responses:
    def __init__(self, port: Port, proxy: Proxy, admission: Admission) -> None:
        self._port = port
        self._proxy = proxy
        self._admission = admission
        self._followed: dict[str, Route] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def create(self, call: Call, receive: Receive) -> None:
        body = await self._proxy.read(call, receive)
        request = bodies.parse(body)
        salt = secrets.token_hex(12)
        stream = EVENTS if request.get("stream") is True else None
        answer = partial(relay, call, request["model"], silence=self._proxy.silence(call, stream))
        if request.get("background") is True:
            answer = partial(self._answer_and_follow, answer, salt)
        question = Question(
            PATH,
            request["model"],
            lambda route: bodies.for_engine(
                {**request, **_adapt(request, route, salt)}, None, "max_output_tokens", route
            ),
            answer,
            stream,
        )
        await self._proxy.ask(call, receive, question)

    async def retrieve(self, call: Call, receive: Receive) -> None:
        identity, part = _named(call)
        if part not in ("", "/input_items"):
            raise unknown_route(call.path)
        await self._ask(call, receive, "GET", identity, part + _query(call))

    async def cancel(self, call: Call, receive: Receive) -> None:
        identity, part = _named(call)
        if part != "/cancel":
            raise unknown_route(call.path)
        await self._ask(call, receive, "POST", identity, part)

    def close(self) -> None:
        for task in self._tasks:
            task.cancel()

    async def _ask(self, call: Call, receive: Receive, method: str, identity: str, part: str) -> None:
        await self._proxy.read(call, receive)
        route = self._made_by(call, identity)
        question = Question(
            f"{PATH}/{identity}{part}",
            route.model,
            lambda _: b"",
            partial(relay, call, route.served),
            method=method,
            route=route,
        )
        await self._proxy.ask(call, receive, question)

    def _made_by(self, call: Call, identity: str) -> Route:
        """The engine that made this response, while it is there."""
        ready = (route for route in self._port.routing().routes.values() if route is not None)
        route = self._followed.get(identity) or next((each for each in ready if _made(each, identity)), None)
        if route is None or not allows(call.key, route.model):
            raise _not_found(identity)
        return route

    async def _answer_and_follow(self, answer: Any, salt: str, connection: Connection, route: Route) -> None:
        self._follow(name(route, salt), route)
        await answer(connection, route)

    def _follow(self, identity: str, route: Route) -> None:
        """Its client is answered at once, but the engine goes on: it counts as busy until the response is made."""
        route.lease.acquire()
        self._followed[identity] = route
        task = asyncio.ensure_future(self._until_finished(identity, route))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _until_finished(self, identity: str, route: Route) -> None:
        try:
            while True:
                await asyncio.sleep(LOOK)
                if not await self._unfinished(identity, route):
                    return
        finally:
            del self._followed[identity]
            self._admission.release(route)

    async def _unfinished(self, identity: str, route: Route) -> bool:
        try:
            status, body = await self._proxy.get(route, f"{PATH}/{identity}")
        except EngineGone:
            return False
        return status == 200 and json.loads(body).get("status") in UNFINISHED


def name(route: Route, salt: str) -> str:
    """The id of a response that this route's engine makes. Its key is random and its own, as long as it lives."""
    return f"{_PREFIX}{_mark(route)}{salt}"


def _mark(route: Route) -> str:
    return hashlib.sha256(route.key.encode()).hexdigest()[:_MARK]


def _made(route: Route, identity: str) -> bool:
    return identity.removeprefix(_PREFIX)[:_MARK] == _mark(route)


def _named(call: Call) -> tuple[str, str]:
    """The id in the path, and what follows it."""
    identity, slash, part = call.route.removeprefix(f"{PATH}/").partition("/")
    if not _IDENTITY.fullmatch(identity):
        raise _not_found(identity)
    return identity, slash + part


def _query(call: Call) -> str:
    """`stream`, `starting_after`, `include[]`, … as they came: they become part of the engine's request line."""
    query = call.query.decode("latin-1")
    if not _QUERY.fullmatch(query):
        raise RequestError("the query is not understood", status=400, code="invalid_value")
    return f"?{query}" if query else ""


def _adapt(request: Mapping[str, Any], route: Route, salt: str) -> dict[str, Any]:
    previous = request.get("previous_response_id")
    if isinstance(previous, str) and not _made(route, previous):
        raise RequestError(
            f"the response `{previous[:100]}` is not kept here (any more): send its conversation in `input`",
            status=400,
            code="previous_response_not_found",
            param="previous_response_id",
        )
    changes: dict[str, Any] = {"store": False}
    if request.get("store") is True or request.get("background") is True:
        changes = {"store": True, "request_id": name(route, salt)}
    given = request.get("input")
    if not route.developer and isinstance(given, list):
        changes |= _one_system(request.get("instructions"), as_system(given))
    if (tools := enforced(request)) is not None:
        changes["tools"] = tools
    return changes


def _one_system(instructions: Any, items: list[Any]) -> dict[str, Any]:
    """Agents send instructions, and begin with a developer's item as well.

    The engine makes a system message of each, and many chat templates refuse a second one: it becomes part of the
    first.
    """
    texts = [*takewhile(lambda text: text is not None, map(_system_text, items))]
    if not isinstance(instructions, str) or not instructions:
        return {"input": items}
    said = "\n\n".join([instructions, *filter(None, texts)])
    return {"instructions": said, "input": items[len(texts) :]}


def _system_text(item: Any) -> str | None:
    """What a system item says, where that is text; None for any other item."""
    if not isinstance(item, dict) or item.get("role") != "system":
        return None
    content = item.get("content")
    if isinstance(content, str):
        return content
    parts = [part.get("text") for part in content if isinstance(part, dict)] if isinstance(content, list) else [None]
    return None if None in parts else "\n".join(map(str, parts))


def _not_found(identity: str) -> RequestError:
    return RequestError(
        f"the response `{identity[:100]}` is not kept here: it was made without `store: true`, or by an engine that "
        "has been replaced since",
        status=404,
        code="response_not_found",
        param="id",
    )
