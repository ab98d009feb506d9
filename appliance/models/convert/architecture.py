"""From a GGUF's metadata to config.json, and from its tensor names to the checkpoint's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .gguf_file import Header
from .refused import damaged, unsupported

_CLASSES = {"llama": "LlamaForCausalLM", "qwen2": "Qwen2ForCausalLM", "qwen3": "Qwen3ForCausalLM"}

_OUTER = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
}
_LAYER = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
ROPE_FACTORS = "rope_freqs.weight"


@dataclass(frozen=True, slots=True)
class Architecture:
    """The numbers that shape a decoder-only model of the llama family."""

    name: str
    layers: int
    hidden: int
    intermediate: int
    heads: int
    kv_heads: int
    head_dim: int
    vocabulary: int
    context: int
    norm_epsilon: float
    rope_base: float
    rope_scaling: dict[str, Any] | None
    tied: bool
    biased: bool

    def config(self, dtype: str) -> dict[str, Any]:
        """config.json, in the spelling that transformers 4 and 5, vLLM and mlx-lm all read."""
        config: dict[str, Any] = {
            "architectures": [_CLASSES[self.name]],
            "model_type": self.name,
            "hidden_act": "silu",
            "hidden_size": self.hidden,
            "intermediate_size": self.intermediate,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.kv_heads,
            "head_dim": self.head_dim,
            "vocab_size": self.vocabulary,
            "max_position_embeddings": self.context,
            "rms_norm_eps": self.norm_epsilon,
            "rope_theta": self.rope_base,
            "rope_scaling": self.rope_scaling,
            "tie_word_embeddings": self.tied,
            "torch_dtype": dtype,
        }
        if self.name == "llama":
            config |= {"attention_bias": self.biased, "mlp_bias": False}
        if self.name == "qwen3":
            config |= {"attention_bias": False}
        return config

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Every tensor of the checkpoint by its GGUF name, with the shape it must have."""
        queries, keys = self.heads * self.head_dim, self.kv_heads * self.head_dim
        shapes: dict[str, tuple[int, ...]] = {"token_embd.weight": (self.vocabulary, self.hidden)}
        for layer in range(self.layers):
            shapes |= {
                f"blk.{layer}.{name}": shape
                for name, shape in {
                    "attn_norm.weight": (self.hidden,),
                    "attn_q.weight": (queries, self.hidden),
                    "attn_k.weight": (keys, self.hidden),
                    "attn_v.weight": (keys, self.hidden),
                    "attn_output.weight": (self.hidden, queries),
                    "ffn_norm.weight": (self.hidden,),
                    "ffn_gate.weight": (self.intermediate, self.hidden),
                    "ffn_up.weight": (self.intermediate, self.hidden),
                    "ffn_down.weight": (self.hidden, self.intermediate),
                    **self._extras(queries, keys),
                }.items()
            }
        shapes["output_norm.weight"] = (self.hidden,)
        if not self.tied:
            shapes["output.weight"] = (self.vocabulary, self.hidden)
        return shapes

    def _extras(self, queries: int, keys: int) -> dict[str, tuple[int, ...]]:
        extras: dict[str, tuple[int, ...]] = {}
        if self.name == "qwen3":
            extras |= {"attn_q_norm.weight": (self.head_dim,), "attn_k_norm.weight": (self.head_dim,)}
        if self.biased:
            extras |= {"attn_q.bias": (queries,), "attn_k.bias": (keys,), "attn_v.bias": (keys,)}
            if self.name == "llama":
                extras |= {"attn_output.bias": (self.hidden,)}
        return extras

    def permuted_heads(self, name: str) -> int | None:
        """How many heads' rows of this tensor llama.cpp has interleaved; None where it left them alone.

        Its converter does so for `llama` only, because ggml rotates neighbouring pairs where transformers rotates
        halves of a head.
        """
        if self.name != "llama":
            return None
        return {"attn_q": self.heads, "attn_k": self.kv_heads}.get(name.split(".")[-2])


