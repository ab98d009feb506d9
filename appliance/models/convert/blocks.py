"""GGML's blocks as floats, and regrouped into MLX's affine quantization, without loss where that holds them exactly.

A block is 32 weights of one row, or 256 of the K-quants. Q4_0: f16 d, 16 bytes of nibbles, w = d(q - 8). Q4_1: f16 d,
f16 m, nibbles, w = dq + m. Q5_0 and Q5_1: the same with a fifth bit of each weight in 4 bytes before the nibbles.
Q8_0: f16 d, 32 int8, w = dq. In the nibbles, byte i holds weight i below and weight i + 16 above.

K-quants have 8 or 16 small blocks in one, with scales (and minima) of their own in few bits, times one f16.

MLX's affine form is w = scale * q + bias for each group of 32, q unsigned and packed from the low bits of a uint32 up.
It holds Q4_0, Q4_1 and Q8_0 exactly: 8d and 128d differ from d in the exponent alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from .mlx_form import BITS, GROUP

Floats = npt.NDArray[np.float32]
Raw = npt.NDArray[np.uint8]


def dequantize(raw: Raw, kind: str) -> Floats:
    """Rows of bytes, shape (rows, bytes per row), as float32, shape (rows, columns)."""
    if kind == "F32":
        return raw.view("<f4")
    if kind == "F16":
        return raw.view("<f2").astype(np.float32)
    if kind == "BF16":
        return (raw.view("<u2").astype(np.uint32) << 16).view(np.float32)
    if kind in K_QUANTS:
        weights: Floats = K_QUANTS[kind](raw.reshape(-1, _SIZES[kind])).reshape(len(raw), -1)
        return weights
    if kind in ("Q5_0", "Q5_1"):
        return _five_bits(raw, kind)
    scales, biases = affine_scales(raw, kind)
    # dq is exact in float32 (11 bits of mantissa by 8), so only the last addition rounds, as it does in ggml.
    values = _values(raw, kind).astype(np.float32) * scales[..., None] + biases[..., None]
    return values.reshape(len(raw), -1)


def _five_bits(raw: Raw, kind: str) -> Floats:
    blocks = raw.reshape(len(raw), -1, _SIZES[kind])
    at = 2 if kind == "Q5_0" else 4
    high = np.unpackbits(blocks[..., at : at + 4], axis=-1, bitorder="little")
    quants = (_nibbles(blocks[..., at + 4 :]) | (high << np.uint8(4))).astype(np.float32)
    if kind == "Q5_0":
        return (_halves(blocks, 0)[..., None] * (quants - np.float32(16))).reshape(len(raw), -1)
    return (_halves(blocks, 0)[..., None] * quants + _halves(blocks, 2)[..., None]).reshape(len(raw), -1)


def _q2_k(blocks: Raw) -> Floats:
    """16 small blocks of 16: a nibble of scale and one of minimum each, 2 bits a weight."""
    scales, quants = blocks[:, :16], blocks[:, 16:80].reshape(-1, 2, 1, 32)
    d, least = _halves(blocks, 80)[:, None], _halves(blocks, 82)[:, None]
    values = (quants >> _SHIFTS_2) & np.uint8(3)
    scale = d * (scales & np.uint8(0x0F)).astype(np.float32)
    minimum = least * (scales >> np.uint8(4)).astype(np.float32)
    weights: Floats = scale[..., None] * values.reshape(-1, 16, 16).astype(np.float32) - minimum[..., None]
    return weights


def _q3_k(blocks: Raw) -> Floats:
    """16 small blocks of 16: 6 bits of signed scale each, 2 bits a weight and a third in a mask."""
    mask, quants, packed = blocks[:, :32], blocks[:, 32:96].reshape(-1, 2, 1, 32), blocks[:, 96:108]
    low = np.concatenate([packed[:, :8] & np.uint8(0x0F), packed[:, :8] >> np.uint8(4)], axis=1)
    high = (packed[:, None, 8:] >> _SHIFTS_2[0, :, :]).reshape(-1, 16) & np.uint8(3)
    scales = (low | (high << np.uint8(4))).astype(np.float32) - np.float32(32)
    set_bits = (mask.reshape(-1, 1, 1, 32) >> np.arange(8, dtype=np.uint8).reshape(1, 2, 4, 1)) & np.uint8(1)
    two = ((quants >> _SHIFTS_2) & np.uint8(3)).astype(np.int8)
    values = (two - np.int8(4) * (np.uint8(1) - set_bits).astype(np.int8)).astype(np.float32)
    weights: Floats = (_halves(blocks, 108)[:, None] * scales)[..., None] * values.reshape(-1, 16, 16)
    return weights


def _q4_k(blocks: Raw) -> Floats:
    """8 small blocks of 32: 6 bits of scale and of minimum each, 4 bits a weight."""
    return _with_minima(blocks, _chunked_nibbles(blocks[:, 16:]))


def _q5_k(blocks: Raw) -> Floats:
    """As Q4_K, with a fifth bit of each weight in a mask."""
    high = (blocks[:, None, 16:48] >> np.arange(8, dtype=np.uint8)[:, None]) & np.uint8(1)
    return _with_minima(blocks, _chunked_nibbles(blocks[:, 48:]) | (high << np.uint8(4)))


def _q6_k(blocks: Raw) -> Floats:
    """16 small blocks of 16: an int8 of scale each, 4 bits a weight and two more apart."""
    low, high = blocks[:, :128].reshape(-1, 2, 1, 64), blocks[:, 128:192].reshape(-1, 2, 1, 32)
    nibbles = ((low >> _SHIFTS_4) & np.uint8(0x0F)).reshape(-1, 2, 4, 32)
    values = (nibbles | (((high >> _SHIFTS_2) & np.uint8(3)) << np.uint8(4))).astype(np.float32) - np.float32(32)
    scales = blocks[:, 192:208].view(np.int8).astype(np.float32)
    return (_halves(blocks, 208)[:, None] * scales)[..., None] * values.reshape(-1, 16, 16)


def _chunked_nibbles(quants: Raw) -> Raw:
    """8 blocks of 32: of every 32 bytes the low halves are one block and the high halves the next."""
    return ((quants.reshape(-1, 4, 1, 32) >> _SHIFTS_4) & np.uint8(0x0F)).reshape(-1, 8, 32)


def _with_minima(blocks: Raw, values: Raw) -> Floats:
    """Q4_K's and Q5_K's scales and minima: 8 of 6 bits each in 12 bytes, the last four in what the first leave free."""
    packed = blocks[:, 4:16]
    first, second, third = packed[:, :4], packed[:, 4:8], packed[:, 8:]
    scales = np.concatenate([first & 63, (third & 15) | ((first >> 6) << 4)], axis=1).astype(np.float32)
    minima = np.concatenate([second & 63, (third >> 4) | ((second >> 6) << 4)], axis=1).astype(np.float32)
    scale, minimum = _halves(blocks, 0)[:, None] * scales, _halves(blocks, 2)[:, None] * minima
    weights: Floats = scale[..., None] * values.astype(np.float32) - minimum[..., None]
    return weights


_SHIFTS_2 = np.array([0, 2, 4, 6], dtype=np.uint8).reshape(1, 4, 1)
_SHIFTS_4 = np.array([0, 4], dtype=np.uint8).reshape(1, 2, 1)
_SIZES = {"Q5_0": 22, "Q5_1": 24, "Q2_K": 84, "Q3_K": 110, "Q4_K": 144, "Q5_K": 176, "Q6_K": 210}
K_QUANTS: Mapping[str, Callable[[Raw], Floats]] = {
    "Q2_K": _q2_k,
    "Q3_K": _q3_k,
    "Q4_K": _q4_k,
    "Q5_K": _q5_k,
    "Q6_K": _q6_k,
}


def requantize(values: Floats, bits: int) -> tuple[npt.NDArray[np.uint32], Floats, Floats]:
    """MLX's packed weight, scales and biases for floats of shape (rows, columns), at 4, 6 or 8 bits.

    Each group of 32 spans from its least to its largest value, so the error is at most half of a step.
    """
    groups = values.reshape(len(values), -1, GROUP)
    least, largest = groups.min(axis=-1), groups.max(axis=-1)
    steps = np.float32(2**bits - 1)
    # The scales are stored as float16, and it is with those that the weights must agree.
    scales = ((largest - least) / steps).astype(np.float16).astype(np.float32)
    biases = least.astype(np.float16).astype(np.float32)
    safe = np.where(scales > 0, scales, np.float32(1))
    quants = np.clip(np.rint((groups - biases[..., None]) / safe[..., None]), 0, steps).astype(np.uint8)
    return _packed(quants.reshape(len(values), -1), bits), scales, biases


def _packed(quants: Raw, bits: int) -> npt.NDArray[np.uint32]:
    """Values below 2^bits as one stream of bits in each row, the first value lowest."""
    stream = np.unpackbits(quants[..., None], axis=-1, count=bits, bitorder="little").reshape(len(quants), -1)
    return np.ascontiguousarray(np.packbits(stream, axis=-1, bitorder="little")).view("<u4")


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
    return _nibbles(quants)


def _nibbles(quants: Raw) -> Raw:
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
