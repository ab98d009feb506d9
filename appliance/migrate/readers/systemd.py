"""systemd units that start an engine."""

from __future__ import annotations

import re
from collections.abc import Iterator

from appliance.migrate.found import Reading
from appliance.migrate.inputs import Input, inside, read_input
from appliance.migrate.readers import docker_run, environment
from appliance.migrate.readers.engines import Variable, engine_in, read_command, read_variables
from appliance.migrate.words import split

_LINE = re.compile(r"\s*([A-Za-z][\w-]*)\s*=\s*(.*)")


def read(source: Input, reading: Reading) -> None:
    model = None
    variables: list[Variable] = []
    others: list[tuple[str, str, int]] = []
    for section, name, value, line in entries(source.text):
        place = f"{source.name}:{line}"
        if (section, name) == ("Service", "ExecStart") and value:
            argv = split(value.lstrip("-@:+!")) or [""]
            if docker_run.is_docker_run([argv[0].rpartition("/")[2], *argv[1:]]):
                model = docker_run.read(
                    ["docker", *argv[1:]], source.base, reading, place=place, key="ExecStart docker run"
                )
            elif command := engine_in(argv):
                label = (source.path.stem if source.path else "default").partition("@")[0]
                model = read_command(command, reading, base=source.base, label=label, key="ExecStart", place=place)
            else:
                others.append((f"{section}.{name}", value, line))
        elif (section, name) == ("Service", "Environment"):
            pairs = (word.partition("=") for word in split(value))
            variables += [Variable(key, text, place) for key, equals, text in pairs if equals]
        elif (section, name) == ("Service", "EnvironmentFile"):
            variables += _file(value.lstrip("-"), source, reading, place)
        else:
            others.append((f"{section}.{name}", value, line))
    read_variables(variables, reading, model, key="Environment ")
    for word, value, line in others:
        level = "manual" if word == "Service.ExecStart" else None
        why = "Starts a program that is no engine known here." if level else None
        place = f"{source.name}:{line}"
        reading.add("systemd", word, value, key=word, place=place, model=model, level=level, why=why)


def entries(text: str) -> Iterator[tuple[str, str, str, int]]:
    """(section, name, value, line), continued lines joined."""
    section, pending, start = "", "", 0
    for number, line in enumerate(text.splitlines(), 1):
        if not pending and (not line.strip() or line.lstrip().startswith(("#", ";"))):
            continue
        if not pending and line.startswith("["):
            section = line.strip().strip("[]")
            continue
        start = start or number
        if line.rstrip().endswith("\\"):
            pending += line.rstrip()[:-1] + " "
            continue
        if match := _LINE.fullmatch(pending + line):
            yield section, match[1], match[2].strip(), start
        pending, start = "", 0


def _file(name: str, source: Input, reading: Reading, place: str) -> list[Variable]:
    path = source.base / name
    if not inside(path, source.base) or not path.is_file():
        why = "Not there, or outside the unit's folder; give it to `appliance migrate` too."
        reading.add(
            "systemd",
            "Service.EnvironmentFile",
            name,
            key=f"EnvironmentFile {name}",
            place=place,
            level="manual",
            why=why,
        )
        return []
    reading.add("systemd", "Service.EnvironmentFile", name, key=f"EnvironmentFile {name}", place=place)
    reading.read_files.append(path)
    return list(environment.parse(read_input(path).text, name))
