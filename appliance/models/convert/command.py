"""The conversion from end to end, and what it says on stdout: `{"step": …}` as it goes, `{"error": …}` if it cannot."""

from __future__ import annotations

import argparse
import errno
import json
import os
import shutil
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .architecture import ENCODERS, LONG_FACTORS, ROPE_FACTORS, SHORT_FACTORS, Architecture, read_architecture
from .blocks import dequantize
from .encoder import Encoder, read_encoder
from .gguf_file import Header, read_header
from .lora import Heads, adapter_files, is_adapter
from .pooling import pooling_files
from .refused import Refused, damaged, unsupported
from .rope import read_scaling
from .safetensors_file import SafetensorsFile
from .tokenizer import token_ids, tokenizer_files
from .weights import Piece, Weights

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_DTYPES = {"BF16": "bfloat16", "F16": "float16", "F32": "float32"}


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="convert")
    parser.add_argument("--to", choices=("hf", "mlx", "lora"), required=True)
    parser.add_argument("--bits", type=int, choices=(4, 6, 8), help="quantize anew for MLX, whatever the file has")
    parser.add_argument("--template", type=Path, help="a chat template instead of the file's own")
    parser.add_argument("--heads", type=int, nargs=2, help="a LoRA adapter's base model's, of queries and of keys")
    parser.add_argument("--out", type=Path, required=True, help="an existing, empty directory")
    parser.add_argument("file", type=Path)
    options = parser.parse_args(arguments)
    try:
        if options.to == "lora":
            convert_adapter(options.file, options.out, Heads(*options.heads))
        else:
            convert(options.file, options.out, options.to, bits=options.bits, template=options.template)
    except Refused as refused:
        return _fail(refused)
    except OSError as error:
        if error.errno not in _FULL:
            raise
        return _fail(Refused("full", f"no room for the converted model in `{options.out}`: {error.strerror}"))
    return 0


def convert(file: Path, out: Path, to: str, *, bits: int | None = None, template: Path | None = None) -> None:
    """Write the checkpoint into `out`. Raises Refused; what is in `out` then is of no use."""
    _say("reading header")
    header = read_header(file)
    architecture = _architecture(header)
    documents = tokenizer_files(header.metadata) | pooling_files(header.metadata, architecture.hidden)
    _check_vocabulary(header, architecture)
    weights = Weights(header, architecture, bits=bits)
    if isinstance(architecture, Encoder):
        pieces = _encoder(weights, bits)
        documents["config.json"] = architecture.config("float32") | token_ids(header.metadata)
    else:
        pieces = weights.as_hf() if to == "hf" else weights.as_mlx()
        documents["generation_config.json"] = token_ids(header.metadata)
        documents["config.json"] = _config(weights, architecture, to) | token_ids(header.metadata)
    _check_room(pieces, out)
    _write_weights(pieces, out / "model.safetensors")
    for name, document in documents.items():
        _write_text(out / name, json.dumps(document, ensure_ascii=False, indent=1))
    text = template.read_text() if template else header.metadata.get("tokenizer.chat_template")
    if isinstance(text, str):
        _write_text(out / "chat_template.jinja", text)


def convert_adapter(file: Path, out: Path, heads: Heads) -> None:
    """The same for a LoRA adapter: adapter_model.safetensors and adapter_config.json."""
    _say("reading header")
    header = read_header(file)
    if not is_adapter(header):
        raise unsupported(f"`{file}` is no LoRA adapter but a model")
    pieces, config = adapter_files(header, heads)
    _check_room(pieces, out)
    _write_weights(pieces, out / "adapter_model.safetensors")
    _write_text(out / "adapter_config.json", json.dumps(config, indent=1))


def _encoder(weights: Weights, bits: int | None) -> list[Piece]:
    """MLX's form of an encoder is the same: what quantization would save of so small a model its vectors would lose."""
    if bits:
        raise unsupported("an encoder is not quantized for MLX", hint="leave `quantize` out")
    return weights.as_hf()


