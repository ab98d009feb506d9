"""docker-agent's YAML: its models that Docker Model Runner serves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from appliance.migrate.draft import Model
from appliance.migrate.found import Reading
from appliance.migrate.inputs import Input, Tree
from appliance.migrate.readers.arguments import read_flags
from appliance.migrate.words import words_of

_VOCABULARY = "docker-agent"


def read(source: Input, document: Tree, reading: Reading) -> None:
    data = document.data
    providers = _mapping(data.get("providers"))
    ours = {"dmr", *(name for name, entry in providers.items() if _mapping(entry).get("provider") == "dmr")}
    for name, entry in providers.items():
        for key, value in _mapping(entry).items():
            word, label = f"providers.*.{key}", f"providers.{name}.{key}"
            level = None if name in ours else "kept"
            _add(reading, word, value, label, document.place("providers", name, key), level=level)
    for name, entry in _mapping(data.get("models")).items():
        _model(name, _mapping(entry), ours, source, document, reading)
    for name, agent in _mapping(data.get("agents")).items():
        _agent(name, agent, source, document, reading)
    for key in data:
        if key not in ("models", "providers", "agents"):
            _add(reading, key, None, key, document.place(key))


def _model(
    name: str, entry: Mapping[str, Any], ours: set[str], source: Input, document: Tree, reading: Reading
) -> None:
    if entry.get("provider") not in ours:
        why = "A model of another provider; the agent goes on asking it."
        _add(reading, "models.*", None, f"models.{name}", document.place("models", name), level="kept", why=why)
        return
    model = reading.model(name, "model-runner", source.base)
    for key, value in entry.items():
        label, place = f"models.{name}.{key}", document.place("models", name, key)
        if key != "provider_opts":
            _add(reading, f"models.*.{key}", value, label, place, model)
            continue
        for option, setting in _mapping(value).items():
            at = document.place("models", name, key, option)
            if option in ("runtime_flags", "raw_runtime_flags") and (words := words_of(setting)):
                read_flags(words, None, reading, model, key=f"{label}.{option}", place=at)
            else:
                _add(reading, f"models.*.provider_opts.{option}", setting, f"{label}.{option}", at, model)


def _agent(name: str, agent: Any, source: Input, document: Tree, reading: Reading) -> None:
    place, reference = document.place("agents", name), _mapping(agent).get("model")
    _add(reading, "agents.*", None, f"agents.{name}", place)
    for word in reference.split(",") if isinstance(reference, str) else ():
        if word.strip().startswith("dmr/"):
            model = reading.model(name, "model-runner", source.base)
            at, key = document.place("agents", name, "model"), f"agents.{name}.model {word.strip()}"
            _add(reading, "agents.*.model", word.strip().removeprefix("dmr/"), key, at, model)


def _add(
    reading: Reading,
    word: str,
    value: Any,
    key: str,
    place: str,
    model: Model | None = None,
    *,
    level: str | None = None,
    why: str | None = None,
) -> None:
    reading.add(_VOCABULARY, word, value, key=key, place=place, model=model, level=level, why=why)


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}
