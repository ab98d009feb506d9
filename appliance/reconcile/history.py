"""Every configuration that was put in force, by generation: the file's text, what it changed, and what came of it."""

from __future__ import annotations

import difflib
import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from appliance.errors import ApplianceError
from appliance.state import write_atomic

Result = str
"""`applying` until the engines have settled, then `ready` or `degraded`; `superseded` where a newer one came first."""


@dataclass(frozen=True, slots=True)
class Entry:
    generation: int
    time: str
    """When it was put in force, as ISO 8601 in UTC."""
    sha256: str
    text: str
    path: str
    changes: Mapping[str, str]
    """What differed from the generation before, by path, with its cost."""
    revisions: Mapping[str, str]
    """The revision of every model."""
    result: Result = "applying"
    message: str = ""


def difference(before: Entry, after: Entry) -> Iterator[str]:
    """The lines of a unified diff between the texts of two generations."""
    names = (f"generation {before.generation}", f"generation {after.generation}")
    return difflib.unified_diff(before.text.splitlines(), after.text.splitlines(), *names, lineterm="")


class History:
    """One file per generation, each written whole; what a crash leaves is a generation still `applying`."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def entries(self) -> tuple[Entry, ...]:
        """Oldest first. A record that cannot be read is an error: guessing would make `rollback` lie."""
        return tuple(self._read(path) for path in sorted(self._root.glob("[0-9]*.json")))

    def get(self, generation: int) -> Entry:
        path = self._path(generation)
        if not path.exists():
            raise ApplianceError(f"there is no generation {generation}", hint="`appliance history` lists them")
        return self._read(path)

    def last(self) -> Entry | None:
        return next(iter(reversed(self.entries())), None)

    def begin(
        self,
        text: str,
        path: Path,
        *,
        time: str,
        changes: Mapping[str, str],
        revisions: Mapping[str, str],
        after: int = 0,
    ) -> Entry:
        """Record a configuration as it is put in force. The text of the last generation again is that generation.

        `after` is the generation in force, which may be one that could not be recorded.
        """
        digest = hashlib.sha256(text.encode()).hexdigest()
        last = self.last()
        if last is not None and last.sha256 == digest and last.path == str(path) and not changes:
            return last
        if last is not None and last.result == "applying":
            self._write(replace(last, result="superseded"))
        generation = max(last.generation if last else 0, after) + 1
        entry = Entry(generation, time, digest, text, str(path), dict(changes), dict(revisions))
        self._write(entry)
        return entry

    def finish(self, generation: int, result: Result, message: str = "") -> None:
        """Say what came of a generation, unless a newer one has taken its place meanwhile."""
        last = self.last()
        if last is not None and last.generation == generation and (last.result, last.message) != (result, message):
            self._write(replace(last, result=result, message=message))

    def previous_good(self) -> Entry | None:
        """The newest generation before the last that became ready with another text than the last has."""
        entries = self.entries()
        if not entries:
            return None
        return next((e for e in reversed(entries[:-1]) if e.result == "ready" and e.sha256 != entries[-1].sha256), None)

    def _path(self, generation: int) -> Path:
        return self._root / f"{generation:06}.json"

    def _write(self, entry: Entry) -> None:
        write_atomic(self._path(entry.generation), json.dumps(asdict(entry), indent=1).encode())

    def _read(self, path: Path) -> Entry:
        try:
            fields: dict[str, Any] = json.loads(path.read_bytes())
            return Entry(**fields)
        except (ValueError, TypeError) as error:
            raise ApplianceError(
                f"`{path}` is not a history record: {error}",
                hint="move it away to go on; `appliance doctor` names all of them",
            ) from error
