"""What happened last, numbered, for whoever looks on."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

KEPT = 512
"""Events that somebody who comes late, or comes back, can still read."""


@dataclass(frozen=True, slots=True)
class Event:
    """`kind` is `reload` (the file was read), `files` (those of a local checkpoint are others now), `action` (the
    reconciler did something), `engine` (an engine became ready or failed) or `generation` (a generation has come to
    rest)."""

    number: int
    kind: str
    time: str
    """ISO 8601 in UTC."""
    data: Mapping[str, Any]


class Events:
    """Nobody waits for a reader: one that is too slow misses the oldest, and sees from the numbers that it did."""

    def __init__(self, kept: int = KEPT) -> None:
        self.closed = False
        self._kept: deque[Event] = deque(maxlen=kept)
        self._last = 0
        self._next = asyncio.Event()

    def tell(self, kind: str, **data: Any) -> None:
        self._last += 1
        time = datetime.now(UTC).isoformat(timespec="milliseconds")
        self._kept.append(Event(self._last, kind, time, data))
        self._wake()

    def since(self, number: int) -> tuple[Event, ...]:
        """Everything after this number that is still kept; all of it where the number is another run's."""
        return tuple(event for event in self._kept if event.number > number or number > self._last)

    async def news(self, within: float) -> None:
        """Until something is told, but no longer than so many seconds."""
        try:
            async with asyncio.timeout(within):
                await self._next.wait()
        except TimeoutError:
            return

    def close(self) -> None:
        """Nothing more will be told."""
        self.closed = True
        self._wake()

    def _wake(self) -> None:
        self._next.set()
        self._next = asyncio.Event()
