"""What a checkpoint will take in memory, from its own files and without loading any of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from appliance.engines.driver import Shape

_WEIGHTS = frozenset({".safetensors", ".gguf"})
_BYTES_PER_VALUE = 2  # bfloat16 and float16, what vLLM keeps keys and values in unless told otherwise


def shape(path: Path) -> Shape:
    """Of a checkpoint's directory or its one file."""
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.suffix in _WEIGHTS]
    weights = sum(file.stat().st_size for file in files)
    config = _config(path / "config.json")
    context = config.get("max_position_embeddings")
    longest = context if isinstance(context, int) else None
    return Shape(weights, _cache_per_token(config), longest, _bits(config))


def _bits(values: dict[str, Any]) -> float:
    """Of one weight, as MLX's `quantization` or the type of the whole checkpoint says."""
    quantization = values.get("quantization")
    if isinstance(quantization, dict) and isinstance(bits := quantization.get("bits"), int):
        group = quantization.get("group_size")
        return bits + (32 / group if isinstance(group, int) and group > 0 else 0)  # a scale and a bias of 16 bits each
    return 32.0 if "float32" in (values.get("torch_dtype"), values.get("dtype")) else 16.0


def _config(path: Path) -> dict[str, Any]:
    """The language model's part of a Hugging Face config; empty where there is none."""
    try:
        values = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    values = values.get("text_config", values) if isinstance(values, dict) else {}
    return values if isinstance(values, dict) else {}


def _cache_per_token(values: dict[str, Any]) -> int | None:
    """2 (keys and values) x layers x key-value heads x head size x bytes, as Hugging Face configs name them."""
    heads, layers, hidden = (values.get(name) for name in ("num_attention_heads", "num_hidden_layers", "hidden_size"))
    if not (isinstance(heads, int) and isinstance(layers, int) and isinstance(hidden, int) and heads > 0):
        return None
    head_size = values.get("head_dim") or hidden // heads
    return int(2 * layers * (values.get("num_key_value_heads") or heads) * head_size * _BYTES_PER_VALUE)
