"""Attention of single rows through block tables as one kernel, for MLX's GPU back ends: nothing is gathered.

One body of source for CUDA and Metal; each has a prelude that names what the body needs. A group of threads works for
one row, one key head and one part of the context. Each warp looks at several tokens at once, a few lanes to a token,
and keeps a running softmax; those of lanes, warps and parts are merged at the end. Metal's is untried for want of a
Mac, and off unless METAL_KERNELS is `on`. tests/metal/kernel_model.py does the same in Python.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cache
from typing import Any

from . import kernel_source as source
from .device import mlx, on_cpu
from .kernel_source import LOG2E

VARIABLE = "METAL_KERNELS"
_CHOICES = ("auto", "on", "off")
PART = 512
"""Tokens of the context that one group of threads reads."""
SHORT = 2**21
"""Prefill chunks whose tokens times context are up to this go through the kernel row by row: cuDNN is faster once it
has a plan for their lengths, and making one takes it longer than all of this (70 ms on an H100)."""


_INPUTS = (
    *("queries", "new_keys", "new_values", "keys", "values"),
    *("tables", "owners", "contexts", "cached", "factor", "sinks"),
)


@cache
def enabled() -> bool:
    """METAL_KERNELS: `on` and `off`, or `auto`, which is on for CUDA. Raises ValueError where it is neither."""
    wanted = os.environ.get(VARIABLE, "auto") or "auto"
    if wanted not in _CHOICES:
        raise ValueError(f"{VARIABLE}: expected one of {', '.join(_CHOICES)}, got `{wanted}`")
    if on_cpu() or wanted == "off":
        return False
    return wanted == "on" or not mlx().metal.is_available()


@dataclass(frozen=True)
class Layout:
    """How the work of one layer is laid out over threads. `heads` are those of the keys, `group` the queries of each.

    `lanes` threads of a warp hold one token's key, `each` numbers apiece; `queries` of a head's group share a read.
    """

    heads: int
    group: int
    size: int
    block_size: int
    window: int
    lanes: int
    each: int
    queries: int
    warps: int

    @classmethod
    def of(cls, heads: int, group: int, size: int, block_size: int, window: int | None) -> Layout | None:
        """None where the kernel has no layout for heads of this size."""
        if size % 8 == 0 and size // 8 in (1, 2, 4, 8, 16, 32):
            lanes, each = size // 8, 8
        elif size % 32 == 0 and size <= 256:
            lanes, each = 32, size // 32
        else:
            return None
        queries = max(count for count in range(1, 9) if group % count == 0 and (count == 1 or count * size <= 1024))
        warps = 8 if queries * size <= 512 else 4
        return cls(heads, group, size, block_size, window or 0, lanes, each, queries, warps)

    @property
    def threads(self) -> int:
        return self.warps * 32

    @property
    def splits(self) -> int:
        """Groups of threads for the queries of one key head."""
        return self.group // self.queries

    def parts(self, blocks: int) -> int:
        """Groups of threads for a context that a table of so many blocks may hold."""
        return -(-blocks * self.block_size // PART) or 1

    def template(self, dtype: Any) -> list[tuple[str, Any]]:
        names = {"HEADS": self.heads, "GROUP": self.group, "SIZE": self.size, "BLOCK": self.block_size}
        names |= {"WINDOW": self.window, "LANES": self.lanes, "EACH": self.each, "QUERIES": self.queries}
        return [("T", dtype), *names.items(), ("WARPS", self.warps), ("PART", PART)]


def writes() -> bool:
    """Whether the kernel may write new keys and values to the pools, for a tenth of what MLX's scatter takes.

    MLX holds a kernel's inputs for constant and orders kernels by their outputs. CUDA runs what was submitted at once
    before what was submitted later, and within one step nothing else reads what the kernel writes; Metal promises
    neither.
    """
    return enabled() and not mlx().metal.is_available()


def attend(layout: Layout, queries: Any, fresh: Any, pools: Any, step: Any, scale: float, sinks: Any) -> Any:
    """(rows, query heads, 1, size) of `queries`, over pools as paged.py keeps them.

    `fresh` are the step's own keys and values, (rows, heads, 1, size) each, where the kernel is to write them to the
    pools: whoever asks for what it returns has them written. None: the pools have them already.
    """
    mx = mlx()
    rows, heads = queries.shape[:2]
    shape, dtype = (rows, heads, 1, layout.size), queries.dtype
    last = _factor(scale) if sinks is None else sinks.astype(dtype)
    inputs = [queries, *(fresh or pools), *pools, step.tables, step.owners, step.contexts, step.cached, _factor(scale)]
    inputs.append(last)
    parts = layout.parts(step.tables.shape[1])
    template = [*layout.template(dtype), ("SINKS", sinks is not None), ("WRITES", fresh is not None)]
    launch = {"grid": (parts * layout.threads, layout.heads * layout.splits, rows)}
    launch["threadgroup"] = (layout.threads, 1, 1)
    if parts == 1:
        kernel = _kernel("paged_rows", _INPUTS, ("out",), source.READ + source.WRITE)
        return kernel(inputs=inputs, template=template, output_shapes=[shape], output_dtypes=[dtype], **launch)[0]
    kernel = _kernel("paged_parts", _INPUTS, ("sums", "tops", "totals"), source.READ + source.WRITE_PART)
    partial = [(rows, heads, parts, layout.size), (rows, heads, parts), (rows, heads, parts)]
    found = kernel(inputs=inputs, template=template, output_shapes=partial, output_dtypes=[mx.float32] * 3, **launch)
    kernel = _kernel("paged_merge", ("sums", "tops", "totals", "sinks"), ("out",), source.MERGE)
    template = [("T", dtype), ("SIZE", layout.size), ("PARTS", parts), ("SINKS", sinks is not None)]
    launch = {"grid": (source.MERGERS, heads, rows), "threadgroup": (source.MERGERS, 1, 1)}
    return kernel(inputs=[*found, last], template=template, output_shapes=[shape], output_dtypes=[dtype], **launch)[0]


@cache
def _factor(scale: float) -> Any:
    """Scores are powers of two, which is what GPUs compute."""
    return mlx().array([scale * LOG2E], dtype=mlx().float32)


@cache
def _kernel(name: str, inputs: tuple[str, ...], outputs: tuple[str, ...], body: str) -> Any:
    mx = mlx()
    if mx.metal.is_available():
        make, header, prelude = mx.fast.metal_kernel, source.METAL_HEADER, source.METAL
    else:
        make, header, prelude = mx.fast.cuda_kernel, source.CUDA_HEADER, source.CUDA
    return make(name=name, input_names=inputs, output_names=outputs, source=prelude + body, header=header)
