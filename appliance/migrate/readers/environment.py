""".env files, and the environment of the process."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from appliance.migrate.draft import Model
from appliance.migrate.found import Reading
from appliance.migrate.inputs import Input
from appliance.migrate.readers.engines import Variable, is_known, read_variables

_LINE = re.compile(r"\s*(?:export\s+)?([A-Za-z_][\w.-]*)\s*=\s*(.*?)\s*")
_QUOTED = re.compile(r"""(["'])(.*?)(?<!\\)\1\s*(?:#.*)?""", re.DOTALL)


def read(source: Input, reading: Reading) -> None:
    """A .env file: every variable has a row, also those that no engine reads."""
    variables = list(parse(source.text, source.name))
    read_variables(variables, reading, _model(variables, source.base, reading), key="")
    for number, line in enumerate(source.text.splitlines(), 1):
        if line.strip() and not line.lstrip().startswith("#") and not _LINE.fullmatch(line):
            why = "Not of the form NAME=value."
            place = f"{source.name}:{number}"
            reading.hide(line.strip())
            reading.add("variables", "", None, key=f"line {number}", place=place, level="manual", why=why)


def read_process(environ: Mapping[str, str], base: Path, reading: Reading) -> None:
    """The variables that a rule knows; what else is in the environment is none of our business."""
    known = [Variable(name, value, "environment") for name, value in sorted(environ.items()) if is_known(name)]
    known = [variable for variable in known if variable.name not in {"HOME", "DEBUG", "LD_LIBRARY_PATH", "NO_COLOR"}]
    read_variables(known, reading, _model(known, base, reading), key="")


def parse(text: str, name: str) -> Iterator[Variable]:
    """The last line for a name wins, as for Docker, and is the one that is given."""
    found: dict[str, Variable] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if line.lstrip().startswith("#") or not (match := _LINE.fullmatch(line)):
            continue
        found[match[1]] = Variable(match[1], _unquoted(match[2]), f"{name}:{number}")
    yield from found.values()


def _unquoted(text: str) -> str:
    if match := _QUOTED.fullmatch(text):
        return match[2].replace('\\"', '"').replace("\\n", "\n") if match[1] == '"' else match[2]
    return re.split(r"\s#", text)[0].rstrip()


def _model(variables: list[Variable], base: Path, reading: Reading) -> Model | None:
    """MODEL_PATH and LLAMA_ARG_MODEL name the one model that such an image serves."""
    names = {variable.name for variable in variables if variable.value}
    if "MODEL_PATH" in names:
        return reading.model("default", "model-runner", base)
    if names & {"LLAMA_ARG_MODEL", "LLAMA_ARG_HF_REPO", "LLAMA_ARG_DOCKER_REPO"}:
        return reading.model("default", "llama.cpp", base)
    return None
