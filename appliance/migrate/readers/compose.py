"""Compose: the `models:` element, model providers, and services whose image is an engine."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from appliance.migrate.addresses import is_engine_address
from appliance.migrate.draft import Model
from appliance.migrate.found import Consumer, Reading
from appliance.migrate.inputs import Input, inside, read_input
from appliance.migrate.readers import environment
from appliance.migrate.readers.arguments import read_flags
from appliance.migrate.readers.compose_project import Loader, Project
from appliance.migrate.readers.container import Container, mounts_of, read_container, settings_of
from appliance.migrate.readers.engines import Variable, mapping_variables
from appliance.migrate.words import words_of

_TAKEN_APART = ("command", "entrypoint", "environment")
"""Keys whose parts have rows of their own, where they have parts."""


def read(sources: Sequence[Input], environ: Mapping[str, str], reading: Reading) -> None:
    """All Compose files that were given, as one project."""
    loader = Loader(sources[0].base, environ, reading)
    for source in sources:
        loader.load(source)
    _Compose(loader.finish(), reading).read()


class _Compose:
    def __init__(self, project: Project, reading: Reading) -> None:
        self._project = project
        self._reading = reading
        self._place = project.place
        self._models: dict[str, Model] = {}
        self._providers: dict[str, list[Model]] = {}
        self._replaced = reading.replaced.setdefault(project.files[0].name, set())

    def read(self) -> None:
        models, services = self._project.mapping("models"), self._project.mapping("services")
        self._malformed()
        for name, entry in models.items():
            self._model(name, entry)
        engines = {
            name: self._container(name, service) for name, service in services.items() if isinstance(service, dict)
        }
        for name, service in services.items():
            if not isinstance(service, dict):
                why = "Expected a mapping."
                self._reading.add(
                    "compose", "services.*", None, key=f"services.{name}", place=self._place("services", name),
                    level="manual", why=why,
                )  # fmt: skip
            elif isinstance(provider := service.get("provider"), dict) and provider.get("type") == "model":
                self._provider(name, service, provider)
            elif engines[name].kind is not None:
                self._replaced.add(name)
                self._engine(name, service, engines[name])
        for name, service in services.items():
            if isinstance(service, dict) and name not in self._replaced:
                self._consumer(name, service)
        for key in self._project.data:
            if key not in ("models", "services", "include"):
                self._reading.add("compose", key, None, key=key, place=self._place(key))

    def _malformed(self) -> None:
        for key in ("models", "services"):
            value = self._project.data.get(key)
            if value is not None and not isinstance(value, dict):
                why = "Expected a mapping of names."
                self._reading.add("compose", key, None, key=key, place=self._place(key), level="manual", why=why)

    def _model(self, name: str, entry: Any) -> None:
        if not isinstance(entry, dict):
            why = "Expected a mapping with `model`."
            self._reading.add(
                "compose",
                "models.*",
                None,
                key=f"models.{name}",
                place=self._place("models", name),
                level="manual",
                why=why,
            )
            return
        model = self._models[name] = self._reading.model(name, "model-runner", self._project.folder)
        for key, value in entry.items():
            path = ("models", name, key)
            label, place = f"models.{name}.{key}", self._place(*path)
            if key == "runtime_flags" and (words := words_of(value)):
                read_flags(words, None, self._reading, model, key=label, place=place)
            else:
                self._reading.add("compose", f"models.*.{key}", value, key=label, place=place, model=model)

    def _provider(self, name: str, service: Mapping[str, Any], provider: Mapping[str, Any]) -> None:
        self._replaced.add(name)
        options: Any = provider.get("options") if isinstance(provider.get("options"), dict) else {}
        prefix, place = f"services.{name}.provider", self._place("services", name, "provider")
        self._reading.add("compose", "services.*.provider.type", "model", key=f"{prefix}.type", place=place)
        references = options.get("model")
        models = self._providers[name] = []
        for index, reference in enumerate(references if isinstance(references, list) else [references]):
            model = self._reading.model(name, "model-runner", self._project.folder)
            models.append(model)
            number = f"[{index}]" if isinstance(references, list) else ""
            at = self._place("services", name, "provider", "options", "model", index)
            word = "services.*.provider.options.model"
            self._reading.add("compose", word, reference, key=f"{prefix}.options.model{number}", place=at, model=model)
        first, others = models[0], models[1:]  # they share what is set
        for key, value in options.items():
            at, label = self._place("services", name, "provider", "options", key), f"{prefix}.options.{key}"
            if key == "runtime-flags" and (words := words_of(value)):
                read_flags(words, None, self._reading, first, key=label, place=at, also=others)
            elif key != "model":
                word = f"services.*.provider.options.{key}"
                self._reading.add("compose", word, value, key=label, place=at, model=first, also=others)
        for key, value in service.items():
            if key != "provider":
                self._reading.add(
                    "containers", key, value, key=f"services.{name}.{key}", place=self._place("services", name, key)
                )

    def _container(self, name: str, service: Mapping[str, Any]) -> Container:
        argv = [*words_of(service.get("entrypoint")), *words_of(service.get("command"))]
        image = service.get("image")
        return Container(
            label=name,
            image=image if isinstance(image, str) else "",
            base=self._project.folder,
            argv=argv,
            argv_key=f"services.{name}.command",
            argv_place=self._place("services", name, "command" if "command" in service else "entrypoint"),
            variables_key=f"services.{name}.environment.",
            mounts=mounts_of(service.get("volumes"), self._project.folder),
            optional=bool(service.get("profiles")),
        )

    def _engine(self, name: str, service: Mapping[str, Any], container: Container) -> None:
        prefix = f"services.{name}."
        container.variables = self._variables(name, service)
        whole = [key for key in _TAKEN_APART if key in service and _has_parts(key, service[key])]
        place = partial(self._place, "services", name)
        container.settings = settings_of(service, prefix=prefix, place=place, skip=(*whole, "env_file"))
        read_container(container, self._reading)

    def _variables(self, name: str, service: Mapping[str, Any]) -> list[Variable]:
        found: dict[str, Variable] = {}
        entries = service.get("env_file")
        for index, entry in enumerate(entries if isinstance(entries, list) else [entries] if entries else []):
            place = self._place("services", name, "env_file", index)
            file = entry.get("path") if isinstance(entry, dict) else entry
            path = self._project.folder / str(file)
            label = f"services.{name}.env_file {file}"
            if not inside(path, self._project.folder) or not path.is_file():
                why = "Not there, or outside the folder of the first file; its variables were not read."
                self._reading.add("containers", "env_file", file, key=label, place=place, level="manual", why=why)
                continue
            self._reading.add("containers", "env_file", file, key=label, place=place)
            self._reading.read_files.append(path)
            for variable in environment.parse(read_input(path).text, str(file)):
                found[variable.name] = variable
        declared = service.get("environment")
        if isinstance(declared, dict | list):
            for variable in mapping_variables(declared, ""):
                place = self._place("services", name, "environment", variable.name)
                found[variable.name] = Variable(variable.name, variable.value, place)
        return list(found.values())

    def _consumer(self, name: str, service: Mapping[str, Any]) -> None:
        self._reading.add("compose", "services.*", None, key=f"services.{name}", place=self._place("services", name))
        wanted = service.get("models")
        for reference, options in _references(wanted):
            self._asks_for(name, reference, options)
        for dependency in _names(service.get("depends_on")):
            if dependency in self._replaced:
                place = self._place("services", name, "depends_on", dependency)
                key = f"services.{name}.depends_on.{dependency}"
                self._reading.add("compose", "services.*.depends_on", dependency, key=key, place=place)
                upper = _variable(dependency)
                for model in self._providers.get(dependency, []):
                    self._reading.consumers.append(Consumer(name, model, f"{upper}_URL", f"{upper}_MODEL"))
        declared = service.get("environment")
        for variable in mapping_variables(declared, ""):
            if is_engine_address(variable.value or "", self._replaced):
                place = self._place("services", name, "environment", variable.name)
                key = f"services.{name}.environment.{variable.name}"
                self._reading.addresses[name, variable.name] = variable.value or ""
                self._reading.add("compose", "services.*.environment", variable.value, key=key, place=place)

    def _asks_for(self, service: str, reference: str, options: Any) -> None:
        key, place = f"services.{service}.models.{reference}", self._place("services", service, "models")
        model = self._models.get(reference)
        if model is None:
            why = f"There is no model `{reference}` under `models:`."
            self._reading.add("compose", "services.*.models", reference, key=key, place=place, level="manual", why=why)
            return
        options = options if isinstance(options, dict) else {}
        upper = _variable(reference)
        url, named = options.get("endpoint_var") or f"{upper}_URL", options.get("model_var") or f"{upper}_MODEL"
        self._reading.consumers.append(Consumer(service, model, str(url), str(named)))
        self._reading.add("compose", "services.*.models", reference, key=key, place=place, model=model)
        for word, value in options.items():
            at = self._place("services", service, "models", reference, word)
            self._reading.add("compose", f"services.*.models.{word}", value, key=f"{key}.{word}", place=at, model=model)


def _has_parts(key: str, value: Any) -> bool:
    return (
        bool(mapping_variables(value, "") if isinstance(value, dict | list) else ())
        if key == "environment"
        else bool(words_of(value))
    )


def _references(wanted: Any) -> list[tuple[str, Any]]:
    if isinstance(wanted, dict):
        return [(str(name), options) for name, options in wanted.items()]
    return [(str(name), None) for name in wanted] if isinstance(wanted, list) else []


def _names(value: Any) -> list[str]:
    return [str(name) for name in value] if isinstance(value, dict | list) else []


def _variable(name: str) -> str:
    return re.sub(r"[^A-Z0-9_]", "_", name.upper())
