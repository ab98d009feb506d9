"""One streamed answer as a client sees it: asked, read to its end, and written down."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import aiohttp

PATIENCE = 300.0
"""Seconds of silence after which a client takes its answer to be lost."""


@dataclass(slots=True)
class Stream:
    """What arrived of one answer. Times are on the monotonic clock."""

    name: str
    """What the client asked for."""
    model: str
    """The declared model that the name means."""
    prompt: str
    began: float = field(default_factory=time.monotonic)
    ended: float = 0.0
    status: int = 0
    engine: str = ""
    """`pid N` of the stand-in engine that answered; empty before its first event, and with real engines."""
    models: set[str] = field(default_factory=set)
    text: list[str] = field(default_factory=list)
    finish: str | None = None
    done: bool = False
    errors: list[str] = field(default_factory=list)
    broken: str = ""
    """How the connection ended, where it did not end as it should."""
    first: float = 0.0
    """Seconds until the first event."""
    gap: float = 0.0
    """The longest silence between two events after it."""
    _last: float = 0.0

    async def ask(
        self, session: aiohttp.ClientSession, url: str, *, max_tokens: int, on_answer: Callable[[], None]
    ) -> None:
        """Never raises for what the other side does; `on_answer` is called when the status has come."""
        body = {
            "model": self.name,
            "stream": True,
            "max_tokens": max_tokens,
            "temperature": 0,
            "messages": [{"role": "user", "content": self.prompt}],
        }
        try:
            async with session.post(url, json=body) as response:
                self.status = response.status
                on_answer()
                if response.status == 200:
                    await self._read(response)
                else:
                    self.errors.append((await response.text())[:300])
        except (aiohttp.ClientError, TimeoutError) as error:
            self.broken = repr(error)
        self.ended = time.monotonic()

    async def _read(self, response: aiohttp.ClientResponse) -> None:
        async for line in response.content:
            if line.startswith(b"data: "):
                self._hear(line[6:].strip())

    def _hear(self, data: bytes) -> None:
        now = time.monotonic()
        if self._last:
            self.gap = max(self.gap, now - self._last)
        else:
            self.first = now - self.began
        self._last = now
        if data == b"[DONE]":
            self.done = True
            return
        event: dict[str, Any] = json.loads(data)
        if "error" in event:
            self.errors.append(str(event["error"].get("message")))
            return
        self.models.add(event["model"])
        if (fingerprint := str(event.get("system_fingerprint"))).startswith("pid "):
            self.engine = fingerprint
        for choice in event["choices"]:
            self.text.append(choice["delta"].get("content") or "")
            self.finish = choice["finish_reason"] or self.finish
