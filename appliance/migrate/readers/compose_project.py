"""Compose files as one project: include, extends, several files, interpolation; with the place of every key."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from appliance.config.problems import KeyPath
from appliance.migrate.found import Reading
from appliance.migrate.inputs import Input, Tree, inside, read_input, refused, tree
from appliance.migrate.readers import environment
from appliance.migrate.readers.interpolation import Interpolation

_DEEPEST = 8
_MOST_FILES = 32
_REPLACED = frozenset({"command", "entrypoint"})
"""Lists that a later file replaces; others it adds to."""


@dataclass(slots=True)
class Project:
    folder: Path
    data: dict[str, Any] = field(default_factory=dict, repr=False)
    places: dict[KeyPath, str] = field(default_factory=dict, repr=False)
    files: list[Input] = field(default_factory=list)

    def place(self, *path: str | int) -> str:
        for length in range(len(path), 0, -1):
            if found := self.places.get(path[:length]):
                return found
        return self.files[0].name if self.files else ""

    def mapping(self, *path: str) -> dict[str, Any]:
        """What is at this path, where that is a mapping; nothing otherwise."""
        value: Any = self.data
        for part in path:
            value = value.get(part) if isinstance(value, dict) else None
        return value if isinstance(value, dict) else {}


class Loader:
    """Reads the files of a project into one `Project`; everything it cannot follow becomes a row."""

    def __init__(self, folder: Path, environ: Mapping[str, str], reading: Reading) -> None:
        self.project = Project(folder)
        self._reading = reading
        self._interpolation = Interpolation({**_dotenv(folder), **environ})
        self._open: list[Path] = []

    def load(self, source: Input) -> None:
        """One file after another; a later one adds to the earlier ones, and wins."""
        document = self._document(source)
        data = self._interpolated(document.data)
        for index, entry in enumerate(_as_list(data.pop("include", None))):
            self._include(entry, source, document.place("include", index))
        for name, service in data["services"].items() if isinstance(data.get("services"), dict) else ():
            if isinstance(service, dict) and "extends" in service:
                data["services"][name] = self._extended(service, data, source, name, document)
        self._merge(self.project.data, data, (), document)

    def finish(self) -> Project:
        self._reading.secrets |= self._interpolation.secrets
        for name in self._interpolation.missing:
            why = "Set by nobody, so it is empty; give it a value in .env, or write the value."
            self._reading.add(
                "compose", "variable", None, key=f"${{{name}}}", place=self.project.place(), level="manual", why=why
            )
        return self.project

    def _document(self, source: Input) -> Tree:
        if len(self.project.files) >= _MOST_FILES:
            raise refused(source.name, f"more than {_MOST_FILES} files in one project")
        self.project.files.append(source)
        if source.path:
            self._reading.read_files.append(source.path)
        document = tree(source)
        for problem in document.tags:
            tag = problem.message.split("`")[1]
            why = f"The tag {tag} is not followed; see whether the value is right without it."
            place = f"{source.name}:{problem.line}"
            self._reading.add("compose", "tag", tag, key=problem.path, place=place, level="manual", why=why)
        return document

    def _interpolated(self, value: Any) -> Any:
        if isinstance(value, str):
            return self._interpolation.apply(value) if "$" in value else value
        if isinstance(value, dict):
            return {name: self._interpolated(inner) for name, inner in value.items()}
        return [self._interpolated(item) for item in value] if isinstance(value, list) else value

    def _include(self, entry: Any, source: Input, place: str) -> None:
        paths = _as_list(entry.get("path") if isinstance(entry, dict) else entry)
        for name in paths:
            path = self._followed(str(name), source.base, place, "include")
            if path is None:
                continue
            self._reading.add("compose", "include", str(name), key=f"include {name}", place=place)
            self._enter(path, source)
            self.load(read_input(path))
            self._open.pop()

    def _enter(self, path: Path, source: Input) -> None:
        resolved = path.resolve()
        if not self._open and source.path:
            self._open.append(source.path.resolve())
        if resolved in self._open:
            raise refused(source.name, f"`{path.name}` includes itself")
        if len(self._open) > _DEEPEST:
            raise refused(source.name, f"files include each other more than {_DEEPEST} deep")
        self._open.append(resolved)

    def _followed(self, name: str, base: Path, place: str, word: str) -> Path | None:
        """A file that another one names, if it is there and in the project's own folder."""
        path = base / name
        if "://" in name or name.startswith(("git@", "oci:")):
            why = "In the network, which is not read; fetch it and give it to `appliance migrate` too."
        elif not inside(path, self.project.folder):
            why = "Outside the folder of the first file, so it was not read; give it to `appliance migrate` by name."
        elif not path.is_file():
            why = "There is no such file."
        else:
            return path
        self._reading.add("compose", word, name, key=f"{word} {name}", place=place, level="manual", why=why)
        return None

    def _extended(
        self, service: dict[str, Any], data: dict[str, Any], source: Input, name: str, document: Tree, depth: int = 0
    ) -> dict[str, Any]:
        if depth > _DEEPEST:
            raise refused(source.name, f"`services.{name}` extends itself")
        extends = service["extends"]
        wanted = extends.get("service") if isinstance(extends, dict) else extends
        file = extends.get("file") if isinstance(extends, dict) else None
        place = document.place("services", name, "extends")
        if file:
            path = self._followed(str(file), source.base, place, "extends")
            if path is None:
                return {key: value for key, value in service.items() if key != "extends"}
            other = read_input(path)
            self._reading.read_files.append(path)
            data, source, document = self._interpolated(tree(other).data), other, tree(other)
        services = data.get("services")
        base = services.get(str(wanted)) if isinstance(services, dict) else None
        rest = {key: value for key, value in service.items() if key != "extends"}
        if not isinstance(base, dict):
            why = f"There is no service `{wanted}` to extend."
            self._reading.add(
                "compose", "extends", wanted, key=f"services.{name}.extends", place=place, level="manual", why=why
            )
            return rest
        if "extends" in base:
            base = self._extended(base, data, source, str(wanted), document, depth + 1)
        why = "What it takes over has rows of its own."
        self._reading.add(
            "compose", "extends", wanted, key=f"services.{name}.extends", place=place, level="mapped", why=why
        )
        merged = dict(base)
        _overlay(merged, rest)
        for key in merged.keys() - rest.keys():
            self.project.places.setdefault(("services", name, key), document.place("services", str(wanted), key))
        return merged

    def _merge(self, base: dict[str, Any], over: Mapping[str, Any], path: KeyPath, document: Tree) -> None:
        for key, value in over.items():
            here = (*path, key)
            before = base.get(key)
            if key == "environment" and len(here) == 3:
                before, value = _environment(before), _environment(value)
            if isinstance(before, dict) and isinstance(value, dict):
                base[key] = before
                self._merge(before, value, here, document)
            else:
                if before is not None and before != value and not isinstance(before, list):
                    self._overridden(here, before, document.place(*here))
                base[key] = _joined(key, before, value)
                self._remember(value, here, document)

    def _overridden(self, path: KeyPath, before: Any, by: str) -> None:
        key = ".".join(map(str, path))
        shown = before if isinstance(before, str | int | float | bool) else None
        why = f"Replaced at {by}."
        place = self.project.place(*path)
        self._reading.add("compose", "overridden", shown, key=key, place=place, level="dropped", why=why)

    def _remember(self, value: Any, path: KeyPath, document: Tree) -> None:
        if path not in self.project.places or document.positions.get(path):
            self.project.places[path] = document.place(*path)
        items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
        for key, inner in items:
            self._remember(inner, (*path, key), document)


def _overlay(base: dict[str, Any], over: Mapping[str, Any]) -> None:
    for key, value in over.items():
        before = base.get(key)
        if key == "environment":
            before, value = _environment(before), _environment(value)
        if isinstance(before, dict) and isinstance(value, dict):
            base[key] = merged = dict(before)
            _overlay(merged, value)
        else:
            base[key] = _joined(key, before, value)


def _joined(key: str, before: Any, value: Any) -> Any:
    if isinstance(before, list) and isinstance(value, list) and key not in _REPLACED:
        return [*before, *(item for item in value if item not in before)]
    return value


def _environment(value: Any) -> Any:
    """A list of NAME=value as a mapping, which is how two of them are merged."""
    if not isinstance(value, list):
        return value
    pairs = (str(item).partition("=") for item in value)
    return {name: text if equals else None for name, equals, text in pairs}


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [] if value is None else [value]


def _dotenv(folder: Path) -> dict[str, str]:
    path = folder / ".env"
    if not path.is_file() or not inside(path, folder):
        return {}
    return {each.name: each.value or "" for each in environment.parse(read_input(path).text, ".env")}
