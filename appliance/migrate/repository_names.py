"""What the name of a repository or a file tells: its base, its size, how its weights are stored."""

from __future__ import annotations

import re
from pathlib import Path

_SIZE = re.compile(r"(?<![A-Za-z0-9.])(\d+(?:\.\d+)?)\s?([BbMm])(?![A-Za-z0-9])")
_EXPERTS = re.compile(r"(?<![A-Za-z0-9.])(\d+)x(\d+(?:\.\d+)?)[Bb](?![A-Za-z0-9])")
_FOREIGN = re.compile(
    r"(?<![a-z0-9])(awq|gptq|fp8|fp8-dynamic|nvfp4|bnb|bitsandbytes|int4|int8|w4a16|w8a8|w8a16|exl2|marlin|aqlm|hqq|quantized)(?![a-z0-9])",
    re.IGNORECASE,
)
_SUFFIXES = re.compile(
    r"[-_.](?:awq|gptq|gguf|fp8(?:[-_]dynamic)?|nvfp4|bnb(?:[-_]4bit)?|bitsandbytes|int4|int8|gptq[-_]int[48]|w4a16|w8a8|w8a16|quantized"
    r"|[248]bit|g128|unsloth|imat|i1)(?=$|[-_.])",
    re.IGNORECASE,
)
_GGUF_TYPE = re.compile(r"(?<![A-Za-z0-9])((?:I?Q\d(?:_[A-Z0-9]+)*)|BF16|F16|F32|MXFP4)(?![A-Za-z0-9])", re.IGNORECASE)
_FAMILIES = (
    ("llama", "meta-llama"), ("qwen", "Qwen"), ("qwq", "Qwen"), ("gemma", "google"), ("mistral", "mistralai"),
    ("mixtral", "mistralai"), ("ministral", "mistralai"), ("codestral", "mistralai"), ("devstral", "mistralai"),
    ("smollm", "HuggingFaceTB"), ("phi", "microsoft"), ("deepseek", "deepseek-ai"), ("granite", "ibm-granite"),
    ("gpt-oss", "openai"), ("glm", "zai-org"), ("olmo", "allenai"), ("nemotron", "nvidia"), ("exaone", "LGAI-EXAONE"),
)  # fmt: skip


def base_name(name: str) -> str:
    """`Llama-3.2-3B-Instruct-GGUF` → `Llama-3.2-3B-Instruct`: a repository's name without its quantization."""
    text = Path(name).name.removesuffix(".gguf")
    text = re.sub(r"-\d{5}-of-\d{5}$", "", text)
    text = re.sub(rf"[-_.](?:UD-)?{_GGUF_TYPE.pattern}$", "", text, flags=re.IGNORECASE)
    for _ in range(4):
        text = _SUFFIXES.sub("", text)
    return text.strip("-_.") or name


def suggestion(name: str, *, apple: bool) -> str:
    """A safetensors repository that is likely the same model; a guess from the name, and said to be one."""
    base = base_name(name.partition("@")[0])
    if apple:
        return f"hf:mlx-community/{base}-4bit"
    organisation = next((org for family, org in _FAMILIES if family in base.lower()), None)
    return f"hf:{organisation}/{base}" if organisation else f"hf:ORGANISATION/{base}"


def foreign_quantization(name: str) -> str | None:
    """`awq`, `gptq`, … where a repository's name says that its weights are for CUDA kernels."""
    match = _FOREIGN.search(name.rpartition("/")[2])
    return match[1].lower() if match else None


def parameters_in(name: str) -> float | None:
    """A count of parameters in a name: `7B`, `360M`, `8x7B`."""
    text = name.rpartition("/")[2].replace("_", "-")
    if match := _EXPERTS.search(text):
        return int(match[1]) * float(match[2]) * 1e9 * 0.85  # experts share their attention
    found = [float(number) * (1e9 if unit in "Bb" else 1e6) for number, unit in _SIZE.findall(text.replace("-", " "))]
    return max(found) if found else None


def gguf_type(name: str) -> str | None:
    """`Q4_K_M` in a file's name or a tag."""
    match = _GGUF_TYPE.search(name)
    return match[1].upper() if match else None
