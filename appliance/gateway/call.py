"""One request from its first header to its log line."""

from __future__ import annotations

import re
import secrets
from collections.abc import Awaitable, Callable, Sequence
from time import perf_counter
from typing import Any

from starlette.types import Scope, Send

from appliance.config.models import Key
from appliance.errors import RequestError
from appliance.gateway.body import encode
from appliance.gateway.errors import Dialect, Header, render, render_event
from appliance.gateway.question import Stream
from appliance.gateway.usage import Usage

WRITE_NOW = "appliance.write_now"
"""The server's extension of the scope. Its `call` writes these bytes of a body that goes on, unless it would wait."""

_SANE = re.compile(rb"[\x21-\x7e]{1,128}")


class Call:
    """What is known about a request so far, and the only way to answer it: every answer carries the request's id."""

    __slots__ = (
        "_heard",
        "_send",
        "_write_now",
        "aborted",
        "dialect",
        "dropped",
        "ended",
        "error",
        "first_byte",
        "headers",
        "held",
        "id",
        "key",
        "last",
        "limited",
        "method",
        "model",
        "path",
        "query",
        "reason",
        "received",
        "revision",
        "route",
        "scope",
        "sent",
        "started",
        "status",
        "streaming",
        "told",
        "usage",
        "waited",
    )

    def __init__(self, scope: Scope, send: Send) -> None:
        self._send = send
        self._write_now: Callable[[bytes], bool] | None = scope.get("extensions", {}).get(WRITE_NOW, {}).get("call")
        self.scope = scope
        self.method: str = scope["method"]
        self.path: str = scope["path"]
        self.route = self.path
        """The path that the handler knows, where several lead to it."""
        self.query: bytes = scope["query_string"]
        self.headers: dict[bytes, bytes] = dict(scope["headers"])
        self.id = request_id(self.headers.get(b"x-request-id"))
        self.dialect: Dialect = "openai"
        self.key: Key | None = None
        self.model: str | None = None
        self.revision: str | None = None
        self.status = 0
        self.received = 0
        """Bytes of the body."""
        self.sent = 0
        self._heard = 0
        """`sent` when it was last looked whether the client had heard anything."""
        self.told: Sequence[Header] = ()
        """Headers that every answer to this request carries."""
        self.usage: Usage | None = None
        self.limited: str | None = None
        """Which limit of the key was reached."""
        self.held = 0.0
        """Seconds that it waited for its model to be ready."""
        self.waited = 0.0
        """Seconds that it waited for its turn at a busy one."""
        self.streaming = False
        self.ended = False
        self.aborted = False
        self.dropped = False
        """The appliance itself cut it short, with its engine or by ending."""
        self.error: str | None = None
        self.reason: str | None = None
        self.last = b""
        self.started = perf_counter()
        self.first_byte: float | None = None

    def start(self, status: int, headers: list[Header]) -> Awaitable[None]:
        self.status = status
        headers.append((b"x-request-id", self.id))
        headers.extend(self.told)
        if self.dialect == "anthropic":
            headers.append((b"request-id", self.id))
        return self._send({"type": "http.response.start", "status": status, "headers": headers})

    def write(self, body: bytes, *, more: bool) -> Awaitable[None]:
        if self.first_byte is None:
            self.first_byte = perf_counter()
        self.sent += len(body)
        self.last = body
        self.ended = not more
        return self._send({"type": "http.response.body", "body": body, "more_body": more})

    def pour(self, body: bytes, *, more: bool) -> Awaitable[None] | None:
        """The same for the bytes of a stream as they come: None where they have been written at once."""
        if more and self._write_now is not None and self.first_byte is not None and self._write_now(body):
            self.sent += len(body)
            self.last = body
            return None
        return self.write(body, more=more)

    async def idle(self, stream: Stream) -> None:
        """Say that the answer goes on, or is still to begin: these bytes are no part of it."""
        if not self.status:
            self.streaming = True
            await self.start(200, stream.headers())
        self.sent += len(stream.idle)
        self.last = stream.idle
        await self._send({"type": "http.response.body", "body": stream.idle, "more_body": True})

    async def bridge(self, stream: Stream) -> None:
        """The same for a stream that is passed on as it comes, where nothing has come of it since the last time.

        It may only be said between two events, and not to a client that does not read.
        """
        if not self.status:
            await self.idle(stream)
        elif (
            self.sent == self._heard
            and (self.last.endswith(b"\n\n") or not self.last)
            and self._write_now is not None
            and self._write_now(stream.idle)
        ):
            self.sent += len(stream.idle)
            self.last = stream.idle
        self._heard = self.sent

    async def event(self, stream: Stream, events: bytes, *, last: bool = False) -> None:
        """Write whole events of a stream, which the first of them begins."""
        if not self.status:
            self.streaming = True
            await self.start(200, stream.headers())
        if (writing := self.pour(events, more=not last)) is not None:
            await writing

    async def json(self, value: Any, *, status: int = 200) -> None:
        body = encode(value)
        headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
        await self.answer(status, headers, body)

    async def refuse(self, error: RequestError) -> None:
        """Answer with an error, or end with one what has been begun."""
        self.error, self.reason = error.code or error.type, error.reason
        if not self.status:
            await self.answer(*render(self.dialect, error, self.id.decode()))
        elif self.streaming and not self.ended:
            event = render_event(self.dialect, error, self.id.decode(), last=self.last)
            await self.write(event, more=False)
        # An answer of another kind stays incomplete, and the server closes its connection: nothing else can be said.

    async def answer(self, status: int, headers: list[Header], body: bytes) -> None:
        await self.start(status, headers)
        await self.write(body, more=False)


def request_id(given: bytes | None) -> bytes:
    """The client's own id where it is printable and short, so that logs on both sides can be joined."""
    if given is not None and _SANE.fullmatch(given):
        return given
    return b"req_" + secrets.token_hex(12).encode()
