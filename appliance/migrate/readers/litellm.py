"""`model_list`: LiteLLM's proxy, and Docker Model Runner's gateway, which reads the same."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from appliance.config.problems import KeyPath
from appliance.migrate.addresses import is_engine_address
from appliance.migrate.draft import Model, Origin
from appliance.migrate.found import Reading
from appliance.migrate.inputs import Input, Tree

_LOCAL = ("docker_model_runner/", "hosted_vllm/", "ollama/", "ollama_chat/", "vllm/", "llamafile/")
_LOCAL_ADDRESS = re.compile(
    r"https?://(?:localhost|127\.0\.0\.1|host\.docker\.internal|172\.17\.0\.1|\w+)(?::\d+)?(?:/|$)"
)


def read(source: Input, document: Tree, reading: Reading) -> None:
    entries = document.data.get("model_list")
    known: dict[str, Model] = {}
    for index, entry in enumerate(entries if isinstance(entries, list) else []):
        if isinstance(entry, dict):
            _entry(entry, index, known, source, document, reading)
    for path, value in _leaves({name: value for name, value in document.data.items() if name != "model_list"}, ()):
        word, place = ".".join(map(str, path)), document.place(*path)
        if word == "general_settings.master_key":
            reading.hide(value)
        reading.add("litellm", word, value, key=word, place=place)


def _entry(
    entry: Mapping[str, Any], index: int, known: dict[str, Model], source: Input, document: Tree, reading: Reading
) -> None:
    prefix = f"model_list[{index}]"
    section = next((name for name in ("litellm_params", "params") if isinstance(entry.get(name), dict)), "")
    params: Mapping[str, Any] = entry[section] if section else {}
    reference, name = str(params.get("model") or ""), str(entry.get("model_name") or "")
    address = str(params.get("api_base") or params.get("base_url") or "")
    local = reference.startswith(_LOCAL) or is_engine_address(address, ()) or bool(_LOCAL_ADDRESS.match(address))
    place = document.place("model_list", index)
    if not local:
        reading.hide(params.get("api_key"))
        reading.add("litellm", "model_list.foreign", None, key=f"{prefix} {name}", place=place)
        return
    if name in known:
        why = "A second engine behind the same name; here one engine serves it, batching the requests of all."
        reading.add("litellm", "model_list.params.model", reference, key=prefix, place=place, level="dropped", why=why)
        return
    origin: Origin = "ollama" if reference.startswith("ollama") else "model-runner" if "docker" in reference else "vllm"
    model = known[name] = reading.model(name, origin, source.base)
    reading.add("litellm", "model_list.model_name", name, key=f"{prefix}.model_name", place=place, model=model)
    for key, value in params.items():
        at, label = document.place("model_list", index, section, key), f"{prefix}.{section}.{key}"
        reading.add("litellm", f"model_list.params.{key}", value, key=label, place=at, model=model)
    for key, value in entry.items():
        if key not in ("model_name", section):
            at = document.place("model_list", index, key)
            reading.add("litellm", f"model_list.{key}", value, key=f"{prefix}.{key}", place=at, model=model)


def _leaves(data: Mapping[str, Any], path: KeyPath) -> Iterator[tuple[KeyPath, Any]]:
    for name, value in data.items():
        here = (*path, name)
        if isinstance(value, dict) and value:
            yield from _leaves(value, here)
        else:
            yield here, value
