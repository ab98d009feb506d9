"""Encoders written as GGUF files from real weights, as llama.cpp does it, and converted back.

Run by name under an engine environment's interpreter, as engine_checks.py is.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import gguf
import torch
from safetensors.torch import load_file
from transformers import AutoModel, AutoModelForSequenceClassification, AutoTokenizer

SPACE = "\u2581"
PAIRS = [("what is the capital", "paris is the capital of france"), ("what is the capital", "bread is baked")]
SENTENCES = ["the cat sat on the mat", "tokenizers are tested with texts", "a model of language, of a kind"]
BERT = {
    "embeddings.word_embeddings": "token_embd",
    "embeddings.position_embeddings": "position_embd",
    "embeddings.token_type_embeddings": "token_types",
    "embeddings.LayerNorm": "token_embd_norm",
    "attention.self.query": "attn_q",
    "attention.self.key": "attn_k",
    "attention.self.value": "attn_v",
    "attention.output.dense": "attn_output",
    "attention.output.LayerNorm": "attn_output_norm",
    "intermediate.dense": "ffn_up",
    "output.dense": "ffn_down",
    "output.LayerNorm": "layer_output_norm",
    "classifier.dense": "cls",
    "classifier.out_proj": "cls.output",
    "emb_ln": "token_embd_norm",
    "attn.Wqkv": "attn_qkv",
    "attn.out_proj": "attn_output",
    "norm1": "attn_output_norm",
    "mlp.fc11": "ffn_up",
    "mlp.fc12": "ffn_gate",
    "mlp.fc2": "ffn_down",
    "norm2": "layer_output_norm",
}


def several(calls: str) -> dict[str, Any]:
    """Many checks in one process, whose imports are most of the time."""
    return {name: globals()[name](*arguments) for name, *arguments in json.loads(calls)}


def read(texts: str) -> list[str]:
    found: list[str] = json.loads(Path(texts).read_bytes())
    return found


def gguf_name(name: str) -> str:
    """`encoder.layer.3.output.dense.weight` as `blk.3.ffn_down.weight`."""
    stem, _, kind = name.removeprefix("roberta.").rpartition(".")
    if stem.startswith("encoder.layer"):
        _, _, layer, part = stem.split(".", 3)
        return f"blk.{layer}.{BERT[part]}.{kind}"
    return f"{BERT[stem]}.{kind}"


def write(path: Path, weights: dict[str, torch.Tensor], config: Any, kind: str, pooling: int, **keys: Any) -> None:
    """The metadata of an encoder, its tensors (matrices as `kind`), and `keys` of `tokenizer.ggml`."""
    architecture = "nomic-bert" if any("Wqkv" in name for name in weights) else "bert"
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_layer_norm_eps(config.layer_norm_eps)
    writer.add_causal_attention(False)
    writer.add_pooling_type(gguf.PoolingType(pooling))
    if architecture == "nomic-bert":
        writer.add_rope_freq_base(1000.0)
    for key, value in keys.items():
        match value:
            case bool():
                writer.add_bool(f"tokenizer.ggml.{key}", value)
            case int():
                writer.add_uint32(f"tokenizer.ggml.{key}", value)
            case str():
                writer.add_string(f"tokenizer.ggml.{key}", value)
            case _:
                writer.add_array(f"tokenizer.ggml.{key}", value)
    type_ = gguf.GGMLQuantizationType[kind]
    for name, tensor in weights.items():
        values = tensor.float().numpy()
        if values.ndim == 2 and not name.startswith("embeddings.") and kind != "F32":
            writer.add_tensor(gguf_name(name), gguf.quants.quantize(values, type_), raw_dtype=type_)
        else:
            writer.add_tensor(gguf_name(name), values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def convert(script: str, file: Path) -> Path:
    out = file.with_suffix("")
    out.mkdir()
    subprocess.run([sys.executable, "-I", script, "--to", "hf", "--out", str(out), str(file)], check=True)
    return out


def wordpiece_keys(directory: str) -> dict[str, Any]:
    """A real BERT vocabulary in llama.cpp's spelling."""
    tokens = (Path(directory) / "vocab.txt").read_text(encoding="utf-8").splitlines()
    control = {"[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"}
    kinds = [3 if token in control else 1 for token in tokens]

    def phantom(token: str) -> str:
        return token if token in control else token[2:] if token.startswith("##") else SPACE + token

    named = {"unknown": "[UNK]", "seperator": "[SEP]", "padding": "[PAD]", "cls": "[CLS]", "mask": "[MASK]"}
    return {
        "model": "bert",
        "pre": "default",
        "tokens": [phantom(token) for token in tokens],
        "token_type": kinds,
        "token_type_count": 2,
        **{f"{part}_token_id": tokens.index(token) for part, token in named.items()},
    }


