"""What a model's OCI manifest says: which layers become which files. Pure, and believes nothing."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from appliance.models.checkpoint import KEPT
from appliance.models.say import Failed

DOCKER = "application/vnd.docker.ai."
CNCF = "application/vnd.cncf.model."
CONFIGS = (f"{DOCKER}model.config.v0.1+json", f"{DOCKER}model.config.v0.2+json", f"{CNCF}config.v1+json")
LARGEST_MANIFEST = 4 * 1024 * 1024
_FILEPATH = ("org.cncf.model.filepath", "org.cnai.model.filepath", "org.opencontainers.image.title")
_PART = re.compile(r"[A-Za-z0-9_][\w.+@ -]{0,200}", re.ASCII)
_DIGEST = re.compile(r"sha256:([0-9a-f]{64})")

Kind = Literal["file", "tar"]
Machine = tuple[str, str]
"""Operating system and architecture."""


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer that serving needs: a file called `name` in the checkpoint, or an archive of several."""

    sha256: str
    size: int
    kind: Kind
    name: str = ""


def layers(manifest: bytes, where: str) -> tuple[Layer, ...]:
    """The layers of a model's manifest that become files. Raises Failed for anything that is no model we can read."""
    document = _document(manifest, where)
    config = document.get("config")
    media = config.get("mediaType") if isinstance(config, dict) else None
    if media not in CONFIGS:
        raise Failed(
            "unsupported",
            f"{where} is no model, but `{str(media)[:80]}`",
            "Docker's and CNCF's model artifacts can be read",
        )
    found = document.get("layers")
    if not isinstance(found, list) or not all(isinstance(each, dict) for each in found):
        raise _damaged(where, "it lists no layers")
    planned = tuple(_plan([_described(each, where) for each in found], where))
    names = [each.name for each in planned if each.kind == "file"]
    if len({name.lower() for name in names}) != len(names):
        raise _damaged(where, "two of its layers have the same name")
    return planned


def config_of(manifest: bytes, where: str) -> tuple[str, int]:
    """The SHA-256 and the size of a model's configuration, whose manifest `layers` has found to be one."""
    described = _described(_document(manifest, where)["config"], where)
    if described.size > LARGEST_MANIFEST:
        raise _damaged(where, f"its configuration has {described.size} bytes")
    return described.sha256, described.size


def context_size(config: bytes, where: str) -> int | None:
    """The length of text that the model was packed for, where its configuration says so."""
    inner = _document(config, where).get("config")
    value = inner.get("context_size") if isinstance(inner, dict) else None
    return value if type(value) is int and 0 < value < 2**31 else None


def manifest_of_index(index: bytes, where: str, machine: Machine) -> str | None:
    """The digest of the one manifest of an index that is meant here; None where `index` is a manifest itself.

    Of several (1) those that attest to another are no models. (2) One for this machine goes before (3) those for none
    in particular; what the others are for is told.
    """
    document = _document(index, where)
    if "manifests" not in document:
        return None
    listed = document["manifests"]
    found = [each for each in listed if isinstance(each, dict)] if isinstance(listed, list) else []
    if len(found) != len(listed) or not all(_DIGEST.fullmatch(str(each.get("digest"))) for each in found):
        raise _damaged(where, "it is an index without digests")
    models = [each for each in found if not _attests(each)]  # (1)
    own = [each for each in models if _platform(each) == machine]  # (2)
    meant = own or [each for each in models if _platform(each) is None]  # (3)
    if len(models) == 1:
        meant = models
    if len(meant) != 1:
        choices = ", ".join(f"{each['digest']}{_for(each)}" for each in (meant or models)[:8])
        raise Failed(
            "unsupported", f"{where} is an index of {len(models)} manifests and does not say which is for this machine",
            f"name one by its digest (`@sha256:…`): {choices}" if choices else None,
        )  # fmt: skip
    return str(meant[0]["digest"])


def _attests(entry: Mapping[str, Any]) -> bool:
    notes = entry.get("annotations")
    return (isinstance(notes, dict) and "vnd.docker.reference.type" in notes) or _platform(entry) == ("unknown",) * 2


def _platform(entry: Mapping[str, Any]) -> Machine | None:
    given = entry.get("platform")
    if not isinstance(given, dict) or not given.get("os"):
        return None
    return str(given["os"])[:40], str(given.get("architecture"))[:40]


