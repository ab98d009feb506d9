"""A checkpoint of random weights in the shape of a known model, to measure with where no real one can be fetched.

    ENGINE_PYTHON -m benchmarks.random_checkpoint 8b OUT

Written a layer at a time in MLX's 4-bit format, so that a model of 8B parameters takes 5 GB of disk and little memory.
A word is a token of its tokenizer. Weights are as large as trained ones, so that activations stay in range, and what it
generates is noise: speed and memory are those of the model, answers are not.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

BITS, GROUP = 4, 64
WORDS = ("time", "year", "people", "way", "day", "man", "thing", "woman", "life", "child", "world", "school", "state")
SPECIAL = ("<unk>", "<eos>")


def _llama(
    width: int, inner: int, layers: int, heads: int, shared: int, vocabulary: int, *, tied: bool
) -> dict[str, Any]:
    return {
        "model_type": "llama",
        "architectures": ["LlamaForCausalLM"],
        "dtype": "bfloat16",
        "hidden_size": width,
        "intermediate_size": inner,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": shared,
        "vocab_size": vocabulary,
        "tie_word_embeddings": tied,
        "hidden_act": "silu",
        "rms_norm_eps": 1e-5,
        "rope_theta": 500000.0,
        "max_position_embeddings": 8192,
        "eos_token_id": 1,
    }


SHAPES = {
    "tiny": _llama(128, 256, 2, 4, 2, 512, tied=False),
    "135m": _llama(576, 1536, 30, 9, 3, 49152, tied=True),  # SmolLM2
    "1b": _llama(2048, 8192, 16, 32, 8, 128256, tied=True),  # Llama 3.2
    "8b": _llama(4096, 14336, 32, 32, 8, 128256, tied=False),  # Llama 3.1
}


def write(shape: str, out: Path) -> None:
    """Raises KeyError for a shape that is not listed."""
    import mlx.core as mx

    config = SHAPES[shape]
    out.mkdir(parents=True)
    quantization = {"bits": BITS, "group_size": GROUP, "mode": "affine"}
    (out / "config.json").write_text(
        json.dumps({**config, "quantization": quantization, "quantization_config": quantization}, indent=1)
    )
    write_tokenizer(out, config["vocab_size"])
    mx.random.seed(1)
    index = {}
    for part, weights in _parts(config):
        mx.save_safetensors(str(out / f"{part}.safetensors"), weights, metadata={"format": "mlx"})
        index.update(dict.fromkeys(weights, f"{part}.safetensors"))
    (out / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": index}))


def write_tokenizer(out: Path, size: int) -> None:
    """One word a token, and so many of them."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = [*SPECIAL, *WORDS]
    words += [f"w{number}" for number in range(size - len(words))]
    tokenizer = Tokenizer(models.WordLevel({word: number for number, word in enumerate(words)}, unk_token=SPECIAL[0]))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token=SPECIAL[0], eos_token=SPECIAL[1]).save_pretrained(out)


def _parts(config: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Files by their names: of embeddings, of each layer, of the head."""
    width, inner, vocabulary = config["hidden_size"], config["intermediate_size"], config["vocab_size"]
    heads, shared = config["num_attention_heads"], config["num_key_value_heads"]
    narrow = width // heads * shared
    yield "model-embeddings", _matrix("model.embed_tokens", vocabulary, width)
    for number in range(config["num_hidden_layers"]):
        layer = f"model.layers.{number}"
        weights: dict[str, Any] = {}
        for name, outputs, inputs in (
            ("self_attn.q_proj", width, width),
            ("self_attn.k_proj", narrow, width),
            ("self_attn.v_proj", narrow, width),
            ("self_attn.o_proj", width, width),
            ("mlp.gate_proj", inner, width),
            ("mlp.up_proj", inner, width),
            ("mlp.down_proj", width, inner),
        ):
            weights |= _matrix(f"{layer}.{name}", outputs, inputs)
        weights |= _ones(f"{layer}.input_layernorm", width) | _ones(f"{layer}.post_attention_layernorm", width)
        yield f"model-{number:03}", weights
    head = {} if config["tie_word_embeddings"] else _matrix("lm_head", vocabulary, width)
    yield "model-head", head | _ones("model.norm", width)


def _matrix(name: str, outputs: int, inputs: int) -> dict[str, Any]:
    """Quantized, its values uniform around zero with a deviation of the root of the inputs' number's inverse."""
    import mlx.core as mx

    deviation = math.sqrt((2**BITS) ** 2 / 12)
    scale = 1 / (deviation * math.sqrt(inputs))
    packed = mx.random.randint(-(2**31), 2**31 - 1, (outputs, inputs * BITS // 32)).view(mx.uint32)
    shape = (outputs, inputs // GROUP)
    return {
        f"{name}.weight": packed,
        f"{name}.scales": mx.full(shape, scale, dtype=mx.bfloat16),
        f"{name}.biases": mx.full(shape, -scale * (2**BITS - 1) / 2, dtype=mx.bfloat16),
    }


def _ones(name: str, size: int) -> dict[str, Any]:
    import mlx.core as mx

    return {f"{name}.weight": mx.ones((size,), dtype=mx.bfloat16)}


if __name__ == "__main__":
    write(sys.argv[1], Path(sys.argv[2]))
