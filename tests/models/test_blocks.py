from __future__ import annotations

import struct

import numpy as np
import numpy.typing as npt
import pytest

from appliance.models.convert.blocks import affine_scales, affine_weight, bfloat16, dequantize
from appliance.models.convert.mlx_form import BITS
from appliance.models.convert.weights import half_rotated

CORNERS = [0.0, -0.0, 1.0, -1.0, 0.1, 6e-8, -6e-8, 6.1e-5, 500.0, 511.5]


def blocks(kind: str, rows: int, columns: int, seed: int) -> npt.NDArray[np.uint8]:
    """Random blocks whose scales range from the smallest float16 to the largest that MLX's biases can hold."""
    random = np.random.default_rng(seed)
    halves = {"Q4_0": 1, "Q4_1": 2, "Q8_0": 1}[kind]
    count = rows * columns // 32
    scales = random.normal(0, 0.05, (count, halves)).astype("<f2")
    scales[: len(CORNERS), 0] = CORNERS
    quants = random.integers(0, 256, (count, 32 * BITS[kind] // 8), dtype=np.uint8)
    return np.concatenate([scales.view(np.uint8), quants], axis=1).reshape(rows, -1)


def by_the_book(raw: bytes, kind: str) -> list[float]:
    """ggml's own dequantization of one block, in single precision, one weight at a time."""
    f32 = np.float32
    scale = f32(struct.unpack_from("<e", raw)[0])
    if kind == "Q8_0":
        return [float(scale * f32(each)) for each in struct.unpack_from("<32b", raw, 2)]
    head = 4 if kind == "Q4_1" else 2
    nibbles = [each & 15 for each in raw[head:]] + [each >> 4 for each in raw[head:]]
    if kind == "Q4_0":
        return [float(scale * f32(each - 8)) for each in nibbles]
    least = f32(struct.unpack_from("<e", raw, 2)[0])
    return [float(scale * f32(each) + least) for each in nibbles]


def bits_of(values: npt.ArrayLike) -> npt.NDArray[np.uint32]:
    # +0 and -0 are the same weight; only `0 * -8` and `-8 * 0` differ in it.
    return (np.asarray(values, dtype=np.float32) + np.float32(0)).view(np.uint32)


@pytest.mark.parametrize("kind", ["Q4_0", "Q4_1", "Q8_0"])
def test_dequantization_is_ggmls_bit_for_bit(kind: str) -> None:
    raw = blocks(kind, 8, 128, 1)
    size = raw.shape[1] // 4
    expected = [by_the_book(row[at : at + size].tobytes(), kind) for row in raw for at in range(0, len(row), size)]
    assert np.array_equal(bits_of(dequantize(raw, kind)).reshape(-1), bits_of(expected).reshape(-1))


@pytest.mark.parametrize("kind", ["Q4_0", "Q4_1", "Q8_0"])
def test_packed_form_dequantizes_to_the_same_bits(kind: str) -> None:
    """Unpacked as MLX documents it: values from the low bits of each uint32 up, w = scale * q + bias."""
    raw = blocks(kind, 8, 256, 2)
    bits = BITS[kind]
    packed = affine_weight(raw, kind)
    scales, biases = (each.astype("<f2").astype(np.float32) for each in affine_scales(raw, kind))
    shifts = np.arange(0, 32, bits, dtype=np.uint32)
    values = ((packed[..., None] >> shifts) & np.uint32(2**bits - 1)).reshape(8, -1, 32).astype(np.float32)
    weights = (values * scales[..., None] + biases[..., None]).reshape(8, -1)
    assert packed.shape == (8, 256 * bits // 32)
    assert np.array_equal(bits_of(weights), bits_of(dequantize(raw, kind)))


def test_plain_types_are_widened() -> None:
    values = np.array([[0.5, -1.25, 3.0]], dtype=np.float32)
    assert np.array_equal(dequantize(values.view(np.uint8), "F32"), values)
    assert np.array_equal(dequantize(values.astype("<f2").view(np.uint8), "F16"), values)
    assert np.array_equal(dequantize(bfloat16(values).view(np.uint8), "BF16"), values)


@pytest.mark.parametrize(
    ("value", "expected"),
    [(1.0, 0x3F80), (1 + 2**-8, 0x3F80), (1 + 3 * 2**-8, 0x3F82), (1 + 2**-8 + 2**-20, 0x3F81), (-0.0, 0x8000)],
)
def test_bfloat16_rounds_to_nearest_and_ties_to_even(value: float, expected: int) -> None:
    assert bfloat16(np.array([value], dtype=np.float32))[0] == expected


def test_unpermuted_rows_are_those_llama_cpp_started_from() -> None:
    """llama.cpp's converter writes, for each head, rows 0, n, 1, n + 1, … of its 2n."""
    heads, half = 3, 4
    written = [
        head * 2 * half + row + offset * half for head in range(heads) for row in range(half) for offset in (0, 1)
    ]
    restored = np.array(written)[half_rotated(heads * 2 * half, heads)]
    assert restored.tolist() == list(range(heads * 2 * half))
