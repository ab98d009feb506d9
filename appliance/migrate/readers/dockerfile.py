"""Dockerfiles that build on an engine's image or start an engine."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

from appliance.migrate.found import Reading
from appliance.migrate.inputs import Input
from appliance.migrate.readers.arguments import Command
from appliance.migrate.readers.container import engine_of_image
from appliance.migrate.readers.engines import Variable, engine_in, read_command, read_variables
from appliance.migrate.words import split

_INSTRUCTION = re.compile(r"\s*([A-Za-z]+)\s+(.*)", re.DOTALL)
_CONTINUED = re.compile(r"\\\s*$")


def read(source: Input, reading: Reading) -> None:
    argv: dict[str, tuple[list[str], int]] = {}
    variables: list[Variable] = []
    settings: list[tuple[str, str, int]] = []
    image = ""
    for word, rest, line in instructions(source.text):
        if word == "FROM":
            image = rest.split()[0] if rest.split() else ""
            argv.clear()
            variables.clear()
        if word in ("ENTRYPOINT", "CMD"):
            argv[word] = (_words(rest), line)
        elif word == "ENV":
            variables += _variables(rest, f"{source.name}:{line}")
        else:
            settings.append((word, rest, line))
    words = [word for key in ("ENTRYPOINT", "CMD") for word in argv.get(key, ([], 0))[0]]
    line = next((number for _, number in argv.values()), 1)
    command, kind = engine_in(words), engine_of_image(image)
    if command is None and kind in ("vllm", "llama.cpp") and words:
        command = Command("vllm" if kind == "vllm" else "llama.cpp", (), tuple(words))
    key = "CMD" if "CMD" in argv else "ENTRYPOINT"
    model = None
    if command:
        model = read_command(
            command,
            reading,
            base=source.base,
            label=source.base.absolute().name or "default",
            key=key,
            place=f"{source.name}:{line}",
            program_word=("containers", "command.program") if command.program else None,
        )
    elif any(variable.name == "MODEL_PATH" and variable.value for variable in variables):
        model = reading.model("default", "model-runner", source.base)
    if words and not command:
        why = "A program that is no engine; the image stays for what else it does."
        reading.add("dockerfile", key, " ".join(words), key=key, place=f"{source.name}:{line}", level="kept", why=why)
    read_variables(variables, reading, model, key="ENV ")
    for word, rest, number in settings:
        place = f"{source.name}:{number}"
        reading.add("dockerfile", word, rest, key=f"{word} {_short(rest)}", place=place, model=model)


def instructions(text: str) -> Iterator[tuple[str, str, int]]:
    """(instruction, rest, line) with continued lines joined and comments left out."""
    pending, start = "", 0
    for number, line in enumerate(text.splitlines(), 1):
        if line.lstrip().startswith("#") or (not line.strip() and not pending):
            continue
        start = start or number
        if _CONTINUED.search(line):
            pending += _CONTINUED.sub(" ", line)
            continue
        if match := _INSTRUCTION.fullmatch(pending + line):
            yield match[1].upper(), match[2].strip(), start
        pending, start = "", 0


def _words(rest: str) -> list[str]:
    if rest.startswith("["):
        try:
            parsed = json.loads(rest)
        except (ValueError, RecursionError):
            return split(rest)
        return [str(word) for word in parsed]
    return split(rest)


def _variables(rest: str, place: str) -> list[Variable]:
    """`ENV A=1 B=2`, or the older `ENV A 1`."""
    name, _, value = rest.partition(" ")
    if "=" not in name:
        return [Variable(name, value.strip(), place)]
    pairs = (word.partition("=") for word in split(rest))
    return [Variable(name, value, place) for name, equals, value in pairs if equals]


def _short(rest: str) -> str:
    first = rest.split()[0] if rest.split() else ""
    return first if len(first) <= 60 else first[:59] + "…"