def _for(entry: Mapping[str, Any]) -> str:
    found = _platform(entry)
    return f" for {found[0]}/{found[1]}" if found else ""


@dataclass(frozen=True, slots=True)
class _Described:
    sha256: str
    size: int
    media: str
    path: str | None


def _described(layer: Mapping[str, Any], where: str) -> _Described:
    digest, size, media = (layer.get(key) for key in ("digest", "size", "mediaType"))
    match = _DIGEST.fullmatch(str(digest))
    if match is None or type(size) is not int or size < 0 or not isinstance(media, str):
        raise _damaged(where, "a layer has no usable digest, size or media type")
    annotations = layer.get("annotations")
    notes = annotations if isinstance(annotations, dict) else {}
    path = next((str(notes[key]) for key in _FILEPATH if isinstance(notes.get(key), str)), None)
    return _Described(match[1], size, media, path)


def _plan(found: list[_Described], where: str) -> Iterator[Layer]:
    weights = {kind: [each for each in found if _weights(each) == kind] for kind in ("gguf", "safetensors")}
    for layer in found:
        if kind := _weights(layer):
            group = weights[kind]
            name = _checked(layer.path, where) or _numbered(group.index(layer), len(group), kind)
            yield Layer(layer.sha256, layer.size, "file", name if name.endswith(f".{kind}") else f"{name}.{kind}")
        elif _is_archive(layer.media):
            yield Layer(layer.sha256, layer.size, "tar")
        elif companion := _companion(layer, where):
            yield Layer(layer.sha256, layer.size, "file", companion)


def _weights(layer: _Described) -> str | None:
    path = (layer.path or "").lower()
    if "mmproj" in layer.media or ".lora" in layer.media:
        return None
    for kind in ("gguf", "safetensors"):
        exact = layer.media in (f"{DOCKER}gguf.v3", f"{DOCKER}safetensors", f"{CNCF}weight.v1.{kind}")
        if (exact and kind in layer.media) or (layer.media == f"{CNCF}weight.v1.raw" and path.endswith(f".{kind}")):
            return kind
    return None


def _is_archive(media: str) -> bool:
    return media in (f"{DOCKER}vllm.config.tar", f"{DOCKER}dir.tar") or (
        media.startswith((f"{CNCF}weight.v1.tar", f"{CNCF}weight.config.v1.tar"))
    )


def _companion(layer: _Described, where: str) -> str | None:
    """The name of a file that goes with the weights, or None for what serving has no use for."""
    if layer.media == f"{DOCKER}chat.template.jinja":
        return "chat_template.jinja"
    if "mmproj" in layer.media:
        return "mmproj.gguf"
    if ".lora" in layer.media:
        return "adapter.gguf"
    if layer.media == f"{DOCKER}dduf":
        raise Failed("unsupported", f"{where} is a diffusion model (DDUF), which cannot be served")
    if layer.media != f"{DOCKER}model.file" and not layer.media.startswith((f"{CNCF}weight.", f"{CNCF}weight.config.")):
        return None  # licences, documents, code, data sets
    name = _checked(layer.path, where)
    return name if name and name.endswith(KEPT) else None


def _numbered(index: int, count: int, kind: str) -> str:
    return f"model.{kind}" if count == 1 else f"model-{index + 1:05d}-of-{count:05d}.{kind}"


def _checked(path: str | None, where: str) -> str | None:
    """A relative path of plain names. Anything else is an attempt, not an accident."""
    if path is None:
        return None
    if not is_plain(path):
        raise _damaged(where, f"a layer has the path `{path[:80]!r}`")
    return path


def is_plain(path: str) -> bool:
    """Whether every part of a path is a plain file name, a few levels deep."""
    parts = path.split("/")
    return len(parts) <= 4 and all(map(_PART.fullmatch, parts))


def _document(data: bytes, where: str) -> dict[str, Any]:
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise _damaged(where, "it is no JSON") from error
    if not isinstance(value, dict):
        raise _damaged(where, "it is no JSON object")
    return value


def _damaged(where: str, why: str) -> Failed:
    return Failed("damaged", f"the manifest of {where} is damaged or not what it claims to be: {why}")
