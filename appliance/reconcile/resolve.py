"""From the file to the planner's input: names resolved, secrets in place, nothing left to interpret."""

from __future__ import annotations

import json
import platform
import sys
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from appliance.config.models import Appliance, Model
from appliance.plan.desired import Desired, DesiredModel, EngineSpec

METAL = "vllm-metal"

_TASKS: Mapping[str, Mapping[str, str]] = {
    "generate": {"runner": "generate"},
    "embed": {"runner": "pooling", "convert": "embed"},
    "score": {"runner": "pooling", "convert": "classify"},
}
"""vLLM's own words for them."""


def resolve(
    appliance: Appliance,
    *,
    environments: Mapping[str, str],
    base: Path,
    contents: Mapping[str, str] = MappingProxyType({}),
) -> Desired:
    """Every model of the file as desired state.

    `environments` gives each backend's engine environment by identity; `base` is the directory that relative paths in
    the file start from; `contents` has the state of the files of those models whose files can change.
    """
    return {
        name: _model(name, model, appliance, environments, base, contents.get(name, ""))
        for name, model in appliance.models.items()
    }


def _model(
    name: str, model: Model, appliance: Appliance, environments: Mapping[str, str], base: Path, content: str
) -> DesiredModel:
    backend = backend_of(model, appliance)
    command = appliance.backends.get(backend)
    secrets = {**command.env, **model.env} if command else model.env
    env = {name: secret.get_secret_value() for name, secret in secrets.items()}
    if backend == METAL and appliance.metal.device != "default":
        env.setdefault("METAL_DEVICE", appliance.metal.device)
    engine = {**(_TASKS[model.task] if model.task and not command else {}), **model.engine}
    if appliance.server.media_domains and not command:
        engine["allowed_media_domains"] = [*appliance.server.media_domains]
    if model.adapters and not command:
        engine.setdefault("enable_lora", True)
    spec = EngineSpec(
        model=name,
        backend=backend,
        source=absolute_source(model.source, base),
        engine=tuple(sorted((key, json.dumps(value, sort_keys=True)) for key, value in engine.items())),
        env=tuple(sorted(env.items())),
        command=command.command if command else (),
        health=command.health if command else "/health",
        quantize=model.quantize,
        environment=environments.get(backend, ""),
        content=content,
    )
    return DesiredModel(
        spec=spec,
        load=model.load,
        ready_timeout=model.rollout.ready_timeout.total_seconds(),
        drain_timeout=model.rollout.drain_timeout.total_seconds(),
        idle_unload=model.idle_unload.total_seconds() if model.idle_unload else None,
        probe=model.rollout.probe,
        strategy=model.rollout.strategy,
    )


def backend_of(model: Model, appliance: Appliance) -> str:
    """The backend that serves this model; `auto` is the Metal plug-in on Apple Silicon and vLLM elsewhere."""
    backend = model.backend or appliance.backend
    return automatic(sys.platform, platform.machine()) if backend == "auto" else backend


def automatic(system: str, machine: str) -> str:
    """Of Python's own words for both. A Python under Rosetta calls the machine `x86_64`."""
    return METAL if system == "darwin" and machine == "arm64" else "vllm"


def absolute_source(source: str, base: Path) -> str:
    """Local paths made absolute, so that the spec means the same whatever directory the appliance runs in."""
    if source.partition(":")[0] in {"hf", "pypi", "oci", "url"}:
        return source
    return str((base / Path(source).expanduser()).absolute())
