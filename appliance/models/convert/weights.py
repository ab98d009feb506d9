"""Every tensor of the new checkpoint: what it is called, how large it will be, and its bytes a few rows at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from .architecture import Architecture
from .blocks import Raw, affine_scales, affine_weight, cast, dequantize, requantize
from .encoder import Encoder
from .gguf_file import Header, Tensor
from .mlx_form import BITS, GROUP, REQUANTIZED, mlx_bits
from .refused import damaged, unsupported
from .safetensors_file import Entry

CHUNK = 8 * 1024 * 1024  # elements handled at once: 32 MiB as float32

Chunks = Iterator[npt.NDArray[Any]]


@dataclass(frozen=True, slots=True)
class Piece:
    """One tensor to write, and how to produce its rows."""

    entry: Entry
    chunks: Callable[[], Chunks]


class Weights:
    """A GGUF's tensors, mapped rather than read. `bits` asks for another quantization of the MLX form: 4, 6 or 8."""

    def __init__(self, header: Header, architecture: Architecture | Encoder, *, bits: int | None = None) -> None:
        self._tensors = [header.tensors[name] for name in architecture.shapes()]
        files = {tensor.file for tensor in self._tensors}
        self._bytes = {file: np.memmap(file, dtype=np.uint8, mode="r") for file in files}
        self._architecture = architecture
        self._wanted = bits

    def as_hf(self) -> list[Piece]:
        """All as floats, of the type that the architecture wants."""
        return [self._plain(tensor, self._architecture.float_type(tensor.type)) for tensor in self._tensors]

    def as_mlx(self) -> list[Piece]:
        """Quantized tensors packed, without loss where MLX's form holds them exactly; the others in `mlx_dtype`."""
        return [piece for tensor in self._tensors for piece in self._mlx_pieces(tensor)]

    def mlx_dtype(self) -> str:
        """float16 beside quantized tensors, whose scales are float16: another type would round them or double them."""
        kinds = {tensor.type for tensor in self._tensors if len(tensor.shape) == 2}
        if self._wanted or kinds & (BITS.keys() | REQUANTIZED.keys()) or "F16" in kinds:
            return "F16"
        return "BF16" if "BF16" in kinds else "F32"

    def mlx_bits(self) -> dict[str, int]:
        """Bits of each quantized module by its path."""
        return {self._module(tensor): bits for tensor in self._tensors if (bits := self._bits(tensor)) is not None}

    def _module(self, tensor: Tensor) -> str:
        return self._architecture.target_name(tensor.name).removesuffix(".weight")

    def _bits(self, tensor: Tensor) -> int | None:
        return mlx_bits(tensor.type, tensor.shape, self._wanted)

    def _mlx_pieces(self, tensor: Tensor) -> list[Piece]:
        bits = self._bits(tensor)
        if bits is None:
            return [self._plain(tensor, self.mlx_dtype())]
        name, kind = self._module(tensor), tensor.type
        rows, columns = tensor.shape
        if bits != BITS.get(kind):
            return self._requantized(tensor, bits)

        def weight() -> Chunks:
            return (affine_weight(raw, kind) for raw in self._raw(tensor))

        def scales(which: int) -> Chunks:
            return (_exact(affine_scales(raw, kind)[which], tensor.name) for raw in self._raw(tensor))

        groups = (rows, columns // GROUP)
        return [
            Piece(Entry(f"{name}.weight", "U32", (rows, columns * bits // 32)), weight),
            Piece(Entry(f"{name}.scales", "F16", groups), lambda: scales(0)),
            Piece(Entry(f"{name}.biases", "F16", groups), lambda: scales(1)),
        ]

    def _requantized(self, tensor: Tensor, bits: int) -> list[Piece]:
        name, (rows, columns) = self._module(tensor), tensor.shape

        def part(which: int) -> Chunks:
            for raw in self._raw(tensor):
                values = dequantize(raw, tensor.type)
                if not np.isfinite(values).all():
                    raise damaged(f"the tensor `{tensor.name}` holds values that are not numbers")
                packed, *affine = requantize(values, bits)
                yield _exact(affine[which - 1], tensor.name) if which else packed

        groups = (rows, columns // GROUP)
        return [
            Piece(Entry(f"{name}.weight", "U32", (rows, columns * bits // 32)), lambda: part(0)),
            Piece(Entry(f"{name}.scales", "F16", groups), lambda: part(1)),
            Piece(Entry(f"{name}.biases", "F16", groups), lambda: part(2)),
        ]

    def _plain(self, tensor: Tensor, dtype: str) -> Piece:
        shift = np.float32(self._architecture.offset(tensor.name))

        def chunks() -> Chunks:
            return (_finite(dequantize(raw, tensor.type) - shift, dtype, tensor.name) for raw in self._raw(tensor))

        return Piece(Entry(self._architecture.target_name(tensor.name), dtype, tensor.shape), chunks)

    def _raw(self, tensor: Tensor) -> Iterator[Raw]:
        """The tensor's rows as bytes, in the order that transformers wants them, some at a time."""
        rows = prod(tensor.shape[:-1])
        table = self._bytes[tensor.file][tensor.offset : tensor.offset + tensor.size].reshape(rows, -1)
        heads = self._architecture.permuted_heads(tensor.name)
        order = None if heads is None else half_rotated(rows, heads)
        step = max(1, CHUNK // tensor.shape[-1])
        for start in range(0, rows, step):
            part = slice(start, start + step)
            yield np.ascontiguousarray(table[part] if order is None else table[order[part]])


def half_rotated(rows: int, heads: int) -> npt.NDArray[np.intp]:
    """Which of llama.cpp's rows each of transformers' rows is.

    Of a head's 2n rows, llama.cpp puts row i of the first half beside row i of the second.
    """
    return np.arange(rows).reshape(heads, rows // heads // 2, 2).swapaxes(1, 2).reshape(-1)


def _finite(values: npt.NDArray[np.float32], dtype: str, name: str) -> npt.NDArray[Any]:
    if not np.isfinite(values).all():
        raise damaged(f"the tensor `{name}` holds values that are not numbers")
    if dtype == "F16" and np.abs(values).max(initial=0) > np.finfo(np.float16).max:
        raise unsupported(f"the tensor `{name}` holds values too large for float16")
    return cast(values, dtype)


def _exact(values: npt.NDArray[np.float32], name: str) -> npt.NDArray[Any]:
    if not np.isfinite(values).all():
        raise damaged(f"the tensor `{name}` holds scales that are not numbers")
    with np.errstate(over="ignore"):
        halves = values.astype("<f2")
    if not np.array_equal(halves.astype(np.float32), values):
        raise unsupported(f"the tensor `{name}` has scales too large for MLX's float16")
    return halves
