"""BERT-like encoders out of a GGUF: what reads a text all at once, for embeddings and for scores.

llama.cpp calls RoBERTa and XLM-RoBERTa `bert`, too, and cuts off the positions before the first that a text uses. What
is left counts from 0, as BERT does, so all of them become BERT.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .architecture import check_tensors
from .gguf_file import Header
from .keys import Keys, short
from .refused import damaged, unsupported

_NAMES = {
    "bert": {
        "token_embd": "embeddings.word_embeddings",
        "position_embd": "embeddings.position_embeddings",
        "token_types": "embeddings.token_type_embeddings",
        "token_embd_norm": "embeddings.LayerNorm",
        "attn_q": "attention.self.query",
        "attn_k": "attention.self.key",
        "attn_v": "attention.self.value",
        "attn_output": "attention.output.dense",
        "attn_output_norm": "attention.output.LayerNorm",
        "ffn_up": "intermediate.dense",
        "ffn_down": "output.dense",
        "layer_output_norm": "output.LayerNorm",
        "cls": "pooler.dense",
    },
    "nomic-bert": {
        "token_embd": "embeddings.word_embeddings",
        "token_types": "embeddings.token_type_embeddings",
        "token_embd_norm": "emb_ln",
        "attn_qkv": "attn.Wqkv",
        "attn_output": "attn.out_proj",
        "attn_output_norm": "norm1",
        "ffn_up": "mlp.fc11",
        "ffn_gate": "mlp.fc12",
        "ffn_down": "mlp.fc2",
        "layer_output_norm": "norm2",
    },
}
_LAYER = {"bert": "encoder.layer", "nomic-bert": "encoder.layers"}
_RANK = 4
"""`pooling_type` of a model that scores a pair of texts."""


@dataclass(frozen=True, slots=True)
class Encoder:
    """The numbers that shape an encoder. `scores` is how many it gives a text, 0 where it gives vectors."""

    name: str
    layers: int
    hidden: int
    intermediate: int
    heads: int
    vocabulary: int
    types: int
    positions: int
    norm_epsilon: float
    rope_base: float
    scores: int

    def float_type(self, kind: str) -> str:
        """As narrow as holds the file's numbers: vectors are compared with others, so no bit is given away."""
        return kind if kind in ("F32", "BF16") else "F16"

    def config(self, dtype: str) -> dict[str, Any]:
        """config.json, in the spelling that transformers and vLLM read."""
        config: dict[str, Any] = {
            "hidden_size": self.hidden,
            "intermediate_size": self.intermediate,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "vocab_size": self.vocabulary,
            "type_vocab_size": self.types,
            "max_position_embeddings": self.positions,
            "layer_norm_eps": self.norm_epsilon,
            "torch_dtype": dtype,
        }
        return config | (self._nomic() if self.name == "nomic-bert" else self._bert())

    def _bert(self) -> dict[str, Any]:
        model = "BertForSequenceClassification" if self.scores else "BertModel"
        labels = {"id2label": {str(index): f"LABEL_{index}" for index in range(self.scores)}} if self.scores else {}
        return {"architectures": [model], "model_type": "bert", "hidden_act": "gelu", **labels}

    def _nomic(self) -> dict[str, Any]:
        """transformers has names of its own for these, and vLLM wants those that the model was published with."""
        return {
            "architectures": ["NomicBertModel"],
            "model_type": "nomic_bert",
            "hidden_act": "silu",
            "activation_function": "swiglu",
            "n_embd": self.hidden,
            "n_inner": self.intermediate,
            "n_layer": self.layers,
            "n_head": self.heads,
            "n_positions": self.positions,
            "max_trained_positions": self.positions,
            "layer_norm_epsilon": self.norm_epsilon,
            "qkv_proj_bias": False,
            "mlp_fc1_bias": False,
            "mlp_fc2_bias": False,
            "rotary_emb_base": self.rope_base,
            "rotary_emb_fraction": 1.0,
            "rotary_emb_interleaved": False,
            "rotary_emb_scale_base": None,
            "rope_parameters": {"rope_type": "default", "rope_theta": self.rope_base},
        }

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Every tensor of the checkpoint by its GGUF name, with the shape it must have."""
        shapes: dict[str, tuple[int, ...]] = {
            "token_embd.weight": (self.vocabulary, self.hidden),
            "token_types.weight": (self.types, self.hidden),
            "token_embd_norm.weight": (self.hidden,),
            "token_embd_norm.bias": (self.hidden,),
        }
        if self.name == "bert":
            shapes["position_embd.weight"] = (self.positions, self.hidden)
        for layer in range(self.layers):
            shapes |= {f"blk.{layer}.{name}": shape for name, shape in self._layer().items()}
        if self.scores:
            shapes |= _linear("cls", self.hidden, self.hidden) | _linear("cls.output", self.scores, self.hidden)
        return shapes

    def _layer(self) -> dict[str, tuple[int, ...]]:
        norms = {
            f"{norm}.{kind}": (self.hidden,)
            for norm in ("attn_output_norm", "layer_output_norm")
            for kind in ("weight", "bias")
        }
        if self.name == "nomic-bert":
            return {
                "attn_qkv.weight": (3 * self.hidden, self.hidden),
                "attn_output.weight": (self.hidden, self.hidden),
                "ffn_up.weight": (self.intermediate, self.hidden),
                "ffn_gate.weight": (self.intermediate, self.hidden),
                "ffn_down.weight": (self.hidden, self.intermediate),
                **norms,
            }
        layer: dict[str, tuple[int, ...]] = {**norms}
        for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
            layer |= _linear(name, self.hidden, self.hidden)
        return (
            layer
            | _linear("ffn_up", self.intermediate, self.hidden)
            | _linear("ffn_down", self.hidden, self.intermediate)
        )

    def permuted_heads(self, _name: str) -> None:
        """llama.cpp leaves an encoder's rows alone."""

    def offset(self, _name: str) -> float:
        """And its numbers."""
        return 0.0

    def target_name(self, name: str) -> str:
        """`blk.3.attn_q.weight` as `encoder.layer.3.attention.self.query.weight`."""
        if name.startswith("cls.output."):
            return name.replace("cls.output", "classifier")
        prefix, names = "bert." if self.scores else "", _NAMES[self.name]
        if name.startswith("blk."):
            _, layer, part, kind = name.split(".")
            return f"{prefix}{_LAYER[self.name]}.{layer}.{names[part]}.{kind}"
        part, kind = name.split(".")
        return f"{prefix}{names[part]}.{kind}"


