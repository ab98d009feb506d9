"""Which reader an input is for: by its name where that is plain, else by what is in it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Literal, get_args

from appliance.migrate.inputs import Input, refused, tree
from appliance.migrate.readers import helm, modelfile, runner, shell, vllm_config

Kind = Literal[
    "compose",
    "docker-agent",
    "docker-inspect",
    "dockerfile",
    "env",
    "helm",
    "litellm",
    "llama-swap",
    "model-runner",
    "modelfile",
    "ours",
    "shell",
    "systemd",
    "vllm-config",
]

KINDS: tuple[Kind, ...] = get_args(Kind)

_BY_NAME: tuple[tuple[re.Pattern[str], Kind], ...] = (
    (re.compile(r"(?:.*[._-])?dockerfile(?:\..+)?|containerfile", re.IGNORECASE), "dockerfile"),
    (re.compile(r"\.env(?:\..+)?|.+\.env", re.IGNORECASE), "env"),
    (re.compile(r".+\.service", re.IGNORECASE), "systemd"),
    (re.compile(r"(?:.*[._-])?modelfile(?:\..+)?", re.IGNORECASE), "modelfile"),
    (re.compile(r".+\.(?:sh|bash|zsh)|\.(?:bash|zsh)_history|crontab", re.IGNORECASE), "shell"),
)


def detect(source: Input) -> Kind:
    """Raises InvalidConfig where nothing in the input is known."""
    if source.path and (
        kind := next((kind for pattern, kind in _BY_NAME if pattern.fullmatch(source.path.name)), None)
    ):
        return kind
    suffix = source.path.suffix.lower() if source.path else ""
    if suffix in (".yaml", ".yml", ".json") or source.text.lstrip()[:1] in ("{", "["):
        return _document(source)
    if modelfile.looks_like_it(source.text):
        return "modelfile"
    if re.search(r"^\[Service\]", source.text, re.MULTILINE):
        return "systemd"
    if re.search(r"^\s*FROM\s+\S+", source.text, re.MULTILINE) and re.search(
        r"^\s*(?:CMD|ENTRYPOINT|ENV|RUN)\s", source.text, re.MULTILINE
    ):
        return "dockerfile"
    lines = [line for line in source.text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    if lines and all(re.match(r"\s*(?:export\s+)?[A-Za-z_]\w*=", line) for line in lines):
        return "env"
    if shell.looks_like_it(source.text):
        return "shell"
    if re.search(r"^(?:services|models|model_list|agents):", source.text, re.MULTILINE):
        return _document(source)
    raise _unknown(source)


def _document(source: Input) -> Kind:
    document = tree(source)
    data = document.data
    if runner.looks_saved(document):
        return "model-runner"
    items = data.get("items")
    if isinstance(items, list) and items and isinstance(items[0], dict) and "Config" in items[0] and "Id" in items[0]:
        return "docker-inspect"
    kind = _by_keys(data)
    if kind is None:
        raise _unknown(source)
    return kind


def _by_keys(data: Mapping[str, Any]) -> Kind | None:
    entries = [entry for entry in _mapping(data.get("models")).values() if isinstance(entry, dict)]
    if "model_list" in data:
        return "litellm"
    if "agents" in data or any("provider" in entry and "model" in entry for entry in entries):
        return "docker-agent"
    if "services" in data or "include" in data:
        return "compose"
    if any("cmd" in entry for entry in entries):
        return "llama-swap"
    if any("source" in entry for entry in entries) or (isinstance(data.get("version"), int) and "backend" in data):
        return "ours"
    if entries and all("model" in entry or "image" in entry for entry in entries):
        return "compose"
    if isinstance(data.get("version"), int) and not isinstance(data.get("version"), bool):
        return "ours"
    if helm.looks_like_it(data):
        return "helm"
    if vllm_config.looks_like_it(data):
        return "vllm-config"
    return "compose" if set(data) & {"volumes", "networks", "name"} and "models" in data else None


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _unknown(source: Input) -> Exception:
    return refused(
        source.name,
        "nothing in it is known to `appliance migrate`",
        hint=f"`--as KIND` says what it is: {', '.join(KINDS)}",
    )
