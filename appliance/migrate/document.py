"""The draft as text: model-runner.yaml, and the profile that holds what the machine decides."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from appliance.config.dump import dump
from appliance.migrate.draft import Draft, Model
from appliance.migrate.sizing import IDLE_UNLOAD, Size
from appliance.migrate.target import GIB, Target


def configuration(draft: Draft, *, profile: str, origin: str) -> str:
    """What clients see: names, sources, keys, the address. `profile` is the path that the file names."""
    parts = [
        f"# Written by `appliance migrate` from {origin}.\n"
        "# What the machine decides (backend, memory, size of each model) is in the profile; a key set here wins.\n",
        "version: 1\n",
        f"profile: {profile}\n",
    ]
    if server := _server(draft):
        parts.append(f"\nserver:\n{_block(server)}")
    if draft.keys:
        parts.append(
            "\nauth:\n  keys:                  # hashes; clients go on sending the keys that they have\n"
            + textwrap.indent(dump(draft.keys), "    ")
        )
    parts.append("\nmodels:\n" + "\n".join(_entry(model.name, _client_side(model)) for model in draft.models))
    return "".join(parts)


def profile(draft: Draft, sizes: Sequence[Size], target: Target, *, name: str, origin: str) -> str:
    """What the machine decides."""
    budget = f"{target.share * 100:g}%"
    parts = [
        f"# {name}: how the models of {origin} run on {described(target)}. model-runner.yaml names this profile.\n",
        f"\nbackend: {draft.backend}\n",
        f"\nmemory:\n  budget: {budget:<12}"
        f"# {target.budget / GIB:.1f} of {target.memory / GIB:.0f} GiB, for all engines together\n",
    ]
    if draft.apple or draft.metal_device:
        device = draft.metal_device or "default"
        parts.append(f"\nmetal:\n  device: {device:<12}# MLX's device; `default` is the GPU where there is one\n")
    parts.append(
        "\nmodels:\n" + "\n".join(_entry(size.model.name, _machine_side(size), _comment(size)) for size in sizes)
    )
    return "".join(parts)


def whole(draft: Draft, sizes: Sequence[Size], target: Target) -> str:
    """Both in one text, as `up -f compose.yaml` needs it."""
    by_name = {size.model.name: size for size in sizes}
    models = {model.name: {**_client_side(model), **_machine_side(by_name[model.name])} for model in draft.models}
    document: dict[str, Any] = {
        "version": 1,
        "backend": draft.backend,
        "memory": {"budget": f"{target.share * 100:g}%"},
    }
    if draft.metal_device:
        document["metal"] = {"device": draft.metal_device}
    if server := _server(draft):
        document["server"] = server
    if draft.keys:
        document["auth"] = {"keys": draft.keys}
    return dump({**document, "models": models})


def _server(draft: Draft) -> dict[str, Any]:
    server: dict[str, Any] = {}
    if draft.host:
        server["host"] = draft.host
    if draft.port is not None:
        server["port"] = draft.port
    if draft.metrics:
        server["metrics"] = True
    return server


def _client_side(model: Model) -> dict[str, Any]:
    entry: dict[str, Any] = {"source": model.source}
    if model.names:
        entry["aliases"] = model.names
    if model.sampling:
        entry["sampling"] = model.sampling
    if model.adapters:
        entry["adapters"] = model.adapters
    if model.env:
        entry["env"] = model.env
    if model.drain_timeout:
        entry["rollout"] = {"drain_timeout": model.drain_timeout}
    return entry


def _machine_side(size: Size) -> dict[str, Any]:
    model = size.model
    entry: dict[str, Any] = {"quantize": model.quantize} if model.quantize else {}
    entry["load"] = size.load
    idle = model.idle_unload or (IDLE_UNLOAD if size.load == "on_demand" and model.load is None else None)
    if idle:
        entry["idle_unload"] = idle
    # How long an input of an embedding model may be is the model's own, unless the input said otherwise.
    length = {} if "runner" in model.arguments and model.context is None else {"max_model_len": size.context}
    engine: dict[str, Any] = {**length, "max_num_seqs": size.sequences, **model.arguments}
    if size.cache and "kv_cache_memory_bytes" not in engine:
        engine["kv_cache_memory_bytes"] = f"{size.cache // 2**20}M"
    return {**entry, "engine": engine}


def _comment(size: Size) -> str:
    if size.problem:
        return f"{size.problem}; would fit: {size.would_fit}"
    if size.memory is None:
        return "nothing says how large this model is; see that it fits"
    how = "its checkpoint" if size.measured else "the size in its name"
    return f"{size.memory / GIB:.1f} GiB, estimated from {how}"


def _entry(name: str, values: Mapping[str, Any], comment: str = "") -> str:
    head = dump({name: None}).rstrip().removesuffix("null").rstrip()
    return textwrap.indent(f"{head}{f'  # {comment}' if comment else ''}\n{textwrap.indent(dump(values), '  ')}", "  ")


def _block(values: Mapping[str, Any]) -> str:
    return textwrap.indent(dump(values), "  ")


def described(target: Target) -> str:
    return (
        f"{target.name} ({target.memory / GIB:.0f} GiB)"
        if target.name != "this-machine"
        else f"this machine ({target.memory / GIB:.0f} GiB)"
    )
