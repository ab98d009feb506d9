"""HTTP/1.1 from clients: uvicorn's protocol, strict about what two servers could read in two ways, and with an end to
everything that a client can hold open by being slow.

What is refused here has not become a request: it is answered in OpenAI's shape, and its connection is closed.
"""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass
from enum import Enum, auto
from functools import partial
from typing import Any

import structlog
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from appliance.errors import RequestError
from appliance.gateway.call import WRITE_NOW, request_id
from appliance.gateway.errors import render

HEADER_BYTES = 32 * 1024
"""Of all headers together. Keys and traces take hundreds of bytes, a browser's cookies for localhost some thousands."""
HEADER_COUNT = 100
URL_BYTES = 8 * 1024

SINGLE = frozenset(
    (
        b"host",
        b"authorization",
        b"x-api-key",
        b"content-length",
        b"content-type",
        b"transfer-encoding",
        b"origin",
    )
)
"""Headers of which a second one would be read by somebody else than the first."""


CLOSING = "appliance.closing"
"""The ASGI extension that tells whether the connection is closed already: a write to it then is an error."""

_UPGRADE = re.compile(rb"\r\nupgrade:", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Deadlines:
    """How slow a client may be."""

    head: float = 20.0
    """Seconds from the first byte, or from the connection, to the end of the headers: they fit in a few packets."""
    body: float = 30.0
    """Seconds that a body may take beyond those that its size gives it."""
    rate: float = 1024
    """Bytes a second below which a client keeps a connection rather than uses it; a bad telephone line has more."""
    stall: float = 60.0
    """Seconds in which a client takes not one byte of what waits for it, before it counts as gone. Its generation would
    go on for nobody, and hold up the end of its engine."""


class Reading(Enum):
    """What of a request is still to come."""

    HEAD = auto()
    BODY = auto()
    NOTHING = auto()


class Protocol(HttpToolsProtocol):
    def __init__(self, *args: Any, deadlines: Deadlines, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._deadlines = deadlines
        self._reading = Reading.HEAD
        self._since = 0.0
        self._received = 0
        self._watch: asyncio.TimerHandle | None = None
        self._stall: asyncio.TimerHandle | None = None
        self._refusal: RequestError | None = None
        self._answering: RequestResponseCycle | None = None

    # What arrives

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._expect(Reading.HEAD)
        self._keep_watch()

    def data_received(self, data: bytes) -> None:
        if self._received == 0 and self._reading is not Reading.BODY:
            data = _without_upgrade(data)
        self._received += len(data)
        super().data_received(data)
        if self.transport.is_closing():
            self._end_watch()
            return
        if self._reading is Reading.HEAD and self._received > HEADER_BYTES + URL_BYTES:
            self._refuse(_headers_too_large())
            return
        if self._idle() and self.timeout_keep_alive_task is None:
            self._expect(Reading.HEAD)  # a stray line break: uvicorn has stopped its own clock for it
        self._keep_watch()

    def connection_lost(self, exc: Exception | None) -> None:
        self._end_watch()
        self._end_stall()
        super().connection_lost(exc)
        # uvicorn tells the latest request alone, which is not the one that is being answered where several were sent
        # at once.
        if self._answering is not None and not self._answering.response_complete:
            self._answering.disconnected = True
            self._answering.message_event.set()
        self.pipeline.clear()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._answering = cycle
        super()._start_asgi_task(cycle, app)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._expect(Reading.HEAD)

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._reading is Reading.HEAD:  # a trailer would be taken for a header, after those were judged
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._refusal = _objection(self.url, self.headers, self.parser.get_http_version())
        if self._refusal is not None:
            raise self._refusal  # ends the parsing, and comes back through `send_400_response`
        super().on_headers_complete()
        self.scope["extensions"] = {
            WRITE_NOW: {"call": partial(_write_now, self.cycle)},
            CLOSING: {"call": self.transport.is_closing},
        }
        if self.parser.should_upgrade():
            self.cycle.keep_alive = False  # what follows may be another protocol's
        self._expect(Reading.BODY)

    def on_message_complete(self) -> None:
        super().on_message_complete()
        self._expect(Reading.NOTHING)

    def send_400_response(self, msg: str) -> None:
        self._refuse(self._refusal or RequestError(f"not HTTP/1.1: {msg}", status=400, code="invalid_http"))

    # Slow clients

    def _expect(self, reading: Reading) -> None:
        self._reading = reading
        self._since = self.loop.time()
        self._received = 0

    def _idle(self) -> bool:
        cycle: RequestResponseCycle | None = self.cycle
        return self._reading is Reading.NOTHING and (cycle is None or cycle.response_complete)

    def _keep_watch(self) -> None:
        """A clock runs only while something is to come, so a request that arrives at once has none."""
        if self._reading is Reading.NOTHING:
            self._end_watch()
        elif self._watch is None:
            self._watch = self.loop.call_later(self._patience(), self._look)

    def _patience(self) -> float:
        """Seconds left for what is to come."""
        spent = self.loop.time() - self._since
        if self._reading is Reading.HEAD:
            return self._deadlines.head - spent
        return self._deadlines.body + self._received / self._deadlines.rate - spent

    def _look(self) -> None:
        self._watch = None
        if self.flow.read_paused:
            self._since = self.loop.time()  # it is we who do not read
        if self._patience() > 0:
            self._keep_watch()
        elif self._idle() or (self._reading is Reading.HEAD and self._received == 0):
            self.transport.close()
        else:
            self._refuse(_too_slow())

    def _end_watch(self) -> None:
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None

    def pause_writing(self) -> None:
        super().pause_writing()
        self._look_for_progress(None)

    def resume_writing(self) -> None:
        self._end_stall()
        super().resume_writing()

    def _look_for_progress(self, before: int | None) -> None:
        waiting = self.transport.get_write_buffer_size()
        if waiting == before:
            self.transport.abort()
        else:
            self._stall = self.loop.call_later(self._deadlines.stall, self._look_for_progress, waiting)

    def _end_stall(self) -> None:
        if self._stall is not None:
            self._stall.cancel()
            self._stall = None

    def timeout_keep_alive_handler(self) -> None:
        if self.transport.get_write_buffer_size():
            self.transport.abort()  # closing would wait for a client that never reads
        else:
            super().timeout_keep_alive_handler()

    # Refusing

    def _refuse(self, error: RequestError) -> None:
        self._end_watch()
        if self.transport.is_closing():
            return
        answering = self._answering
        if answering is not None and not answering.response_complete:
            if self._reading is not Reading.BODY or answering is not self.cycle:
                # What is wrong came after a request that is still being answered: that is the last one here.
                answering.keep_alive = False
                self.pipeline.clear()
                return
            if answering.response_started:
                self.transport.close()
                return
        identity = request_id(None)
        status, headers, body = render("openai", error, identity.decode())
        lines = dict([*headers, (b"x-request-id", identity), (b"connection", b"close")])
        head = b"".join(b"%b: %b\r\n" % line for line in lines.items())
        self.transport.write(b"".join((STATUS_LINE[status], head, b"\r\n", body)))
        structlog.get_logger("gateway").info("connection refused", status=status, error=error.code)
        self.transport.close()


def _write_now(cycle: RequestResponseCycle, body: bytes) -> bool:
    """What the cycle's own `send` comes to for an event of a stream, at half the cost: no message, no coroutine."""
    if not cycle.chunked_encoding or cycle.disconnected or cycle.flow.write_paused or not body:
        return False
    cycle.transport.write(b"%x\r\n%b\r\n" % (len(body), body))
    return True


def _without_upgrade(data: bytes) -> bytes:
    """The same request without the wish for another protocol, which may be ignored. Java's HTTP client has it in its
    first request, and the parser would take the body of that for the other protocol's."""
    head, end, body = data.partition(b"\r\n\r\n")
    return _UPGRADE.sub(b"\r\nx-upgrade:", head) + end + body if b"pgrade" in head else data


def _objection(url: bytes, headers: list[tuple[bytes, bytes]], version: str) -> RequestError | None:
    """What is wrong with the head of a request that llhttp, strict as it is, has taken."""
    if version not in {"1.0", "1.1"}:
        return RequestError(f"HTTP/{version} is not spoken here", status=400, code="invalid_http")
    if not url.startswith(b"/"):
        return RequestError("the request target must be a path", status=400, code="invalid_http")
    if len(url) > URL_BYTES:
        return RequestError(f"the URL is longer than {URL_BYTES} bytes", status=414, code="url_too_long")
    if len(headers) > HEADER_COUNT or sum(len(name) + len(value) for name, value in headers) > HEADER_BYTES:
        return _headers_too_large()
    names = [name for name, _ in headers]
    if len(set(names)) < len(names):
        for name in SINGLE:
            if names.count(name) > 1:
                return RequestError(f"the header `{name.decode()}` is there twice", status=400, code="invalid_http")
    if version == "1.1" and b"host" not in names:
        return RequestError("the header `host` is missing", status=400, code="invalid_http")
    return None


def _headers_too_large() -> RequestError:
    message = f"the headers are more than {HEADER_COUNT}, or larger than {HEADER_BYTES} bytes"
    return RequestError(message, status=431, code="headers_too_large")


def _too_slow() -> RequestError:
    return RequestError("the request took too long to arrive", status=408, code="request_timeout")
