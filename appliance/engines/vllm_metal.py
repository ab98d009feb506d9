"""vLLM's OpenAI server over MLX: this package's own plug-in, from this very installation."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import appliance
from appliance.engines import parsers, vllm_arguments, vllm_metal_arguments, vllm_server
from appliance.engines.diagnosis import diagnose
from appliance.engines.driver import ArgumentProblem, Choice, Format, Launch, Shape, Template
from appliance.engines.footprint import one_step
from appliance.plan.desired import EngineSpec

PLATFORM = "appliance_metal.platform.MetalPlatform"
"""The class that vLLM must have selected: other plug-ins have one of the same short name."""

SITE = Path(appliance.__file__).with_name("metal") / "site"

DEVICE = "METAL_DEVICE"
"""The variable that says what MLX is to compute on: in an engine's `env`, `metal.device` of the file."""

REPORT = "APPLIANCE_METAL_REPORT"
"""The variable that names the file where the engine says what it computes on."""

_CACHE = 1024**3
"""Bytes. Otherwise the cache takes whatever the device has left, and no second engine fits beside this one."""
_BATCHED_ON_CPU, _BATCHED_ON_GPU = 512, 2048
"""Tokens that one step computes at once. On the CPU more would keep running answers waiting for seconds behind a long
prompt; a GPU has read a prompt of 2,048 tokens in a fraction of one, and fewer leave it idle."""

_CUDA = "mlx-cuda"
"""How the names of MLX's CUDA back ends begin: there is one for each major version of CUDA."""
_SEQUENCES = 8
"""Whose recurrent states the memory is shared out for, unless that is more than a quarter of it."""
_BLOCK = 16
"""Tokens in one block of the cache."""
_PROCESSES = 1500 * 1024**2
"""Bytes that the API server and an engine core take beside weights and cache: measured with 0.32 on Linux."""


def plugin_environ() -> dict[str, str]:
    """What makes vLLM find this plug-in and no other: for engines, and for the preflight of their environment."""
    return {"PYTHONPATH": str(SITE), "VLLM_PLUGINS": "appliance_metal"}


@dataclass(frozen=True, slots=True)
class VLLMMetal:
    """`mac` says whether the machine is one, where MLX has Metal without any further package."""

    name: str = "vllm-metal"
    transport: Literal["unix", "tcp"] = "unix"
    format: Format = "mlx"
    mac: bool = sys.platform == "darwin"

    def check(self, arguments: Mapping[str, Any]) -> Iterator[ArgumentProblem]:
        return vllm_metal_arguments.check(arguments)

    def choose(self, spec: EngineSpec, template: Template) -> tuple[Choice, ...]:
        return parsers.choose(template, spec.arguments)

    def argv(self, spec: EngineSpec, launch: Launch) -> tuple[str, ...]:
        return vllm_server.command("appliance_metal.serve", spec, launch, self._defaults(spec, launch))

    def env(self, spec: EngineSpec, launch: Launch) -> dict[str, str]:
        return {
            **vllm_server.environ(spec, launch),
            **plugin_environ(),
            "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # the engine core stays a process of its own, with the worker in it
            REPORT: str(launch.device),
            **_kernels(launch),
        }

    def memory(self, spec: EngineSpec, launch: Launch, shape: Shape) -> int | None:
        cache = self._defaults(spec, launch, **spec.arguments)["kv_cache_memory_bytes"]
        if cache is None:
            return None  # a share of the device, which the engine alone knows
        kept = vllm_arguments.count(cache) if shape.keeps else 0
        return self._fixed(spec, launch, shape) + kept

    def fitting(self, spec: EngineSpec, launch: Launch, shape: Shape, available: int) -> Mapping[str, Any] | None:
        if not shape.cache_per_token:
            return None
        cache = available - self._fixed(spec, launch, shape)
        cache -= cache % 1024**2  # a number that a person can type
        longest = spec.arguments.get("max_model_len") or shape.context
        if not isinstance(longest, int):  # vLLM takes `32k` and `auto` as well
            longest = shape.context
        per_token = shape.cache_per_token * (2 if self._wide(spec, launch) else 1)
        # Of what recurrent layers keep, some sequences at once have theirs, the longest among them.
        kept = max(shape.state_bytes, min(_SEQUENCES * shape.state_bytes, cache // 4))
        context = min((cache - kept) // per_token // _BLOCK * _BLOCK, longest or cache)
        return {"max_model_len": context, "kv_cache_memory_bytes": cache} if context >= _BLOCK else None

    def health(self, spec: EngineSpec) -> str:
        return spec.health

    def diagnose(self, lines: Sequence[str]) -> str | None:
        return diagnose(lines)

    def on_cpu(self, spec: EngineSpec, launch: Launch) -> bool:
        """Whether MLX will compute on the CPU, told without importing it.

        (1) What METAL_DEVICE says. (2) A Mac has a GPU. (3) Elsewhere it is one if MLX's CUDA back end is installed.
        """
        device = dict(spec.env).get(DEVICE, "default")
        if device != "default":
            return device == "cpu"
        return not self.mac and not any(name.startswith(_CUDA) for name, _ in launch.versions)

    def _defaults(self, spec: EngineSpec, launch: Launch, **given: Any) -> Mapping[str, Any]:
        defaults: dict[str, Any] = {"kv_cache_memory_bytes": _CACHE}
        # An encoder reads a text at once: vLLM's own default is as long as the longest.
        if vllm_server.given(spec, launch, {}).get("runner") != "pooling":
            defaults["max_num_batched_tokens"] = _BATCHED_ON_CPU if self.on_cpu(spec, launch) else _BATCHED_ON_GPU
        return {**defaults, **given}

    def _fixed(self, spec: EngineSpec, launch: Launch, shape: Shape) -> int:
        """All but the cache."""
        arguments = self._defaults(spec, launch, **spec.arguments)
        step = one_step(arguments, shape, 4 if self._wide(spec, launch) else 2)
        return self._weights(spec, launch, shape) + step + _PROCESSES

    def _weights(self, spec: EngineSpec, launch: Launch, shape: Shape) -> int:
        """Quantized ones become as wide as the others when they are loaded, where the CPU computes."""
        if not self.on_cpu(spec, launch):
            return shape.weights
        width = 32 if self._wide(spec, launch) else 16
        return shape.floats * width // 8 if shape.bits >= 16 else int(shape.weights * width / shape.bits)

    def _wide(self, spec: EngineSpec, launch: Launch) -> bool:
        return self.on_cpu(spec, launch) and spec.arguments.get("dtype") not in ("bfloat16", "float16", "half")


def _kernels(launch: Launch) -> dict[str, str]:
    """Up to 40 s of compiling each, which MLX's CUDA back end would keep in TMPDIR: that ends with the engine."""
    builds = [f"{name}-{version}" for name, version in launch.versions if name.startswith(_CUDA)]
    return {"MLX_PTX_CACHE_DIR": str(launch.kernels / builds[0])} if builds and launch.kernels else {}
