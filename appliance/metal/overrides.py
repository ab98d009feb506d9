"""`hf_overrides`: what the file changes of a checkpoint's own config.json, for MLX's model as for vLLM."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

_VLLMS = frozenset({"architectures", "is_matryoshka", "matryoshka_dimensions", "max_position_embeddings"})
"""What vLLM alone goes by: which tasks a model has, how a vector may be cut, how long a context may be."""


def merged(config: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """The overridden keys with their values: a part of the model's (`text_config`) key by key, all else as a whole."""
    return {
        key: {**config[key], **value} if key.endswith("_config") and isinstance(config.get(key), dict) else value
        for key, value in overrides.items()
    }


def unknown(overrides: Mapping[str, Any], arguments: Any) -> list[str]:
    """Those that mlx-lm's definition would leave out without a word. `arguments` are what it was made with, or None
    where it does not tell: then nobody can say that it heeds any."""
    known = set() if arguments is None else set(inspect.signature(type(arguments)).parameters)
    return sorted(overrides.keys() - known - _VLLMS)
