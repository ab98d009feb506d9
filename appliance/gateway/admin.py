"""The admin API: on the unix socket, where file permissions are the authentication, and for admin keys over TCP."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Message, Receive

from appliance.errors import ApplianceError, Conflict, Stale
from appliance.gateway.activity import INTERVAL, KEPT, Activity, Point
from appliance.gateway.body import ClientGone
from appliance.gateway.call import Call
from appliance.gateway.port import Port
from appliance.gateway.routes import Endpoint, Routes
from appliance.plan.changes import Change
from appliance.process.logs import Tail

LOOK = 0.5
"""Seconds between two looks at the status for somebody who follows events: a step or a counter may have changed."""
KEEP_ALIVE = 15.0
"""Seconds of silence before a comment keeps a stream of events open."""
LINES = 200
MOST_LINES = 10_000


class Outcome(Protocol):
    """What an apply came to."""

    @property
    def changes(self) -> tuple[Change, ...]: ...

    @property
    def problem(self) -> str | None: ...


class Entry(Protocol):
    """One generation of the file."""

    @property
    def generation(self) -> int: ...

    @property
    def text(self) -> str: ...


class Event(Protocol):
    @property
    def number(self) -> int: ...

    @property
    def kind(self) -> str: ...

    @property
    def time(self) -> str: ...

    @property
    def data(self) -> Mapping[str, Any]: ...


class Events(Protocol):
    @property
    def closed(self) -> bool: ...

    def since(self, number: int) -> Sequence[Event]: ...

    async def news(self, within: float) -> None: ...


class Control(Protocol):
    """The running appliance, as the admin API asks it."""

    @property
    def events(self) -> Events: ...

    def status(self) -> Mapping[str, Any]: ...

    def essence(self) -> Any:
        """What of the status is worth telling when it changes: no ages, no bytes."""
        ...

    async def preview(self) -> Mapping[str, Any]: ...

    async def reload(self, *, expected: str | None = None) -> Outcome: ...

    async def rollback(self, generation: int | None, *, expected: str | None = None) -> tuple[Entry, Outcome]: ...

    def entries(self) -> Sequence[Any]: ...

    def diff(self, before: int, after: int | None) -> str: ...

    def log(self, model: str | None) -> Path: ...

    def keys(self) -> Sequence[Mapping[str, Any]]:
        """Every key's name and what it may do; nothing that helps to guess it."""
        ...


class Process(Protocol):
    """The control process itself, which only its own user may end. Both are asked for, not waited for."""

    def stop(self, *, keep_engines: bool) -> None: ...

    async def restart(self) -> str | None:
        """Why not, where it cannot be."""
        ...


def create_admin_app(control: Control, activity: Activity, process: Process | None = None) -> Starlette:
    """With a `process` it can be ended, too: that is for the unix socket alone."""
    api = _Api(control, activity)
    routes = [
        Route("/admin/v1/status", api.status, methods=["GET"]),
        Route("/admin/v1/plan", api.plan, methods=["GET"]),
        Route("/admin/v1/apply", api.apply, methods=["POST"]),
        Route("/admin/v1/history", api.history, methods=["GET"]),
        Route("/admin/v1/history/{generation:int}", api.generation, methods=["GET"]),
        Route("/admin/v1/diff", api.diff, methods=["GET"]),
        Route("/admin/v1/rollback", api.rollback, methods=["POST"]),
        Route("/admin/v1/events", api.events, methods=["GET"]),
        Route("/admin/v1/logs", api.logs, methods=["GET"]),
        Route("/admin/v1/keys", api.keys, methods=["GET"]),
        Route("/admin/v1/activity", api.activity, methods=["GET"]),
    ]
    if process is not None:
        ends = _Ends(process)
        routes.append(Route("/admin/v1/stop", ends.stop, methods=["POST"]))
        routes.append(Route("/admin/v1/restart", ends.restart, methods=["POST"]))
    return Starlette(routes=routes, exception_handlers={ApplianceError: _refusal, HTTPException: _refusal})


class Revoked(ClientGone):
    """The key of an answer that goes on is not in force any more: its client is nobody now."""


def routes(app: Starlette, port: Port) -> Routes:
    """The same API in the gateway, for keys with the scope `admin`."""

    async def answer(call: Call, receive: Receive) -> None:
        async def send(message: Message) -> None:
            # Events are followed for days. The save that takes a key away is told to them, and so comes through here.
            if call.key is not None and call.key not in port.routing().keys:
                raise Revoked
            if message["type"] == "http.response.start":
                await call.start(message["status"], [*message["headers"]])
            else:
                await call.write(message.get("body", b""), more=message.get("more_body", False))

        await app(call.scope, receive, send)

    endpoint = Endpoint(answer, scope="admin", key_required=True)
    return {"/admin/v1/*": {"GET": endpoint, "POST": endpoint}}


