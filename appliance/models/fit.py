"""Which contexts and how many sequences fit into a machine's memory, before anything is downloaded or started."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from appliance.engines.driver import Driver, Launch, Shape
from appliance.engines.footprint import batched_tokens, cache_width
from appliance.engines.vllm_metal import VLLMMetal
from appliance.errors import ConfigError
from appliance.plan.desired import EngineSpec

SEQUENCES = (1, 2, 4, 8, 16, 32, 64)
SHORTEST, LONGEST = 1024, 2**20
_BLOCK = 128
"""Tokens in a block of vLLM's cache on the CPU, the largest of the back ends: what a sequence takes is rounded up."""

_TARGET = re.compile(r"(m[1-9])(-pro|-max|-ultra)?-([1-9]\d{0,3})gb")


@dataclass(frozen=True, slots=True)
class Target:
    """A machine that need not be this one: bytes of memory, and how many of them the GPU may use."""

    name: str
    memory: int
    limit: int


@dataclass(frozen=True, slots=True)
class Fit:
    """So many sequences of so many tokens at once: bytes of cache, bytes in all, and whether the budget holds them."""

    max_model_len: int
    max_num_seqs: int
    cache: int
    memory: int
    fits: bool


def parse_target(text: str) -> Target:
    """`m2-16gb` or `m3-max-64gb`. Raises ConfigError.

    Of memory that CPU and GPU share, macOS lets the GPU hold two thirds up to 36 GB, and three quarters above.
    """
    match = _TARGET.fullmatch(text.lower())
    if match is None:
        raise ConfigError(f"there is no target `{text}`", hint="write a chip and its memory: `m2-16gb`, `m3-max-64gb`")
    memory = int(match[3]) * 2**30
    return Target(text.lower(), memory, memory * 2 // 3 if memory <= 36 * 2**30 else memory * 3 // 4)


def fits(driver: Driver, arguments: Mapping[str, Any], shape: Shape, budget: int, *, platform: str) -> tuple[Fit, ...]:
    """Every combination of the table, lengths outermost. Empty where the driver cannot tell its engine's memory."""
    return tuple(_fits(driver, arguments, shape, budget, platform))


def _fits(driver: Driver, arguments: Mapping[str, Any], shape: Shape, budget: int, platform: str) -> Iterator[Fit]:
    if isinstance(driver, VLLMMetal):  # whose layers with a window keep the whole context all the same
        shape = replace(shape, cache=tuple(replace(each, window=None) for each in shape.cache or ()) or shape.cache)
        shape = replace(shape, state=replace(shape.state, paged=False) if shape.state else None)
    for length in lengths(shape):
        for sequences in SEQUENCES:
            cache = cache_of(shape, arguments, length, sequences)
            sized = {**arguments, "max_model_len": length, "max_num_seqs": sequences, "kv_cache_memory_bytes": cache}
            memory = driver.memory(_spec(driver, sized), _launch(platform), shape)
            if memory is None:
                return
            yield Fit(length, sequences, cache, memory, memory <= budget)


def lengths(shape: Shape) -> tuple[int, ...]:
    """Powers of two up to the longest context of the model, and that."""
    longest = shape.context or 32 * 1024
    powers = [2**power for power in range(SHORTEST.bit_length() - 1, LONGEST.bit_length()) if 2**power < longest]
    return (*powers, longest)


def cache_of(shape: Shape, arguments: Mapping[str, Any], length: int, sequences: int) -> int:
    """Bytes of cache for so many sequences of this length, in whole blocks, and the one block that vLLM keeps empty."""
    width, batched = cache_width(arguments), batched_tokens(arguments)
    whole = -(-length // _BLOCK) * _BLOCK
    one = shape.cache_bytes(whole, width=width, batched=batched, block=_BLOCK)
    return sequences * one + shape.cache_bytes(_BLOCK, width=width, batched=batched, block=_BLOCK)


def _spec(driver: Driver, arguments: Mapping[str, Any]) -> EngineSpec:
    return _with(EngineSpec(model="fit", backend=driver.name, source=""), arguments)


def _with(spec: EngineSpec, arguments: Mapping[str, Any]) -> EngineSpec:
    merged = {**spec.arguments, **arguments}
    return replace(spec, engine=tuple(sorted((name, json.dumps(value)) for name, value in merged.items())))


def _launch(platform: str) -> Launch:
    return Launch(python=None, model=Path(), directory=Path(), key="", platform=platform)
