"""The memory of a vLLM engine as the sum of its parts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from appliance.engines import vllm_arguments
from appliance.engines.driver import Shape

BATCHED_TOKENS, SEQUENCES, LORA_RANK = 2048, 128, 16
"""vLLM's own defaults for `max_num_batched_tokens` and `max_num_seqs` on the CPU, and for `max_lora_rank`."""


def float_width(arguments: Mapping[str, Any]) -> int:
    """Bytes of a number that is not quantized."""
    return 4 if arguments.get("dtype") in ("float32", "float") else 2


def cache_width(arguments: Mapping[str, Any]) -> int:
    """Bytes of a cached key's or value's number."""
    if str(arguments.get("kv_cache_dtype") or "auto").startswith(("fp8", "int8")):
        return 1
    return float_width(arguments)


def batched_tokens(arguments: Mapping[str, Any]) -> int:
    return vllm_arguments.count(arguments.get("max_num_batched_tokens") or BATCHED_TOKENS)


def sequences(arguments: Mapping[str, Any]) -> int:
    return int(arguments.get("max_num_seqs") or SEQUENCES)


def footprint(arguments: Mapping[str, Any], shape: Shape, *, cache: int, processes: int) -> int:
    """Bytes of weights, one step's activations and logits, adapters' slots, `cache` and `processes`, of one rank."""
    width = float_width(arguments)
    weights = shape.weights + (width - 2) * shape.floats
    return weights + one_step(arguments, shape, width) + _adapters(arguments, shape) * width + cache + processes


def one_step(arguments: Mapping[str, Any], shape: Shape, width: int) -> int:
    """Bytes of one step's activations, so wide a number, and of its logits in float32."""
    return batched_tokens(arguments) * shape.width * width + sequences(arguments) * shape.vocabulary * 4


def _adapters(arguments: Mapping[str, Any], shape: Shape) -> int:
    """Numbers that the slots for adapters hold, used or not."""
    if not arguments.get("enable_lora"):
        return 0
    slots = max(arguments.get("max_loras") or 1, arguments.get("max_cpu_loras") or 1)
    return int(slots * (arguments.get("max_lora_rank") or LORA_RANK) * shape.edges)
