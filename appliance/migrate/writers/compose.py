"""Compose files without what the appliance takes the place of; what asked for models is told where they are."""

from __future__ import annotations

import io
import os.path
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from appliance.migrate.addresses import ON_THE_HOST, base_url, replaced
from appliance.migrate.draft import Draft
from appliance.migrate.found import Reading
from appliance.migrate.inputs import Input, refused
from appliance.migrate.naming import client_name

_HOST_GATEWAY = f"{ON_THE_HOST}:host-gateway"


def rewritten(source: Input, draft: Draft, reading: Reading) -> str:
    """The file's text with its comments; the same text where nothing in it is about models."""
    round_trip = YAML()
    round_trip.preserve_quotes = True
    round_trip.width = 4096
    try:
        document = round_trip.load(source.text)
    except (YAMLError, ValueError, RecursionError) as error:
        problem = getattr(error, "problem", None) or "it cannot be edited as it is written"
        raise refused(source.name, str(problem)) from None
    if not isinstance(document, dict):
        return source.text
    rewriting = _Rewriting(document, draft, reading)
    rewriting.apply()
    if not rewriting.changed:
        return source.text
    _indentation(round_trip, source.text)
    result = io.StringIO()
    round_trip.dump(document, result)
    return result.getvalue()


def _indentation(round_trip: YAML, text: str) -> None:
    """Lists are indented beneath their key, or not, as the file has it."""
    lines = text.splitlines()
    for above, line in pairwise(lines):
        if above.rstrip().endswith(":") and line.lstrip().startswith("- "):
            offset = (len(line) - len(line.lstrip())) - (len(above) - len(above.lstrip()))
            if offset in (0, 2):
                round_trip.indent(mapping=2, sequence=2 + offset, offset=offset)
            return


class _Rewriting:
    def __init__(self, document: dict[str, Any], draft: Draft, reading: Reading) -> None:
        self.changed = False
        self._document = document
        self._draft = draft
        self._gone = {name for names in reading.replaced.values() for name in names}
        self._told = reading.addresses
        self._variables: dict[str, dict[str, list[str]]] = {}
        for consumer in reading.consumers:
            names = self._variables.setdefault(consumer.service, {})
            names.setdefault(consumer.url_variable, [base_url(draft, host=ON_THE_HOST)])
            names.setdefault(consumer.model_variable, []).append(client_name(consumer.model))

    def apply(self) -> None:
        if "models" in self._document:
            del self._document["models"]
            self.changed = True
        services: Any = self._document.get("services")
        for name in list(services) if isinstance(services, dict) else ():
            if name in self._gone:
                del services[name]
                self.changed = True
            elif isinstance(services[name], dict):
                self._service(name, services[name])

    def _service(self, name: str, service: dict[str, Any]) -> None:
        touched = self._addresses(name, service)
        if "models" in service:
            del service["models"]
            self.changed = True
        for key in ("depends_on", "links"):
            self._without_gone(service, key)
        for variable, values in self._variables.get(name, {}).items():
            _set_variable(service, variable, ",".join(dict.fromkeys(values)))
            touched = self.changed = True
        if touched:
            self.changed = True
            _reach_the_host(service)

    def _addresses(self, name: str, service: dict[str, Any]) -> bool:
        """Values that lead to an engine now lead to the appliance."""
        environment = service.get("environment")
        port = self._draft.port or 8000
        told = {variable: replaced(value, port) for (each, variable), value in self._told.items() if each == name}
        touched = False
        for variable, value in told.items():
            if isinstance(environment, dict) and variable in environment:
                touched = touched or environment[variable] != value
                environment[variable] = value
            elif isinstance(environment, list):
                for index, item in enumerate(environment):
                    if str(item).startswith(f"{variable}="):
                        touched = touched or item != f"{variable}={value}"
                        environment[index] = f"{variable}={value}"
        return touched

    def _without_gone(self, service: dict[str, Any], key: str) -> None:
        value = service.get(key)
        if isinstance(value, dict):
            for name in [name for name in value if name in self._gone]:
                del value[name]
                self.changed = True
        elif isinstance(value, list):
            for item in [item for item in value if str(item).partition(":")[0] in self._gone]:
                value.remove(item)
                self.changed = True
        if value is not None and not value:
            del service[key]
            self.changed = True


def _set_variable(service: dict[str, Any], name: str, value: str) -> None:
    environment = service.get("environment")
    if isinstance(environment, list):
        environment[:] = [item for item in environment if str(item).partition("=")[0] != name]
        environment.append(f"{name}={value}")
    elif isinstance(environment, dict):
        environment[name] = value
    else:
        service["environment"] = {name: value}


def _reach_the_host(service: dict[str, Any]) -> None:
    """Docker Desktop knows the host's name by itself; Docker on Linux has to be told."""
    hosts = service.get("extra_hosts")
    if isinstance(hosts, dict):
        hosts.setdefault(ON_THE_HOST, "host-gateway")
    elif isinstance(hosts, list):
        if not any(str(item).startswith(ON_THE_HOST) for item in hosts):
            hosts.append(_HOST_GATEWAY)
    elif "network_mode" not in service:
        service["extra_hosts"] = [_HOST_GATEWAY]


def relinked(text: str, base: Path, renamed: Mapping[Path, Path]) -> str:
    """Names of other files of the project, where those were rewritten beside the originals."""
    for before, after in renamed.items():
        for spelled in {before.name, f"./{before.name}", os.path.relpath(before, base)}:
            for quote in ('"', "'", ""):
                for lead in ("- ", "file: ", "path: "):
                    text = text.replace(
                        f"{lead}{quote}{spelled}{quote}\n", f"{lead}{quote}{os.path.relpath(after, base)}{quote}\n"
                    )
    return text
