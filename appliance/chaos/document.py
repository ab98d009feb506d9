"""The file that the self-test edits: one of its own with stand-in engines, or a copy of the user's."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import yaml

from appliance.chaos import engine
from appliance.errors import ConfigError
from appliance.reconcile.resolve import absolute_source

STANDIN = (sys.executable, engine.__file__, "--uds", "{socket}", "--name", "{name}")


def standin(directory: Path, key: str) -> dict[str, Any]:
    """Two models on stand-in engines, each with a choice of two weights that hold nothing."""
    for name in ("weights-a", "weights-b"):
        weights = directory / name
        weights.mkdir()
        (weights / "config.json").write_text('{"architectures": ["LlamaForCausalLM"]}')
        (weights / "tokenizer.json").write_text("{}")
        (weights / "model.safetensors").write_bytes(b"\x02\0\0\0\0\0\0\0{}")
    model = {"source": "./weights-a", "rollout": {"strategy": "surge"}}
    return {
        "version": 1,
        "server": {"port": 0},
        "backend": "standin",
        "backends": {"standin": {"command": list(STANDIN)}},
        "auth": {"keys": [{"name": "chaos", "sha256": key}]},
        "models": {"alpha": dict(model), "beta": dict(model)},
    }


def copy(path: Path, key: str) -> dict[str, Any]:
    """The user's file with a port and a key of the self-test's own, readable from any directory."""
    document = yaml.safe_load(path.read_text(encoding="utf-8"))
    base = path.parent.absolute()
    models: dict[str, Any] = document.get("models") or {}
    if not models:
        raise ConfigError(f"{path} declares no model to test with", hint="write one under `models:`")
    for model in models.values():
        model["source"] = absolute_source(model["source"], base)
        model["load"] = "startup"
        model.pop("idle_unload", None)
    if _is_path(document.get("profile")):
        document["profile"] = str((base / document["profile"]).absolute())
    document["server"] = {**(document.get("server") or {}), "host": "127.0.0.1", "port": 0}
    document["auth"] = {"keys": [{"name": "chaos", "sha256": key}]}
    return {**document, "models": models}


def _is_path(profile: object) -> bool:
    return isinstance(profile, str) and profile.endswith((".yaml", ".yml"))
