"""A listening socket, and uvicorn on it for as long as a block runs."""

from __future__ import annotations

import asyncio
import errno
import gc
import math
import socket
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from functools import partial

import psutil
import uvicorn
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from appliance.errors import ApplianceError, Conflict
from appliance.gateway.protocol import Deadlines, Protocol

BACKLOG = 2048
KEEP_ALIVE = 75
"""Seconds that an idle client connection is kept; beyond the 60 s that load balancers keep theirs."""
DEADLINES = Deadlines()
LINGER = 0.3
"""Seconds that connections already accepted get to bring their request before this process leaves its listener."""


def bind(host: str, port: int) -> socket.socket:
    """A listening TCP socket; clients that connect from now on wait for the server."""
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[
            0
        ]
    except socket.gaierror as error:
        raise Conflict(f"`server.host`: `{host}` is no address of this machine: {error.strerror}") from error
    listener = socket.socket(family, kind)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise _refusal(host, port, error) from error
    listener.setblocking(False)
    return listener


def _refusal(host: str, port: int, error: OSError) -> ApplianceError:
    where = f"cannot listen on `{host}:{port}`"
    if error.errno == errno.EADDRINUSE:
        holder = _holder(port)
        hint = "stop it, or choose another port with `server.port` or `--port`"
        return Conflict(f"{where}: in use{f' by {holder}' if holder else ''}", hint=hint)
    if error.errno == errno.EACCES:
        return Conflict(f"{where}: not permitted", hint="ports below 1024 need privileges; choose one above")
    return Conflict(f"{where}: {error.strerror}")


def _holder(port: int) -> str | None:
    """Who listens there, as far as this user may know."""
    try:
        listeners = [c for c in psutil.net_connections("tcp") if c.status == psutil.CONN_LISTEN]
        pid = next((c.pid for c in listeners if c.pid and c.laddr and c.laddr.port == port), None)
        return f"`{psutil.Process(pid).name()}` (pid {pid})" if pid else None
    except psutil.Error:
        return None


class Server(uvicorn.Server):
    running: asyncio.Task[None]
    leaving = False

    async def leave(self, *, within: float) -> None:
        """Close for good so that clients find the next process on the same listener, and notice nothing."""
        self.leaving = True
        self.config.timeout_graceful_shutdown = math.ceil(within)
        self.should_exit = True
        await self.running

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        if self.leaving:
            for server in self.servers:
                server.close()
            # What is accepted is ours to answer, and its request may not have arrived. A connection that is told
            # `close` in an answer is not used again; one that is closed while idle may just have been.
            for connection in self.server_state.connections:
                if isinstance(connection, Protocol):
                    connection.app = _closing(connection.app)  # type: ignore[arg-type]
            await asyncio.sleep(LINGER)
        await super().shutdown(sockets)

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals stay with the caller, who drains engines before a listener closes."""
        yield


def _closing(app: ASGIApp) -> ASGIApp:
    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        async def say(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message.get("headers", ()), (b"connection", b"close")]}
            await send(message)

        await app(scope, receive, say)

    return answer


@asynccontextmanager
async def serving(
    app: ASGIApp, sockets: Sequence[socket.socket], *, close_timeout: float, deadlines: Deadlines = DEADLINES
) -> AsyncIterator[Server]:
    """Serve within the block. At its end: stop accepting, let requests finish up to `close_timeout`, end the rest.

    The sockets listen already, so a client that is early waits for nothing but the loop.
    """
    config = uvicorn.Config(
        app,
        http=partial(Protocol, deadlines=deadlines),  # type: ignore[arg-type]  # it is only ever called
        ws="none",
        lifespan="auto",
        log_config=None,
        log_level="error",
        access_log=False,
        proxy_headers=False,
        server_header=False,
        backlog=BACKLOG,
        timeout_keep_alive=KEEP_ALIVE,
        timeout_graceful_shutdown=math.ceil(close_timeout),
    )
    server = Server(config)
    server.running = asyncio.create_task(server.serve(sockets=list(sockets)))
    # What has been made until now lives as long as the process. The collector need not look through it again: that took
    # 20 ms each time, for which every stream waited.
    gc.freeze()
    try:
        yield server
    finally:
        server.should_exit = True
        await server.running
