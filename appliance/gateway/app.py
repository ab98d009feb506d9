"""The gateway as one ASGI application: guard, authenticate, dispatch.

Starlette's router and its Request and Response objects are left out: a table look-up and three ASGI messages are all
that a proxied request needs, and this is where the gateway's time goes.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import structlog
from starlette.applications import Starlette
from starlette.types import Receive, Scope, Send

from appliance import __version__
from appliance.errors import RequestError
from appliance.gateway import access_log, anthropic, docker, health, keyless, ollama, openai, openapi, page
from appliance.gateway.activity import Activity
from appliance.gateway.admin import routes as admin_routes
from appliance.gateway.admission import Admission
from appliance.gateway.auth import authorise, check_loopback, no_keys
from appliance.gateway.body import ClientGone
from appliance.gateway.call import Call
from appliance.gateway.docker.store import Disk
from appliance.gateway.errors import bug, stopping
from appliance.gateway.hold import KEEP_ALIVE, Hold
from appliance.gateway.limits import Limiter
from appliance.gateway.observer import Observer, traced, tracing
from appliance.gateway.openai import Models
from appliance.gateway.port import Port
from appliance.gateway.protocol import CLOSING
from appliance.gateway.proxy import Proxy
from appliance.gateway.responses import Responses
from appliance.gateway.routes import Routes, dialect_of, find
from appliance.gateway.upstream import Upstream


def create_app(
    port: Port,
    *,
    max_body: int,
    loopback: bool,
    keep_alive: float = KEEP_ALIVE,
    admin: Starlette | None = None,
    metrics: bool = False,
    activity: Activity | None = None,
    environ: Mapping[str, str] | None = None,
    disk: Callable[[], Disk] | None = None,
) -> Gateway:
    """`loopback` says that only this machine can connect, and turns on the checks of Host and Origin.

    `keep_alive` is the seconds between two idle events on a stream that waits for its model. `admin` is the API for
    keys with the scope `admin`, and for the page; `activity` is told what goes on. `environ` says whether requests are
    traced, and to where: Conflict is raised where what that takes is not installed. `disk` measures what weights and
    environments take on disk; it may take a while.
    """
    upstream = Upstream()
    admission = Admission(port, Hold(port, keep_alive))

    def metered() -> bool:
        return metrics or (activity is not None and activity.watched)

    proxy = Proxy(admission, Limiter(), port, upstream, max_body=max_body, metered=metered, keep_alive=keep_alive)
    models = Models(port, created=int(time.time()))
    responses = Responses(port, proxy, admission)
    routes = {**openai.routes(proxy, models, responses), **anthropic.routes(proxy, models)}
    routes |= docker.routes(port, proxy, models, routes, disk)
    routes |= {**ollama.routes(port, proxy, models), **health.routes(port)}
    if admin is not None:
        routes |= {**admin_routes(admin, port), **page.routes()}
    observers: list[Observer] = []
    if activity is not None:
        activity.attach(port, admission)
        observers.append(activity)
    if metrics:
        from appliance.gateway.metrics import Metrics

        measured = Metrics(port, admission, upstream, version=__version__)
        observers.append(measured)
        routes |= measured.routes()
    if environ and traced(environ):
        observers.append(tracing(environ))
    routes |= openapi.routes(routes)
    return Gateway(port, routes, observers, (responses, upstream), loopback=loopback)


class Closing(Protocol):
    def close(self) -> None: ...


class Gateway:
    def __init__(
        self, port: Port, routes: Routes, observers: Sequence[Observer], held: tuple[Closing, ...], *, loopback: bool
    ) -> None:
        """`held` is closed in its order when the server ends."""
        self._port = port
        self._held = held
        self.routes = routes
        self._observers = observers
        self._loopback = loopback
        self._log = structlog.get_logger("gateway")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._live(receive, send)
            return
        call = Call(scope, send)
        try:
            await self._answer(call, receive)
        except RequestError as error:
            await call.refuse(error)
        except ClientGone:
            call.aborted = True
        except asyncio.CancelledError:
            # Either the client went away and nobody listens, or the server's own deadline has come.
            if not call.aborted:
                call.dropped = True
                await call.refuse(stopping())
        except Exception as error:  # noqa: BLE001 - the gateway's outermost edge
            if isinstance(error, RuntimeError) and _closed(scope):
                call.aborted = True  # uvloop refuses to write to nobody, an instant before it says that nobody is there
            else:
                self._log.exception("bug while answering a request", path=call.path, request_id=call.id.decode())
                await call.refuse(bug())
        finally:
            for observer in self._observers:
                observer.ended(call)
            access_log.write(self._log, call)

    async def _answer(self, call: Call, receive: Receive) -> None:
        try:
            endpoint = find(self.routes, call.method, call.path)
        except RequestError:
            call.dialect = dialect_of(call.path)
            raise
        call.dialect = endpoint.dialect
        for observer in self._observers:
            observer.begun(call)
        if self._loopback:
            check_loopback(call.headers)
        if endpoint.scope is not None:
            call.key = authorise(self._port.routing().keys, call.headers, endpoint.scope)
            if endpoint.key_required and call.key is None:
                if not (self._loopback and keyless.from_own_page(call.headers)):
                    raise no_keys(endpoint.scope)
                keyless.check(call.scope, call.headers)
        await endpoint.answer(call, receive)

    async def _live(self, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        for each in self._held:
            each.close()
        for observer in self._observers:
            await observer.close()
        await send({"type": "lifespan.shutdown.complete"})


def _closed(scope: Scope) -> bool:
    return CLOSING in scope.get("extensions", ()) and bool(scope["extensions"][CLOSING]["call"]())
