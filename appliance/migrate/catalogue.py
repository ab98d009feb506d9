"""What others call a model, and what is known of it by that name: Docker's catalogue, and families of models."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

from appliance.config.positions import parse
from appliance.errors import SourceError
from appliance.migrate.repository_names import gguf_type, parameters_in
from appliance.migrate.rules import shipped_migrations
from appliance.models.sources import RegistrySource, parse_source

_REGISTRY = re.compile(r"^(?:docker\.io/|index\.docker\.io/|registry-1\.docker\.io/)")
_HUB = re.compile(r"^(?:hf\.co|huggingface\.co)/", re.IGNORECASE)
_LOCAL_ID = re.compile(r"(?:sha256:)?(?:[0-9a-f]{12}|[0-9a-f]{64})")
LONGEST_NAME = 200
"""Characters that are looked at. Patterns with a gap in them take the square of it."""
USUAL_TYPE = "Q4_K_M"
"""What Docker packs, and llama.cpp takes, where a name says nothing else."""


@dataclass(frozen=True, slots=True)
class Known:
    """What a name tells of a model. `architecture` and `tokenizer` are a GGUF's own words.

    `unread`: what it is, where no GGUF of it is imported. `stored`: the type of its weights, as GGUF spells it.
    `longest`: tokens of context that it can do. `origin`: its safetensors. `tag`: Docker's, for a name of somebody
    else's. `packed`: what the artifact holds. `images`: it has a projector for images.
    """

    architecture: str | None = None
    tokenizer: str | None = None
    unread: str | None = None
    origin: str | None = None
    tag: str | None = None
    parameters: float | None = None
    task: str | None = None
    stored: str | None = None
    longest: int | None = None
    packed: Literal["gguf", "safetensors"] = "gguf"
    images: bool = False


def normal(reference: str) -> str:
    """Docker's normal form without the default registry and tag: `ai/smollm2`, `ai/qwen3:0.6B-Q4_0`."""
    text = _REGISTRY.sub("", reference.strip()).removeprefix("oci://").removeprefix("oci:").removesuffix(":latest")
    if _HUB.match(text):
        return "hf.co/" + _HUB.sub("", text)
    head, slash, name = (text if "/" in text else f"ai/{text}").rpartition("/")
    before, colon, tag = name.partition(":")
    # As Docker has it: a name is in small letters, a tag is not.
    return f"{head}{slash}{before}".lower() + colon + tag


def registry_source(reference: str) -> RegistrySource | None:
    """The artifact that Docker means by a name; None for what is no such name, a model's local ID among it."""
    if _LOCAL_ID.fullmatch(reference.strip()):
        return None
    try:
        source = parse_source(f"oci:{normal(reference)}", base=Path())
    except SourceError:
        return None
    return source if isinstance(source, RegistrySource) else None


def known(source: RegistrySource) -> Known | None:
    """Of an artifact by its name, in Docker's own registry or a copy of it; None for a name that tells nothing."""
    name = source.path
    if name.endswith("-vllm"):
        return _safetensors(name.removesuffix("-vllm"), source.tag)
    entry = _tables()[0].get(name)
    return _entry(entry, source.tag, name) if entry else _family_of(name, source.tag)


def for_ollama(name: str, tag: str = "") -> Known | None:
    """Of a name in Docker's catalogue with a tag of Ollama's, `ai/llama3.2`, `1b`; `tag` is Docker's for it."""
    entry = _tables()[0].get(name.lower())
    latest = str(entry["latest"]) if entry else ""
    size = _size(entry, tag or str(entry.get("ollama", latest))) if entry else None
    if entry is None or size is None:
        return None
    docker = "latest" if _size(entry, latest) is size else size.get("tag")
    return _sized(entry, size, gguf_type(latest if docker == "latest" else str(docker)) or USUAL_TYPE, tag=docker)


def family(name: str) -> Known | None:
    """Of any name of a repository, a file or an artifact, by what it has in it."""
    text = name.lower().rpartition("/")[2][:LONGEST_NAME]
    found = next((each for pattern, each in _tables()[1] if pattern.search(text)), None)
    if found is None:
        return None
    return Known(
        architecture=found.get("architecture"),
        tokenizer=found.get("tokenizer"),
        unread=found.get("unread"),
        task=found.get("task"),
        parameters=parameters_in(text),
        stored=gguf_type(text),
    )


def _safetensors(name: str, tag: str | None) -> Known:
    """Docker's names for vLLM."""
    gguf = _entry(entry, tag, name) if (entry := _tables()[0].get(name)) else _family_of(name, tag)
    parameters = parameters_in(tag or "") or (gguf.parameters if gguf else None)
    return Known(
        architecture=gguf.architecture if gguf else None,
        task=gguf.task if gguf else None,
        parameters=parameters,
        packed="safetensors",
    )


def _family_of(name: str, tag: str | None) -> Known | None:
    return family(f"{name}:{tag}" if tag and tag != "latest" else name)


def _entry(entry: Mapping[str, Any], tag: str | None, name: str) -> Known:
    tag = str(entry["latest"]) if tag in (None, "latest") else str(tag)
    stored = gguf_type(tag) or USUAL_TYPE
    if size := _size(entry, tag):
        return _sized(entry, size, stored)
    likely = family(f"{name}:{tag}")  # a size that is not listed may be something else altogether
    return Known(
        architecture=(likely and likely.architecture) or entry["architecture"],
        tokenizer=(likely and likely.tokenizer) or entry["tokenizer"],
        unread=likely.unread if likely else None,
        parameters=parameters_in(tag),
        stored=stored,
    )


def _sized(entry: Mapping[str, Any], size: Mapping[str, Any], stored: str, *, tag: str | None = None) -> Known:
    return Known(
        architecture=size.get("architecture", entry["architecture"]),
        tokenizer=entry["tokenizer"],
        origin=size["origin"],
        tag=tag,
        parameters=float(size["parameters"]),
        task=size.get("task"),
        longest=size.get("longest"),
        stored=stored,
        images=bool(size.get("images")),
    )


def _size(entry: Mapping[str, Any], tag: str) -> Mapping[str, Any] | None:
    sizes: Mapping[str, Mapping[str, Any]] = entry["sizes"]
    wanted = f"{tag.upper()}-"
    return next((size for key, size in sizes.items() if wanted.startswith(f"{key.upper()}-")), None)


@cache
def _tables() -> tuple[Mapping[str, Mapping[str, Any]], Sequence[tuple[re.Pattern[str], Mapping[str, Any]]]]:
    """The catalogue's entries by name; the families by their pattern."""
    path = shipped_migrations() / "models.yaml"
    document = parse(path.read_text(encoding="utf-8"), str(path))
    if document.problems:
        raise ValueError(f"{path}: {document.problems[0].render()}")
    families = [(re.compile(each["name"]), each) for each in document.data["families"]]
    return document.data["models"], families


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
