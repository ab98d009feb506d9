"""The record of a complete checkpoint: written last, and all that `find` believes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from appliance.models.checkpoint import Checkpoint, Kind
from appliance.state import write_atomic


@dataclass(frozen=True, slots=True)
class Record:
    """Where a source's files are: `directory` under `checkpoints/`, `main` the file in it that is loaded, or empty."""

    source: str
    kind: Kind
    directory: str
    main: str
    digest: str
    files: Mapping[str, int]
    commit: str | None = None
    version: int = 1

    @classmethod
    def read(cls, path: Path) -> Record | None:
        """The record at `path`; None where there is none, or none that this version can read."""
        try:
            value = json.loads(path.read_bytes())
            record = cls(**value)
        except (FileNotFoundError, ValueError, TypeError):
            return None
        return record if record.version == 1 else None

    def write(self, path: Path) -> None:
        write_atomic(path, json.dumps(asdict(self), indent=1).encode())

    def holds(self, checkpoints: Path) -> bool:
        """Whether every file is there in its full size."""
        directory = checkpoints / self.directory
        try:
            return all((directory / name).stat().st_size == size for name, size in self.files.items())
        except OSError:
            return False

    def checkpoint(self, checkpoints: Path) -> Checkpoint:
        path = checkpoints / self.directory / self.main
        return Checkpoint(self.source, path, self.kind, self.digest, sum(self.files.values()))
