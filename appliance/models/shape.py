"""What a checkpoint will take in memory, from its own files and without loading any of them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import Any

from appliance.engines.driver import Format, Shape
from appliance.models.architecture import MOST_LAYERS, Numbers, layer_caches, token_width
from appliance.models.convert.architecture import ENCODERS
from appliance.models.convert.gguf_file import read_header
from appliance.models.convert.mlx_form import GROUP, mlx_bits
from appliance.models.convert.refused import Refused
from appliance.models.gguf_numbers import as_config
from appliance.models.recurrence import layer_state
from appliance.models.safetensors_header import read_table

_FLOATS = frozenset({"F64", "F32", "F16", "BF16"})
_BYTES_PER_FLOAT = 2  # bfloat16 and float16, what vLLM and MLX compute in unless told otherwise


@dataclass(frozen=True, slots=True)
class Stored:
    """One tensor as a file holds it: `kind` is safetensors' dtype or GGML's type, `size` is in bytes."""

    name: str
    kind: str
    shape: tuple[int, ...]
    size: int

    @property
    def matrix_of_a_layer(self) -> bool:
        return len(self.shape) == 2 and any(part.isdigit() for part in self.name.split("."))


def _bits(values: Mapping[str, Any]) -> float:
    """Of one weight, as MLX's `quantization` or the type of the whole checkpoint says."""
    quantization = values.get("quantization")
    if isinstance(quantization, dict) and isinstance(bits := quantization.get("bits"), int):
        group = quantization.get("group_size")
        return bits + (32 / group if isinstance(group, int) and group > 0 else 0)  # a scale and a bias of 16 bits each
    return 32.0 if "float32" in (values.get("torch_dtype"), values.get("dtype")) else 16.0


def shape(path: Path, wanted: Format = "any", *, bits: int | None = None) -> Shape:
    """Of a checkpoint's directory or its one file, once it has been prepared as `wanted`.

    A GGUF that is to become a Hugging Face directory is dequantized, so it is its numbers that count, not its bytes.
    For MLX each type has a form of its own, and `bits` asks for another (`quantize` of the file).
    """
    if path.is_file():
        return _of_gguf(path, wanted, bits)
    tensors = [each for file in sorted(path.rglob("*.safetensors")) for each in stored(read_table(file))]
    return measure(_document(path / "config.json"), tensors)


def stored(table: Mapping[str, Any]) -> Iterable[Stored]:
    """The tensors of a safetensors header."""
    for name, entry in table.items():
        if name != "__metadata__":
            start, end = entry["data_offsets"]
            yield Stored(name, str(entry["dtype"]), tuple(entry["shape"]), int(end) - int(start))


def measure(config: Mapping[str, Any], tensors: Iterable[Stored], *, dequantized: bool = False) -> Shape:
    """The shape of a checkpoint with this config.json and these tensors."""
    numbers = Numbers(config)
    tied = bool(config.get("tie_word_embeddings") or numbers.text.get("tie_word_embeddings"))
    weights = floats = edges = 0
    for tensor in tensors:
        if tied and tensor.name.endswith("lm_head.weight"):
            continue  # the embeddings once more; engines load one of the two
        if dequantized or tensor.kind in _FLOATS:
            floats += prod(tensor.shape)
            weights += prod(tensor.shape) * _BYTES_PER_FLOAT
        else:
            weights += tensor.size
        if tensor.matrix_of_a_layer:
            edges += sum(tensor.shape)
    return Shape(
        weights,
        layer_caches(numbers),
        floats=floats,
        context=numbers.context,
        width=token_width(numbers),
        vocabulary=numbers.count("vocab_size") or 0,
        edges=edges,
        state=layer_state(numbers, min(numbers.layers or 0, MOST_LAYERS)),
        bits=_bits(config),
    )


def _of_gguf(path: Path, wanted: Format, bits: int | None) -> Shape:
    try:
        header = read_header(path, vocabulary=False)
    except (Refused, OSError):
        return Shape(path.stat().st_size)  # its conversion will say what is wrong with it
    tensors = [Stored(each.name, each.type, each.shape, each.size) for each in header.tensors.values()]
    encoder = header.metadata.get("general.architecture") in ENCODERS  # which stays in floats, whoever serves it
    if wanted == "mlx" and not encoder:
        tensors = [_converted(each, bits) for each in tensors]
    return measure(as_config(header.metadata, header.tensors), tensors, dequantized=encoder or wanted == "hf")


def _converted(tensor: Stored, wanted: int | None) -> Stored:
    """As MLX holds it: packed, with a scale and a bias of 16 bits each for every group."""
    bits = mlx_bits(tensor.kind, tensor.shape, wanted)
    if bits is None:
        return replace(tensor, kind="F16", size=prod(tensor.shape) * _BYTES_PER_FLOAT)
    return replace(tensor, kind="U32", size=prod(tensor.shape) * (bits + 32 // GROUP) // 8)


def _document(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}