def minilm(script: str, texts: str, directory: str, scratch: str) -> dict[str, Any]:
    """The real embedding model there and back: its weights, its tokens, and its vectors."""
    original = AutoModel.from_pretrained(directory, dtype=torch.float32).eval()
    tokens = AutoTokenizer.from_pretrained(directory)
    weights = {name: value for name, value in original.state_dict().items() if not name.startswith("pooler")}
    vectors = mean(original, tokens)
    found: dict[str, Any] = {"cosine": {}}
    for kind in ("F32", "F16", "Q8_0"):
        file = Path(scratch) / f"{kind}.gguf"
        write(file, weights, original.config, kind, 1, **wordpiece_keys(directory))
        out = convert(script, file)
        model = AutoModel.from_pretrained(out, dtype=torch.float32).eval()
        found["cosine"][kind] = float((mean(model, AutoTokenizer.from_pretrained(out)) * vectors).sum(-1).min())
    table = load_file(Path(scratch) / "F32" / "model.safetensors")
    found["off"] = [name for name, value in weights.items() if not torch.equal(table[name], value)]
    return found | same_tokens(AutoTokenizer.from_pretrained(Path(scratch) / "F32"), tokens, texts)


def same_tokens(ours: Any, theirs: Any, given: str) -> dict[str, Any]:
    texts = [*read(given), "Ünïcode cafés, naïve FAÇADE!", "x" * 101, "[CLS] [MASK] [mask] ##ing"]
    fields = ("input_ids", "token_type_ids", "attention_mask")
    return {
        "texts": len(texts),
        "different": [text for text in texts if any(ours(text)[each] != theirs(text)[each] for each in fields)][:5],
        "pairs": all(ours(*pair)[each] == theirs(*pair)[each] for pair in PAIRS for each in fields),
        "special": [
            getattr(ours, each) == getattr(theirs, each)
            for each in ("unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
        ],
    }


def mean(model: Any, tokens: Any) -> torch.Tensor:
    batch = tokens(SENTENCES, padding=True, return_tensors="pt")
    with torch.no_grad():
        states = model(**batch).last_hidden_state
    mask = batch["attention_mask"].unsqueeze(-1)
    return torch.nn.functional.normalize((states * mask).sum(1) / mask.sum(1), dim=-1)


def xlm_roberta(script: str, texts: str, scratch: str) -> dict[str, Any]:
    """A tiny XLM-RoBERTa reranker of random weights, around a unigram model that SentencePiece itself has trained."""
    import io

    import sentencepiece
    from sentencepiece import sentencepiece_model_pb2
    from transformers import XLMRobertaConfig, XLMRobertaForSequenceClassification

    trained = io.BytesIO()
    lines = [text for text in read(texts)[:9] if text.strip()] * 3
    lines += [*SENTENCES, *(text for pair in PAIRS for text in pair)] * 20
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines), model_writer=trained, model_type="unigram", vocab_size=400,
        character_coverage=1.0, hard_vocab_limit=False, minloglevel=2,
    )  # fmt: skip
    program = sentencepiece.SentencePieceProcessor(model_proto=trained.getvalue())
    proto = sentencepiece_model_pb2.ModelProto.FromString(trained.getvalue())
    pieces = [program.IdToPiece(index) for index in range(3, program.GetPieceSize())]
    scores = [program.GetScore(index) for index in range(3, program.GetPieceSize())]
    keys = {
        "model": "t5",
        "pre": "default",
        "tokens": ["<s>", "<pad>", "</s>", "<unk>", *pieces, "[PAD0]", "<mask>"],
        "scores": [0.0] * 4 + scores + [-10000.0, 0.0],
        "token_type": [3, 3, 3, 2] + [1] * len(pieces) + [5, 3],
        "token_type_count": 1,
        "add_space_prefix": True,
        "remove_extra_whitespaces": proto.normalizer_spec.remove_extra_whitespaces,
        "precompiled_charsmap": proto.normalizer_spec.precompiled_charsmap,
        "bos_token_id": 0,
        "eos_token_id": 2,
        "unknown_token_id": 3,
        "seperator_token_id": 2,
        "padding_token_id": 1,
        "cls_token_id": 0,
        "mask_token_id": len(pieces) + 5,
        "add_bos_token": True,
        "add_eos_token": True,
    }
    torch.manual_seed(11)
    config = XLMRobertaConfig(
        vocab_size=len(pieces) + 6, hidden_size=64, num_hidden_layers=2, num_attention_heads=4, intermediate_size=96,
        max_position_embeddings=66 + 2, type_vocab_size=1, num_labels=1, pad_token_id=1, layer_norm_eps=1e-5,
        initializer_range=0.5,
    )  # fmt: skip
    model = XLMRobertaForSequenceClassification(config).eval()
    weights = {name: value for name, value in model.state_dict().items() if "position_ids" not in name}
    positions = "roberta.embeddings.position_embeddings.weight"
    weights[positions] = weights[positions][2:]
    file = Path(scratch) / "reranker.gguf"
    write(file, weights, config, "F32", 4, **keys)
    out = convert(script, file)
    ours, tokens = AutoModelForSequenceClassification.from_pretrained(out).eval(), AutoTokenizer.from_pretrained(out)
    tried = [
        *read(texts),
        *SENTENCES,
        "\uff21\ufb01 \u2460  half\u3000width \u00a0 tabs\tand\nlines ",
        "a  b",
        " lead",
    ]
    worse, alike = [], 0
    for text in tried:
        expected = [index + 1 if index else 3 for index in program.encode(text)]
        got = tokens(text, add_special_tokens=False).input_ids
        alike += got == expected
        # Of two ways to cut a text that score the same, either is right.
        if got != expected and sum(keys["scores"][each] for each in expected) - 1e-3 > sum(
            keys["scores"][each] for each in got
        ):
            worse.append([text, got, expected])
    pair = tokens(*PAIRS[0])
    one, two = (tokens(text, add_special_tokens=False).input_ids for text in PAIRS[0])
    batch = tokens([first for first, _ in PAIRS], [second for _, second in PAIRS], return_tensors="pt", padding=True)
    inputs = {name: value for name, value in batch.items() if name != "token_type_ids"}
    with torch.no_grad():
        gap = (ours(**batch).logits - model(**inputs).logits).abs().max()
        spread = model(**inputs).logits.std()
    return {
        "texts": len(tried),
        "worse": worse[:5],
        "alike": alike,
        "round": all(tokens.decode(tokens(each).input_ids, skip_special_tokens=True) == each for each in SENTENCES),
        "pair": pair.input_ids == [0, *one, 2, 2, *two, 2] and set(pair.get("token_type_ids", [0])) == {0},
        "gap": float(gap),
        "spread": float(spread),
    }


