"""Checks that need an engine environment's libraries; each is one function, run by name under its interpreter.

They print one JSON object, which the test that started them judges.
"""

from __future__ import annotations

import inspect
import json
import random
import subprocess
import sys
import unicodedata
from itertools import combinations
from pathlib import Path
from typing import Any

QUESTION = [{"role": "user", "content": "What is the capital of France?"}]
TEXTS = [
    "What is the capital of France?",
    "def f(x):\n\treturn x**2  # ünï\n\n\n    pass",
    "emoji 🙂 👩‍👩‍👧‍👦 🏳️‍🌈",
    "漢字かな交じり文。中文测试한국어 Привет",
    "1234567890 3.14159 007 1e-5  42   7 ٣٤٥ ½ x1 2y",
    "   \t\t \n \r\n  x   y  ",
    "<|im_start|>user\nhi<|im_end|>\n<repo_name>x<file_sep>",
    "don't we'll I'M they'VE",
    "\u200b\ufeffzero \u0001 e\u0301 é",
    "a" * 300,
]


def corpus() -> list[str]:
    rng = random.Random(0)  # noqa: S311 - repeatable on purpose
    ranges = [(32, 127), (0xA0, 0x3000), (0x4E00, 0x9FFF), (0x1F300, 0x1FAFF), (48, 58), (9, 11), (32, 33)]
    return TEXTS + ["".join(chr(rng.randrange(*rng.choice(ranges))) for _ in range(60)) for _ in range(200)]


def tokenizer(directory: str, gguf: str) -> dict[str, Any]:
    """Our tokenizer beside the one transformers builds from the same GGUF.

    transformers' reader ignores `tokenizer.ggml.pre`, so the one rule it thereby misses, single digits, is put in.
    """
    from tokenizers import pre_tokenizers
    from transformers import AutoTokenizer

    ours = AutoTokenizer.from_pretrained(directory)
    theirs = AutoTokenizer.from_pretrained(str(Path(gguf).parent), gguf_file=Path(gguf).name)
    inner = theirs.backend_tokenizer
    inner.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), inner.pre_tokenizer])
    texts = corpus()
    return {
        "texts": len(texts),
        "different": [text for text in texts if ours(text).input_ids != theirs(text).input_ids],
        "changed": [text for text in texts if ours.decode(ours(text).input_ids) != text],
        "special": [getattr(ours, name) == getattr(theirs, name) for name in ("bos_token", "eos_token", "pad_token")],
        "prompts_equal": prompt(ours) == prompt(theirs),
        "capital": ours(QUESTION[0]["content"]).input_ids,
    }


def cut_up(directory: str) -> dict[str, Any]:
    """The texts that we cut up otherwise than the patterns do that Mistral, OpenAI and transformers publish."""
    import mistral_common
    import regex
    import tiktoken_ext.openai_public
    from tokenizers import Tokenizer
    from transformers.convert_slow_tokenizer import TikTokenConverter

    tekken = json.loads((Path(mistral_common.__file__).parent / "data" / "tekken_240911.json").read_bytes())
    tiktoken_ext.openai_public.load_tiktoken_bpe = lambda *_, **__: {}  # the patterns, without a download
    patterns = {
        "tekken": tekken["config"]["pattern"],
        "gpt-4o": tiktoken_ext.openai_public.o200k_base()["pat_str"],
        # tiktoken has since come to keep white space at the end of a text together; the models' own files have not.
        "dbrx": inspect.signature(TikTokenConverter).parameters["pattern"].default,
    }
    texts = [*corpus(), "HTTPServer parseURLFrom McDonald's DON'T İstanbul ǅungla x\u0301Y a/b//\n /\r\n'S 'tis I'VE"]
    # The libraries know different versions of Unicode: a letter to one is a stranger to the other.
    texts = ["".join(each for each in text if unicodedata.category(each) != "Cn") for text in texts]
    theirs, different = {}, {}
    for name, pattern in patterns.items():
        ours = Tokenizer.from_file(str(Path(directory) / f"{name}.json")).pre_tokenizer
        theirs[name] = [regex.findall(pattern, text) for text in texts]
        cut = [[text[start:end] for _, (start, end) in ours.pre_tokenize_str(text)] for text in texts]
        different[name] = [text for text, one, other in zip(texts, cut, theirs[name], strict=True) if one != other]
    alike = [pair for pair in combinations(theirs, 2) if theirs[pair[0]] == theirs[pair[1]]]
    return {"different": different, "alike": alike, "texts": len(texts)}


