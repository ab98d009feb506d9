"""What any vLLM engine on a CPU needs to be forked."""

from __future__ import annotations

import importlib
import os
from collections.abc import Sequence
from typing import Any

_MODULES = (
    "vllm.entrypoints.openai.api_server",
    "vllm.v1.engine.async_llm",
    "vllm.v1.engine.core",
    "vllm.v1.executor.uniproc_executor",
)


def warm(expected: str, modules: Sequence[str]) -> None:
    """Import vLLM and these, where it selects the platform class of this name. Raises SystemExit where it does not."""
    import torch
    from vllm.platforms import current_platform

    if type(current_platform).__name__ != expected:
        raise SystemExit(f"vLLM selects `{type(current_platform).__name__}`: only `{expected}` may be forked here")
    for module in (*_MODULES, *modules):
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
    """vLLM's platform sets `spawn` while it checks the configuration: the core would import everything again."""
    check = platform.check_and_update_config

    def check_and_fork(config: Any) -> None:
        check(config)
        os.environ["VLLM_WORKER_MULTIPROC_METHOD"] = "fork"

    platform.check_and_update_config = staticmethod(check_and_fork)
