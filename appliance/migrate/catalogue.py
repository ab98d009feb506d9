"""From what others call a model to a source: Docker's catalogue, GGUF files, quantized repositories."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from appliance.config.positions import parse
from appliance.errors import SourceError
from appliance.migrate.rules import shipped_migrations
from appliance.models.convert.gguf_file import TYPES, read_header
from appliance.models.convert.refused import Refused
from appliance.models.sources import parse_source

_REGISTRY = re.compile(r"^(?:docker\.io/|index\.docker\.io/|registry-1\.docker\.io/)")
_HUB = re.compile(r"^(?:hf\.co|huggingface\.co)/", re.IGNORECASE)
_SIZE = re.compile(r"(?<![A-Za-z0-9.])(\d+(?:\.\d+)?)\s?([BbMm])(?![A-Za-z0-9])")
_EXPERTS = re.compile(r"(?<![A-Za-z0-9.])(\d+)x(\d+(?:\.\d+)?)[Bb](?![A-Za-z0-9])")
_FOREIGN = re.compile(
    r"(?<![a-z0-9])(awq|gptq|fp8|fp8-dynamic|nvfp4|bnb|bitsandbytes|int4|int8|w4a16|w8a8|w8a16|exl2|marlin|aqlm|hqq|quantized)(?![a-z0-9])",
    re.IGNORECASE,
)
_ENCODER = re.compile(
    r"(?<![a-z])(?:bge(?!-multilingual-gemma)|e5|minilm|nomic-embed|mxbai|gte|arctic-embed|jina-(?:embeddings|reranker)|bert)"
    r"(?![a-z])",
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


@dataclass(frozen=True, slots=True)
class Origin:
    """What a catalogue entry is made from."""

    source: str
    parameters: float | None = None
    task: str | None = None
    quantized: bool = False


def normal(reference: str) -> str:
    """Docker's normal form without the default namespace's registry and tag: `ai/smollm2`, `ai/qwen3:0.6B-Q4_0`."""
    text = _REGISTRY.sub("", reference.strip()).removeprefix("oci://").removesuffix(":latest")
    if _HUB.match(text):
        return "hf.co/" + _HUB.sub("", text)
    return text if "/" in text else f"ai/{text}"


def docker_origin(reference: str, *, apple: bool) -> Origin | None:
    """The origin of a name in Docker's own catalogue, or None for any other name."""
    name, _, tag = normal(reference).partition(":")
    entry = catalogue().get(name.lower())
    if entry is None:
        return None
    sizes: Mapping[str, Any] = entry["sizes"]
    wanted = tag.split("-")[0].upper() if tag else entry["latest"].upper()
    size = next((value for key, value in sizes.items() if key.upper() == wanted), None)
    if size is None:
        return None
    quantized = apple and "mlx" in size
    source = size["mlx"] if quantized else size["origin"]
    return Origin(source, float(size["parameters"]), size.get("task"), quantized)


@cache
def catalogue() -> Mapping[str, Mapping[str, Any]]:
    path = shipped_migrations() / "models.yaml"
    document = parse(path.read_text(encoding="utf-8"), str(path))
    if document.problems:
        raise ValueError(f"{path}: {document.problems[0].render()}")
    models: Mapping[str, Mapping[str, Any]] = document.data["models"]
    return models


def hub_reference(reference: str) -> tuple[str, str] | None:
    """(`org/name`, tag) of `hf.co/org/name:tag`, or None for what is no reference to the hub."""
    if not _HUB.match(reference.strip()):
        return None
    name, _, tag = _HUB.sub("", reference.strip()).partition(":")
    return name, "" if tag == "latest" else tag


def acceptable(source: str) -> bool:
    """Whether the appliance reads this form of a source."""
    try:
        parse_source(source, base=Path())
    except SourceError:
        return False
    return True


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


def names_an_encoder(name: str) -> bool:
    """Whether a file's name is that of a BERT-like encoder, which the importer of GGUF does not read."""
    return bool(_ENCODER.search(name.rpartition("/")[2]))


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


def importable_type(kind: str) -> bool:
    """Whether the importer reads the tensors of such a file. `Q4_K_M` is a mixture of Q4_K and Q6_K."""
    known = {name for name, _, _ in TYPES.values()}
    if kind in known:
        return True
    match = re.fullmatch(r"Q(\d)_K(?:_[SML])?", kind)
    return match is not None and {f"Q{match[1]}_K", "Q6_K"} <= known


def gguf_problem(path: Path) -> str | None:
    """What keeps a GGUF file that is here from being imported; None where nothing does."""
    try:
        read_header(path)
    except Refused as problem:
        return problem.message
    except (OSError, ValueError) as problem:
        return f"cannot be read: {problem}"
    return None
