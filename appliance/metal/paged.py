"""The paged cache of one layer, and attention over it: pure MLX, the reference for every kernel."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from . import kernels
from .device import mlx, on_cpu
from .step import Chunk, Step


@dataclass(frozen=True)
class Window:
    """The mask that a model is given for layers that see the last `size` tokens only, themselves included."""

    size: int


@dataclass(frozen=True)
class LayerShape:
    heads: int
    key_size: int
    value_size: int


class LayerCache:
    """What mlx-lm takes for the cache of one layer: it writes to the pool, and attends through block tables.

    Keys and values are kept as (blocks x heads x block size, head size): a block's page of one head is contiguous, so
    that gathering pages gives what attention reads without another copy.
    """

    def __init__(self, index: int, shape: LayerShape, window: int | None = None) -> None:
        self.index = index
        self.shape = shape
        self.window = window
        self.cap: float | None = None
        """What bounds the scores softly; no function of MLX's and no kernel does that."""
        self.step: Step | None = None
        self._fresh: tuple[Any, Any] | None = None
        self.attended: Any = None
        """What attention gave, where computing that is what writes the step's keys and values."""
        self._keys: Any = None
        self._values: Any = None

    def allocate(self, blocks: int, block_size: int, dtype: Any) -> None:
        mx = mlx()
        rows = blocks * self.shape.heads * block_size
        self._keys = mx.zeros((rows, self.shape.key_size), dtype=dtype)
        self._values = mx.zeros((rows, self.shape.value_size), dtype=dtype)

    def free(self) -> None:
        self._keys = self._values = self._fresh = self.attended = self.step = None

    @property
    def arrays(self) -> tuple[Any, ...]:
        """The pools of keys and of values."""
        return self._keys, self._values

    @arrays.setter
    def arrays(self, pools: tuple[Any, ...]) -> None:
        self._keys, self._values = pools

    @property
    def written(self) -> list[Any]:
        """What has to be computed for the last step's keys and values to be in the pools."""
        return [self._keys, self._values] if self.attended is None else [self.attended]

    @property
    def offset(self) -> Any:
        """Positions for the rotary embedding, one per row."""
        assert self.step is not None  # noqa: S101 - set by the runner before every forward
        return self.step.positions

    def make_mask(self, count: int, return_array: bool = False, window_size: int | None = None) -> Window | None:  # noqa: ARG002 - mlx-lm's signature
        return Window(window_size) if window_size else None

    def update_and_fetch(self, keys: Any, values: Any) -> tuple[Any, Any]:
        """Take (tokens, heads, 1, size). What comes back is what came: `attend` writes to the pools and reads them."""
        self._fresh = keys, values
        return keys, values

    def attend(self, queries: Any, keys: Any, scale: float, mask: Any, sinks: Any) -> Any:
        """(tokens, query heads, 1, key size) to (tokens, query heads, 1, value size)."""
        step = self.step
        assert step is not None and self._fresh is not None and keys is self._fresh[0]  # noqa: S101, PT018 - checked once, when the model was loaded
        window = mask.size if isinstance(mask, Window) else self.window
        group = queries.shape[1] // self.shape.heads
        layout = self.layout(group, step.block_size, window) if kernels.enabled() else None
        in_kernel = layout is not None and kernels.writes() and not step.chunks
        if not in_kernel:
            self._write(step)
        if layout is not None and step.rows:
            parts = [self._in_kernel(layout, in_kernel, step, queries[: step.rows], scale, sinks)]
        else:
            parts = [self._rows(step, queries[: step.rows], scale, window, sinks)] if step.rows else []
        parts += [self._prefill(step, chunk, queries, scale, window, sinks) for chunk in step.chunks]
        output = parts[0] if len(parts) == 1 else mlx().concatenate(parts)
        self.attended = output if in_kernel else None
        self._fresh = None
        return output

    def layout(self, group: int, block_size: int, window: int | None) -> kernels.Layout | None:
        """How the kernel would go about this layer, with `group` queries for each key. None: it cannot."""
        shape = self.shape
        if shape.key_size != shape.value_size or self.cap is not None:
            return None
        return kernels.Layout.of(shape.heads, group, shape.key_size, block_size, window)

    def copy_blocks(self, pairs: Iterable[tuple[int, int]], block_size: int) -> None:
        size = self.shape.heads * block_size
        for source, target in pairs:
            for pool in (self._keys, self._values):
                pool[target * size : (target + 1) * size] = pool[source * size : (source + 1) * size]

    def _write(self, step: Step) -> None:
        assert self._fresh is not None  # noqa: S101 - see attend
        keys, values = self._fresh
        slots = step.slots(self.shape.heads)
        # The one reference to each pool: with another, MLX would copy it instead of writing in place.
        self._keys[slots] = keys[:, :, 0].astype(self._keys.dtype)
        self._values[slots] = values[:, :, 0].astype(self._values.dtype)

    def _rows(self, step: Step, queries: Any, scale: float, window: int | None, sinks: Any) -> Any:
        pages = step.pages(step.row_tables, self.shape.heads)
        keys, values = self._gather(pages, step.block_size)
        seen = step.seen(window)
        if self.cap is not None or (on_cpu() and sinks is None):
            return _grouped_attention(queries, keys, values, scale, seen, self.cap)
        return mlx().fast.scaled_dot_product_attention(queries, keys, values, scale=scale, mask=seen, sinks=sinks)

    def _in_kernel(self, layout: Any, writes: bool, step: Step, queries: Any, scale: float, sinks: Any) -> Any:
        assert self._fresh is not None  # noqa: S101 - see attend
        dtype = self._keys.dtype
        fresh = tuple(each.astype(dtype) for each in self._fresh) if writes else None
        output = kernels.attend(layout, queries.astype(dtype), fresh, self.arrays, step, scale, sinks)
        return output.astype(queries.dtype)

    def _prefill(self, step: Step, chunk: Chunk, queries: Any, scale: float, window: int | None, sinks: Any) -> Any:
        mx = mlx()
        assert self._fresh is not None  # noqa: S101 - see attend
        count = chunk.stop - chunk.start
        if chunk.context == count:
            keys, values = (each[chunk.start : chunk.stop, :, 0].swapaxes(0, 1)[None] for each in self._fresh)
        else:
            pages = step.pages(chunk.table, self.shape.heads)
            keys, values = (each[:, :, : chunk.context] for each in self._gather(pages, step.block_size))
        mask: Any = "causal"
        if window is not None and chunk.context > window:
            rows = mx.arange(chunk.context - count, chunk.context)[:, None]
            columns = mx.arange(chunk.context)[None, :]
            mask = (columns <= rows) & (columns > rows - window)
        rows = queries[chunk.start : chunk.stop, :, 0].swapaxes(0, 1)[None]
        if self.cap is not None:
            out = _grouped_attention(rows, keys, values, scale, mask, self.cap)
        else:
            out = mx.fast.scaled_dot_product_attention(rows, keys, values, scale=scale, mask=mask, sinks=sinks)
        return out[0].swapaxes(0, 1)[:, :, None]

    def _gather(self, pages: Any, block_size: int) -> tuple[Any, Any]:
        """(rows, heads, blocks) to keys and values of (rows, heads, blocks x block size, size)."""
        rows, heads, blocks = pages.shape
        keys = self._keys.reshape(-1, block_size, self.shape.key_size)[pages]
        values = self._values.reshape(-1, block_size, self.shape.value_size)[pages]
        return (
            keys.reshape(rows, heads, blocks * block_size, self.shape.key_size),
            values.reshape(rows, heads, blocks * block_size, self.shape.value_size),
        )


def _grouped_attention(queries: Any, keys: Any, values: Any, scale: float, mask: Any, cap: float | None) -> Any:
    """Query heads that share a key head are the rows of one product: for one query a row MLX's own CPU version makes
    one product per query head, and reads the keys as often. `mask` is `causal`, or true where a query may look."""
    mx = mlx()
    rows, heads, count, size = queries.shape
    shared = keys.shape[1]
    grouped = (queries * scale).reshape(rows, shared, heads // shared * count, size)
    scores = grouped @ keys.swapaxes(-1, -2)
    if cap is not None:
        scores = mx.tanh(scores / cap) * cap
    if isinstance(mask, str):
        context = keys.shape[2]
        mask = mx.arange(context)[None, :] <= mx.arange(context - count, context)[:, None]
    if count > 1:
        mask = mx.tile(mask, (heads // shared, 1))
    scores = mx.where(mask, scores, mx.array(-mx.inf, dtype=queries.dtype))
    weights = mx.softmax(scores, axis=-1, precise=True)
    return (weights @ values).reshape(rows, heads, count, values.shape[-1])
