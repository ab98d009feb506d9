"""Environment variables as a layer: Model Runner's own five, and `APPLIANCE_<SECTION>__<FIELD>` for everything else."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, get_origin

from pydantic import TypeAdapter, ValidationError

from appliance.config import fields
from appliance.config.layers import Layer, put
from appliance.config.models import Appliance
from appliance.config.positions import parse_value
from appliance.config.problems import KeyPath, Problem, did_you_mean, write_path
from appliance.config.scalars import Argument
from appliance.config.syntax import Malformed

PREFIX = "APPLIANCE_"
RESERVED = frozenset({"APPLIANCE_HOME"})  # the state directory: needed before any file is read
SHORT: Mapping[str, KeyPath] = {
    "MODEL_PATH": ("models", "default", "source"),
    "PORT": ("server", "port"),
    "METAL_DEVICE": ("metal", "device"),
    "HF_TOKEN": ("huggingface", "token"),
}
API_KEY = "API_KEY"


def read_variables(environ: Mapping[str, str], names: Mapping[str, Iterable[str]]) -> tuple[Layer, list[Problem]]:
    """`names` are the free names in use (of models and backends), which variables can only spell approximately."""
    reader = _Reader(names)
    # Set but empty is how Compose passes on a variable that nobody set.
    found = [(path, name) for name, path in SHORT.items() if environ.get(name)]
    for name in environ:
        if name.startswith(PREFIX) and name not in RESERVED:
            found += [(path, name) for path in reader.path(name, environ[name])]
    # Whole sections first, so that a variable for one field adds to them.
    for path, name in sorted(found, key=lambda entry: (len(entry[0]), entry[1])):
        reader.add(name, path, environ[name])
    return Layer("environment", reader.data, labels=reader.labels, written=reader.written), reader.problems


def variable_names() -> list[str]:
    """Every variable there is, free names as NAME."""
    paths = [path for path, place in fields.every_field() if not fields.section_of(place.annotation)]
    paths = [path for path in paths if fields.locate(path)]  # no variable reaches into a list
    return [PREFIX + "__".join("NAME" if part == "*" else str(part).upper() for part in path) for path in paths]


class _Reader:
    def __init__(self, names: Mapping[str, Iterable[str]]) -> None:
        self.data: dict[str, Any] = {}
        self.labels: dict[KeyPath, str] = {}
        self.written: dict[KeyPath, str] = {}
        self.problems: list[Problem] = []
        self._names = {section: tuple(known) for section, known in names.items()}

    def path(self, name: str, text: str) -> list[KeyPath]:
        """Where the variable's value goes: one path, or none and a problem."""
        path: KeyPath = ()
        for part in name.removeprefix(PREFIX).split("__"):
            place = fields.locate(path)
            path = (*path, self._name(path, part, place.annotation if place and part else None))
        if fields.locate(path) is None:
            self._refuse(name, "unknown variable", hint=self._suggest(name))
            return []
        if not text.strip():
            self._refuse(name, "set but empty", path, hint="unset it, or give it a value")
            return []
        return [path]

    def add(self, name: str, path: KeyPath, text: str) -> None:
        place = fields.locate(path)
        assert place is not None  # noqa: S101 - `path` and SHORT hold nothing else
        try:
            value = _convert(place.annotation, text)
        except Malformed as error:
            self._refuse(name, error.message, path, hint=error.hint or "the value is read as YAML")
            return
        layer = Layer("", self.data, labels=self.labels)
        if layer.has(path) and layer.get(path) != value:
            other = layer.origin(path).rpartition(" ")[2]
            self._refuse(name, f"differs from {other}, which sets the same", path, hint="unset one of them")
            return
        # A token may hold anything, `${` included: it is referred to, not copied.
        put(self.data, path, "${env:HF_TOKEN}" if name == "HF_TOKEN" else value)
        self.labels[path] = f"environment variable {name}"
        self.written[path] = text

    def _refuse(self, name: str, message: str, path: KeyPath = (), *, hint: str | None) -> None:
        self.problems.append(Problem(f"environment variable {name}", message, write_path(path), hint))

    def _name(self, path: KeyPath, part: str, annotation: Any) -> str:
        """Fields are lower case, names of models and backends are matched to those in use, `env` keeps its case."""
        if path and path[-1] == "env":
            return part
        if get_origin(fields.unwrap(annotation)) is dict and len(path) == 1:
            spelled = [name for name in self._names.get(str(path[0]), ()) if _fold(name) == part.upper()]
            return spelled[0] if spelled else part.lower()
        return part.lower()

    def _suggest(self, name: str) -> str:
        known = [*variable_names(), *RESERVED]
        for section, names in self._names.items():
            pattern = f"{PREFIX}{section.upper()}__NAME"
            known += [
                variable.replace(pattern, f"{PREFIX}{section.upper()}__{_fold(free)}")
                for variable in variable_names()
                if variable.startswith(pattern)
                for free in names
            ]
        # The prefix they all share would make any two of them look alike.
        close = did_you_mean(name.removeprefix(PREFIX), [variable.removeprefix(PREFIX) for variable in known])
        return close.replace("`", f"`{PREFIX}", 1) if close else f"they read {PREFIX}<SECTION>__<FIELD>"


def _fold(name: str) -> str:
    return re.sub(r"[^A-Z0-9]", "_", name.upper())


def _convert(annotation: Any, text: str) -> Any:
    """Text where the field takes this text; else what YAML makes of it."""
    if annotation is not Argument:
        try:
            TypeAdapter(annotation).validate_python(text)
        except ValidationError:
            return parse_value(text)
        return text
    return parse_value(text)


def names_in(layers: Iterable[Layer]) -> dict[str, list[str]]:
    """The free names that files use, by section."""
    sections = [name for name, field in Appliance.model_fields.items() if fields.item_of(field.annotation) is not None]
    found: dict[str, list[str]] = {}
    for section in sections:
        for layer in layers:
            data = layer.data.get(section)
            found.setdefault(section, []).extend(data if isinstance(data, dict) else ())
    return found
