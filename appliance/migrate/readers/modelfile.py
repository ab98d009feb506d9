"""Ollama's Modelfile."""

from __future__ import annotations

import re
from collections.abc import Iterator

from appliance.migrate.found import Reading
from appliance.migrate.inputs import Input

_INSTRUCTION = re.compile(
    r"\s*(FROM|PARAMETER|TEMPLATE|SYSTEM|ADAPTER|LICENSE|MESSAGE|REQUIRES)\s+(.*)", re.IGNORECASE | re.DOTALL
)


def looks_like_it(text: str) -> bool:
    return bool(re.search(r"^\s*FROM\s", text, re.MULTILINE | re.IGNORECASE)) and bool(
        re.search(r"^\s*(?:PARAMETER|TEMPLATE|SYSTEM|ADAPTER)\s", text, re.MULTILINE | re.IGNORECASE)
    )


def read(source: Input, reading: Reading) -> None:
    folder = source.base.absolute().name or "default"
    named = source.path.suffix.lstrip(".") if source.path else ""
    label = named or folder
    model = reading.model(label, "ollama", source.base, names=[label])
    for word, rest, line in instructions(source.text):
        place = f"{source.name}:{line}"
        if word == "PARAMETER":
            name, _, value = rest.partition(" ")
            reading.add("ollama", name, value.strip().strip('"'), key=f"PARAMETER {name}", place=place, model=model)
        else:
            taken = rest.strip('"') if word in ("FROM", "ADAPTER") else None
            reading.add("ollama", word, taken, key=word, place=place, model=model)


def instructions(text: str) -> Iterator[tuple[str, str, int]]:
    """(instruction, rest, line); text in three quotes goes on until the next three."""
    lines = iter(enumerate(text.splitlines(), 1))
    for number, line in lines:
        match = _INSTRUCTION.fullmatch(line)
        if line.lstrip().startswith("#") or match is None:
            continue
        rest = match[2].strip()
        if rest.startswith('"""'):
            while rest.count('"""') < 2:
                following = next(lines, None)
                if following is None:
                    break
                rest += "\n" + following[1]
        yield match[1].upper(), rest, number
