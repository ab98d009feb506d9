"""Which requests are in a step, in the order of their rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from .requests import Request, Requests
from .seats import Seating, Seats
from .step import Step


@dataclass(frozen=True)
class Entry:
    """One request's share of a step: its next `count` tokens, in the rows from `start` on.

    `scored` of them are prompt tokens whose log probabilities are wanted; `samples` says whether the last row yields a
    token.
    """

    request: Request
    start: int
    count: int
    scored: int
    samples: bool

    @property
    def rows(self) -> list[int]:
        """What the language model head has to see of it."""
        rows = list(range(self.start, self.start + self.scored))
        return [*rows, self.start + self.count - 1] if self.samples else rows


@dataclass(frozen=True)
class Batch:
    entries: tuple[Entry, ...]

    @classmethod
    def of(cls, scheduled: Mapping[str, int], requests: Requests, block_size: int, *, short: int = 0) -> Batch:
        """Those that attend by rows first, since attention treats their rows together, and of those the ones whose rows
        recurrent layers do too."""

        def late(name: str) -> tuple[bool, bool]:
            span = requests[name].span(scheduled[name], block_size)
            return not span.by_rows(short), not span.continuing

        order = sorted(scheduled, key=late)
        entries, start = [], 0
        for name in order:
            request, count = requests[name], scheduled[name]
            entries.append(Entry(request, start, count, _scored(request, count), request.completes(count)))
            start += count
        return cls(tuple(entries))

    @property
    def requests(self) -> list[Request]:
        return [entry.request for entry in self.entries]

    @cached_property
    def sampling(self) -> list[Request]:
        return [entry.request for entry in self.entries if entry.samples]

    @cached_property
    def rows(self) -> list[int]:
        return [row for entry in self.entries for row in entry.rows]

    @cached_property
    def sampling_rows(self) -> list[int]:
        """Of the selected rows, those that a token is sampled from."""
        found, start = [], 0
        for entry in self.entries:
            start += len(entry.rows)
            if entry.samples:
                found.append(start - 1)
        return found

    @property
    def adapters(self) -> list[Any]:
        """Of each row its LoRARequest, or None."""
        return [entry.request.adapter for entry in self.entries for _ in range(entry.count)]

    def seating(self, seats: Seats) -> Seating:
        return seats.arrange([(each.request.id, each.request.computed, each.count) for each in self.entries])

    def step(self, block_size: int, *, short: int, rounded: bool, seating: Seating | None) -> Step:
        spans = [entry.request.span(entry.count, block_size) for entry in self.entries]
        return Step.build(spans, block_size, short=short, rounded=rounded, seating=seating)


def _scored(request: Request, count: int) -> int:
    if request.sampling is None or request.sampling.prompt_logprobs is None:
        return 0
    return max(0, min(request.computed + count, request.prompt_length - 1) - request.computed)