def ranker(minilm: str, file: str, query: str, documents: str) -> dict[str, Any]:
    """A cross-encoder, MiniLM under a head of random weights, written as a GGUF; and its own scores."""
    from transformers import BertForSequenceClassification

    torch.manual_seed(13)
    model = BertForSequenceClassification.from_pretrained(minilm, num_labels=1, dtype=torch.float32).eval()
    for layer in (model.bert.pooler.dense, model.classifier):
        torch.nn.init.normal_(layer.weight, std=0.2)
        torch.nn.init.normal_(layer.bias, std=0.2)
    names = {"bert.pooler.dense": "classifier.dense", "classifier": "classifier.out_proj"}
    weights = {}
    for name, value in model.state_dict().items():
        stem, _, kind = name.rpartition(".")
        weights[f"{names.get(stem, stem.removeprefix('bert.'))}.{kind}"] = value
    write(Path(file), weights, model.config, "F32", 4, **wordpiece_keys(minilm))
    texts = json.loads(documents)
    batch = AutoTokenizer.from_pretrained(minilm)([query] * len(texts), texts, padding=True, return_tensors="pt")
    with torch.no_grad():
        return {"scores": torch.sigmoid(model(**batch).logits[:, 0]).tolist()}


def nomic(script: str, _texts: str, minilm: str, scratch: str) -> dict[str, Any]:
    """A tiny Nomic BERT of random weights, by way of the names that it was published with."""
    from transformers import NomicBertConfig, NomicBertModel

    keys = wordpiece_keys(minilm)
    torch.manual_seed(12)
    config = NomicBertConfig(
        vocab_size=len(keys["tokens"]), hidden_size=128, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=96, max_position_embeddings=128, initializer_range=0.5,
    )  # fmt: skip
    model = NomicBertModel(config, add_pooling_layer=False).eval()
    weights = {}
    for name, value in model.state_dict().items():
        weights[published(name)] = value
    for layer in range(2):
        parts = [weights.pop(f"encoder.layers.{layer}.attn.{part}.weight") for part in ("q", "k", "v")]
        weights[f"encoder.layers.{layer}.attn.Wqkv.weight"] = torch.cat(parts)
    file = Path(scratch) / "nomic.gguf"
    write(file, weights, config, "F32", 1, **keys)
    out = convert(script, file)
    ours = AutoModel.from_pretrained(out, dtype=torch.float32).eval()
    batch = AutoTokenizer.from_pretrained(out)(SENTENCES, padding=True, return_tensors="pt")
    with torch.no_grad():
        gap = (ours(**batch).last_hidden_state - model(**batch).last_hidden_state).abs().max()
    return {"gap": float(gap), "class": type(ours).__name__}


def published(name: str) -> str:
    pairs = {
        "layers.": "encoder.layers.",
        "self_attn.o_proj": "attn.out_proj",
        "self_attn.q_proj": "attn.q",
        "self_attn.k_proj": "attn.k",
        "self_attn.v_proj": "attn.v",
        "mlp.up_proj": "mlp.fc11",
        "mlp.gate_proj": "mlp.fc12",
        "mlp.down_proj": "mlp.fc2",
        "post_attention_layernorm": "norm1",
        "post_mlp_layernorm": "norm2",
        "embeddings.LayerNorm": "emb_ln",
    }
    for ours, theirs in pairs.items():
        name = name.replace(ours, theirs)
    return name


if __name__ == "__main__":
    print(json.dumps(globals()[sys.argv[1]](*sys.argv[2:])))