def target_name(name: str) -> str:
    """`blk.3.attn_q.weight` as `model.layers.3.self_attn.q_proj.weight`."""
    if name in _OUTER:
        return _OUTER[name]
    _, layer, part, kind = name.split(".")
    return f"model.layers.{layer}.{_LAYER[part]}.{kind}"


def read_architecture(header: Header, *, rope_scaling: dict[str, Any] | None) -> Architecture:
    """The architecture of a GGUF file, with all its tensors checked against it."""
    name = header.metadata.get("general.architecture")
    if not isinstance(name, str) or name not in _CLASSES:
        raise unsupported(
            f"the architecture `{_short(name)}` is not supported for GGUF files",
            hint=f"supported are {', '.join(_CLASSES)}; for others use a Hugging Face checkpoint (`hf:org/name`)",
        )
    numbers = _Numbers(header.metadata, name)
    hidden, heads = numbers.count("embedding_length"), numbers.count("attention.head_count")
    embeddings = header.tensors.get("token_embd.weight")
    if embeddings is None:
        raise damaged("the tensor `token_embd.weight` is missing")
    head_dim = numbers.count("attention.key_length", hidden // heads)
    if numbers.count("attention.value_length", head_dim) != head_dim:
        raise unsupported("attention whose values are wider or narrower than its keys is not supported")
    if numbers.count("rope.dimension_count", head_dim) != head_dim:
        raise unsupported("rotary embeddings over a part of each head are not supported")
    architecture = Architecture(
        name=name,
        layers=numbers.count("block_count"),
        hidden=hidden,
        intermediate=numbers.count("feed_forward_length"),
        heads=heads,
        kv_heads=numbers.count("attention.head_count_kv", heads),
        head_dim=head_dim,
        vocabulary=embeddings.shape[0],
        context=numbers.count("context_length"),
        norm_epsilon=numbers.fraction("attention.layer_norm_rms_epsilon"),
        rope_base=numbers.fraction("rope.freq_base", 10_000.0),
        rope_scaling=rope_scaling,
        tied="output.weight" not in header.tensors,
        biased="blk.0.attn_q.bias" in header.tensors,
    )
    _check(architecture, header)
    return architecture


def _check(architecture: Architecture, header: Header) -> None:
    if architecture.layers > len(header.tensors):
        raise damaged(f"`block_count` is {architecture.layers} but there are {len(header.tensors)} tensors")
    if architecture.heads % architecture.kv_heads or architecture.head_dim % 2:
        raise damaged(
            f"{architecture.heads} heads of {architecture.head_dim} cannot share {architecture.kv_heads} key heads"
        )
    expected = architecture.shapes()
    for name, shape in expected.items():
        tensor = header.tensors.get(name)
        if tensor is None:
            raise damaged(f"the tensor `{name}` is missing")
        if tensor.shape != shape:
            raise damaged(f"the tensor `{name}` has the shape {list(tensor.shape)}, expected {list(shape)}")
    if unknown := sorted(set(header.tensors) - set(expected) - {ROPE_FACTORS}):
        what = (
            "mixtures of experts are" if any("_exps" in name for name in unknown) else f"the tensor `{unknown[0]}` is"
        )
        raise unsupported(f"{what} not supported in a GGUF file of architecture `{architecture.name}`")


class _Numbers:
    """The keys below the architecture's own prefix."""

    def __init__(self, metadata: dict[str, Any], prefix: str) -> None:
        self._metadata = metadata
        self._prefix = prefix

    def count(self, key: str, default: int | None = None) -> int:
        value = self._metadata.get(f"{self._prefix}.{key}", default)
        if type(value) is not int or not 1 <= value < 2**31:
            raise damaged(f"`{self._prefix}.{key}` is `{_short(value)}`, expected a whole number above zero")
        return value

    def fraction(self, key: str, default: float | None = None) -> float:
        value = self._metadata.get(f"{self._prefix}.{key}", default)
        if not isinstance(value, float) or not 0 < value < 1e12:
            raise damaged(f"`{self._prefix}.{key}` is `{_short(value)}`, expected a number above zero")
        return float(f"{value:.7g}")  # what was written before float32 stretched it: 1e-05, not 9.999999747378752e-06


def _short(value: Any) -> str:
    return str(value)[:40]
