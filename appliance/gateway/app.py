"""The gateway as one ASGI application: guard, authenticate, dispatch.

Starlette's router and its Request and Response objects are left out: a table look-up and three ASGI messages are all
that a proxied request needs, and this is where the gateway's time goes.
"""

from __future__ import annotations

import asyncio
import time

import structlog
from starlette.applications import Starlette
from starlette.types import Receive, Scope, Send

from appliance.errors import RequestError
from appliance.gateway import access_log, health, openai
from appliance.gateway.admin import routes as admin_routes
from appliance.gateway.auth import authorise, check_loopback, no_keys
from appliance.gateway.body import ClientGone
from appliance.gateway.call import Call
from appliance.gateway.errors import bug, stopping
from appliance.gateway.hold import KEEP_ALIVE, Hold
from appliance.gateway.port import Port
from appliance.gateway.proxy import Proxy
from appliance.gateway.routes import Routes, dialect_of, find
from appliance.gateway.upstream import Upstream


def create_app(
    port: Port, *, max_body: int, loopback: bool, keep_alive: float = KEEP_ALIVE, admin: Starlette | None = None
) -> Gateway:
    """`loopback` says that only this machine can connect, and turns on the checks of Host and Origin.

    `keep_alive` is the seconds between two idle events on a stream that waits for its model. `admin` is the API for
    keys with the scope `admin`.
    """
    upstream = Upstream()
    proxy = Proxy(Hold(port, keep_alive), port, upstream, max_body=max_body)
    routes = {**openai.routes(port, proxy, created=int(time.time())), **health.routes(port)}
    if admin is not None:
        routes |= admin_routes(admin)
    return Gateway(port, upstream, routes, loopback=loopback)


class Gateway:
    def __init__(self, port: Port, upstream: Upstream, routes: Routes, *, loopback: bool) -> None:
        self._port = port
        self._upstream = upstream
        self._routes = routes
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
                await call.refuse(stopping())
        except Exception:  # noqa: BLE001 - the gateway's outermost edge
            self._log.exception("bug while answering a request", path=call.path, request_id=call.id.decode())
            await call.refuse(bug())
        finally:
            access_log.write(self._log, call)

    async def _answer(self, call: Call, receive: Receive) -> None:
        try:
            endpoint = find(self._routes, call.method, call.path)
        except RequestError:
            call.dialect = dialect_of(call.path)
            raise
        call.dialect = endpoint.dialect
        if self._loopback:
            check_loopback(call.headers)
        if endpoint.scope is not None:
            call.key = authorise(self._port.routing().keys, call.headers, endpoint.scope)
            if endpoint.key_required and call.key is None:
                raise no_keys(endpoint.scope)
        await endpoint.answer(call, receive)

    async def _live(self, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        self._upstream.close()
        await send({"type": "lifespan.shutdown.complete"})
