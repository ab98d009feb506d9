"""The record of a complete checkpoint: written last, and all that `find` believes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from appliance.errors import SourceError
from appliance.models.checkpoint import Checkpoint, Kind, identify
from appliance.models.digest_cache import content
from appliance.models.sources import Source
from appliance.state import write_atomic


@dataclass(frozen=True, slots=True)
class File:
    """One file of a checkpoint. `seen` is its state when its SHA-256 was last known to be right."""

    size: int
    sha256: str
    seen: tuple[int, int] = (0, 0)

    @classmethod
    def at(cls, path: Path, sha256: str) -> File:
        found = path.stat()
        return cls(found.st_size, sha256, (found.st_mtime_ns, found.st_ino))

    def untouched(self, path: Path) -> bool:
        """Whether nobody has written to the file since; raises OSError where it is gone."""
        found = path.stat()
        return (found.st_size, found.st_mtime_ns) == (self.size, self.seen[0])


@dataclass(frozen=True, slots=True)
class Record:
    """Where a source's files are: `directory` under `checkpoints/`, `main` the file in it that is loaded, or empty.

    `revision` is what the source's name stood for: a commit, or a manifest's digest. `context` is the checkpoint's.
    """

    source: str
    kind: Kind
    directory: str
    main: str
    digest: str
    files: Mapping[str, File]
    revision: str | None = None
    context: int | None = None
    version: int = 2

    @classmethod
    def read(cls, path: Path) -> Record | None:
        """The record at `path`; None where there is none, or none that this version can read."""
        try:
            value = json.loads(path.read_bytes())
            if value.get("version") == 1:
                value = _upgraded(value)
            files = {
                name: File(each["size"], each["sha256"], tuple(each["seen"])) for name, each in value["files"].items()
            }
            record = cls(**{**value, "files": files})
        except (FileNotFoundError, ValueError, TypeError, KeyError, AttributeError):
            return None
        return record if record.version == 2 else None

    def write(self, path: Path) -> None:
        write_atomic(path, json.dumps(asdict(self), indent=1).encode())

    def holds(self, checkpoints: Path) -> bool:
        """Whether every file is there in its full size."""
        directory = checkpoints / self.directory
        try:
            return all((directory / name).stat().st_size == file.size for name, file in self.files.items())
        except OSError:
            return False

    def touched(self, checkpoints: Path) -> list[str]:
        """The files that somebody has written to since they were known to be right."""
        directory = checkpoints / self.directory
        return [name for name, file in self.files.items() if file.sha256 and not file.untouched(directory / name)]

    def checkpoint(self, checkpoints: Path) -> Checkpoint:
        path = checkpoints / self.directory / self.main
        size = sum(file.size for file in self.files.values())
        return Checkpoint(self.source, path, self.kind, self.digest, size, self.context)


def describe(source: Source, directory: Path, digests: Mapping[str, str], name: str, revision: str | None) -> Record:
    """The record of what has arrived in `directory` and will be called `name`. Raises a SourceError for no model."""
    try:
        path, kind = identify(directory)
    except SourceError as error:
        raise type(error)(error.message.replace(str(directory), source.text), hint=error.hint) from error
    main = path.name if path != directory else ""
    alone = main and sum(file.endswith(".gguf") for file in digests) == 1
    digest = digests[main] if alone else content(digests)
    files = {file: File.at(directory / file, sha256) for file, sha256 in digests.items()}
    return Record(source.text, kind, name, main, digest, files, revision)


def _upgraded(value: dict[str, Any]) -> dict[str, Any]:
    """Version 1 knew sizes alone."""
    files = {name: {"size": size, "sha256": "", "seen": (0, 0)} for name, size in value["files"].items()}
    rest = {name: each for name, each in value.items() if name not in ("commit", "files", "version")}
    return {**rest, "files": files, "revision": value["commit"], "version": 2}
