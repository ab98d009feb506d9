"""What an architecture keeps of each token, from the numbers of a Hugging Face config.json."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from appliance.engines.driver import LayerCache
from appliance.models.recurrence import Keeps, kept

# The names of one number across the families; the first that is there counts.
_SPELLINGS: Mapping[str, tuple[str, ...]] = {
    "layers": ("num_hidden_layers", "n_layer", "n_layers", "num_layers"),
    "hidden": ("hidden_size", "n_embd", "d_model", "model_dim"),
    "heads": ("num_attention_heads", "n_head", "n_heads"),
    "kv_heads": ("num_key_value_heads", "num_kv_heads", "n_head_kv", "multi_query_group_num"),
    "intermediate": ("intermediate_size", "n_inner", "ffn_dim", "ffn_hidden_size"),
    "context": ("max_position_embeddings", "n_positions", "seq_length", "max_seq_len", "n_ctx"),
}
MOST_LAYERS = 4096
"""Far above what any model has: a damaged file must not make us count to 4 billion."""
_ENCODERS = ("ForMaskedLM", "BertModel", "RobertaModel", "XLMRobertaModel", "MPNetModel", "NomicBertModel")
_FAR_FIRST = {"gemma3": 6, "gemma3_text": 6, "gemma2": 2}
"""Families whose every n-th layer sees the whole context, where their config leaves n out."""


class Numbers:
    """A config.json by the field's own names for things; a multimodal one is read where its text part is."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        text = next((config[key] for key in ("text_config", "llm_config") if isinstance(config.get(key), dict)), config)
        self.whole = config
        self.text: Mapping[str, Any] = text

    def count(self, name: str) -> int | None:
        """A whole number above zero, or None."""
        for spelling in _SPELLINGS.get(name, (name,)):
            value = self.text.get(spelling)
            if type(value) is int and value > 0:
                return value
        return None

    @property
    def layers(self) -> int | None:
        """Nemotron-H's newer configs have the list of them alone."""
        listed = self.text.get("layers_block_type")
        return self.count("layers") or (len(listed) if isinstance(listed, list) else None)

    @property
    def context(self) -> int | None:
        return self.count("context")

    @property
    def head_dim(self) -> int | None:
        """The file's own, which need not be the hidden size divided among the heads."""
        hidden, heads = self.count("hidden"), self.count("heads")
        return self.count("head_dim") or (hidden // heads if hidden and heads else None)

    @property
    def encoder(self) -> bool:
        """Whether it reads a text all at once and writes none, keeping nothing from token to token."""
        named = self.whole.get("architectures")
        names = [str(each) for each in named] if isinstance(named, list) else []
        return any(name.endswith(_ENCODERS) or "Bert" in name for name in names) and not self.text.get("is_decoder")


def layer_caches(numbers: Numbers) -> tuple[LayerCache, ...] | None:
    """The layers that keep something, alike ones together. None where the config does not say.

    (1) Encoders keep nothing, and what has no attention keeps states alone. (2) Latent attention keeps one compressed
    vector and one rotated key, for all heads together. (3) Otherwise keys and values of each key-value head, (4) in the
    layers that have attention at all and do not borrow another layer's.
    """
    if numbers.encoder:  # (1)
        return ()
    layers = numbers.layers
    if layers is None or layers > MOST_LAYERS:
        return None
    if not any(Keeps.TOKENS in each for each in kept(numbers, layers)):
        return ()
    if latent := numbers.count("kv_lora_rank"):  # (2)
        return (LayerCache(layers, latent + (numbers.count("qk_rope_head_dim") or 0)),)
    values = _values(numbers)  # (3)
    if values is None:
        return None
    windows = _windows(numbers, layers)[: layers - (numbers.count("num_kv_shared_layers") or 0)]  # (4)
    counts = Counter(window for window in windows if window != 0)
    return tuple(LayerCache(count, values, window) for window, count in counts.items())


def _values(numbers: Numbers) -> int | None:
    heads, head_dim = numbers.count("heads"), numbers.head_dim
    if heads is None or head_dim is None:
        return None
    kv_heads = 1 if numbers.text.get("multi_query") is True else numbers.count("kv_heads") or heads
    return kv_heads * (head_dim + (numbers.count("v_head_dim") or head_dim))


def _windows(numbers: Numbers, layers: int) -> list[int | None]:
    """Of each layer: its window in tokens, None for the whole context, 0 for no attention."""
    window = numbers.count("sliding_window") if numbers.text.get("use_sliding_window") is not False else None
    types = numbers.text.get("layer_types")
    if isinstance(types, list) and len(types) == layers:
        attends = [Keeps.TOKENS in each for each in kept(numbers, layers)]
        near = [window if each == "sliding_attention" else None for each in types]
        return [each if attending else 0 for attending, each in zip(attends, near, strict=True)]
    if window is None:
        return [None if Keeps.TOKENS in each else 0 for each in kept(numbers, layers)]
    family = str(numbers.text.get("model_type"))
    every = numbers.count("sliding_window_pattern") or _FAR_FIRST.get(family)
    if every:
        return [window if (layer + 1) % every else None for layer in range(layers)]
    if family.startswith("qwen2"):
        near = numbers.text.get("max_window_layers", layers)  # the layers below it see everything
        return [None if layer < near else window for layer in range(layers)]
    return [window] * layers


def token_width(numbers: Numbers) -> int:
    """Numbers that one token takes up in the widest layer: residual and normalised vector, queries, keys, both halves
    of the feed-forward and its product."""
    hidden, heads, head_dim = numbers.count("hidden") or 0, numbers.count("heads") or 0, numbers.head_dim or 0
    intermediate = numbers.count("intermediate") or 4 * hidden
    return 2 * hidden + max(heads * head_dim + (_values(numbers) or 0), 3 * intermediate)
