"""Run by path inside the Metal engine environment. Prints one JSON object.

What appliance/metal/kernels.py has its GPU kernel do, in Python: the same loops over groups of threads, warps and
lanes, the same flat indices, the same merges of running softmaxes. Beside the attention in MLX that is the reference;
and where MLX has a GPU, the kernel itself beside it, for which METAL_KERNELS has to be `off`.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

import numpy as np
from appliance_metal import kernels
from appliance_metal.device import mlx, on_cpu
from appliance_metal.paged import LayerCache, LayerShape
from appliance_metal.step import Span, Step

from tests.metal.reply import reply

NEVER = -1e30
CASES = 60
BLOCK = 16


@dataclass
class Running:
    """Softmaxes in progress: (…,) highest scores and totals of weights, (…, size) weighted sums."""

    tops: Any
    totals: Any
    sums: Any

    def add(self, scores: Any, values: Any, there: Any) -> None:
        higher = np.where(there, np.maximum(self.tops, scores), self.tops)
        keep, weight = np.exp2(self.tops - higher), np.where(there, np.exp2(scores - higher), 0)
        self.tops = higher
        self.totals = self.totals * keep + weight
        self.sums = self.sums * keep[..., None] + weight[..., None] * values

    def merged(self) -> Running:
        """Along the first axis, in one go: its order does not change the result beyond rounding."""
        highest = self.tops.max(axis=0)
        keep = np.exp2(self.tops - highest)
        return Running(highest, (self.totals * keep).sum(axis=0), (self.sums * keep[..., None]).sum(axis=0))


@dataclass
class Inputs:
    """Of the kernel, as flat as it sees them. `fresh` is None where the pools have the step's keys and values."""

    queries: Any
    fresh: Any
    pools: Any
    tables: Any
    cached: Any
    scale: float


def attend(layout: kernels.Layout, inputs: Inputs, step: Any, sinks: Any) -> tuple[Any, Any]:
    """As `kernels.attend`; and how often each output was written."""
    owners, contexts, width = np.array(step.owners), np.array(step.contexts), step.tables.shape[1]
    parts, heads = layout.parts(width), layout.heads * layout.group
    out = np.full(len(owners) * heads * layout.size, np.nan)
    written = np.zeros(len(owners) * heads, dtype=int)
    for row in range(len(owners)):
        for head in range(layout.heads * layout.splits):
            first = head // layout.splits * layout.group + head % layout.splits * layout.queries
            table = owners[row] * width
            found = [
                _group(layout, inputs, table, contexts[row], place)
                for place in ((row, head, first, part) for part in range(parts))
            ]
            whole = Running(*(np.stack([getattr(each, name) for each in found]) for name in ("tops", "totals", "sums")))
            whole = whole.merged()
            for each in range(layout.queries):
                target = row * heads + first + each
                top, total, sums = whole.tops[each], whole.totals[each], whole.sums[each]
                if sinks is not None:
                    sink = sinks[first + each] * kernels.LOG2E
                    higher = max(top, sink)
                    sums = sums * np.exp2(top - higher)
                    total = total * np.exp2(top - higher) + np.exp2(sink - higher)
                out[target * layout.size : (target + 1) * layout.size] = sums / total
                written[target] += 1
    return out, written


def _group(layout: Any, inputs: Inputs, table: int, context: int, place: tuple[int, int, int, int]) -> Running:
    """One group of threads: some queries of one head of one row, over one part of the context."""
    row, head, first, part = place
    slots, each = 32 // layout.lanes, layout.each
    seen = context - layout.window if layout.window and context > layout.window else 0
    begin, end = max(part * kernels.PART, seen), min((part + 1) * kernels.PART, context)
    query = np.empty((layout.queries, layout.size))
    for index in range(layout.queries):
        start = (row * layout.heads * layout.group + first + index) * layout.size
        query[index] = inputs.queries[start : start + layout.size] * inputs.scale * kernels.LOG2E
    warps = []
    for warp in range(layout.warps):
        shape = (slots, layout.queries)
        running = Running(np.full(shape, NEVER), np.zeros(shape), np.zeros((*shape, layout.size)))
        for start in range(begin + warp * slots, end, layout.warps * slots):
            keys, values = np.empty((slots, layout.size)), np.empty((slots, layout.size))
            there = start + np.arange(slots) < end
            for lane in range(32):
                slot, at = lane // layout.lanes, lane % layout.lanes * each
                token = start + slot if there[slot] else end - 1
                source, where = _source(layout, inputs, table, context, token, row, head)
                keys[slot, at : at + each] = source[0][where + at : where + at + each]
                values[slot, at : at + each] = source[1][where + at : where + at + each]
            running.add(keys @ query.T, values[:, None], there[:, None])
        warps.append(running.merged())
    if inputs.fresh is not None and head % layout.splits == 0 and part * kernels.PART < context == end:
        _, where = _source(layout, inputs, table, context, context - 1, row, head)
        to = _paged(layout, inputs, table, context - 1, head)
        for pool, fresh in zip(inputs.pools, inputs.fresh, strict=True):
            pool[to : to + layout.size] = fresh[where : where + layout.size]
    return Running(*(np.stack([getattr(each, name) for each in warps]) for name in ("tops", "totals", "sums"))).merged()


