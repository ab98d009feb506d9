"""What vLLM needs to be forked on the CPU."""

from __future__ import annotations

import importlib
import os
from typing import Any

MODULES = (
    "vllm.entrypoints.openai.api_server",
    "vllm.v1.engine.async_llm",
    "vllm.v1.engine.core",
    "vllm.v1.executor.uniproc_executor",
    "vllm.v1.worker.cpu_worker",
    # The architectures share nearly everything: a further one is milliseconds.
    *(f"vllm.model_executor.models.{name}" for name in ("llama", "mistral", "qwen2", "qwen3", "gemma3", "phi3")),
)


def warm() -> None:
    import torch
    from vllm.platforms import current_platform

    if type(current_platform).__name__ != "CpuPlatform":
        raise SystemExit(f"vLLM selects `{type(current_platform).__name__}`: only `CpuPlatform` may be forked")
    for module in MODULES:
        importlib.import_module(module)
    if torch.cuda.is_initialized():
        raise SystemExit("CUDA is initialized: a fork is not safe")
    _let_engines_fork(type(current_platform))


def settle() -> None:
    """The OpenMP runtime has read its variables long ago: the number of threads has to be set in it."""
    import torch

    given = os.environ.get("OMP_NUM_THREADS", "")
    torch.set_num_threads(int(given) if given.isdigit() and int(given) else len(os.sched_getaffinity(0)))


def _let_engines_fork(platform: Any) -> None:
    """vLLM's CPU platform sets `spawn` while it checks the configuration: the core would import everything again."""
    check = platform.check_and_update_config

    def check_and_fork(config: Any) -> None:
        check(config)
        os.environ["VLLM_WORKER_MULTIPROC_METHOD"] = "fork"

    platform.check_and_update_config = staticmethod(check_and_fork)
