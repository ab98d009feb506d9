"""Small GGUF files, whole or broken, written by hand so that no library stands between a test and the bytes."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random
from typing import Any

HEADS, KV_HEADS, HEAD_DIM, HIDDEN, INTERMEDIATE, LAYERS = 4, 2, 16, 64, 96, 2

_BLOCKS = {"F32": (0, 1, 4), "F16": (1, 1, 2), "Q4_0": (2, 32, 18), "Q4_1": (3, 32, 20), "Q8_0": (8, 32, 34)}
_BLOCKS |= {"BF16": (30, 1, 2), "Q5_0": (6, 32, 22), "Q5_1": (7, 32, 24)}
_BLOCKS |= {"Q2_K": (10, 256, 84), "Q3_K": (11, 256, 110), "Q4_K": (12, 256, 144), "Q5_K": (13, 256, 176)}
_BLOCKS |= {"Q6_K": (14, 256, 210), "IQ4_NL": (20, 32, 18)}
_HALVES = {"Q4_0": (0,), "Q4_1": (0, 2), "Q8_0": (0,), "Q5_0": (0,), "Q5_1": (0, 2), "Q2_K": (80, 82), "Q3_K": (108,)}
_HALVES |= {"Q4_K": (0, 2), "Q5_K": (0, 2), "Q6_K": (208,), "IQ4_NL": (0,)}


@dataclass(frozen=True)
class Gguf:
    """Metadata and tensors; `tensors` maps a name to (type, shape in numpy's order). `given` are the bytes of some."""

    metadata: Mapping[str, Any]
    tensors: Mapping[str, tuple[str, tuple[int, ...]]] = field(default_factory=dict)
    seed: int = 0
    version: int = 3
    given: Mapping[str, bytes] = field(default_factory=dict)

    def with_metadata(self, **changes: Any) -> Gguf:
        named = {name.replace("__", "."): value for name, value in changes.items()}
        merged = {name: value for name, value in {**self.metadata, **named}.items() if value is not None}
        return replace(self, metadata=merged)

    def data_of(self, name: str) -> bytes:
        kind, shape = self.tensors[name]
        if name in self.given:
            return self.given[name]
        return _random(kind, shape, Random(f"{self.seed} {name}"))  # noqa: S311

    def encode(self) -> bytes:
        out = bytearray(struct.pack("<4sIQQ", b"GGUF", self.version, len(self.tensors), len(self.metadata)))
        for key, value in self.metadata.items():
            out += text(key) + _value(value)
        data = bytearray()
        for name, (kind, shape) in self.tensors.items():
            out += text(name) + struct.pack("<I", len(shape)) + struct.pack(f"<{len(shape)}Q", *reversed(shape))
            out += struct.pack("<IQ", _BLOCKS[kind][0], len(data))
            data += self.data_of(name)
            data += bytes(-len(data) % 32)
        out += bytes(-len(out) % 32)
        return bytes(out + data)

    def write(self, path: Path) -> Path:
        path.write_bytes(self.encode())
        return path

    def shards(self, directory: Path, count: int) -> Path:
        """The same in so many files, tensors dealt out in turn; the path of the first."""
        names = list(self.tensors)
        for number in range(count):
            own = {name: self.tensors[name] for name in names[number::count]}
            split = {"split.no": number, "split.count": count, "split.tensors.count": len(names)}
            metadata = {**self.metadata, **split} if number == 0 else split
            part = replace(self, metadata=metadata, tensors=own)
            part.write(directory / f"m-{number + 1:05d}-of-{count:05d}.gguf")
        return directory / f"m-00001-of-{count:05d}.gguf"


def text(value: str) -> bytes:
    encoded = value.encode()
    return struct.pack("<Q", len(encoded)) + encoded


def _value(value: Any) -> bytes:
    if isinstance(value, list):
        kind, body = _element(value[0])
        return struct.pack("<IIQ", 9, kind, len(value)) + body + b"".join(_element(each)[1] for each in value[1:])
    kind, body = _element(value)
    return struct.pack("<I", kind) + body


def _element(value: Any) -> tuple[int, bytes]:
    if isinstance(value, bool):
        return 7, struct.pack("<?", value)
    if isinstance(value, str):
        return 8, text(value)
    if isinstance(value, float):
        return 6, struct.pack("<f", value)
    return 4, struct.pack("<I", value)


def _random(kind: str, shape: Sequence[int], random: Random) -> bytes:
    """Random bytes whose floats are small and finite."""
    _, block, size = _BLOCKS[kind]
    count = 1
    for each in shape:
        count *= each
    if kind == "F32":
        return struct.pack(f"<{count}f", *(random.uniform(-1, 1) for _ in range(count)))
    if kind == "BF16":
        return b"".join(struct.pack("<f", random.uniform(-1, 1))[2:] for _ in range(count))
    if kind == "F16":
        return struct.pack(f"<{count}e", *(random.uniform(-1, 1) for _ in range(count)))
    data = bytearray(random.randbytes(count // block * size))
    for start in range(0, len(data), size):
        for at in _HALVES[kind]:
            data[start + at : start + at + 2] = struct.pack("<e", random.uniform(-0.1, 0.1))
    return bytes(data)


def byte_alphabet() -> list[str]:
    """GPT-2's printable stand-in for each byte, in the order of its vocabulary."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    return [chr(each) for each in plain] + [chr(256 + each) for each in range(256 - len(plain))]


def tiny(
    *, kind: str = "Q4_1", embeddings: str = "Q8_0", architecture: str = "llama", tied: bool = True, spm: bool = False
) -> Gguf:
    """A two-layer model whose 300-odd tokens are the bytes, a few merges and three control tokens."""
    space = chr(256 + 32)
    merged = ["th", "the", f"{space}t", f"{space}the", "in", "12"]
    merges = ["t h", "th e", f"{space} t", f"{space} the", "i n", "1 2"]
    tokens = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", *byte_alphabet(), *merged]
    metadata: dict[str, Any] = {
        "general.architecture": architecture,
        f"{architecture}.block_count": LAYERS,
        f"{architecture}.context_length": 256,
        f"{architecture}.embedding_length": HIDDEN,
        f"{architecture}.feed_forward_length": INTERMEDIATE,
        f"{architecture}.attention.head_count": HEADS,
        f"{architecture}.attention.head_count_kv": KV_HEADS,
        f"{architecture}.attention.layer_norm_rms_epsilon": 1e-5,
        f"{architecture}.rope.freq_base": 10000.0,
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "smollm",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [3, 3, 3] + [1] * (len(tokens) - 3),
        "tokenizer.ggml.merges": merges,
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.padding_token_id": 2,
        "tokenizer.ggml.add_bos_token": False,
        "tokenizer.chat_template": "{% for m in messages %}<|im_start|>{{ m.content }}<|im_end|>{% endfor %}",
    }
    if spm:
        metadata = {name: value for name, value in {**metadata, **sentencepiece()}.items() if value is not None}
        tokens = metadata["tokenizer.ggml.tokens"]
    tensors: dict[str, tuple[str, tuple[int, ...]]] = {"token_embd.weight": (embeddings, (len(tokens), HIDDEN))}
    for layer in range(LAYERS):
        tensors |= {f"blk.{layer}.{name}": value for name, value in _layer(kind, architecture).items()}
    tensors["output_norm.weight"] = ("F32", (HIDDEN,))
    if not tied:
        tensors["output.weight"] = (embeddings, (len(tokens), HIDDEN))
    return Gguf(metadata, tensors)


def sentencepiece() -> dict[str, Any]:
    """A SentencePiece vocabulary: three control tokens, the bytes, letters, and a few words with their scores."""
    words = ["\u2581t", "he", "\u2581the", "\u2581a", "in", "er", "\u2581th", "\u2581in", "the", "\u2581\u2581"]
    letters = [chr(each) for each in range(33, 127)] + ["\u2581", "\u00e9", "\u6f22"]
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{value:02X}>" for value in range(256)), *words, *letters, "<|user|>"]
    scores = [0.0] * 259 + [-float(rank) for rank in range(len(words) + len(letters))] + [0.0]
    return {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.pre": "default",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.scores": scores,
        "tokenizer.ggml.token_type": [2, 3, 3] + [6] * 256 + [1] * (len(words) + len(letters)) + [4],
        "tokenizer.ggml.merges": None,
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.unknown_token_id": 0,
        "tokenizer.ggml.padding_token_id": None,
        "tokenizer.ggml.add_bos_token": True,
    }


def wordpiece() -> dict[str, Any]:
    """BERT's vocabulary as llama.cpp has it: `▁` before what begins a word, nothing before what goes on."""
    begins = ["the", "capital", "is", "in", ".", "?", ",", *(chr(each) for each in range(97, 123))]
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[unused0]", *(f"\u2581{each}" for each in begins)]
    tokens += ["ing", "tal", *(chr(each) for each in range(97, 123))]
    return {
        "tokenizer.ggml.model": "bert",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [3] * 5 + [1] * (len(tokens) - 5),
        "tokenizer.ggml.token_type_count": 2,
        "tokenizer.ggml.unknown_token_id": 1,
        "tokenizer.ggml.seperator_token_id": 3,
        "tokenizer.ggml.padding_token_id": 0,
        "tokenizer.ggml.cls_token_id": 2,
        "tokenizer.ggml.mask_token_id": 4,
    }


def unigram() -> dict[str, Any]:
    """XLM-RoBERTa's kind: its control tokens first, a score for each piece, one filler; normalization of `A` alone."""
    words = ["\u2581the", "\u2581capital", "\u2581", "ing", *(chr(each) for each in range(97, 123))]
    tokens = ["<s>", "<pad>", "</s>", "<unk>", *words, "[PAD0]", "<mask>"]
    return {
        "tokenizer.ggml.model": "t5",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.scores": [0.0] * 4 + [-1.0 - rank for rank in range(len(words))] + [-10000.0, 0.0],
        "tokenizer.ggml.token_type": [3, 3, 3, 2] + [1] * len(words) + [5, 3],
        "tokenizer.ggml.token_type_count": 1,
        "tokenizer.ggml.precompiled_charsmap": list(charsmap({"A": "a"})),
        "tokenizer.ggml.bos_token_id": 0,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.padding_token_id": 1,
        "tokenizer.ggml.unknown_token_id": 3,
        "tokenizer.ggml.mask_token_id": len(tokens) - 1,
        "tokenizer.ggml.add_bos_token": True,
        "tokenizer.ggml.add_eos_token": True,
    }


def charsmap(replacements: Mapping[str, str]) -> bytes:
    """SentencePiece's compiled form of replacements of one ASCII character each: a double array and its texts."""
    units, texts = [0] * 512, b""
    units[0] = (256 >> 8) << 10 | 1 << 9  # the root's children lie from 256 on
    for index, (character, text_) in enumerate(replacements.items()):
        at, leaf = 256 ^ ord(character), 1 + index
        units[at] = (at ^ leaf) << 10 | 1 << 8 | ord(character)
        units[leaf] = 1 << 31 | len(texts)
        texts += text_.encode() + b"\0"
    return struct.pack("<I512I", 4 * len(units), *units) + texts


def tiny_encoder(*, architecture: str = "bert", kind: str = "Q8_0", spm: bool = False, scores: int = 0) -> Gguf:
    """A two-layer encoder; `scores` makes a reranker of it."""
    vocabulary = unigram() if spm else wordpiece()
    metadata: dict[str, Any] = {
        "general.architecture": architecture,
        f"{architecture}.block_count": LAYERS,
        f"{architecture}.context_length": 128,
        f"{architecture}.embedding_length": HIDDEN,
        f"{architecture}.feed_forward_length": INTERMEDIATE,
        f"{architecture}.attention.head_count": HEADS,
        f"{architecture}.attention.layer_norm_epsilon": 1e-12,
        f"{architecture}.attention.causal": False,
        f"{architecture}.pooling_type": 4 if scores else 1,
        **vocabulary,
    }
    types = vocabulary["tokenizer.ggml.token_type_count"]
    tensors: dict[str, tuple[str, tuple[int, ...]]] = {
        "token_embd.weight": (kind, (len(vocabulary["tokenizer.ggml.tokens"]), HIDDEN)),
        "token_types.weight": ("F32", (types, HIDDEN)),
        "token_embd_norm.weight": ("F32", (HIDDEN,)),
        "token_embd_norm.bias": ("F32", (HIDDEN,)),
    }
    if architecture == "bert":
        tensors["position_embd.weight"] = ("F32", (128, HIDDEN))
    for layer in range(LAYERS):
        tensors |= {f"blk.{layer}.{name}": value for name, value in _encoder_layer(kind, architecture).items()}
    if scores:
        tensors |= _linear("cls", kind, HIDDEN, HIDDEN) | _linear("cls.output", "F32", scores, HIDDEN)
    return Gguf(metadata, tensors)


def _encoder_layer(kind: str, architecture: str) -> dict[str, tuple[str, tuple[int, ...]]]:
    layer: dict[str, tuple[str, tuple[int, ...]]] = {}
    for name in ("attn_output_norm", "layer_output_norm"):
        layer |= {f"{name}.weight": ("F32", (HIDDEN,)), f"{name}.bias": ("F32", (HIDDEN,))}
    if architecture == "nomic-bert":
        return layer | {
            "attn_qkv.weight": (kind, (3 * HIDDEN, HIDDEN)),
            "attn_output.weight": (kind, (HIDDEN, HIDDEN)),
            "ffn_gate.weight": (kind, (INTERMEDIATE, HIDDEN)),
            "ffn_up.weight": (kind, (INTERMEDIATE, HIDDEN)),
            "ffn_down.weight": (kind, (HIDDEN, INTERMEDIATE)),
        }
    for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
        layer |= _linear(name, kind, HIDDEN, HIDDEN)
    return layer | _linear("ffn_up", kind, INTERMEDIATE, HIDDEN) | _linear("ffn_down", kind, HIDDEN, INTERMEDIATE)


def _linear(name: str, kind: str, rows: int, columns: int) -> dict[str, tuple[str, tuple[int, ...]]]:
    return {f"{name}.weight": (kind, (rows, columns)), f"{name}.bias": ("F32", (rows,))}


def tiny_adapter(*, rank: int = 4, architecture: str = "llama", kind: str = "F32") -> Gguf:
    """A LoRA adapter for `tiny`, as llama.cpp writes one."""
    metadata = {"general.architecture": architecture, "general.type": "adapter", "adapter.type": "lora"}
    tensors: dict[str, tuple[str, tuple[int, ...]]] = {}
    for layer in range(LAYERS):
        for name, rows in (("attn_q", HEADS * HEAD_DIM), ("attn_k", KV_HEADS * HEAD_DIM), ("ffn_up", INTERMEDIATE)):
            tensors[f"blk.{layer}.{name}.weight.lora_a"] = (kind, (rank, HIDDEN))
            tensors[f"blk.{layer}.{name}.weight.lora_b"] = (kind, (rows, rank))
    return Gguf({**metadata, "adapter.lora.alpha": 8.0}, tensors)


def _layer(kind: str, architecture: str) -> dict[str, tuple[str, tuple[int, ...]]]:
    queries, keys = HEADS * HEAD_DIM, KV_HEADS * HEAD_DIM
    layer: dict[str, tuple[str, tuple[int, ...]]] = {
        "attn_norm.weight": ("F32", (HIDDEN,)),
        "attn_q.weight": (kind, (queries, HIDDEN)),
        "attn_k.weight": (kind, (keys, HIDDEN)),
        "attn_v.weight": (kind, (keys, HIDDEN)),
        "attn_output.weight": (kind, (HIDDEN, queries)),
        "ffn_norm.weight": ("F32", (HIDDEN,)),
        "ffn_gate.weight": (kind, (INTERMEDIATE, HIDDEN)),
        "ffn_up.weight": (kind, (INTERMEDIATE, HIDDEN)),
        "ffn_down.weight": (kind, (HIDDEN, INTERMEDIATE)),
    }
    if architecture == "phi3":
        for name in ("attn_q", "attn_k", "attn_v", "ffn_gate"):
            del layer[f"{name}.weight"]
        layer |= {
            "attn_qkv.weight": (kind, (queries + 2 * keys, HIDDEN)),
            "ffn_up.weight": (kind, (2 * INTERMEDIATE, HIDDEN)),
        }
    if architecture == "gemma3":
        layer |= {"post_attention_norm.weight": ("F32", (HIDDEN,)), "post_ffw_norm.weight": ("F32", (HIDDEN,))}
    if architecture == "qwen2":
        layer |= {"attn_q.bias": ("F32", (queries,)), "attn_k.bias": ("F32", (keys,)), "attn_v.bias": ("F32", (keys,))}
    if architecture in ("qwen3", "gemma3"):
        layer |= {"attn_q_norm.weight": ("F32", (HEAD_DIM,)), "attn_k_norm.weight": ("F32", (HEAD_DIM,))}
    return layer
