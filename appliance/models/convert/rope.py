"""How positions beyond the training length are scaled, recovered from what a GGUF keeps of it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from .refused import damaged, unsupported


def read_scaling(
    metadata: dict[str, Any], factors: Sequence[float] | None, *, head_dim: int, base: float
) -> dict[str, Any] | None:
    """config.json's `rope_scaling`. `factors` is the tensor `rope_freqs.weight`, one divisor per rotated pair."""
    name = metadata.get("general.architecture")
    kind = metadata.get(f"{name}.rope.scaling.type", "none")
    factor = metadata.get(f"{name}.rope.scaling.factor", 1.0)
    if not isinstance(factor, float) or not 0 < factor < 1e6:
        raise damaged(f"`{name}.rope.scaling.factor` is `{str(factor)[:40]}`, expected a number above zero")
    if factors is not None:
        if kind != "none":
            raise unsupported(f"rope scaling `{kind}` beside explicit factors is not supported")
        return _llama3(factors, head_dim, base)
    if kind == "linear":
        return {"rope_type": "linear", "factor": factor}
    if kind != "none":
        raise unsupported(f"rope scaling `{kind}` is not supported in a GGUF file")
    return None


def _llama3(factors: Sequence[float], head_dim: int, base: float) -> dict[str, Any]:
    """llama.cpp keeps Llama 3's scaling as its outcome only; the published parameters are tried until they fit."""
    if not all(0 < factor < 1e6 for factor in factors):
        raise damaged("the tensor `rope_freqs.weight` holds divisors that are not above zero")
    scaling = {
        "rope_type": "llama3",
        "factor": max(factors),
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    }
    expected = llama3_factors(scaling, head_dim, base)
    if len(expected) != len(factors) or not all(
        math.isclose(a, b, rel_tol=1e-4) for a, b in zip(expected, factors, strict=True)
    ):
        raise unsupported("the tensor `rope_freqs.weight` is not Llama 3's rope scaling; others are not supported")
    return scaling


def llama3_factors(scaling: dict[str, Any], head_dim: int, base: float) -> list[float]:
    """The divisor of each pair's frequency: 1 for short waves, `factor` for long ones, blended in between."""
    factor, low, high = scaling["factor"], scaling["low_freq_factor"], scaling["high_freq_factor"]
    factors = []
    for pair in range(0, head_dim, 2):
        turns = scaling["original_max_position_embeddings"] / (2 * math.pi * base ** (pair / head_dim))
        blend = min(max((turns - low) / (high - low), 0.0), 1.0)
        factors.append(1 / ((1 - blend) / factor + blend))
    return factors
