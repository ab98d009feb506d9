"""Which row of the recurrent states is whose, from one step to the next."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from .device import mlx


@dataclass(frozen=True)
class Turn:
    """The rows `start` to `stop` of a step are one sequence's; `seat` is its state's row, None if it has none yet."""

    start: int
    stop: int
    seat: int | None


@dataclass(frozen=True)
class Seating:
    """Where the states for one step are among those that the step before left.

    The first `decodes` rows go on by one token each: `seats` are their states' rows, None where they are all rows in
    their order. Every other sequence of the step is a turn. `rest` are those that wait. What the step leaves is in this
    order: decodes, turns, rest.
    """

    decodes: int
    seats: Any
    turns: tuple[Turn, ...] = ()
    rest: Any = None


class Seats:
    """Of the requests that have a state. Nothing is reserved: a first token takes a seat, which is free once the
    request has ended, or was preempted to start anew."""

    def __init__(self) -> None:
        self._order: list[str | None] = []

    def __len__(self) -> int:
        return sum(name is not None for name in self._order)

    def take(self, names: Iterable[str]) -> int:
        """All seats are these requests'; how many that are."""
        self._order = list(names)
        return len(self._order)

    def leave(self, names: Iterable[str]) -> None:
        gone = set(names)
        self._order = [None if name in gone else name for name in self._order]
        if not len(self):
            self._order = []

    def arrange(self, requests: Sequence[tuple[str, int, int]]) -> Seating:
        """Of (name, tokens computed before, tokens of this step) in the order of their rows, decodes first."""
        seats = {name: row for row, name in enumerate(self._order) if name is not None}
        present = {name for name, _, _ in requests}
        decodes = [name for name, computed, count in requests if computed and count == 1]
        turns, start = [], len(decodes)
        for name, computed, count in requests[len(decodes) :]:
            turns.append(Turn(start, start + count, seats[name] if computed else None))
            start += count
        rows, rest = [seats[name] for name in decodes], [name for name in seats if name not in present]
        in_place = rows == list(range(len(self._order)))
        self._order = [*(name for name, _, _ in requests), *rest]
        return Seating(
            decodes=len(decodes),
            seats=None if in_place else _array(rows),
            turns=tuple(turns),
            rest=_array([seats[name] for name in rest]) if rest else None,
        )


def seats_for(size: int, *, state: int, whole: int, most: int) -> int:
    """How many sequences may have states of `state` bytes where `size` are for these and for keys and values; `whole`
    is what keys and values of the longest sequence take, and there is room for it in any case.

    As many as may all be of that length, or as half of the memory has states for, if those are more. Raises ValueError
    where there is not even room for one.
    """
    seats = min(most, (size - whole) // state, max(size // (state + whole), size // 2 // state))
    if seats < 1:
        raise ValueError(
            f"the longest sequence (`max_model_len`) takes {_mebibytes(state + whole)} of cache, recurrent states of"
            f" {_mebibytes(state)} included, and there are {_mebibytes(size)}: raise `kv_cache_memory_bytes` or lower"
            " `max_model_len`"
        )
    return seats


def _mebibytes(size: int) -> str:
    return f"{-(-size // 2**20)} MiB"


def _array(rows: list[int]) -> Any:
    return mlx().array(rows, dtype=mlx().int32)