def prompt(tokenizer: Any) -> str:
    return str(tokenizer.apply_chat_template(QUESTION, tokenize=False, add_generation_prompt=True))


def answer(directory: str) -> dict[str, Any]:
    """The greedy answer to the one question, in transformers."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokens = AutoTokenizer.from_pretrained(directory)
    model = AutoModelForCausalLM.from_pretrained(directory)
    inputs = tokens(prompt(tokens), return_tensors="pt")
    output = model.generate(**inputs, max_new_tokens=20, do_sample=False)
    text = tokens.decode(output[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    return {"answer": text, "dtype": str(model.dtype), "tied": bool(model.config.tie_word_embeddings)}


def several(calls: str) -> dict[str, Any]:
    """Many checks in one process, whose imports are most of the time."""
    return {name: globals()[check](*arguments) for name, check, *arguments in json.loads(calls)}


def module_of(convert: str, name: str) -> Any:
    """A module of the converter, which is a package without the ones above it, as where it runs."""
    import importlib

    sys.path.append(str(Path(convert).parent))
    return importlib.import_module(f"{Path(convert).name}.{name}")


def dequantized(convert: str) -> dict[str, Any]:
    """Our floats beside the `gguf` package's own, for random blocks of every type."""
    import gguf
    import numpy as np

    blocks = module_of(convert, "blocks")
    halves = {
        "Q4_0": (0,),
        "Q4_1": (0, 2),
        "Q5_0": (0,),
        "Q5_1": (0, 2),
        "Q8_0": (0,),
        "Q2_K": (80, 82),
        "Q3_K": (108,),
    }
    halves |= {"Q4_K": (0, 2), "Q5_K": (0, 2), "Q6_K": (208,)}
    rng = np.random.default_rng(7)
    equal = {}
    for kind, places in halves.items():
        type_ = gguf.GGMLQuantizationType[kind]
        block, size = gguf.GGML_QUANT_SIZES[type_]
        raw = rng.integers(0, 256, size=(7, 6 * size), dtype=np.uint8)
        for at in places:
            scales = rng.normal(size=7 * 6).astype("<f2").view(np.uint8).reshape(-1, 2)
            raw.reshape(-1, size)[:, at : at + 2] = scales
        ours, theirs = blocks.dequantize(raw, kind), gguf.quants.dequantize(raw, type_)
        equal[kind] = bool(ours.shape == (7, 6 * block) and np.array_equal(ours, theirs))
    return {"equal": equal}


