"""What MLX's quantized form holds of each of GGML's types, without any of their bytes."""

from __future__ import annotations

BITS = {"Q4_0": 4, "Q4_1": 4, "Q8_0": 8}
"""Types that it holds exactly."""
REQUANTIZED = {"Q2_K": 4, "Q3_K": 4, "Q4_K": 4, "Q5_0": 6, "Q5_1": 6, "Q5_K": 6, "Q6_K": 6}
"""Bits that the types without an exact MLX form become: the next that MLX has and that lose little."""
GROUP = 32
"""Numbers that share a scale and a bias."""


def mlx_bits(kind: str, shape: tuple[int, ...], wanted: int | None) -> int | None:
    """Of a tensor's numbers in the MLX form; None where it stays unquantized."""
    if len(shape) != 2 or shape[1] % GROUP:
        return None
    return wanted or BITS.get(kind) or REQUANTIZED.get(kind)
