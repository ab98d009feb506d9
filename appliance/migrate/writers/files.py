"""Files that are written together or not at all."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from appliance.errors import ConfigError
from appliance.state import write_atomic

Fate = Literal["new", "unchanged", "replaced", "kept"]


@dataclass(frozen=True, slots=True)
class Output:
    """`replaces`: an existing file with other contents is replaced, and kept as `.bak`."""

    path: Path
    text: str = field(repr=False)
    replaces: bool = False
    mode: int = 0o644

    @property
    def fate(self) -> Fate:
        try:
            before = self.path.read_bytes()
        except FileNotFoundError:
            return "new"
        except OSError as error:
            raise ConfigError(f"`{self.path}` cannot be read: {error.strerror}") from None
        if before == encoded(self):
            return "unchanged"
        return "replaced" if self.replaces else "kept"


def encoded(output: Output) -> bytes:
    try:
        return output.text.encode()
    except UnicodeEncodeError:
        raise ConfigError(f"`{output.path}`: holds half a surrogate pair, which no file can") from None


def check(outputs: Sequence[Output]) -> None:
    """Raises ConfigError, before anything is written, for what would be in the way."""
    blocked = [output for output in outputs if output.fate == "kept"]
    if blocked:
        names = ", ".join(f"`{output.path}`" for output in blocked)
        raise ConfigError(
            f"{names} {'is' if len(blocked) == 1 else 'are'} there already, with other contents",
            hint="`--in-place` replaces them and keeps each as .bak; `--output DIR` writes elsewhere",
        )
    for output in outputs:
        for parent in output.path.absolute().parents:
            if parent.exists():
                if not parent.is_dir() or not os.access(parent, os.W_OK):
                    raise ConfigError(f"`{parent}` is no directory that can be written to")
                break


def write(outputs: Sequence[Output]) -> None:
    """All of them, each atomically; if one cannot be written, those before it are put back as they were."""
    check(outputs)
    undo: list[Callable[[], None]] = []
    try:
        for output in outputs:
            if output.fate != "unchanged":
                undo.append(_write(output))  # noqa: PERF401 - what was done before an error is needed then
    except OSError as error:
        for step in reversed(undo):
            step()
        raise ConfigError(
            f"`{error.filename}` cannot be written: {error.strerror}", hint="nothing was changed"
        ) from None


def _write(output: Output) -> Callable[[], None]:
    path = output.path
    made = _directories(path.parent)
    before, mode = (path.read_bytes(), path.stat().st_mode & 0o777) if path.exists() else (None, output.mode)
    backup = path.with_name(path.name + ".bak")
    backed_up = backup.read_bytes() if before is not None and backup.exists() else None
    if before is not None:
        write_atomic(backup, before, mode=mode)
    write_atomic(path, encoded(output), mode=mode)

    def undo() -> None:
        if before is not None:
            write_atomic(path, before, mode=mode)
            if backed_up is None:
                backup.unlink(missing_ok=True)
            else:
                write_atomic(backup, backed_up, mode=mode)
        else:
            path.unlink(missing_ok=True)
        for directory in reversed(made):
            if not any(directory.iterdir()):
                directory.rmdir()

    return undo


def _directories(path: Path) -> list[Path]:
    missing = [parent for parent in (path, *path.parents) if not parent.exists()]
    path.mkdir(parents=True, exist_ok=True)
    return list(reversed(missing))


def beside(path: Path) -> Path:
    """`compose.yaml` → `compose.appliance.yaml`, `.env` → `.env.appliance`, `Dockerfile` → `Dockerfile.appliance`."""
    if path.suffix in (".yaml", ".yml") and path.stem:
        return path.with_name(f"{path.stem}.appliance{path.suffix}")
    return path.with_name(f"{path.name}.appliance")
