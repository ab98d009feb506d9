"""vLLM's OpenAI server over MLX: this package's own plug-in, from this very installation."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import appliance
from appliance.engines import parsers, vllm_arguments, vllm_server
from appliance.engines.diagnosis import diagnose
from appliance.engines.driver import ArgumentProblem, Choice, Format, Launch, Shape, Template
from appliance.plan.desired import EngineSpec

PLATFORM = "appliance_metal.platform.MetalPlatform"
"""The class that vLLM must have selected: other plug-ins have one of the same short name."""

SITE = Path(appliance.__file__).with_name("metal") / "site"

REPORT = "APPLIANCE_METAL_REPORT"
"""The variable that names the file where the engine says what it computes on."""

_DEFAULTS: Mapping[str, Any] = {
    # Otherwise the cache takes whatever the device has left, and no second engine fits beside this one.
    "kv_cache_memory_bytes": 1024**3,
    # What one step computes at once. vLLM's own default would keep running answers waiting for seconds behind a long
    # prompt on the CPU.
    "max_num_batched_tokens": 512,
}

_BLOCK = 16
"""Tokens in one block of the cache."""
_PROCESSES = 1500 * 1024**2
"""Bytes that the API server and an engine core take beside weights and cache: measured with 0.32 on Linux."""

_ONE_DEVICE = "MLX drives one device"
_NOT_THERE: Mapping[str, str] = {
    **dict.fromkeys(
        (
            "tensor_parallel_size",
            "pipeline_parallel_size",
            "data_parallel_size",
            "decode_context_parallel_size",
            "prefill_context_parallel_size",
            "enable_expert_parallel",
            "enable_eplb",
            "enable_dbo",
        ),
        _ONE_DEVICE,
    ),
    "speculative_config": "speculative decoding is not there yet",
    "kv_transfer_config": "the cache stays in one engine",
    "kv_cache_dtype": "the cache has the model's own type",
    "cpu_offload_gb": "memory is shared, or there is no GPU",
    "swap_space": "memory is shared, or there is no GPU",
    "enable_prompt_embeds": "prompts are text or tokens",
    "logits_processors": "it takes no foreign code",
    "quantization": "MLX's own formats are recognised by themselves; others are not read",
    "load_format": "safetensors are what it loads",
    "attention_backend": "attention is the plug-in's own",
    "attention_config": "attention is the plug-in's own",
    "compilation_config": "MLX compiles nothing of vLLM's",
    "distributed_executor_backend": "the engine is one process",
    "worker_cls": "the worker is the plug-in's own",
    "worker_extension_cls": "it takes no foreign code",
    "trust_remote_code": "mlx-lm's own model definitions are used; it takes no foreign code",
}


def plugin_environ() -> dict[str, str]:
    """What makes vLLM find this plug-in and no other: for engines, and for the preflight of their environment."""
    return {"PYTHONPATH": str(SITE), "VLLM_PLUGINS": "appliance_metal"}


@dataclass(frozen=True, slots=True)
class VLLMMetal:
    """`widens` says whether weights become float32 when they are loaded, as they do where MLX computes on a CPU."""

    name: str = "vllm-metal"
    transport: Literal["unix", "tcp"] = "unix"
    format: Format = "mlx"
    widens: bool = sys.platform != "darwin"

    def check(self, arguments: Mapping[str, Any]) -> Iterator[ArgumentProblem]:
        for name in arguments.keys() & _NOT_THERE.keys():
            yield ArgumentProblem(name, "not supported by vllm-metal", _NOT_THERE[name])
        yield from vllm_arguments.check({name: each for name, each in arguments.items() if name not in _NOT_THERE})

    def choose(self, spec: EngineSpec, template: Template) -> tuple[Choice, ...]:
        return parsers.choose(template, spec.arguments)

    def argv(self, spec: EngineSpec, launch: Launch) -> tuple[str, ...]:
        return vllm_server.command("appliance_metal.serve", spec, launch, _defaults(spec, launch))

    def env(self, spec: EngineSpec, launch: Launch) -> dict[str, str]:
        return {
            **vllm_server.environ(spec, launch),
            **plugin_environ(),
            "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # the engine core stays a process of its own, with the worker in it
            REPORT: str(launch.device),
        }

    def memory(self, spec: EngineSpec, launch: Launch, shape: Shape) -> int | None:  # noqa: ARG002 - the Protocol's
        cache = {**_DEFAULTS, **spec.arguments}["kv_cache_memory_bytes"]
        if cache is None:
            return None  # a share of the device, which the engine alone knows
        kept = vllm_arguments.count(cache) if shape.cache != () else 0
        return self._weights(spec, shape) + kept + _PROCESSES

    def fitting(self, spec: EngineSpec, launch: Launch, shape: Shape, available: int) -> Mapping[str, Any] | None:  # noqa: ARG002 - the Protocol's
        if not shape.cache_per_token:
            return None
        cache = available - self._weights(spec, shape) - _PROCESSES
        cache -= cache % 1024**2  # a number that a person can type
        longest = spec.arguments.get("max_model_len") or shape.context
        if not isinstance(longest, int):  # vLLM takes `32k` and `auto` as well
            longest = shape.context
        per_token = shape.cache_per_token * (2 if self._wide(spec) else 1)
        context = min(cache // per_token // _BLOCK * _BLOCK, longest or cache)
        return {"max_model_len": context, "kv_cache_memory_bytes": cache} if context >= _BLOCK else None

    def health(self, spec: EngineSpec) -> str:
        return spec.health

    def diagnose(self, lines: Sequence[str]) -> str | None:
        return diagnose(lines)

    def _weights(self, spec: EngineSpec, shape: Shape) -> int:
        if not self.widens:
            return shape.weights
        width = 32 if self._wide(spec) else 16
        return shape.floats * width // 8 if shape.bits >= 16 else int(shape.weights * width / shape.bits)

    def _wide(self, spec: EngineSpec) -> bool:
        return self.widens and spec.arguments.get("dtype") not in ("bfloat16", "float16", "half")


def _defaults(spec: EngineSpec, launch: Launch) -> Mapping[str, Any]:
    if vllm_server.given(spec, launch, {}).get("runner") != "pooling":
        return _DEFAULTS
    # An encoder reads a text at once: vLLM's own default is as long as the longest.
    return {name: value for name, value in _DEFAULTS.items() if name != "max_num_batched_tokens"}
