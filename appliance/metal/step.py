"""One step's batch as MLX arrays: what is computed, where it is written, and what each row may see.

All scheduled tokens are one forward of shape (tokens, 1): the linear layers see one matrix, each row has its own
position, and only attention tells rows apart. Rows that attend each for itself come first, prefill chunks after them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from .device import mlx
from .seats import Seating


@dataclass(frozen=True)
class Span:
    """Some consecutive tokens of one request in this step: positions `first` to `first + count - 1`.

    `blocks` are the request's blocks, as many as hold `first + count` tokens.
    """

    first: int
    count: int
    blocks: Sequence[int]

    @property
    def context(self) -> int:
        return self.first + self.count

    @property
    def continuing(self) -> bool:
        """One token after others: what recurrent layers take together."""
        return self.count == 1 and self.first > 0

    def by_rows(self, short: int) -> bool:
        """Whether each of its tokens attends for itself: one does, and so do few, by their number times the context."""
        return self.count == 1 or self.count * self.context <= short


@dataclass(frozen=True)
class Chunk:
    """The rows `start` to `stop` are one prefill chunk; `context` tokens are cached once it is written."""

    start: int
    stop: int
    context: int
    table: Any  # (1, blocks)


@dataclass
class Step:
    """`positions` (tokens), `tables` (short spans, most blocks), `owners`, `contexts` and `cached` (rows) are
    int32 arrays.

    The first `rows` tokens attend each for itself: decodes, and short chunks where a kernel takes those too. `owners`
    are their tables, `contexts` how many tokens each sees, `cached` how many of those are not of this step.
    """

    positions: Any
    rows: int
    tables: Any
    owners: Any
    contexts: Any
    cached: Any
    chunks: tuple[Chunk, ...]
    block_size: int
    _blocks: Any
    _offsets: Any
    seating: Seating | None = None
    """Where the recurrent states are, for a model that has some."""
    _cached: dict[Any, Any] = field(default_factory=dict)

    @classmethod
    def build(
        cls,
        spans: Sequence[Span],
        block_size: int,
        *,
        short: int = 0,
        rounded: bool = False,
        seating: Seating | None = None,
    ) -> Step:
        """Of spans in the order of their rows: those that are `by_rows` first, and of those the `continuing` ones.
        `rounded` widens the table of blocks, so that most steps have the shapes of the one before."""
        mx = mlx()
        positions = np.concatenate([np.arange(span.first, span.context, dtype=np.int32) for span in spans])
        blocks = np.concatenate([_block_of_each(span, block_size) for span in spans])
        first = [span for span in spans if span.by_rows(short)]
        rows = sum(span.count for span in first)
        most = max((len(span.blocks) for span in first), default=0)
        if rounded:
            most += -most % (8 if most <= 32 else 32)
        tables = np.zeros((len(first), most), dtype=np.int32)
        for row, span in enumerate(first):
            tables[row, : len(span.blocks)] = span.blocks
        return cls(
            positions=mx.array(positions),
            rows=rows,
            tables=mx.array(tables),
            owners=mx.array(np.repeat(np.arange(len(first), dtype=np.int32), [span.count for span in first])),
            contexts=mx.array(positions[:rows] + 1),
            cached=mx.array(np.repeat([span.first for span in first], [span.count for span in first]).astype(np.int32)),
            chunks=tuple(_chunks(spans[len(first) :], rows)),
            block_size=block_size,
            _blocks=mx.array(blocks),
            _offsets=mx.array(positions % block_size),
            seating=seating,
        )

    @property
    def arrays(self) -> tuple[Any, ...]:
        """All that a step of decodes alone consists of; `of_arrays` makes it again, in a trace for one."""
        return self.positions, self.tables, self.owners, self.contexts, self.cached, self._blocks, self._offsets

    @classmethod
    def of_arrays(cls, arrays: Sequence[Any], block_size: int, seating: Seating | None = None) -> Step:
        positions, tables, owners, contexts, cached, blocks, offsets = arrays
        return cls(positions, len(contexts), tables, owners, contexts, cached, (), block_size, blocks, offsets, seating)

    @property
    def decodes_alone(self) -> bool:
        turns = self.seating.turns if self.seating else ()
        return not turns and self.rows == len(self.positions) == len(self.tables)

    @property
    def row_tables(self) -> Any:
        """(rows, most blocks): the table of each row."""
        if self.rows == len(self.tables):
            return self.tables
        return self._once("row tables", lambda: self.tables[self.owners])

    def slots(self, heads: int) -> Any:
        """(tokens, heads): the row of the flat cache that each token's key and value of each head goes to."""
        return self._once(("slots", heads), lambda: self._rows(self._blocks, heads) + self._offsets[:, None])

    def pages(self, table: Any, heads: int) -> Any:
        """(rows, heads, blocks): the pages of a cache of (pages, block size, head size) that a table names."""
        mx = mlx()
        make = lambda: table[:, None, :] * heads + mx.arange(heads, dtype=mx.int32)[None, :, None]  # noqa: E731
        return self._once(("pages", id(table), heads), make)

    def seen(self, window: int | None) -> Any:
        """(rows, 1, 1, longest context, rounded up to blocks): what each of the first rows may look at."""
        return self._once(("seen", window), lambda: self._seen(window))

    def _seen(self, window: int | None) -> Any:
        mx = mlx()
        columns = mx.arange(self.tables.shape[1] * self.block_size, dtype=mx.int32)[None, :]
        contexts = self.contexts[:, None]
        seen = columns < contexts
        if window is not None:
            seen = seen & (columns >= contexts - window)
        return seen[:, None, None, :]

    def _rows(self, blocks: Any, heads: int) -> Any:
        mx = mlx()
        return (blocks[:, None] * heads + mx.arange(heads, dtype=mx.int32)[None, :]) * self.block_size

    def _once(self, key: Any, make: Any) -> Any:
        """Every layer asks for the same few index arrays."""
        if key not in self._cached:
            self._cached[key] = make()
        return self._cached[key]


def _block_of_each(span: Span, block_size: int) -> npt.NDArray[np.int32]:
    if not span.blocks:  # of a model without attention
        return np.zeros(span.count, dtype=np.int32)
    table = np.asarray(span.blocks, dtype=np.int32)
    blocks: npt.NDArray[np.int32] = table[np.arange(span.first, span.context) // block_size]
    return blocks


def _chunks(spans: Sequence[Span], start: int) -> list[Chunk]:
    chunks = []
    for span in spans:
        table = mlx().array([list(span.blocks)], dtype=mlx().int32)
        chunks.append(Chunk(start, start + span.count, span.context, table))
        start += span.count
    return chunks
