"""One HTTP/1.1 connection to an engine.

Of the CPU that a stream of 100 events took when each came alone, aiohttp's client was a third; here it is system calls.
"""

from __future__ import annotations

import asyncio
import select
import types
from collections import deque
from collections.abc import Awaitable, Callable, Generator
from dataclasses import dataclass
from typing import Any, Protocol, cast

import httptools

IDLE = 3.0
"""Seconds that an idle connection stays usable. vLLM closes its own after five."""
HIGH_WATER = 256 * 1024
"""Bytes that may wait for a slow client before the engine is no longer read."""

END = 4
"""Pieces kept: a stream's last are its usage, its end mark, and perhaps the rest of an event."""


class EngineGone(Exception):
    """The engine ended the connection before its answer was complete."""


class Unread(EngineGone):
    """It ended before it had read the whole request, so it cannot have acted on it."""


class Write(Protocol):
    def __call__(self, body: bytes, *, more: bool) -> Awaitable[None] | None:
        """None where nothing is left to wait for."""
        ...


@dataclass(frozen=True, slots=True)
class Silence:
    """What is done each time that nothing has come of an engine for so many seconds."""

    seconds: float
    bridge: Callable[[], Awaitable[None]]


class Connection(asyncio.Protocol):
    """One connection, one exchange at a time: `request`, then `read` until `complete`."""

    def __init__(self, idle: list[Connection]) -> None:
        self.status = 0
        self.headers: list[tuple[bytes, bytes]] = []
        self.complete = True
        self.idle_since = 0.0
        self._idle = idle
        self._loop = asyncio.get_running_loop()
        self._parser = httptools.HttpResponseParser(self)
        self._transport: asyncio.Transport
        self.end: deque[bytes] = deque(maxlen=END)
        """The last pieces of the body that were taken."""
        self.taken = 0
        """Bytes of it."""
        self._pieces: list[bytes] = []
        self._buffered = 0
        self._write: Write | None = None
        self._unfinished: Awaitable[None] | None = None
        self._poured = False
        self._paused = False
        self._reusable = False
        self._begun = False
        self._closed = False
        self._broken = False
        """Whether the system has said that not all of what was sent has been read."""
        self._waiter: asyncio.Future[None] | None = None

    async def request(self, head: bytes, *body: bytes | memoryview, silence: Silence | None = None) -> None:
        """Send a request and wait for the final status and headers."""
        self.status, self.headers, self.taken = 0, [], 0
        self.end.clear()
        self.complete = self._begun = self._poured = False
        self._transport.writelines((head, *body))
        while not self._begun:
            await self._wait(silence)

    async def read(self) -> bytes:
        """What has arrived of the body since the last call; nothing only once it is complete."""
        while not self._pieces and not self.complete:
            await self._wait()
        return self._take()

    async def pour(self, write: Write, silence: Silence | None = None) -> None:
        """Hand the body to `write` as it arrives, until it is complete. `silence` is looked for every so many seconds.

        Writes are begun where the bytes come in, without waking the task that waits here, which is a quarter of the
        cost of an event. One that has to wait for a slow client is finished by the task.
        """
        self._write = write
        try:
            self._push()
            while not self._poured or self._unfinished is not None:
                if self._unfinished is None:
                    await self._wait(silence)
                else:
                    await self._unfinished
                    self._unfinished = None
                    self._push()
        finally:
            self._write = None

    def _push(self) -> None:
        if self._write is None or self._unfinished is not None or self._poured:
            return
        if not (self._pieces or self.complete):
            return
        self._poured = self.complete
        try:
            writing = self._write(self._take(), more=not self.complete)
            if writing is not None:
                self._unfinished = _begin(writing)
        except RuntimeError as error:  # uvloop's, where the client has just left
            # It is the task's, not that of whoever called with bytes from the engine.
            self._unfinished = _Failed(error)

    def _take(self) -> bytes:
        pieces = self._pieces
        if not pieces:
            return b""
        data = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        pieces.clear()
        self._buffered = 0
        self.end.append(data)
        self.taken += len(data)
        if self._paused:
            self._paused = False
            self._transport.resume_reading()
        return data

    def release(self) -> None:
        """Back to the pool after a complete exchange; otherwise closed at once, which aborts the generation.

        A client that left may have left bytes of its answer here, which must not become part of the next one's.
        """
        self.end.clear()
        taken = not self._pieces and self._unfinished is None
        if self.complete and taken and not self._closed and self._reusable:
            self.idle_since = self._loop.time()
            self._idle.append(self)
        else:
            self._transport.abort()

    def close(self) -> None:
        self._transport.abort()

    @property
    def usable(self) -> bool:
        """Whether another request may be sent: the engine keeps it open, and has said nothing that was not asked."""
        if self._transport.is_closing() or self._loop.time() - self.idle_since >= IDLE:
            return False
        # The loop may not have come round to the end of it, after which nobody could tell what has been read.
        return not self._pending.poll(0)

    async def _wait(self, silence: Silence | None = None) -> None:
        if self._closed:
            raise Unread if self._broken and not self._begun else EngineGone
        self._waiter = self._loop.create_future()
        try:
            if silence is None:
                await self._waiter
            else:
                await self._wait_bridging(self._waiter, silence)
        finally:
            self._waiter = None

    async def _wait_bridging(self, waiter: asyncio.Future[None], silence: Silence) -> None:
        try:
            async with asyncio.timeout(silence.seconds):
                await waiter
        except TimeoutError:
            await silence.bridge()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._pending = select.poll()
        self._pending.register(transport.get_extra_info("socket").fileno(), select.POLLIN)

    def data_received(self, data: bytes) -> None:
        if self.complete:
            self._transport.abort()  # nothing was asked: whatever this is must not become the next answer
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self._transport.abort()
            return
        if self._write is None:
            self._wake()
        elif self._unfinished is None:
            self._push()
            if self._poured or self._unfinished is not None:
                self._wake()
        if self._buffered > HIGH_WATER and not self._paused:
            self._paused = True
            self._transport.pause_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        self._closed = True
        # A socket that is closed with bytes unread resets its peer, and one that is closed already refuses them.
        self._broken = isinstance(exc, ConnectionError)
        if exc is None and self._begun and not self._framed():
            self.complete = True
        if self in self._idle:
            self._idle.remove(self)
        self._push()
        self._wake()

    def _framed(self) -> bool:
        return any(name in {b"content-length", b"transfer-encoding"} for name, _ in self.headers)

    # httptools callbacks

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        self.status = self._parser.get_status_code()
        if self.status < 200:
            self.headers = []
        else:
            self._begun = True

    def on_body(self, body: bytes) -> None:
        self._pieces.append(body)
        self._buffered += len(body)

    def on_message_complete(self) -> None:
        self.complete = self._begun
        # Only here: the parser has forgotten the message's headers when this call is over.
        self._reusable = self._parser.should_keep_alive()


class _Failed:
    """Awaited, it raises."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    def __await__(self) -> Generator[None, None, None]:
        raise self._error
        yield


def _begin(write: Awaitable[None]) -> Awaitable[None] | None:
    """Run as far as it gets at once; what is left of it, if anything, is to be awaited by a task."""
    steps = write.__await__()
    try:
        waits_for = next(steps)
    except StopIteration:
        return None
    return _rest(steps, waits_for)


@types.coroutine
def _rest(steps: Generator[Any, None, None], waits_for: Any) -> Generator[Any, None, None]:
    try:
        yield waits_for
        yield from steps
    finally:
        steps.close()
