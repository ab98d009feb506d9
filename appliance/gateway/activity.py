"""What went through the gateway in the last minutes, two seconds at a time, for the page and `status --watch`.

Prometheus keeps more, and for longer; this is there without it.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from appliance.gateway.admission import Admission
from appliance.gateway.call import Call
from appliance.gateway.port import Port

INTERVAL = 2.0
"""Seconds that one point stands for."""
KEPT = 300
"""Points that are kept: ten minutes of them."""
ATTENTION = 10.0
"""Seconds after a look for which somebody is taken to be looking still."""


@dataclass(frozen=True, slots=True)
class Point:
    """Sums are of the interval, everything else is as it was at its end."""

    time: float
    """The end of the interval, in seconds since 1970."""
    requests: int
    """Requests for a model that have ended."""
    errors: int
    prompt_tokens: int
    completion_tokens: int
    first_token: tuple[float, float] | None
    """Median and 95th percentile of the time to the first byte of the streams that ended, in milliseconds."""
    in_flight: int
    waiting: int
    """Requests that wait for their turn, or for their model."""
    memory: int
    """Bytes taken."""
    budget: int | None
    """Bytes that may be."""


@dataclass
class _Sums:
    requests: int = 0
    errors: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    first_token: list[float] = field(default_factory=list)


class Activity:
    """An observer of every request. `attach` says whom to ask for the rest, `run` puts down a point per interval."""

    def __init__(self) -> None:
        self.closed = False
        self._points: deque[tuple[int, Point]] = deque(maxlen=KEPT)
        self._last = 0
        self._sums = _Sums()
        self._followers = 0
        self._looked = -ATTENTION
        self._next = asyncio.Event()

    def attach(self, port: Port, admission: Admission) -> None:
        self._port = port
        self._admission = admission

    @property
    def watched(self) -> bool:
        """Whether somebody looks on. Only then is it worth having every stream's tokens counted."""
        return self._followers > 0 or time.monotonic() - self._looked < ATTENTION

    # As an observer

    def begun(self, call: Call) -> None:
        """Nothing is counted before the end."""

    def ended(self, call: Call) -> None:
        if call.model is None:
            return
        sums = self._sums
        sums.requests += 1
        sums.errors += call.error is not None
        if call.usage is not None:
            sums.prompt_tokens += call.usage.prompt
            sums.completion_tokens += call.usage.completion
        if call.streaming and call.revision is not None and call.first_byte is not None:
            sums.first_token.append((call.first_byte - call.started) * 1000)

    async def close(self) -> None:
        """Nothing more will be put down."""
        self.end()

    def end(self) -> None:
        self.closed = True
        self._wake()

    # Looking

    def since(self, number: int) -> tuple[int, Sequence[Point]]:
        """What was put down after that number, and the number to ask with next."""
        self._looked = time.monotonic()
        return self._last, [point for each, point in self._points if each > number]

    async def follow(self, number: int) -> tuple[int, Sequence[Point]]:
        """The same, once there is something; nothing only at the end."""
        self._followers += 1
        try:
            while number == self._last and not self.closed:
                await self._next.wait()
        finally:
            self._followers -= 1
        return self.since(number)

    # Putting down

    async def run(self) -> None:
        while not self.closed:
            await asyncio.sleep(INTERVAL)
            self.put_down()

    def put_down(self) -> None:
        """End an interval now."""
        sums, self._sums = self._sums, _Sums()
        status = self._port.status()
        memory = status["memory"]
        point = Point(
            time=round(time.time(), 1),
            requests=sums.requests,
            errors=sums.errors,
            prompt_tokens=sums.prompt_tokens,
            completion_tokens=sums.completion_tokens,
            first_token=_middle_and_most(sums.first_token),
            in_flight=sum(engine["in_flight"] for model in status["models"] for engine in model["engines"]),
            waiting=sum(length for _, length in self._admission.waiting()) + self._admission.holding.total(),
            memory=memory["taken"],
            budget=memory["budget"],
        )
        self._last += 1
        self._points.append((self._last, point))
        self._wake()

    def _wake(self) -> None:
        self._next.set()
        self._next = asyncio.Event()


def _middle_and_most(milliseconds: list[float]) -> tuple[float, float] | None:
    if not milliseconds:
        return None
    ordered = sorted(milliseconds)
    last = len(ordered) - 1
    return round(ordered[last // 2], 2), round(ordered[round(0.95 * last)], 2)
