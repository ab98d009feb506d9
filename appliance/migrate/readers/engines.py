"""What several readers end in: one engine, from its command line, its variables and its mounts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from appliance.migrate.draft import Model, Mount, Origin
from appliance.migrate.flags import llama_server_variables
from appliance.migrate.found import Reading
from appliance.migrate.readers.arguments import Command, read_flags, recognise
from appliance.migrate.rules import find_rule
from appliance.migrate.words import listed, split


@dataclass(frozen=True, slots=True)
class Variable:
    name: str
    value: str | None = field(repr=False)
    place: str = ""


def read_command(
    command: Command,
    reading: Reading,
    *,
    base: Path,
    label: str,
    key: str,
    place: str,
    mounts: Sequence[Mount] = (),
    program_word: tuple[str, str] | None = None,
) -> Model | None:
    """One engine's command line: the model it serves, and a row for every flag."""
    if command.engine == "ollama":
        return _ollama(command, reading, base=base, key=key, place=place)
    origin: Origin = "vllm" if command.engine == "vllm" else "llama.cpp"
    model = reading.model(label, origin, base, mounts)
    if program_word:
        vocabulary, word = program_word
        reading.add(
            vocabulary, word, " ".join(command.program), key=f"{key} {command.program[-1]}", place=place, model=model
        )
    words = list(command.rest)
    if command.engine == "vllm" and words and not words[0].startswith("-"):
        reading.add("vllm-flags", "model", words.pop(0), key=f"{key} MODEL".strip(), place=place, model=model)
    read_flags(words, command.engine, reading, model, key=key, place=place)
    return model


def _ollama(command: Command, reading: Reading, *, base: Path, key: str, place: str) -> Model | None:
    if command.program[-1] != "run" or not command.rest:
        return None
    name = command.rest[0]
    model = reading.model(name, "ollama", base, names=[name])
    reading.add("ollama", "FROM", name, key=f"{key} run".strip(), place=place, model=model)
    for word in command.rest[1:]:
        why = "A prompt or a switch of `ollama run`; the model is served, not talked to, here."
        reading.add("ollama", word, None, key=f"{key} {word}", place=place, model=model, level="dropped", why=why)
    return model


def read_variables(
    variables: Sequence[Variable],
    reading: Reading,
    model: Model | None,
    *,
    key: str,
    known_only: bool = False,
    gone: bool = False,
) -> None:
    """Every variable as a row; LLAMA_ARGS as one for each of its flags. `known_only` skips those without a rule;
    `gone`: what they were set for is no more.
    """
    for variable in variables:
        if known_only and not is_known(variable.name):
            continue
        label = f"{key}{variable.name}"
        if variable.name == "LLAMA_ARGS" and (words := split(variable.value or "")):
            read_flags(words, "llama.cpp", reading, model, key=label, place=variable.place)
            continue
        flag = llama_server_variables().get(variable.name)
        name, word = ("llama-server-flags", flag) if flag else ("variables", variable.name)
        rule = find_rule(name, word)
        if rule.secret:
            reading.hide(variable.value)
        unknown = None if rule.source else "dropped" if gone else "kept"
        why = None if rule.source else _GONE if gone else "Read by no engine; it stays where it is."
        reading.add(name, word, variable.value, key=label, place=variable.place, model=model, level=unknown, why=why)


_GONE = "Read by no engine known here, and the container that had it is gone."


def is_known(name: str) -> bool:
    return name in llama_server_variables() or bool(find_rule("variables", name).source)


def mapping_variables(data: Any, place: str) -> list[Variable]:
    """Compose's and Docker's two spellings: a mapping, or a list of `NAME=value`."""
    if isinstance(data, Mapping):
        return [Variable(str(name), None if value is None else _text(value), place) for name, value in data.items()]
    pairs = (str(item).partition("=") for item in listed(data) if item is not None)
    return [Variable(name, value if equals else None, place) for name, equals, value in pairs]


def _text(value: Any) -> str:
    return ("true" if value else "false") if isinstance(value, bool) else str(value)


def engine_in(argv: Sequence[str]) -> Command | None:
    """`recognise`, and once more inside `sh -c "…"`."""
    if (
        len(argv) >= 3
        and argv[0].rpartition("/")[2] in {"sh", "bash", "zsh", "dash"}
        and argv[1] in {"-c", "-lc", "-ec"}
    ):
        inner = split(argv[2])
        return recognise(inner[inner.index("&&") + 1 :] if "&&" in inner else inner)
    return recognise(argv)
