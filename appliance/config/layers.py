"""One source of settings, before the sources are merged: its data, and where each value in it came from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import takewhile
from pathlib import Path
from typing import Any

from appliance.config.positions import Document, Position
from appliance.config.problems import KeyPath, Problem, write_path


@dataclass(frozen=True, slots=True)
class Layer:
    """`labels` name the variable or flag behind a path; a layer read from a file has `positions` instead."""

    name: str
    data: dict[str, Any] = field(default_factory=dict, repr=False)
    base: Path = Path()
    """What relative paths in it start from."""
    source: str = ""
    positions: Mapping[KeyPath, Position] = field(default_factory=dict, repr=False)
    labels: Mapping[KeyPath, str] = field(default_factory=dict)
    written: Mapping[KeyPath, str] = field(default_factory=dict, repr=False)
    """Values as a person wrote them, where that differs from the data."""

    @classmethod
    def of(cls, name: str, document: Document, *, source: str, base: Path) -> Layer:
        written = {path: at.plain for path, at in document.positions.items() if at.plain is not None}
        return cls(name, document.data, base, source, document.positions, written=written)

    def has(self, path: KeyPath) -> bool:
        return _reach(self.data, path)[0]

    def get(self, path: KeyPath) -> Any:
        return _reach(self.data, path)[1]

    def origin(self, path: KeyPath) -> str:
        """`model-runner.yaml:12:5`, `environment variable PORT`, `--backend`, `profile demo (…:3:5)`."""
        if not self.positions:
            return self._label(path)
        position = self._nearest(path)
        place = f"{self.source}:{position.line}:{position.column}" if position else self.source
        return f"{self.name} ({place})" if self.name.startswith("profile ") else place

    def problem(self, path: KeyPath, message: str, hint: str | None = None, *, at_value: bool = False) -> Problem:
        position = self._nearest(path)
        if position is None:
            return Problem(self._label(path), message, write_path(path), hint)
        exact = at_value and path in self.positions
        line, column = (position.value_line, position.value_column) if exact else (position.line, position.column)
        return Problem(self.source, message, write_path(path), hint, line, column)

    def _nearest(self, path: KeyPath) -> Position | None:
        """A key that is missing is reported at what should hold it."""
        for length in range(len(path), 0, -1):
            if position := self.positions.get(path[:length]):
                return position
        return None

    def _label(self, path: KeyPath) -> str:
        """The variable or flag that comes closest: one for the key, for a section around it, or for a key within."""
        closest = max(self.labels, key=lambda key: _shared(key, path), default=())
        return self.labels[closest] if _shared(closest, path) else self.source


def _shared(first: KeyPath, second: KeyPath) -> int:
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(first, second, strict=False)))


def _reach(data: Any, path: KeyPath) -> tuple[bool, Any]:
    for part in path:
        keys = data if isinstance(data, Mapping) else range(len(data)) if isinstance(data, list) else ()
        if part not in keys:
            return False, None
        data = data[part]
    return True, data


def put(data: dict[str, Any], path: KeyPath, value: Any) -> None:
    """Set the value at a path of keys, making mappings on the way; below what is no mapping there is no place."""
    *parents, last = path
    for part in parents:
        data = data.setdefault(str(part), {})
        if not isinstance(data, dict):
            return
    data[str(last)] = value