def _source(layout: Any, inputs: Inputs, table: int, context: int, token: int, row: int, head: int) -> tuple[Any, int]:
    if inputs.fresh is not None and token >= inputs.cached[row]:
        recent = row - (context - 1 - token)
        return inputs.fresh, (recent * layout.heads + head // layout.splits) * layout.size
    return inputs.pools, _paged(layout, inputs, table, token, head)


def _paged(layout: Any, inputs: Inputs, table: int, token: int, head: int) -> int:
    page = inputs.tables[table + token // BLOCK] * layout.heads + head // layout.splits
    return int((page * BLOCK + token % BLOCK) * layout.size)


def case(rng: random.Random) -> dict[str, Any]:
    """One random shape, with requests of random length whose blocks lie anywhere in the pool."""
    mx = mlx()
    heads, group, size = rng.choice([1, 2, 3]), rng.choice([1, 2, 3, 4, 7, 9]), rng.choice([8, 32, 64, 96, 128, 256])
    window = rng.choice([None, None, 5, 40, 600])
    counts = [1] * rng.randint(1, 2) + [rng.randint(2, 3)] * rng.randint(0, 1)
    longest = rng.choice([20, 120, 700])
    contexts = [rng.randint(count, longest) for count in counts]
    blocks = [-(-context // BLOCK) for context in contexts]
    free = rng.sample(range(sum(blocks) + 9), sum(blocks))
    spans = [
        Span(context - count, count, [free.pop() for _ in range(need)])
        for count, context, need in zip(counts, contexts, blocks, strict=True)
    ]
    step = Step.build(spans, BLOCK, short=3000, rounded=rng.random() < 0.5)
    cache = LayerCache(0, LayerShape(heads, size, size), window)
    cache.allocate(sum(blocks) + 9, BLOCK, mx.float32)
    cache.arrays = tuple(mx.random.normal(each.shape) for each in cache.arrays)
    cache.step, rows = step, sum(counts)
    queries, keys, values = (mx.random.normal((rows, count, 1, size)) for count in (heads * group, heads, heads))
    sinks = mx.random.normal((heads * group,)) if rng.random() < 0.4 else None
    before = [np.array(each).ravel() for each in cache.arrays]
    fresh = [np.array(each).ravel() for each in (keys, values)]
    new = keys, values
    keys, _ = cache.update_and_fetch(keys, values)
    expected = np.array(cache.attend(queries, keys, size**-0.5, None, sinks)).ravel()
    layout = kernels.Layout.of(heads, group, size, BLOCK, window)
    assert layout is not None
    pools = [np.array(each).ravel() for each in cache.arrays]
    sink = None if sinks is None else np.array(sinks)
    writes = rng.random() < 0.5
    flat = [np.array(each).ravel() for each in (queries, step.tables, step.cached)]
    start = [each.copy() for each in before]
    inputs = Inputs(flat[0], fresh if writes else None, before if writes else pools, flat[1], flat[2], size**-0.5)
    found, written = attend(layout, inputs, step, sink)
    really = None if on_cpu() else _on_gpu(layout, queries, new if writes else None, start, pools, step, sinks)
    return {
        "kernel": None if really is None else float(np.abs(really - expected).max()),
        "writes": writes,
        "pools": all(np.array_equal(one, two) for one, two in zip(inputs.pools, pools, strict=True)),
        "difference": float(np.abs(found - expected).max()),
        "written": sorted({int(each) for each in written}),
        "parts": layout.parts(step.tables.shape[1]),
        "shape": [heads, group, size, window or 0, sinks is not None, *contexts],
    }


def _on_gpu(layout: Any, queries: Any, fresh: Any, before: Any, after: Any, step: Any, sinks: Any) -> Any:
    """What the kernel itself gives, flat. `before` are the pools without the step's keys and values, `after` with
    them: where it is to write them it is given the former, and has to leave the latter."""
    mx = mlx()
    writes = fresh is not None and not mx.metal.is_available()
    pools = tuple(mx.array(each.reshape(-1, layout.size)) for each in (before if writes else after))
    out = kernels.attend(layout, queries, fresh if writes else None, pools, step, layout.size**-0.5, sinks)
    mx.eval(out)
    assert all(np.array_equal(np.array(one).ravel(), two) for one, two in zip(pools, after, strict=True))
    return np.array(out).ravel()


def main() -> dict[str, Any]:
    mlx().random.seed(11)
    rng = random.Random(11)  # noqa: S311 - repeatable on purpose
    return {"cases": [case(rng) for _ in range(CASES)]}


if __name__ == "__main__":
    reply(main)
