"""Keep a request while its model comes up, and keep its client from giving up meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

from appliance.gateway.call import Call
from appliance.gateway.port import Port
from appliance.gateway.question import Stream
from appliance.routing import Route

T = TypeVar("T")

KEEP_ALIVE = 5.0
"""Seconds between two idle events on a waiting stream: well within what proxies and SDKs wait for a byte."""
PATIENCE = 60.0
"""Seconds that a request without a stream may wait: nothing can be said to its client before the answer."""
STREAM_PATIENCE = 600.0
"""Seconds that a stream may wait; the same ten minutes as `rollout.ready_timeout`."""


def patience(stream: Stream | None) -> float:
    """Seconds that a request may wait, for its model or for its turn."""
    return PATIENCE if stream is None else STREAM_PATIENCE


class Hold:
    def __init__(self, port: Port, keep_alive: float) -> None:
        self._port = port
        self._keep_alive = keep_alive

    async def until_ready(self, call: Call, model: str, stream: Stream | None) -> Route:
        """A route once there is one. A stream that waits is begun with an idle event: after that, its status is 200
        and an error can only be an event."""
        return await self.keep_alive(call, self._port.ready(model, within=patience(stream)), stream)

    async def keep_alive(self, call: Call, awaited: Awaitable[T], stream: Stream | None) -> T:
        """What is awaited, which is called off with this; meanwhile the client hears that it is not forgotten."""
        if stream is None:
            return await awaited
        waiting = asyncio.ensure_future(awaited)
        try:
            while not (await asyncio.wait((waiting,), timeout=self._keep_alive))[0]:
                await call.idle(stream)
            return waiting.result()
        finally:
            waiting.cancel()
