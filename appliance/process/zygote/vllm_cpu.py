"""vLLM on the CPU."""

from __future__ import annotations

from . import vllm_engine

_MODULES = (
    "vllm.v1.worker.cpu_worker",
    # The architectures share nearly everything: a further one is milliseconds.
    *(f"vllm.model_executor.models.{name}" for name in ("llama", "mistral", "qwen2", "qwen3", "gemma3", "phi3")),
)


def warm() -> None:
    vllm_engine.warm("CpuPlatform", _MODULES)


settle = vllm_engine.settle
