"""BERT-like encoders: read whole, in both directions, with nothing to keep between steps. mlx-lm has none of them.

After Devlin et al., 2018 (BERT), Liu et al., 2019 (RoBERTa) and Conneau et al., 2019 (XLM-R): word, position and type
embeddings, then layers of attention and two products, each with its norm behind it. Weights have the names that
transformers gives them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from .device import mlx
from .lora import Rows
from .trace import Unsupported

KINDS = ("bert", "roberta", "xlm-roberta", "camembert")
_PREFIXES = ("bert.", "roberta.", "model.")
_UNUSED = ("pooler.", "cls.", "lm_head.", "classifier.", "embeddings.position_ids")
"""Heads for other tasks: sentence embeddings are made of the last layer."""
_MODULES = ("Transformer", "Pooling", "Normalize")


def is_encoder(path: Path) -> bool:
    return bool(_json(path / "config.json").get("model_type") in KINDS)


class Encoder:
    """What the runner takes for a model; `hidden` is all that it does.

    `weights` are by transformers' names, matrices as (outputs, inputs).
    """

    caches: tuple[()] = ()
    module = None
    """No layer that adapters could be put on."""

    def __init__(self, config: Mapping[str, Any], weights: dict[str, Any]) -> None:
        self.kind = str(config["model_type"])
        self.rows = Rows()
        self._weights = weights
        self._layers = int(config["num_hidden_layers"])
        self._heads = int(config["num_attention_heads"])
        self._epsilon = float(config.get("layer_norm_eps", 1e-12))
        # RoBERTa counts positions from behind the one that stands for padding.
        self._first = 0 if self.kind == "bert" else int(config.get("pad_token_id", 1)) + 1
        self._activate = _activation(self.kind, config)

    @property
    def longest(self) -> int:
        """Tokens that it has positions for."""
        return int(self._weights["embeddings.position_embeddings.weight"].shape[0]) - self._first

    @property
    def bytes(self) -> int:
        return sum(array.nbytes for array in self._weights.values())

    def hidden(self, tokens: Any, lengths: Sequence[int]) -> Any:
        """(tokens,), which are whole sequences of these lengths one behind the other, to (tokens, hidden size)."""
        mx = mlx()
        positions = mx.concatenate([mx.arange(length, dtype=mx.int32) for length in lengths]) + self._first
        state = self._embedding("word", tokens) + self._embedding("position", positions)
        state = self._norm(state + self._embedding("token_type", mx.zeros_like(tokens)), "embeddings.LayerNorm")
        for layer in range(self._layers):
            name = f"encoder.layer.{layer}"
            attended = self._linear(self._attend(state, name, lengths), f"{name}.attention.output.dense")
            state = self._norm(state + attended, f"{name}.attention.output.LayerNorm")
            wide = self._activate(self._linear(state, f"{name}.intermediate.dense"))
            state = self._norm(state + self._linear(wide, f"{name}.output.dense"), f"{name}.output.LayerNorm")
        return state

    def drop(self) -> None:
        """Refer to no array any more."""
        self._weights = {}

    def _attend(self, state: Any, name: str, lengths: Sequence[int]) -> Any:
        """Each sequence to itself alone."""
        mx = mlx()
        size = state.shape[-1] // self._heads
        queries, keys, values = (  # each of (heads, tokens, size)
            self._linear(state, f"{name}.attention.self.{part}").reshape(-1, self._heads, size).swapaxes(0, 1)
            for part in ("query", "key", "value")
        )
        parts, start = [], 0
        for length in lengths:
            rows = slice(start, start + length)
            own = (each[None, :, rows] for each in (queries, keys, values))
            parts.append(mx.fast.scaled_dot_product_attention(*own, scale=size**-0.5)[0])
            start += length
        return mx.concatenate(parts, axis=1).swapaxes(0, 1).reshape(state.shape)

    def _embedding(self, name: str, indices: Any) -> Any:
        return self._weights[f"embeddings.{name}_embeddings.weight"][indices]

    def _linear(self, state: Any, name: str) -> Any:
        return mlx().addmm(self._weights[f"{name}.bias"], state, self._weights[f"{name}.weight"].T)

    def _norm(self, state: Any, name: str) -> Any:
        return mlx().fast.layer_norm(
            state, self._weights[f"{name}.weight"], self._weights[f"{name}.bias"], self._epsilon
        )


def load_encoder(path: Path, dtype: str, changes: Mapping[str, Any] | None = None) -> Encoder:
    """`changes` go before the checkpoint's own configuration. Raises Unsupported for something that is not here."""
    mx = mlx()
    config = {**_json(path / "config.json"), **(changes or {})}
    kind = config["model_type"]
    if config.get("position_embedding_type", "absolute") != "absolute":
        raise Unsupported(f"`{kind}` with positions of the kind `{config['position_embedding_type']}`")
    if other := [module for module in _modules(path) if module not in _MODULES]:
        raise Unsupported(f"`{kind}` with a sentence-transformers module of the kind `{other[0]}`")
    weights: dict[str, Any] = {}
    for file in sorted(path.glob("*.safetensors")):
        weights |= {_renamed(name): value.astype(getattr(mx, dtype)) for name, value in mx.load(str(file)).items()}
    encoder = Encoder(config, {name: value for name, value in weights.items() if not name.startswith(_UNUSED)})
    _trace(encoder)
    mx.eval(list(weights.values()))
    return encoder


def _trace(encoder: Encoder) -> None:
    """One lazy forward pass: nothing is computed, and a weight that is missing or of another shape is seen."""
    mx = mlx()
    try:
        encoder.hidden(mx.zeros((3,), dtype=mx.int32), [1, 2])
    except (KeyError, ValueError) as error:
        raise Unsupported(f"`{encoder.kind}`: its weights are not those of a BERT-like encoder: {error}") from error


def _renamed(name: str) -> str:
    """Without the prefix of the model that it was trained in; norms had other names once."""
    for prefix in _PREFIXES:
        name = name.removeprefix(prefix)
    return name.replace("LayerNorm.gamma", "LayerNorm.weight").replace("LayerNorm.beta", "LayerNorm.bias")


def _activation(kind: str, config: Mapping[str, Any]) -> Callable[[Any], Any]:
    from mlx import nn

    known: dict[str, Callable[[Any], Any]] = {
        "gelu": nn.gelu,
        "relu": nn.relu,
        "gelu_new": nn.gelu_approx,
        "gelu_pytorch_tanh": nn.gelu_approx,
    }
    name = config.get("hidden_act", "gelu")
    if name not in known:
        raise Unsupported(f"`{kind}` with the activation `{name}`")
    return known[name]


def _modules(path: Path) -> Iterator[str]:
    """What sentence-transformers would send a text through, by the last word of each name."""
    file = path / "modules.json"
    for module in json.loads(file.read_text(encoding="utf-8")) if file.exists() else ():
        yield str(module["type"]).rpartition(".")[2]


def _json(path: Path) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return value
