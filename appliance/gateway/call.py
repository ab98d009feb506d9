"""One request from its first header to its log line."""

from __future__ import annotations

import re
import secrets
from collections.abc import Awaitable
from time import perf_counter

from starlette.types import Scope, Send

from appliance.config.models import Key
from appliance.errors import RequestError
from appliance.gateway.errors import Dialect, Header, render, render_event

_SANE = re.compile(rb"[\x21-\x7e]{1,128}")


class Call:
    """What is known about a request so far, and the only way to answer it: every answer carries the request's id."""

    __slots__ = (
        "_send",
        "aborted",
        "dialect",
        "ended",
        "error",
        "first_byte",
        "headers",
        "id",
        "key",
        "last",
        "method",
        "model",
        "path",
        "revision",
        "sent",
        "started",
        "status",
        "streaming",
    )

    def __init__(self, scope: Scope, send: Send) -> None:
        self._send = send
        self.method: str = scope["method"]
        self.path: str = scope["path"]
        self.headers: dict[bytes, bytes] = dict(scope["headers"])
        self.id = request_id(self.headers.get(b"x-request-id"))
        self.dialect: Dialect = "openai"
        self.key: Key | None = None
        self.model: str | None = None
        self.revision: str | None = None
        self.status = 0
        self.sent = 0
        self.streaming = False
        self.ended = False
        self.aborted = False
        self.error: str | None = None
        self.last = b""
        self.started = perf_counter()
        self.first_byte: float | None = None

    def start(self, status: int, headers: list[Header]) -> Awaitable[None]:
        self.status = status
        headers.append((b"x-request-id", self.id))
        return self._send({"type": "http.response.start", "status": status, "headers": headers})

    def write(self, body: bytes, *, more: bool) -> Awaitable[None]:
        if self.first_byte is None:
            self.first_byte = perf_counter()
        self.sent += len(body)
        self.last = body
        self.ended = not more
        return self._send({"type": "http.response.body", "body": body, "more_body": more})

    def comment(self, body: bytes) -> Awaitable[None]:
        """Bytes that are no part of the answer: the first byte is still to come."""
        self.sent += len(body)
        self.last = body
        return self._send({"type": "http.response.body", "body": body, "more_body": True})

    async def refuse(self, error: RequestError) -> None:
        """Answer with an error, or end with one what has been begun."""
        self.error = error.code or error.type
        if not self.status:
            await self.answer(*render(self.dialect, error, self.id.decode()))
        elif self.streaming and not self.ended:
            # An event that was cut in two is closed first, so that this one stays whole.
            close = b"" if self.last.endswith(b"\n\n") else b"\n\n"
            await self.write(close + render_event(self.dialect, error, self.id.decode()), more=False)
        # An answer of another kind stays incomplete, and the server closes its connection: nothing else can be said.

    async def answer(self, status: int, headers: list[Header], body: bytes) -> None:
        await self.start(status, headers)
        await self.write(body, more=False)


def request_id(given: bytes | None) -> bytes:
    """The client's own id where it is printable and short, so that logs on both sides can be joined."""
    if given is not None and _SANE.fullmatch(given):
        return given
    return b"req_" + secrets.token_hex(12).encode()
