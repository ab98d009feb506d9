"""A GGUF's metadata in the words of a config.json, for the numbers that memory depends on."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

_NAMES = {
    "num_hidden_layers": "block_count",
    "hidden_size": "embedding_length",
    "intermediate_size": "feed_forward_length",
    "num_attention_heads": "attention.head_count",
    "num_key_value_heads": "attention.head_count_kv",
    "head_dim": "attention.key_length",
    "v_head_dim": "attention.value_length",
    "sliding_window": "attention.sliding_window",
    "max_position_embeddings": "context_length",
    "vocab_size": "vocab_size",
    "kv_lora_rank": "attention.kv_lora_rank",
    "qk_rope_head_dim": "rope.dimension_count",
}


def as_config(metadata: Mapping[str, Any], tensors: Collection[str] = ()) -> dict[str, Any]:
    """Values may be text, as a registry's own summary of a GGUF has them. `tensors` are the names, where known."""
    family = str(metadata.get("general.architecture", ""))
    config: dict[str, Any] = {"model_type": family}
    for name, key in _NAMES.items():
        if (value := _whole(metadata.get(f"{family}.{key}"))) is not None:
            config[name] = value
    if tokens := metadata.get("tokenizer.ggml.tokens"):
        config["vocab_size"] = len(tokens)
    if family == "bert" or family.endswith("-bert"):
        config["architectures"] = ["BertModel"]
    if tensors:
        config["tie_word_embeddings"] = "output.weight" not in tensors
    return config


def _whole(value: Any) -> int | None:
    """The number, or a list's largest: some architectures give one for each layer."""
    if isinstance(value, list):
        numbers = [each for each in map(_whole, value) if each is not None]
        return max(numbers, default=None)
    if isinstance(value, str) and value.isascii() and value.isdigit():
        return int(value[:20])
    return value if type(value) is int else None
