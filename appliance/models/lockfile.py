"""model-runner.lock: what every source stood for, byte by byte, when it was last agreed upon."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from appliance.errors import ConfigError, SourceError
from appliance.state import write_atomic

Kind = Literal["declared", "source", "revision", "files", "arguments", "environment"]


@dataclass(frozen=True, slots=True)
class Entry:
    """One model or adapter. `revision` is a commit or a manifest's digest, `files` has each file's SHA-256."""

    source: str
    revision: str | None
    files: Mapping[str, str]
    arguments: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Lock:
    """Everything by name; an adapter's is `MODEL/ADAPTER`. `environments` has the identity of each backend's."""

    models: Mapping[str, Entry] = field(default_factory=dict)
    environments: Mapping[str, str] = field(default_factory=dict)
    version: int = 1

    @classmethod
    def read(cls, path: Path) -> Lock | None:
        """None where there is no lock. Raises ConfigError for one that cannot be read."""
        try:
            value = json.loads(path.read_bytes())
            models = {name: Entry(**each) for name, each in value["models"].items()}
            lock = cls(models, value["environments"], value["version"])
        except FileNotFoundError:
            return None
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise ConfigError(f"`{path}` is no lock: {error}", hint="`appliance lock` writes it anew") from error
        if lock.version != 1:
            raise ConfigError(f"`{path}` is a lock of version {lock.version}", hint="this appliance reads version 1")
        return lock

    def write(self, path: Path) -> None:
        write_atomic(path, json.dumps(asdict(self), indent=2, sort_keys=True).encode() + b"\n", mode=0o644)


@dataclass(frozen=True, slots=True)
class Difference:
    """One thing that is not as the lock says."""

    name: str
    kind: Kind
    message: str


def lock_path(file: Path) -> Path:
    return file.with_suffix(".lock")


def differences(lock: Lock, now: Mapping[str, Entry | None], environments: Mapping[str, str]) -> Iterator[Difference]:
    """`now` has every declared model, None for those whose files are not here."""
    for name in sorted(lock.models.keys() | now.keys()):
        locked, found = lock.models.get(name), now.get(name)
        if locked is None:
            yield Difference(name, "declared", "is not in the lock")
        elif name not in now:
            yield Difference(name, "declared", "is in the lock and not declared")
        elif found is not None:
            yield from _entries(name, locked, found)
    for backend in sorted(lock.environments.keys() & environments.keys()):
        if lock.environments[backend] != environments[backend]:
            yield Difference(
                backend, "environment", f"is `{environments[backend]}`, locked is `{lock.environments[backend]}`"
            )


def _entries(name: str, locked: Entry, found: Entry) -> Iterator[Difference]:
    if locked.source != found.source:
        yield Difference(name, "source", f"is `{found.source}`, locked is `{locked.source}`")
    if locked.arguments != found.arguments:
        names = sorted(
            key
            for key in locked.arguments.keys() | found.arguments.keys()
            if locked.arguments.get(key) != found.arguments.get(key)
        )
        yield Difference(name, "arguments", f"differ from the lock in {', '.join(names)}")
    if locked.revision != found.revision:
        yield Difference(name, "revision", f"is `{found.revision}`, locked is `{locked.revision}`")
    wrong = sorted(
        file for file in locked.files.keys() | found.files.keys() if locked.files.get(file) != found.files.get(file)
    )
    if wrong:
        yield Difference(name, "files", f"differ from the lock: {', '.join(wrong[:6])}")


def require(lock: Lock, name: str, source: str, files: Mapping[str, str]) -> None:
    """Raises SourceError unless these are the files that the lock has for this model."""
    entry = lock.models.get(name)
    if entry is None or entry.source != source:
        raise SourceError(
            f"`{source}` is not what the lock has for model `{name}`", hint="`appliance lock` takes it in"
        )
    wrong = sorted(file for file in entry.files.keys() | files.keys() if entry.files.get(file) != files.get(file))
    if wrong:
        named = ", ".join(f"`{each}`" for each in wrong[:6])
        raise SourceError(
            f"model `{name}`: {named} of `{source}` are not the files in the lock",
            hint="`appliance models verify --repair` fetches corrupt files again; `appliance lock` takes new ones in",
        )
