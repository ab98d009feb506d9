"""A LoRA adapter in a GGUF as PEFT writes one: the same matrices, rows of queries and keys put back in order.

An adapter's file has pairs of tensors, `blk.3.attn_q.weight.lora_a` of shape (rank, columns) and `….lora_b` of shape
(rows, rank), and says nothing of heads; those are the base model's.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from .architecture import FAMILIES, target_name
from .blocks import Raw, dequantize
from .gguf_file import Header, Tensor
from .keys import short
from .refused import damaged, unsupported
from .safetensors_file import Entry
from .weights import Piece, half_rotated

_NAME = re.compile(r"(blk\.\d{1,4}\.\w+)\.weight\.lora_([ab])")
LARGEST_RANK = 4096


@dataclass(frozen=True, slots=True)
class Heads:
    """Of the base model."""

    queries: int
    keys: int


def is_adapter(header: Header) -> bool:
    return header.metadata.get("general.type") == "adapter"


def adapter_files(header: Header, heads: Heads) -> tuple[list[Piece], dict[str, Any]]:
    """The tensors of adapter_model.safetensors, and adapter_config.json."""
    pairs = _pairs(header)
    family = header.metadata["general.architecture"]
    found = {pair["a"].shape[0] for pair in pairs.values()}
    if len(found) > 1:  # llama.cpp scales each by its own, vLLM all by one
        raise unsupported(f"an adapter with pairs of the ranks {sorted(found)[:8]} is not supported")
    pieces, modules = [], set()
    for name, pair in pairs.items():
        module = target_name(family, f"{name}.weight").removesuffix(".weight")
        modules.add(module.rpartition(".")[2])
        for part in ("a", "b"):
            order = _order(family, name, pair["b"], heads) if part == "b" else None
            entry = Entry(f"base_model.model.{module}.lora_{part.upper()}.weight", "F32", pair[part].shape)
            pieces.append(_piece(entry, pair[part], order))
    alpha = header.metadata.get("adapter.lora.alpha")
    if not isinstance(alpha, float) or not 0 < alpha < 1e6:
        raise damaged(f"`adapter.lora.alpha` is `{short(alpha)}`, expected a number above zero")
    return pieces, {
        "peft_type": "LORA",
        "r": found.pop(),
        "lora_alpha": int(alpha) if alpha.is_integer() else alpha,
        "target_modules": sorted(modules),
        "bias": "none",
        "task_type": "CAUSAL_LM",
    }


def _pairs(header: Header) -> dict[str, dict[str, Tensor]]:
    family, kind = header.metadata.get("general.architecture"), header.metadata.get("adapter.type")
    if kind != "lora":
        raise unsupported(f"an adapter of the type `{short(kind)}` is not supported")
    if not isinstance(family, str) or family not in FAMILIES:
        raise unsupported(f"an adapter for the architecture `{short(family)}` is not supported")
    pairs: dict[str, dict[str, Tensor]] = {}
    for name, tensor in header.tensors.items():
        match = _NAME.fullmatch(name)
        if match is None:
            raise unsupported(f"the tensor `{name[:80]}` of an adapter is not supported: only those of layers are")
        if len(tensor.shape) != 2:
            raise damaged(f"the tensor `{name}` has the shape {list(tensor.shape)}")
        pairs.setdefault(match[1], {})[match[2]] = tensor
    if not pairs:
        raise damaged("it is an adapter without tensors")
    for name, pair in pairs.items():
        if len(pair) != 2 or pair["a"].shape[0] != pair["b"].shape[1] or pair["a"].shape[0] > LARGEST_RANK:
            raise damaged(f"the tensors of `{name}` do not make up an adapter")
    return pairs


def _order(family: str, name: str, tensor: Tensor, heads: Heads) -> npt.NDArray[np.intp] | None:
    """Which of llama.cpp's rows each of PEFT's is; None where it has left them alone."""
    count = {"attn_q": heads.queries, "attn_k": heads.keys}.get(name.rpartition(".")[2])
    if not FAMILIES[family].permuted or count is None:
        return None
    rows = tensor.shape[0]
    if rows % (2 * count):
        raise damaged(f"the tensor `{tensor.name}` has {rows} rows for {count} heads of its base model")
    return half_rotated(rows, count)


def _piece(entry: Entry, tensor: Tensor, order: npt.NDArray[np.intp] | None) -> Piece:
    def chunks() -> Iterator[npt.NDArray[Any]]:
        raw: Raw = np.fromfile(tensor.file, dtype=np.uint8, count=tensor.size, offset=tensor.offset)
        values = dequantize(raw.reshape(tensor.shape[0], -1), tensor.type).astype("<f4")
        if not np.isfinite(values).all():
            raise damaged(f"the tensor `{tensor.name}` holds values that are not numbers")
        yield values if order is None else values[order]

    return Piece(entry, chunks)
