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

from .device import mlx, on_cpu

VARIABLE = "METAL_KERNELS"
_CHOICES = ("auto", "on", "off")
PART = 512
"""Tokens of the context that one group of threads reads."""
SHORT = 2**21
"""Prefill chunks whose tokens times context are up to this go through the kernel row by row: cuDNN is faster once it
has a plan for their lengths, and making one takes it longer than all of this (70 ms on an H100)."""
LOG2E = 1.4426950408889634


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
        kernel = _kernel("paged_rows", _INPUTS, ("out",), _READ + _WRITE)
        return kernel(inputs=inputs, template=template, output_shapes=[shape], output_dtypes=[dtype], **launch)[0]
    kernel = _kernel("paged_parts", _INPUTS, ("sums", "tops", "totals"), _READ + _WRITE_PART)
    partial = [(rows, heads, parts, layout.size), (rows, heads, parts), (rows, heads, parts)]
    found = kernel(inputs=inputs, template=template, output_shapes=partial, output_dtypes=[mx.float32] * 3, **launch)
    kernel = _kernel("paged_merge", ("sums", "tops", "totals", "sinks"), ("out",), _MERGE)
    template = [("T", dtype), ("SIZE", layout.size), ("PARTS", parts), ("SINKS", sinks is not None)]
    launch = {"grid": (_MERGERS, heads, rows), "threadgroup": (_MERGERS, 1, 1)}
    return kernel(inputs=[*found, last], template=template, output_shapes=[shape], output_dtypes=[dtype], **launch)[0]


@cache
def _factor(scale: float) -> Any:
    """Scores are powers of two, which is what GPUs compute."""
    return mlx().array([scale * LOG2E], dtype=mlx().float32)


@cache
def _kernel(name: str, inputs: tuple[str, ...], outputs: tuple[str, ...], body: str) -> Any:
    mx = mlx()
    metal = mx.metal.is_available()
    make, header, prelude = (
        (mx.fast.metal_kernel, _METAL_HEADER, _METAL) if metal else (mx.fast.cuda_kernel, _CUDA_HEADER, _CUDA)
    )
    return make(name=name, input_names=inputs, output_names=outputs, source=prelude + body, header=header)


_INPUTS = (
    *("queries", "new_keys", "new_values", "keys", "values"),
    *("tables", "owners", "contexts", "cached", "factor", "sinks"),
)
_MERGERS = 64
"""Threads that merge the parts of one query head."""

_CUDA_HEADER = """
#define SHARED __shared__
#define DEVICE
#define BARRIER __syncthreads()
#define XOR(value, mask) __shfl_xor_sync(0xffffffffu, value, mask)
#define EXP2(value) exp2f(value)
#define MAX(a, b) fmaxf(a, b)

template <typename T, int N>
struct alignas(sizeof(T) * (N % 8 == 0 ? 8 : N % 4 == 0 ? 4 : N % 2 == 0 ? 2 : 1)) Pack {
  T at[N];
};
"""
_CUDA = """
  const int lane = threadIdx.x % 32;
  const int warp = threadIdx.x / 32;
  const int part = blockIdx.x;
  const int parts = gridDim.x;
  const int head = blockIdx.y;
  const int row = blockIdx.z;
  const int rows_heads = gridDim.y;
"""
_METAL_HEADER = """
#define SHARED threadgroup
#define DEVICE device
#define BARRIER threadgroup_barrier(metal::mem_flags::mem_threadgroup)
#define XOR(value, mask) metal::simd_shuffle_xor(value, ushort(mask))
#define EXP2(value) metal::exp2(value)
#define MAX(a, b) metal::max(a, b)

template <typename T, int N>
struct Pack {
  T at[N];
};
"""
_METAL = """
  const int lane = thread_index_in_simdgroup;
  const int warp = simdgroup_index_in_threadgroup;
  const int part = threadgroup_position_in_grid.x;
  const int parts = threadgroups_per_grid.x;
  const int head = threadgroup_position_in_grid.y;
  const int row = threadgroup_position_in_grid.z;
  const int rows_heads = threadgroups_per_grid.y;
"""