def read_by_transformers(directory: str, file: str) -> dict[str, Any]:
    """Our conversion of a GGUF beside transformers' own reading of it: every weight, and the configuration."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM
    from transformers.modeling_gguf_pytorch_utils import load_gguf_checkpoint

    model = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32)
    read = load_gguf_checkpoint(file, return_tensors=True, model_to_load=model)
    weights = model.state_dict()
    off = [
        name
        for name, value in read["tensors"].items()
        if name not in weights or not torch.allclose(weights[name], value.float(), rtol=2**-7, atol=1e-6)
    ]
    config = AutoConfig.from_pretrained(directory).get_text_config().to_dict()
    skipped = ("_model_name_or_path", "eos_token_id", "bos_token_id", "pad_token_id", "torch_dtype", "vocab_size")
    differs = {
        name: [config.get(name), value]
        for name, value in read["config"].items()
        if name not in skipped and name in config and config[name] != value and not _close(config[name], value)
    }
    with torch.no_grad():
        logits = model(torch.tensor([[1, 5, 9, 2, 7, 11, 30, 44]])).logits
    return {"off": off, "weights": len(read["tensors"]), "differs": differs, "finite": bool(logits.isfinite().all())}


def _close(one: Any, other: Any) -> bool:
    return isinstance(one, float) and isinstance(other, float) and abs(one - other) < 1e-6 * max(abs(one), abs(other))


def sentencepiece(directory: str, file: str) -> dict[str, Any]:
    """Our SentencePiece tokenizer beside the one that transformers builds from the same GGUF.

    transformers' reader knows nothing of `tokenizer.ggml.add_bos_token`, so texts are compared without their beginning.
    """
    from transformers import AutoTokenizer

    ours = AutoTokenizer.from_pretrained(directory)
    theirs = AutoTokenizer.from_pretrained(str(Path(file).parent), gguf_file=Path(file).name)
    texts = [*corpus(), "the then in other  a thin er"]

    def ids(tokenizer: Any, text: str) -> list[int]:
        found: list[int] = tokenizer(text, add_special_tokens=False).input_ids
        return found

    return {
        "texts": len(texts),
        "different": [text for text in texts if ids(ours, text) != ids(theirs, text)][:5],
        "changed": [text for text in texts if ours.decode(ours(text).input_ids, skip_special_tokens=True) != text][:5],
        "begins": ours("the").input_ids[0],
    }


def embeddings(directory: str, texts: str) -> dict[str, Any]:
    """Vectors as sentence-transformers defines them for this model: the tokens' mean, of length one."""
    import torch
    from transformers import AutoModel, AutoTokenizer

    tokens, model = AutoTokenizer.from_pretrained(directory), AutoModel.from_pretrained(directory, dtype=torch.float32)
    pooling = json.loads((Path(directory) / "1_Pooling" / "config.json").read_text())
    assert pooling["pooling_mode_mean_tokens"]
    batch = tokens(json.loads(texts), padding=True, truncation=True, max_length=256, return_tensors="pt")
    with torch.no_grad():
        states = model(**batch).last_hidden_state
    mask = batch["attention_mask"].unsqueeze(-1)
    mean = (states * mask).sum(1) / mask.sum(1)
    return {"vectors": torch.nn.functional.normalize(mean, dim=1).tolist()}


def written_by_gguf(script: str, scratch: str) -> dict[str, Any]:
    """A file from the `gguf` package's own writer and quantizer, converted, beside its own dequantization."""
    import gguf
    import numpy as np
    from safetensors.torch import load_file

    equal: dict[str, bool] = {}
    for kind in ("Q4_0", "Q4_1", "Q8_0"):
        path, out = Path(scratch) / f"{kind}.gguf", Path(scratch) / kind
        values = _write_with_gguf(gguf, np, path, kind)
        out.mkdir()
        subprocess.run([sys.executable, "-I", script, "--to", "hf", "--out", str(out), str(path)], check=True)
        table = load_file(out / "model.safetensors")
        for name, ours in (
            ("token_embd.weight", "model.embed_tokens"),
            ("blk.0.ffn_up.weight", "model.layers.0.mlp.up_proj"),
        ):
            import torch

            expected = torch.from_numpy(values[name]).to(torch.bfloat16)
            equal[f"{kind} {name}"] = torch.equal(expected, table[f"{ours}.weight"])
    return {"equal": equal}


