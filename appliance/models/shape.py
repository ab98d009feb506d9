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
    return Shape(weights, _cache_per_token(path / "config.json"))


def _cache_per_token(config: Path) -> int | None:
    """2 (keys and values) x layers x key-value heads x head size x bytes, as Hugging Face configs name them."""
    try:
        values: dict[str, Any] = json.loads(config.read_bytes())
    except (OSError, ValueError):
        return None
    values = values.get("text_config", values)
    heads, layers, hidden = (values.get(name) for name in ("num_attention_heads", "num_hidden_layers", "hidden_size"))
    if not (isinstance(heads, int) and isinstance(layers, int) and isinstance(hidden, int) and heads > 0):
        return None
    head_size = values.get("head_dim") or hidden // heads
    return int(2 * layers * (values.get("num_key_value_heads") or heads) * head_size * _BYTES_PER_VALUE)
