"""HTTP/1.1 as vLLM's server speaks it, and its errors."""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import dataclass
from typing import Any

Json = dict[str, Any]
REASONS = {200: "OK", 400: "Bad Request", 401: "Unauthorized", 404: "Not Found", 405: "Method Not Allowed"}


@dataclass
class Request:
    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    @property
    def gone(self) -> bool:
        return self.reader.at_eof() or self.writer.transport.is_closing()


class Refused(Exception):
    def __init__(self, status: int, body: Json) -> None:
        super().__init__(status)
        self.status = status
        self.body = body


def refusal(status: int, message: str, type_: str, param: str | None = None) -> Refused:
    return Refused(status, {"error": {"message": message, "type": type_, "param": param, "code": status}})


async def read_request(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Request | None:
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError as error:
        if error.partial:
            raise
        return None
    first, *lines = head.decode("latin-1").split("\r\n")
    method, target, _ = first.split(" ", 2)
    headers = {
        name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines) if name
    }
    body = b""
    if headers.get("transfer-encoding", "").lower() == "chunked":
        while size := int(await reader.readline(), 16):
            body += await reader.readexactly(size)
            await reader.readline()
        await reader.readline()
    elif length := int(headers.get("content-length", 0)):
        body = await reader.readexactly(length)
    return Request(method, target.partition("?")[0], headers, body, reader, writer)


def response_head(status: int, content_type: str, *more: str) -> bytes:
    reason = REASONS.get(status, "Status")
    lines = (f"HTTP/1.1 {status} {reason}", "server: uvicorn", f"content-type: {content_type}", *more)
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


async def send_json(request: Request, value: Json, *, status: int = 200) -> None:
    await send(request, json.dumps(value, separators=(",", ":")).encode(), "application/json", status=status)


async def send(request: Request, body: bytes, content_type: str, *, status: int = 200) -> None:
    request.writer.write(response_head(status, content_type, f"content-length: {len(body)}") + body)
    await request.writer.drain()


async def pause(request: Request, seconds: float) -> None:
    """Sleep, but notice within 20 ms that the client has gone, as vLLM does."""
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        if request.gone:
            raise ConnectionResetError
        await asyncio.sleep(min(left, 0.02))


async def flush(request: Request) -> None:
    while request.writer.transport.get_write_buffer_size():  # noqa: ASYNC110 - a transport has no event for it
        await asyncio.sleep(0.001)