def _write_with_gguf(gguf: Any, np: Any, path: Path, kind: str) -> dict[str, Any]:
    alphabet = [chr(each) for each in (*range(33, 127), *range(161, 173), *range(174, 256))]
    tokens = ["<|end|>", *alphabet, *(chr(256 + each) for each in range(256 - len(alphabet))), "th"]
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(1)
    writer.add_context_length(64)
    writer.add_embedding_length(64)
    writer.add_feed_forward_length(96)
    writer.add_head_count(4)
    writer.add_head_count_kv(2)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(tokens)
    writer.add_token_types([3] + [1] * 257)
    writer.add_token_merges(["t h"])
    writer.add_eos_token_id(0)
    shapes = {"token_embd": (258, 64), "output_norm": (64,)}
    shapes |= {f"blk.0.{name}": (64,) for name in ("attn_norm", "ffn_norm")}
    shapes |= {"blk.0.attn_q": (64, 64), "blk.0.attn_k": (32, 64), "blk.0.attn_v": (32, 64)}
    shapes |= {"blk.0.attn_output": (64, 64), "blk.0.ffn_gate": (96, 64), "blk.0.ffn_up": (96, 64)}
    shapes |= {"blk.0.ffn_down": (64, 96)}
    values = {}
    rng = np.random.default_rng(5)
    for name, shape in shapes.items():
        weight = rng.normal(size=shape).astype(np.float32)
        if len(shape) == 1:
            writer.add_tensor(f"{name}.weight", weight)
            continue
        type_ = gguf.GGMLQuantizationType[kind]
        quantized = gguf.quants.quantize(weight, type_)
        writer.add_tensor(f"{name}.weight", quantized, raw_dtype=type_)
        values[f"{name}.weight"] = gguf.quants.dequantize(quantized, type_)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return values


def mlx_answer(directory: str) -> dict[str, Any]:
    """The greedy answer in mlx-lm, and whether MLX unpacks the weights to the values that our own code does."""
    import mlx.core as mx
    from mlx_lm import load, stream_generate

    mx.set_default_device(mx.cpu)
    model, tokens = load(directory)
    embedding, query = model.model.embed_tokens, model.model.layers[0].self_attn.q_proj
    model.set_dtype(mx.float32)
    ids = tokens.apply_chat_template(QUESTION, add_generation_prompt=True)
    text = "".join(each.text for each in stream_generate(model, tokens, ids, max_tokens=20))
    return {"answer": text, "bits": [embedding.bits, query.bits], "groups": [embedding.group_size, query.group_size]}


def mlx_requantized(convert: str) -> dict[str, Any]:
    """How far MLX's own reading of what we quantize anew is from the floats, in halves of the largest step."""
    import mlx.core as mx
    import numpy as np

    blocks = module_of(convert, "blocks")
    mx.set_default_device(mx.cpu)
    weights = np.random.default_rng(3).normal(size=(8, 128)).astype(np.float32)
    groups = weights.reshape(8, -1, 32)
    found = {}
    for bits in (4, 6, 8):
        packed, scales, biases = map(mx.array, blocks.requantize(weights, bits))
        read = np.array(mx.dequantize(packed, scales, biases, group_size=32, bits=bits))
        step = (groups.max(-1) - groups.min(-1)).max() / (2**bits - 1)
        found[str(bits)] = float(np.abs(read - weights).max() / (step / 2))
    return found


def mlx_weights(directory: str, out: str) -> dict[str, Any]:
    """MLX's own float32 dequantization of one layer and of the embeddings, saved for comparison."""
    import mlx.core as mx
    import numpy as np

    mx.set_default_device(mx.cpu)
    table = mx.load(str(Path(directory) / "model.safetensors"))
    modules = {"model.layers.3.self_attn.q_proj": 4, "model.layers.3.mlp.down_proj": 4, "model.embed_tokens": 8}
    for module, bits in modules.items():
        scales, biases = (table[f"{module}.{part}"].astype(mx.float32) for part in ("scales", "biases"))
        weight = mx.dequantize(table[f"{module}.weight"], scales, biases, group_size=32, bits=bits)
        np.save(Path(out) / f"{module}.npy", np.array(weight))
    return {"modules": list(modules)}


if __name__ == "__main__":
    print(json.dumps(globals()[sys.argv[1]](*sys.argv[2:])))
