"""llama-swap's config.yaml: a command line for each model, with macros."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from appliance.config.problems import KeyPath
from appliance.migrate.draft import Model
from appliance.migrate.found import Reading
from appliance.migrate.inputs import Input, Tree
from appliance.migrate.readers import docker_run
from appliance.migrate.readers.engines import engine_in, mapping_variables, read_command, read_variables
from appliance.migrate.words import split

_MACRO = re.compile(r"\$\{([\w.-]+)\}")
_OWN = frozenset({"PORT", "MODEL_ID", "PID"})
_DEEPEST = 8


def read(source: Input, document: Tree, reading: Reading) -> None:
    data, models = document.data, {}
    for name, entry in _mapping(data.get("models")).items():
        if isinstance(entry, dict):
            models[str(name)] = _model(str(name), entry, source, document, reading)
    for path, value in _leaves({name: value for name, value in data.items() if name != "models"}, ()):
        word, place = ".".join(map(str, path)), document.place(*path)
        if word == "hooks.on_startup.preload":
            for name in value if isinstance(value, list) else ():
                reading.add("llama-swap", word, name, key=f"{word} {name}", place=place, model=models.get(str(name)))
        elif word == "apiKeys":
            reading.hide(value)
            for index, key in enumerate(value if isinstance(value, list) else [value]):
                reading.add("llama-swap", word, key, key=f"{word}[{index}]", place=place)
        else:
            reading.add("llama-swap", word, value, key=word, place=place)


def _model(name: str, entry: Mapping[str, Any], source: Input, document: Tree, reading: Reading) -> Model | None:
    macros = {**_mapping(document.data.get("macros")), **_mapping(entry.get("macros")), "MODEL_ID": name}
    place, key = document.place("models", name, "cmd"), f"models.{name}.cmd"
    text = _expanded(str(entry.get("cmd") or ""), macros)
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    argv = split(" ".join(line.rstrip().removesuffix("\\") for line in lines))
    model: Model | None = None
    if docker_run.is_docker_run(argv):
        model = docker_run.read(argv, source.base, reading, place=place, key=key)
    elif command := engine_in(argv):
        program = ("llama-swap", "models.*.cmd.program")
        model = read_command(command, reading, base=source.base, label=name, key=key, place=place, program_word=program)
    if model is None:
        model = reading.model(name, "llama.cpp", source.base)
        why = "Starts a program that is no engine known here; declare it under `backends`."
        reading.add(
            "llama-swap", "models.*.cmd", " ".join(argv), key=key, place=place, model=model, level="manual", why=why
        )
    model.label = name
    model.names.insert(0, name)
    model.load = model.load or "on_demand"
    _others(name, entry, model, document, reading)
    return model


def _others(name: str, entry: Mapping[str, Any], model: Model, document: Tree, reading: Reading) -> None:
    for path, value in _leaves({key: value for key, value in entry.items() if key not in ("cmd", "macros")}, ()):
        word = ".".join(map(str, path))
        place = document.place("models", name, *path)
        if word == "env":
            read_variables(mapping_variables(value, place), reading, model, key=f"models.{name}.env.")
        elif word == "aliases" and isinstance(value, list):
            for index, alias in enumerate(value):
                key = f"models.{name}.aliases[{index}]"
                reading.add("llama-swap", "models.*.aliases", alias, key=key, place=place, model=model)
        else:
            reading.add("llama-swap", f"models.*.{word}", value, key=f"models.{name}.{word}", place=place, model=model)


def _expanded(text: str, macros: Mapping[str, Any]) -> str:
    """Macros written out, also those inside macros; what llama-swap fills in itself is left out with its flag."""
    for _ in range(_DEEPEST):
        expanded = _MACRO.sub(lambda match: str(macros.get(match[1], match[0])), text)
        if expanded == text or len(expanded) > 65_536:
            break
        text = expanded
    return re.sub(r"--port[= ]\$\{PORT\}|--host[= ]\S+(?=\s+--port[= ]\$\{PORT\})", "", text)


def _leaves(data: Mapping[str, Any], path: KeyPath) -> Iterator[tuple[KeyPath, Any]]:
    for name, value in data.items():
        here = (*path, name)
        if isinstance(value, dict) and value and name != "env":
            yield from _leaves(value, here)
        else:
            yield here, value


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}
