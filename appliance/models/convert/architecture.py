"""From a GGUF's metadata to config.json, and from its tensor names to the checkpoint's."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from .gguf_file import Header
from .keys import Keys, short
from .refused import damaged, unsupported

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
    "attn_qkv": "self_attn.qkv_proj",
    "attn_output": "self_attn.o_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
ENCODERS = ("bert", "nomic-bert")
"""The architectures that encoder.py reads."""

ROPE_FACTORS = "rope_freqs.weight"
LONG_FACTORS, SHORT_FACTORS = "rope_factors_long.weight", "rope_factors_short.weight"
_BESIDE = {ROPE_FACTORS, LONG_FACTORS, SHORT_FACTORS}


@dataclass(frozen=True, slots=True)
class Family:
    """What the tensors and the configuration of one family have of their own.

    `permuted`: llama.cpp has interleaved the rows of queries and keys, because ggml rotates neighbouring pairs where
    transformers rotates halves of a head. `norm_offset`: what it has added to every norm's weight.
    """

    model_class: str
    model_type: str
    activation: str = "silu"
    permuted: bool = False
    fused: bool = False
    norm_offset: float = 0.0
    names: dict[str, str] = field(default_factory=dict)


FAMILIES = {
    # Mistral's models are `llama` in a GGUF, too: llama.cpp tells them apart by their numbers alone.
    "llama": Family("LlamaForCausalLM", "llama", permuted=True),
    "qwen2": Family("Qwen2ForCausalLM", "qwen2"),
    "qwen3": Family("Qwen3ForCausalLM", "qwen3"),
    "phi3": Family("Phi3ForCausalLM", "phi3", fused=True, names={"ffn_up": "mlp.gate_up_proj"}),
    "gemma3": Family(
        "Gemma3ForCausalLM",
        "gemma3_text",
        activation="gelu_pytorch_tanh",
        norm_offset=1.0,
        names={
            "post_attention_norm": "post_attention_layernorm",
            "ffn_norm": "pre_feedforward_layernorm",
            "post_ffw_norm": "post_feedforward_layernorm",
        },
    ),
}
DECODERS = tuple(FAMILIES)
"""What `general.architecture` of a language model may be."""

_GEMMA3_PATTERN = 6
_GEMMA3_27B_LAYERS = 62
_GEMMA3_LOCAL_ROPE = 10_000.0


@dataclass(frozen=True, slots=True)
class Architecture:
    """The numbers that shape a decoder-only model."""

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
    rotated: int
    window: int | None
    trained_context: int

    @property
    def family(self) -> Family:
        return FAMILIES[self.name]

    def float_type(self, _kind: str) -> str:
        """bfloat16: what vLLM's CPU engine computes in, and the range that these models were trained in.

        float16 would keep three more bits of each weight, but its activations overflow where bfloat16's do not, and
        the rounding (2^-9 of a value) is small beside a 4-bit step (2^-4 of a block's range).
        """
        return "BF16"

    def config(self, dtype: str) -> dict[str, Any]:
        """config.json, in the spelling that transformers 4 and 5, vLLM and mlx-lm all read."""
        config: dict[str, Any] = {
            "architectures": [self.family.model_class],
            "model_type": self.family.model_type,
            "hidden_act": self.family.activation,
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
        return config | self._own_settings()

    def _own_settings(self) -> dict[str, Any]:
        match self.name:
            case "llama":
                return {"attention_bias": self.biased, "mlp_bias": False}
            case "qwen3":
                return {"attention_bias": False}
            case "phi3":
                return {
                    "original_max_position_embeddings": self.trained_context,
                    "pad_token_id": None,  # else transformers assumes Phi 3's own, whatever the vocabulary's size
                    "partial_rotary_factor": self.rotated / self.head_dim,
                    "sliding_window": self.window,
                }
            case "gemma3":
                # llama.cpp keeps no such key and tells the one exception by its number of layers, as here.
                wide = self.layers == _GEMMA3_27B_LAYERS
                return {
                    "hidden_activation": self.family.activation,
                    "query_pre_attn_scalar": self.hidden // self.heads if wide else self.head_dim,
                    "rope_local_base_freq": _GEMMA3_LOCAL_ROPE,
                    "sliding_window": self.window,
                    "sliding_window_pattern": _GEMMA3_PATTERN,
                    "layer_types": [
                        "full_attention" if (layer + 1) % _GEMMA3_PATTERN == 0 else "sliding_attention"
                        for layer in range(self.layers)
                    ],
                }
        return {}

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Every tensor of the checkpoint by its GGUF name, with the shape it must have."""
        shapes: dict[str, tuple[int, ...]] = {"token_embd.weight": (self.vocabulary, self.hidden)}
        for layer in range(self.layers):
            shapes |= {f"blk.{layer}.{name}": shape for name, shape in self._layer().items()}
        shapes["output_norm.weight"] = (self.hidden,)
        if not self.tied:
            shapes["output.weight"] = (self.vocabulary, self.hidden)
        return shapes

    def _layer(self) -> dict[str, tuple[int, ...]]:
        queries, keys = self.heads * self.head_dim, self.kv_heads * self.head_dim
        layer: dict[str, tuple[int, ...]] = {
            "attn_norm.weight": (self.hidden,),
            "attn_output.weight": (self.hidden, queries),
            "ffn_norm.weight": (self.hidden,),
            "ffn_down.weight": (self.hidden, self.intermediate),
        }
        if self.family.fused:
            layer["attn_qkv.weight"] = (queries + 2 * keys, self.hidden)
            layer["ffn_up.weight"] = (2 * self.intermediate, self.hidden)
            return layer
        layer |= {
            "attn_q.weight": (queries, self.hidden),
            "attn_k.weight": (keys, self.hidden),
            "attn_v.weight": (keys, self.hidden),
            "ffn_gate.weight": (self.intermediate, self.hidden),
            "ffn_up.weight": (self.intermediate, self.hidden),
        }
        if self.name in ("qwen3", "gemma3"):
            layer |= {"attn_q_norm.weight": (self.head_dim,), "attn_k_norm.weight": (self.head_dim,)}
        if self.name == "gemma3":
            layer |= {"post_attention_norm.weight": (self.hidden,), "post_ffw_norm.weight": (self.hidden,)}
        if self.biased:
            layer |= {"attn_q.bias": (queries,), "attn_k.bias": (keys,), "attn_v.bias": (keys,)}
            if self.name == "llama":
                layer |= {"attn_output.bias": (self.hidden,)}
        return layer

    def permuted_heads(self, name: str) -> int | None:
        """How many heads' rows of this tensor llama.cpp has interleaved; None where it left them alone."""
        if not self.family.permuted:
            return None
        return {"attn_q": self.heads, "attn_k": self.kv_heads}.get(name.split(".")[-2])

    def offset(self, name: str) -> float:
        """What llama.cpp has added to every number of this tensor."""
        return self.family.norm_offset if name.split(".")[-2].endswith("_norm") else 0.0

    def target_name(self, name: str) -> str:
        """`blk.3.attn_q.weight` as `model.layers.3.self_attn.q_proj.weight`."""
        return _OUTER.get(name) or target_name(self.name, name)


def target_name(family: str, name: str) -> str:
    """The name that a layer's tensor has in the checkpoint."""
    _, layer, part, kind = name.split(".")
    own = FAMILIES[family].names.get(part) or _LAYER.get(part)
    if own is None:
        raise unsupported(f"the tensor `{name[:80]}` is not supported in a GGUF file of architecture `{family}`")
    return f"model.layers.{layer}.{own}.{kind}"


def read_architecture(header: Header, *, rope_scaling: dict[str, Any] | None) -> Architecture:
    """The architecture of a GGUF file, with all its tensors checked against it."""
    name = header.metadata.get("general.architecture")
    if not isinstance(name, str) or name not in FAMILIES:
        raise unsupported(
            f"the architecture `{short(name)}` is not supported for GGUF files",
            hint=f"supported are {', '.join((*FAMILIES, *ENCODERS))}; for others use a Hugging Face checkpoint "
            "(`hf:org/name`)",
        )
    numbers = Keys(header.metadata, name)
    hidden, heads = numbers.count("embedding_length"), numbers.count("attention.head_count")
    embeddings = header.tensors.get("token_embd.weight")
    if embeddings is None:
        raise damaged("the tensor `token_embd.weight` is missing")
    head_dim = numbers.count("attention.key_length", max(hidden // heads, 1))
    if numbers.count("attention.value_length", head_dim) != head_dim:
        raise unsupported("attention whose values are wider or narrower than its keys is not supported")
    rotated = numbers.count("rope.dimension_count", head_dim)
    if rotated != head_dim and name != "phi3":
        raise unsupported("rotary embeddings over a part of each head are not supported")
    context = numbers.count("context_length")
    architecture = Architecture(
        name=name,
        layers=numbers.count("block_count"),
        hidden=hidden,
        intermediate=numbers.count("feed_forward_length"),
        heads=heads,
        kv_heads=numbers.count("attention.head_count_kv", heads),
        head_dim=head_dim,
        vocabulary=embeddings.shape[0],
        context=context,
        norm_epsilon=numbers.fraction("attention.layer_norm_rms_epsilon"),
        rope_base=numbers.fraction("rope.freq_base", 10_000.0),
        rope_scaling=rope_scaling,
        tied="output.weight" not in header.tensors,
        biased="blk.0.attn_q.bias" in header.tensors,
        rotated=rotated,
        window=numbers.window(),
        trained_context=numbers.count("rope.scaling.original_context_length", context),
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
    check_tensors(header, architecture.shapes(), _BESIDE)


def check_tensors(header: Header, expected: Mapping[str, tuple[int, ...]], beside: Collection[str] = ()) -> None:
    """Every tensor that is expected is there in its shape, and no other but those `beside`."""
    for name, shape in expected.items():
        tensor = header.tensors.get(name)
        if tensor is None:
            raise damaged(f"the tensor `{name}` is missing")
        if tensor.shape != shape:
            raise damaged(f"the tensor `{name}` has the shape {list(tensor.shape)}, expected {list(shape)}")
    if unknown := sorted(set(header.tensors) - set(expected) - set(beside)):
        what = (
            "mixtures of experts are" if any("_exps" in name for name in unknown) else f"the tensor `{unknown[0]}` is"
        )
        family = header.metadata["general.architecture"]
        raise unsupported(f"{what} not supported in a GGUF file of architecture `{family}`")
