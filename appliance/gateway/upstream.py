"""The gateway's connections to its engines, over unix sockets or loopback TCP."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Mapping

from appliance.gateway.connection import Connection, EngineGone, Silence, Unread

Address = str | int
"""The path of a unix socket, or a port on 127.0.0.1."""

CONNECT_TIMEOUT = 5.0


class Unreachable(EngineGone):
    """The engine has not had the request: it may be asked again, or another one."""


class Upstream:
    """The connections to every engine. An engine that stops takes its idle connections with it."""

    def __init__(self) -> None:
        self._idle: defaultdict[Address, list[Connection]] = defaultdict(list)

    async def request(
        self, address: Address, head: bytes, *body: bytes | memoryview, silence: Silence | None = None
    ) -> Connection:
        """A connection whose answer has begun. Raises EngineGone, and Unreachable where the engine has read no request.

        What an engine may have read is not sent again: it could be what made it crash.
        """
        if (connection := self._reuse(address)) is not None:
            try:
                return await _exchange(connection, head, *body, silence=silence)
            except Unread:
                pass  # engines close idle connections when they like; a fresh one tells whether this engine is there
        try:
            return await _exchange(await self._connect(address), head, *body, silence=silence)
        except Unread as error:
            raise Unreachable("it ended before it read the request") from error

    def close(self) -> None:
        for idle in self._idle.values():
            for connection in tuple(idle):
                connection.close()
        self._idle.clear()

    def _reuse(self, address: Address) -> Connection | None:
        idle = self._idle[address]
        while idle:
            connection = idle.pop()
            if connection.usable:
                return connection
            connection.close()
        return None

    async def _connect(self, address: Address) -> Connection:
        loop = asyncio.get_running_loop()
        idle = self._idle[address]
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT):
                if isinstance(address, str):
                    _, connection = await loop.create_unix_connection(lambda: Connection(idle), address)
                else:
                    _, connection = await loop.create_connection(lambda: Connection(idle), "127.0.0.1", address)
        except OSError as error:  # TimeoutError is one
            raise Unreachable(str(error)) from error
        return connection


async def _exchange(
    connection: Connection, head: bytes, *body: bytes | memoryview, silence: Silence | None
) -> Connection:
    try:
        await connection.request(head, *body, silence=silence)
    except BaseException:
        connection.close()
        raise
    return connection


def request_head(path: str, headers: Mapping[bytes, bytes], length: int, method: str = "POST") -> bytes:
    lines = b"".join(b"%b: %b\r\n" % header for header in headers.items())
    first = f"{method} {path} HTTP/1.1".encode()
    return b"%b\r\nhost: engine\r\n%bcontent-length: %d\r\n\r\n" % (first, lines, length)
