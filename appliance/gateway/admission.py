"""Gives each request an engine with a place for it: at once where there is one, else in its turn."""

from __future__ import annotations

import asyncio
import sys
from collections import Counter
from collections.abc import Iterator
from time import perf_counter

from appliance.errors import ApplianceError
from appliance.gateway.call import Call
from appliance.gateway.errors import queue_full, queue_timeout, unavailable
from appliance.gateway.hold import Hold, patience
from appliance.gateway.port import Port
from appliance.gateway.question import Stream
from appliance.gateway.queue import Full, Queue
from appliance.routing import Route, Routing

Turn = asyncio.Future[Route | None]
"""A route whose lease is acquired already; None sends the request back to wait for an engine."""

SMOOTHING = 0.1
"""Weight of the latest turn in the pace of a queue: about ten turns are remembered."""
ENDLESS = sys.maxsize
LONGEST_WAIT = 60.0
"""Seconds that a client is told to stay away at most: a guess from the pace of the last moments is no better."""


class Line:
    """The queue of one model that is as busy as it may be, for as long as somebody waits."""

    def __init__(self, follower: asyncio.Task[None]) -> None:
        self.queue: Queue[Turn] = Queue()
        self.follower = follower
        self._interval = 0.0
        self._last = 0.0

    def passed(self) -> None:
        """Another one has had its turn."""
        now = perf_counter()
        if self._last:
            self._interval += SMOOTHING * (now - self._last - self._interval)
        self._last = now

    @property
    def retry_after(self) -> float:
        """Seconds until those who wait now will have had their turns, at the pace of late."""
        return min(LONGEST_WAIT, max(1.0, len(self.queue) * self._interval))


class Admission:
    """Where a model has no queue this costs a comparison: a line is there only while somebody stands in it."""

    def __init__(self, port: Port, hold: Hold) -> None:
        self._port = port
        self._hold = hold
        self._lines: dict[str, Line] = {}
        self.holding: Counter[str] = Counter()
        """How many requests wait for each model to be ready."""

    async def admit(self, call: Call, model: str, stream: Stream | None, *, again: bool = False) -> Route:
        """An engine that takes this request, its lease acquired; `release` gives it back. Raises RequestError.

        `again` says that it was admitted before, to an engine that was not there: it is not refused for want of room.
        """
        while True:
            # Nothing may be awaited between the snapshot that has the route and its lease: what was waited for is
            # looked up again, since another save may have replaced it before its waiter had its turn.
            route = self._port.routing().routes.get(model)
            if route is None:
                await self._hold_on(call, model, stream)
                again = True
                continue
            if model not in self._lines and route.lease.in_flight < route.places:
                route.lease.acquire()
                break
            if (turn := await self._stand_in_line(call, model, route, stream, again=again)) is not None:
                route = turn
                break
            again = True
        call.revision = route.revision
        return route

    def pin(self, call: Call, route: Route) -> Route:
        """This very engine, which alone has what is asked for: it waits in no line."""
        route.lease.acquire()
        call.revision = route.revision
        return route

    def release(self, route: Route) -> None:
        route.lease.release()
        if self._lines:
            # Models may share an engine, so this may have been anybody's turn.
            for model in tuple(self._lines):
                self._advance(model)

    def waiting(self) -> Iterator[tuple[str, int]]:
        """The models somebody waits for, with how many do."""
        return ((model, len(line.queue)) for model, line in self._lines.items())

    async def _hold_on(self, call: Call, model: str, stream: Stream | None) -> None:
        began = perf_counter()
        self.holding[model] += 1
        try:
            await self._hold.until_ready(call, model, stream)
        except ApplianceError as error:
            raise unavailable(error) from error
        finally:
            self.holding[model] -= 1
            call.held += perf_counter() - began

    async def _stand_in_line(
        self, call: Call, model: str, route: Route, stream: Stream | None, *, again: bool
    ) -> Route | None:
        line = self._lines.get(model) or self._open(model)
        turn: Turn = asyncio.get_running_loop().create_future()
        lane, weight = (call.key.name, call.key.priority) if call.key else (None, 1)
        began = perf_counter()
        taken = False
        try:
            self._join(line, turn, lane, weight, route, again=again)
            self._advance(model)  # there may be a place: then whoever is first has it
            async with asyncio.timeout(patience(stream)):
                given = await self._hold.keep_alive(call, turn, stream)
            taken = True
            return given
        except TimeoutError:
            raise queue_timeout(model, line.retry_after) from None
        finally:
            call.waited += perf_counter() - began
            if not taken and turn.done() and not turn.cancelled() and (given := turn.result()) is not None:
                self.release(given)  # called off between being given its turn and taking it
            line.queue.leave(turn, lane)
            self._close_if_empty(model)

    def _join(self, line: Line, turn: Turn, lane: str | None, weight: int, route: Route, *, again: bool) -> None:
        room = ENDLESS if again else route.room
        try:
            line.queue.join(turn, lane, weight=weight, room=room)
        except Full:
            raise queue_full(route.model, len(line.queue), line.retry_after) from None

    def _advance(self, model: str) -> None:
        """Give turns for as long as there are places."""
        line, route = self._lines[model], self._port.routing().routes.get(model)
        while route is None or route.lease.in_flight < route.places:
            turn = line.queue.next()
            if turn is None:
                break
            if turn.done():  # called off, and about to leave
                continue
            if route is not None:
                route.lease.acquire()
            line.passed()
            turn.set_result(route)
        self._close_if_empty(model)

    def _open(self, model: str) -> Line:
        line = self._lines[model] = Line(asyncio.create_task(self._follow(model, self._port.routing())))
        return line

    def _close_if_empty(self, model: str) -> None:
        line = self._lines.get(model)
        if line is not None and not len(line.queue):
            line.follower.cancel()
            del self._lines[model]

    async def _follow(self, model: str, seen: Routing) -> None:
        """Another engine, or another number of places, may be a turn for somebody although no request has ended."""
        while model in self._lines:
            seen = await self._port.changed(seen)
            if model in self._lines:
                self._advance(model)