_READ = """
  constexpr int SLOTS = 32 / LANES;
  constexpr int SPLITS = GROUP / QUERIES;
  constexpr float NEVER = -1e30f;
  const int shared_head = head / SPLITS;
  const int first_query = shared_head * GROUP + head % SPLITS * QUERIES;
  const int slot = lane / LANES;
  const int place = lane % LANES * EACH;
  const int context = contexts[row];
  const long table = long(owners[row]) * tables_shape[1];
  const int old = cached[row];
  const int seen = WINDOW > 0 && context > WINDOW ? context - WINDOW : 0;
  const int begin = part * PART > seen ? part * PART : seen;
  const int end = part * PART + PART < context ? part * PART + PART : context;

  float query[QUERIES][EACH];
  float sum[QUERIES][EACH];
  float top[QUERIES];
  float total[QUERIES];
  #pragma unroll
  for (int each = 0; each < QUERIES; ++each) {
    const long from = (long(row) * HEADS * GROUP + first_query + each) * SIZE + place;
    top[each] = NEVER;
    total[each] = 0;
    #pragma unroll
    for (int i = 0; i < EACH; ++i) {
      query[each][i] = float(queries[from + i]) * factor[0];
      sum[each][i] = 0;
    }
  }

  for (int start = begin + warp * SLOTS; start < end; start += WARPS * SLOTS) {
    const bool there = start + slot < end;
    const int token = there ? start + slot : end - 1;
    const long page = long(tables[table + token / BLOCK]) * HEADS + shared_head;
    const long from = (page * BLOCK + token % BLOCK) * SIZE + place;
    // Nothing reads from the pools what this step writes to them: the rows of its other tokens may not have run yet.
    const bool fresh = WRITES && token >= old;
    const long recent = (long(row - (context - 1 - token)) * HEADS + shared_head) * SIZE + place;
    const Pack<T, EACH> key = *(const DEVICE Pack<T, EACH>*)(fresh ? new_keys + recent : keys + from);
    const Pack<T, EACH> value = *(const DEVICE Pack<T, EACH>*)(fresh ? new_values + recent : values + from);
    #pragma unroll
    for (int each = 0; each < QUERIES; ++each) {
      float score = 0;
      #pragma unroll
      for (int i = 0; i < EACH; ++i) {
        score += query[each][i] * float(key.at[i]);
      }
      for (int step = LANES / 2; step > 0; step /= 2) {
        score += XOR(score, step);
      }
      const float higher = there ? MAX(top[each], score) : top[each];
      const float keep = EXP2(top[each] - higher);
      const float weight = there ? EXP2(score - higher) : 0.0f;
      top[each] = higher;
      total[each] = total[each] * keep + weight;
      #pragma unroll
      for (int i = 0; i < EACH; ++i) {
        sum[each][i] = sum[each][i] * keep + weight * float(value.at[i]);
      }
    }
  }

  #pragma unroll
  for (int each = 0; each < QUERIES; ++each) {
    for (int step = LANES; step < 32; step *= 2) {
      const float other = XOR(top[each], step);
      const float higher = MAX(top[each], other);
      const float keep = EXP2(top[each] - higher);
      const float add = EXP2(other - higher);
      top[each] = higher;
      total[each] = total[each] * keep + XOR(total[each], step) * add;
      #pragma unroll
      for (int i = 0; i < EACH; ++i) {
        sum[each][i] = sum[each][i] * keep + XOR(sum[each][i], step) * add;
      }
    }
  }

  if (WRITES && head % SPLITS == 0 && warp == 0 && slot == 0 && context - 1 >= part * PART && context == end) {
    const long page = long(tables[table + (context - 1) / BLOCK]) * HEADS + shared_head;
    const long to = (page * BLOCK + (context - 1) % BLOCK) * SIZE + place;
    const long recent = (long(row) * HEADS + shared_head) * SIZE + place;
    *(DEVICE Pack<T, EACH>*)(keys + to) = *(const DEVICE Pack<T, EACH>*)(new_keys + recent);
    *(DEVICE Pack<T, EACH>*)(values + to) = *(const DEVICE Pack<T, EACH>*)(new_values + recent);
  }

  SHARED float all_tops[WARPS][QUERIES];
  SHARED float all_totals[WARPS][QUERIES];
  SHARED float all_sums[WARPS][QUERIES][SIZE];
  if (slot == 0) {
    #pragma unroll
    for (int each = 0; each < QUERIES; ++each) {
      all_tops[warp][each] = top[each];
      all_totals[warp][each] = total[each];
      #pragma unroll
      for (int i = 0; i < EACH; ++i) {
        all_sums[warp][each][place + i] = sum[each][i];
      }
    }
  }
  BARRIER;

  for (int index = warp * 32 + lane; index < QUERIES * SIZE; index += WARPS * 32) {
    const int each = index / SIZE;
    float highest = NEVER;
    for (int other = 0; other < WARPS; ++other) {
      highest = MAX(highest, all_tops[other][each]);
    }
    float weights = 0;
    float weighted = 0;
    for (int other = 0; other < WARPS; ++other) {
      const float keep = EXP2(all_tops[other][each] - highest);
      weights += all_totals[other][each] * keep;
      weighted += all_sums[other][each][index % SIZE] * keep;
    }
    const long target = long(row) * HEADS * GROUP + first_query + each;
"""
_WRITE = f"""
    if (SINKS) {{
      const float sink = float(sinks[first_query + each]) * {LOG2E}f;
      const float higher = MAX(highest, sink);
      weighted *= EXP2(highest - higher);
      weights = weights * EXP2(highest - higher) + EXP2(sink - higher);
    }}
    out[target * SIZE + index % SIZE] = T(weighted / weights);
  }}
"""
_WRITE_PART = """
    sums[(target * parts + part) * SIZE + index % SIZE] = weighted;
    if (index % SIZE == 0) {
      tops[target * parts + part] = highest;
      totals[target * parts + part] = weights;
    }
  }
"""
_MERGE = f"""
  const long target = long(row) * rows_heads + head;
  float highest = SINKS ? float(sinks[head]) * {LOG2E}f : -1e30f;
  for (int other = 0; other < PARTS; ++other) {{
    highest = MAX(highest, tops[target * PARTS + other]);
  }}
  float weights = SINKS ? EXP2(float(sinks[head]) * {LOG2E}f - highest) : 0.0f;
  for (int other = 0; other < PARTS; ++other) {{
    weights += totals[target * PARTS + other] * EXP2(tops[target * PARTS + other] - highest);
  }}
  for (int index = warp * 32 + lane; index < SIZE; index += {_MERGERS}) {{
    float weighted = 0;
    for (int other = 0; other < PARTS; ++other) {{
      const float keep = EXP2(tops[target * PARTS + other] - highest);
      weighted += sums[(target * PARTS + other) * SIZE + index] * keep;
    }}
    out[target * SIZE + index] = T(weighted / weights);
  }}
"""
