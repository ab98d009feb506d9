"""GGML's blocks as floats, and regrouped without loss into MLX's affine quantization.

A block is 32 weights of one row. Q4_0: f16 d, 16 bytes of nibbles, w = d(q - 8). Q4_1: f16 d, f16 m, nibbles,
w = dq + m. Q8_0: f16 d, 32 int8, w = dq. In the nibbles, byte i holds weight i below and weight i + 16 above.

MLX's affine form is w = scale * q + bias for each group of 32, q unsigned and packed from the low bits of a uint32 up,
which holds all three exactly: 8d and 128d differ from d in the exponent alone.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Raw = npt.NDArray[np.uint8]

BITS = {"Q4_0": 4, "Q4_1": 4, "Q8_0": 8}
GROUP = 32


def dequantize(raw: Raw, kind: str) -> Floats:
    """Rows of bytes, shape (rows, bytes per row), as float32, shape (rows, columns)."""
    if kind == "F32":
        return raw.view("<f4")
    if kind == "F16":
        return raw.view("<f2").astype(np.float32)
    if kind == "BF16":
        return (raw.view("<u2").astype(np.uint32) << 16).view(np.float32)
    scales, biases = affine_scales(raw, kind)
    # dq is exact in float32 (11 bits of mantissa by 8), so only the last addition rounds, as it does in ggml.
    weights = _values(raw, kind).astype(np.float32) * scales[..., None] + biases[..., None]
    return weights.reshape(len(raw), -1)


def affine_scales(raw: Raw, kind: str) -> tuple[Floats, Floats]:
    """MLX's scales and biases, one of each for a block, shape (rows, blocks)."""
    blocks = _blocks(raw, kind)
    scales = _halves(blocks, 0)
    if kind == "Q4_1":
        return scales, _halves(blocks, 2)
    return scales, scales * np.float32(-8 if kind == "Q4_0" else -128)


def affine_weight(raw: Raw, kind: str) -> npt.NDArray[np.uint32]:
    """MLX's packed weight, shape (rows, columns * bits / 32)."""
    flat = _values(raw, kind).reshape(len(raw), -1)
    if BITS[kind] == 4:
        flat = flat[:, 0::2] | (flat[:, 1::2] << np.uint8(4))
    return np.ascontiguousarray(flat).view("<u4")


def _blocks(raw: Raw, kind: str) -> Raw:
    return raw.reshape(len(raw), -1, {"Q4_0": 18, "Q4_1": 20, "Q8_0": 34}[kind])


def _values(raw: Raw, kind: str) -> Raw:
    """The unsigned quantized values, shape (rows, blocks, 32)."""
    quants = _blocks(raw, kind)[..., 4 if kind == "Q4_1" else 2 :]
    if kind == "Q8_0":
        return quants ^ np.uint8(0x80)
    return np.concatenate([quants & np.uint8(0x0F), quants >> np.uint8(4)], axis=-1)


def _halves(blocks: Raw, at: int) -> Floats:
    halves: npt.NDArray[np.float16] = np.ascontiguousarray(blocks[..., at : at + 2]).view("<f2")[..., 0]
    return halves.astype(np.float32)


def bfloat16(values: Floats) -> npt.NDArray[np.uint16]:
    """The bits of each value as bfloat16, rounded to nearest, ties to even. Values must be finite."""
    bits = np.ascontiguousarray(values).view(np.uint32)
    rounded = bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))
    return (rounded >> np.uint32(16)).astype(np.uint16)


def cast(values: Floats, dtype: str) -> npt.NDArray[Any]:
    """float32 as the bytes of a safetensors dtype: `BF16`, `F16` or `F32`."""
    if dtype == "BF16":
        return bfloat16(values)
    return values.astype("<f2") if dtype == "F16" else values.astype("<f4")