def _check_vocabulary(header: Header, architecture: Architecture | Encoder) -> None:
    tokens = len(header.metadata["tokenizer.ggml.tokens"])
    if tokens > architecture.vocabulary:
        raise damaged(f"there are {tokens} tokens but embeddings for {architecture.vocabulary} only")


def _architecture(header: Header) -> Architecture | Encoder:
    if header.metadata.get("general.architecture") in ENCODERS:
        return read_encoder(header)
    plain = read_architecture(header, rope_scaling=None)
    if plain.name == "phi3":
        scaling = _long_rope(header, plain)
    else:
        factors = _floats(header, ROPE_FACTORS)
        scaling = read_scaling(header.metadata, factors, head_dim=plain.head_dim, base=plain.rope_base)
    return read_architecture(header, rope_scaling=scaling)


def _long_rope(header: Header, architecture: Architecture) -> dict[str, Any] | None:
    """Phi 3's two lists of divisors, for texts up to the trained length and beyond."""
    long, short = (_floats(header, name) for name in (LONG_FACTORS, SHORT_FACTORS))
    if long is None or short is None:
        return None
    if len(long) != architecture.rotated // 2 or len(short) != len(long):
        raise damaged(f"there are {len(short)} and {len(long)} rope factors for {architecture.rotated // 2} pairs")
    if not all(0 < factor < 1e6 for factor in (*long, *short)):
        raise damaged("the rope factors hold divisors that are not above zero")
    return {"rope_type": "longrope", "type": "longrope", "short_factor": short, "long_factor": long}


def _floats(header: Header, name: str) -> list[float] | None:
    """A small tensor's numbers, or None where it is not there."""
    tensor = header.tensors.get(name)
    if tensor is None:
        return None
    if len(tensor.shape) != 1 or tensor.shape[0] > 4096:
        raise damaged(f"the tensor `{name}` has the shape {list(tensor.shape)}")
    raw = np.fromfile(tensor.file, dtype=np.uint8, count=tensor.size, offset=tensor.offset)
    return [float(value) for value in dequantize(raw.reshape(1, -1), tensor.type).reshape(-1)]


def _config(weights: Weights, architecture: Architecture, to: str) -> dict[str, Any]:
    if to == "hf":
        return architecture.config("bfloat16")
    config = architecture.config(_DTYPES[weights.mlx_dtype()])
    if bits := weights.mlx_bits():
        usual = Counter(bits.values()).most_common(1)[0][0]
        quantization: dict[str, Any] = {"group_size": 32, "bits": usual, "mode": "affine"}
        quantization |= {
            module: {"group_size": 32, "bits": each, "mode": "affine"} for module, each in bits.items() if each != usual
        }
        config["quantization"] = quantization
        config["quantization_config"] = quantization  # mlx-lm writes both, and tools look for either
    return config


def _check_room(pieces: Sequence[Piece], out: Path) -> None:
    needed, free = sum(piece.entry.size for piece in pieces), shutil.disk_usage(out).free
    if needed > free:
        raise Refused("full", f"the converted model needs {needed} bytes and `{out}` has {free} left")


def _write_weights(pieces: Sequence[Piece], path: Path) -> None:
    # What is not a number is refused by name where it is met; numpy's warnings would only come before that.
    numbers = np.errstate(invalid="ignore", over="ignore")
    with numbers, SafetensorsFile(path, [piece.entry for piece in pieces]) as file:
        for index, piece in enumerate(pieces):
            _say("converting", done=index, total=len(pieces))
            file.write(piece.entry, piece.chunks())
    _say("converting", done=len(pieces), total=len(pieces))


def _write_text(path: Path, text: str) -> None:
    path.parent.mkdir(exist_ok=True)
    with path.open("x", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def _say(step: str, **numbers: int) -> None:
    print(json.dumps({"step": step, **numbers}), flush=True)


def _fail(refused: Refused) -> int:
    error = {"kind": refused.kind, "message": refused.message, "hint": refused.hint}
    print(json.dumps({"error": error}), flush=True)
    return 1