def _linear(name: str, rows: int, columns: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (rows, columns), f"{name}.bias": (rows,)}


def read_encoder(header: Header) -> Encoder:
    """The encoder of a GGUF file, with all its tensors checked against it."""
    name = str(header.metadata["general.architecture"])
    numbers = Keys(header.metadata, name)
    types = header.metadata.get("tokenizer.ggml.token_type_count", 2)
    if type(types) is not int or not 1 <= types <= 64:
        raise damaged(f"`tokenizer.ggml.token_type_count` is `{short(types)}`")
    encoder = Encoder(
        name=name,
        layers=numbers.count("block_count"),
        hidden=numbers.count("embedding_length"),
        intermediate=numbers.count("feed_forward_length"),
        heads=numbers.count("attention.head_count"),
        vocabulary=_rows(header, "token_embd.weight"),
        types=types,
        positions=_rows(header, "position_embd.weight") if name == "bert" else numbers.count("context_length"),
        norm_epsilon=numbers.fraction("attention.layer_norm_epsilon"),
        rope_base=numbers.fraction("rope.freq_base", 1000.0),
        scores=_scores(header, name),
    )
    if encoder.layers > len(header.tensors):
        raise damaged(f"`block_count` is {encoder.layers} but there are {len(header.tensors)} tensors")
    if encoder.hidden % encoder.heads:
        raise damaged(f"{encoder.heads} heads cannot share {encoder.hidden} numbers")
    check_tensors(header, encoder.shapes())
    return encoder


def _scores(header: Header, name: str) -> int:
    if header.metadata.get(f"{name}.pooling_type") != _RANK:
        return 0
    if "cls.weight" not in header.tensors or name != "bert":
        # Of BERT's own rerankers llama.cpp leaves the layer before the last out, and what is left scores differently.
        raise unsupported(
            "this file scores texts, and lacks the layer `cls` that its scores were trained with",
            hint="use the Hugging Face checkpoint (`hf:org/name`)",
        )
    return _rows(header, "cls.output.weight")


def _rows(header: Header, name: str) -> int:
    if name not in header.tensors:
        raise damaged(f"the tensor `{name}` is missing")
    return header.tensors[name].shape[0]
