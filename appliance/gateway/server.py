"""A listening socket, and uvicorn on it for as long as a block runs."""

from __future__ import annotations

import asyncio
import errno
import math
import socket
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager

import psutil
import uvicorn
from starlette.types import ASGIApp

from appliance.errors import ApplianceError, Conflict

BACKLOG = 2048
KEEP_ALIVE = 75
"""Seconds that an idle client connection is kept; beyond the 60 s that load balancers keep theirs."""


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


class _Server(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals stay with the caller, who drains engines before a listener closes."""
        yield


@asynccontextmanager
async def serving(app: ASGIApp, sockets: Sequence[socket.socket], *, close_timeout: float) -> AsyncIterator[None]:
    """Serve within the block. At its end: stop accepting, let requests finish up to `close_timeout`, end the rest.

    The sockets listen already, so a client that is early waits for nothing but the loop.
    """
    config = uvicorn.Config(
        app,
        http="httptools",
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
    server = _Server(config)
    running = asyncio.create_task(server.serve(sockets=list(sockets)))
    try:
        yield
    finally:
        server.should_exit = True
        await running
