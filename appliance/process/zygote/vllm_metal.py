"""vLLM over MLX, where MLX computes on the CPU.

MLX itself is left to each engine: it is imported in 10 ms, has threads once it computes, and on a GPU a driver
that no fork takes along.
"""

from __future__ import annotations

import sys

from . import vllm_engine


def warm() -> None:
    vllm_engine.warm("MetalPlatform", ())
    if "mlx.core" in sys.modules:
        raise SystemExit("the imports have loaded MLX: a fork is not safe")


settle = vllm_engine.settle