class _Api:
    def __init__(self, control: Control, activity: Activity) -> None:
        self._control = control
        self._activity = activity

    async def status(self, _: Request) -> Response:
        return JSONResponse(self._control.status())

    async def plan(self, _: Request) -> Response:
        plan = await self._control.preview()
        return JSONResponse(plan, headers={"etag": f'"{plan["tag"]}"'} if plan["tag"] else None)

    async def apply(self, request: Request) -> Response:
        return JSONResponse(_told(await self._control.reload(expected=_expected(request))))

    async def history(self, _: Request) -> Response:
        entries = await asyncio.to_thread(self._control.entries)
        return JSONResponse([{k: v for k, v in asdict(entry).items() if k != "text"} for entry in entries])

    async def generation(self, request: Request) -> Response:
        number = request.path_params["generation"]
        entries = await asyncio.to_thread(self._control.entries)
        entry = next((each for each in entries if each.generation == number), None)
        if entry is None:
            raise ApplianceError(f"there is no generation {number}", hint="GET /admin/v1/history lists them")
        return JSONResponse(asdict(entry))

    async def diff(self, request: Request) -> Response:
        before, after = _number(request, "from"), _number(request, "to")
        if before is None:
            raise ApplianceError("`from` is missing", hint="name a generation: /admin/v1/diff?from=1&to=2")
        return Response(await asyncio.to_thread(self._control.diff, before, after), media_type="text/plain")

    async def rollback(self, request: Request) -> Response:
        wanted = _number(request, "generation")
        entry, outcome = await self._control.rollback(wanted, expected=_expected(request))
        return JSONResponse({"generation": entry.generation, **_told(outcome)})

    async def events(self, request: Request) -> Response:
        last = request.headers.get("last-event-id", "")
        number = int(last) if _is_number(last) else 0
        return StreamingResponse(_events(self._control, number), media_type="text/event-stream", headers=_LIVE)

    async def keys(self, _: Request) -> Response:
        return JSONResponse(self._control.keys())

    async def activity(self, request: Request) -> Response:
        if request.query_params.get("follow") == "true":
            return StreamingResponse(_points(self._activity), media_type="text/event-stream", headers=_LIVE)
        return JSONResponse(_plotted(self._activity.since(0)[1], fresh=True))

    async def logs(self, request: Request) -> Response:
        lines = min(_number(request, "lines") or LINES, MOST_LINES)
        tail = Tail(self._control.log(request.query_params.get("model")), lines=lines)
        follow = request.query_params.get("follow") == "true"
        return StreamingResponse(_log(self._control, tail, follow=follow), media_type="text/plain", headers=_LIVE)


class _Ends:
    """The caller sees the socket close when it is done."""

    def __init__(self, process: Process) -> None:
        self._process = process

    async def stop(self, request: Request) -> Response:
        self._process.stop(keep_engines=request.query_params.get("keep_engines") == "true")
        return JSONResponse({"stopping": True}, status_code=202)

    async def restart(self, _: Request) -> Response:
        return JSONResponse({"problem": await self._process.restart()}, status_code=202)


_LIVE = {"cache-control": "no-cache", "x-accel-buffering": "no"}


async def _events(control: Control, number: int) -> AsyncIterator[str]:
    """What has happened since that number and is still known, then what happens, and the status whenever it changes.

    A status has no number: whoever comes back gets the newest.
    """
    seen: Any = None
    silence = 0.0
    while True:
        told = control.events.since(number)
        for event in told:
            number = event.number
            yield _event(event.kind, {"time": event.time, **event.data}, event.number)
        if (essence := control.essence()) != seen:
            seen = essence
            yield _event("status", control.status())
        elif not told and (silence := silence + LOOK) >= KEEP_ALIVE:
            silence = 0.0
            yield ": nothing new\n\n"
        if control.events.closed:
            return
        await control.events.news(LOOK)


def _event(kind: str, data: Mapping[str, Any], number: int | None = None) -> str:
    identity = "" if number is None else f"id: {number}\n"
    return f"{identity}event: {kind}\ndata: {json.dumps(data, ensure_ascii=False)}\n\n"


async def _points(activity: Activity) -> AsyncIterator[str]:
    """All that is kept, then each point as it is put down."""
    number, points = activity.since(0)
    yield _event("activity", _plotted(points, fresh=True))
    while not activity.closed:
        number, points = await activity.follow(number)
        yield _event("activity", _plotted(points, fresh=False))


def _plotted(points: Sequence[Point], *, fresh: bool) -> dict[str, Any]:
    """`fresh` says that these are all there are: what was known before is another run's."""
    return {"interval": INTERVAL, "kept": KEPT, "fresh": fresh, "points": [asdict(point) for point in points]}


async def _log(control: Control, tail: Tail, *, follow: bool) -> AsyncIterator[str]:
    with tail:
        while True:
            if lines := await asyncio.to_thread(tail.read):
                yield "".join(f"{line}\n" for line in lines)
            elif not follow or control.events.closed:
                return
            else:
                await asyncio.sleep(LOOK)


def _told(outcome: Outcome) -> dict[str, Any]:
    changes = [{"path": change.path, "cost": change.cost} for change in outcome.changes]
    return {"problem": outcome.problem, "changes": changes}


def _expected(request: Request) -> str | None:
    """The tag of a plan that this request was made for."""
    given = request.headers.get("if-match", "*").strip()
    return None if given == "*" else given.strip('"')


def _number(request: Request, name: str) -> int | None:
    given = request.query_params.get(name)
    if given is None:
        return None
    if not _is_number(given):
        raise ApplianceError(f"`{name}` must be a whole number, not `{given[:40]}`")
    return int(given)


def _is_number(text: str) -> bool:
    """Whether it counts something: Python makes no number of thousands of digits."""
    return text.isdecimal() and len(text) < 20


async def _refusal(_: Request, error: Exception) -> Response:
    if isinstance(error, HTTPException):
        status, message, hint = error.status_code, error.detail, None
    elif isinstance(error, ApplianceError):
        status = 412 if isinstance(error, Stale) else 409 if isinstance(error, Conflict) else 400
        message, hint = error.message, error.hint
    else:
        raise error
    return JSONResponse({"error": {"type": type(error).__name__, "message": message, "hint": hint}}, status_code=status)
