"""Ask an engine whether it is there, and make it prove itself with one generated token."""

from __future__ import annotations

import asyncio
import io
import json
import wave
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_EXCERPT = 300
_BOUNDARY = b"appliance-probe"


@dataclass(frozen=True, slots=True)
class Address:
    """Where one engine listens: a unix socket, or a port of 127.0.0.1."""

    socket: Path | None
    port: int | None
    key: str = field(repr=False, default="")

    def __str__(self) -> str:
        return f"unix:{self.socket}" if self.socket else f"http://127.0.0.1:{self.port}"


@dataclass(frozen=True, slots=True)
class Reply:
    status: int
    body: bytes

    def __str__(self) -> str:
        return f"{self.status} {self.body.decode(errors='replace')[:_EXCERPT]}".strip()


async def healthy(address: Address, path: str, *, timeout: float) -> bool:
    try:
        return (await request(address, "GET", path, timeout=timeout)).status == 200
    except (OSError, ValueError, TimeoutError):
        return False


async def generate(address: Address, model: str, *, timeout: float) -> str | None:
    """None when the engine has generated something; else what it said.

    Engines differ in what they serve: completions first, then chat, then, for pooling models, an embedding, for
    classifiers a score, and for models that listen a transcript of silence. The first refusal by what is served is the
    one reported; where nothing is, the first.
    """
    message = {"role": "user", "content": "Hello"}
    refusals: list[str] = []
    missing: list[str] = []
    for path, body in (
        ("/v1/completions", {"model": model, "prompt": "Hello", "max_tokens": 1}),
        ("/v1/chat/completions", {"model": model, "messages": [message], "max_tokens": 1}),
        ("/v1/embeddings", {"model": model, "input": "Hello"}),
        ("/score", {"model": model, "text_1": "Hello", "text_2": "Hello"}),
        ("/v1/audio/transcriptions", Form({"model": model, "language": "en"}, silence())),
    ):
        try:
            reply = await request(address, "POST", path, body, timeout=timeout)
        except (OSError, ValueError, TimeoutError) as error:
            refusals.append(f"{path}: {type(error).__name__} {error}".strip())
            break
        if reply.status == 200:
            return None
        (missing if reply.status in (404, 405) else refusals).append(f"{path}: {reply}")
        if reply.status not in (400, 404, 405, 501):
            break
    return next(iter((*refusals, *missing)))


@dataclass(frozen=True, slots=True)
class Form:
    """A form with a recording in it."""

    fields: Mapping[str, str]
    recording: bytes

    def encode(self) -> bytes:
        parts = [f'form-data; name="{name}"\r\n\r\n{value}'.encode() for name, value in self.fields.items()]
        parts.append(b'form-data; name="file"; filename="silence.wav"\r\n\r\n' + self.recording)
        lines = [b"--%b\r\ncontent-disposition: %b\r\n" % (_BOUNDARY, part) for part in parts]
        return b"".join(lines) + b"--%b--\r\n" % _BOUNDARY


def silence() -> bytes:
    """A second of it, as 16-bit WAV at 16 kHz, which every model that listens takes."""
    file = io.BytesIO()
    with wave.open(file, "wb") as recording:
        recording.setparams((1, 2, 16000, 0, "NONE", ""))
        recording.writeframes(bytes(2 * 16000))
    return file.getvalue()


async def context(address: Address, model: str, *, timeout: float) -> int | None:
    """The tokens that a prompt and its answer may have together, where the engine tells: vLLM does, others may not."""
    try:
        reply = await request(address, "GET", "/v1/models", timeout=timeout)
        cards = json.loads(reply.body)["data"] if reply.status == 200 else []
        found = [card.get("max_model_len") for card in cards if card.get("id") == model]
    except (OSError, ValueError, TimeoutError, KeyError, TypeError, AttributeError):
        return None
    return found[0] if found and isinstance(found[0], int) else None


async def request(
    address: Address, method: str, path: str, body: Form | dict[str, Any] | None = None, *, timeout: float
) -> Reply:
    """One request on one connection. A session with a pool would outlive the engine; this leaves nothing open."""
    kind, content = _content(body)
    head = (
        f"{method} {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\nauthorization: Bearer {address.key}\r\n"
        f"content-type: {kind}\r\ncontent-length: {len(content)}\r\n\r\n"
    )
    async with asyncio.timeout(timeout):
        if address.socket is not None:
            reader, writer = await asyncio.open_unix_connection(str(address.socket))
        else:
            reader, writer = await asyncio.open_connection("127.0.0.1", address.port)
        try:
            writer.write(head.encode() + content)
            answer = await reader.read()
        finally:
            writer.close()
    first, _, rest = answer.partition(b"\r\n")
    return Reply(int(first.split(maxsplit=2)[1]) if first.startswith(b"HTTP/1.") else 0, rest.partition(b"\r\n\r\n")[2])


def _content(body: Form | dict[str, Any] | None) -> tuple[str, bytes]:
    """Its type, and the bytes."""
    if isinstance(body, Form):
        return f"multipart/form-data; boundary={_BOUNDARY.decode()}", body.encode()
    return "application/json", b"" if body is None else json.dumps(body).encode()
