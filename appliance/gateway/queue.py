"""Who waits for one model: a lane for each key, served in turn."""

from __future__ import annotations

from collections import OrderedDict, deque
from typing import Generic, TypeVar

T = TypeVar("T")


class Full(Exception):
    """There is no room for this one."""


class Lane(Generic[T]):
    __slots__ = ("items", "turns")

    def __init__(self) -> None:
        self.items: deque[tuple[T, int]] = deque()
        self.turns = 0
        """How often this lane still comes first before the next one does."""


class Queue(Generic[T]):
    """Weighted round robin between lanes, first come first served within one.

    Of the room that is left a lane gets half at most, so that one who floods the queue leaves some to the others.
    The lane None, of those without a key, gets all of it: there are no others.
    """

    def __init__(self) -> None:
        self._lanes: OrderedDict[str | None, Lane[T]] = OrderedDict()
        self._length = 0

    def __len__(self) -> int:
        return self._length

    def join(self, item: T, lane: str | None, *, weight: int, room: int) -> None:
        """`weight` is the turns that the lane gets in each round; `room` bounds all lanes together. Raises Full."""
        mine = self._lanes.get(lane)
        left = room - self._length
        if left <= 0 or (lane is not None and mine is not None and len(mine.items) >= left):
            raise Full
        if mine is None:
            mine = self._lanes[lane] = Lane()
            mine.turns = weight
        mine.items.append((item, weight))
        self._length += 1

    def next(self) -> T | None:
        """Whose turn it is; it has left the queue."""
        for name, lane in self._lanes.items():
            item, weight = lane.items.popleft()
            lane.turns -= 1
            self._length -= 1
            if not lane.items:
                del self._lanes[name]
            elif lane.turns <= 0:
                lane.turns = weight
                self._lanes.move_to_end(name)
            return item
        return None

    def leave(self, item: T, lane: str | None) -> None:
        """Without a turn; nothing where it has left already."""
        mine = self._lanes.get(lane)
        if mine is None:
            return
        for index, (other, _) in enumerate(mine.items):
            if other is item:
                del mine.items[index]
                self._length -= 1
                break
        if not mine.items:
            del self._lanes[lane]
