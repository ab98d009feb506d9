"""An environment on disk. It is complete when, and only when, its marker is there: the marker is written last."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from appliance.state import write_atomic

MARKER = "environment.json"
_FORMAT = 1
_DECIDING = ("python", "vllm", "torch", "transformers", "mlx", "mlx-cuda-12", "mlx-cuda-13", "mlx-lm")


@dataclass(frozen=True)
class InstalledEnvironment:
    """`platform` is vLLM's platform class; `installed_at` is None for a broken-off install and a given interpreter."""

    name: str
    path: Path
    python: Path
    platform: str
    versions: Mapping[str, str]
    installed_at: datetime | None
    size: int
    complete: bool = True

    @property
    def libraries(self) -> tuple[tuple[str, str], ...]:
        """Those that decide what an engine does, each with its version: what `status` names."""
        return tuple((name, self.versions[name]) for name in _DECIDING if self.versions.get(name))


def read_installed(path: Path) -> InstalledEnvironment:
    python = path / "bin" / "python"
    try:
        marker: dict[str, Any] = json.loads((path / MARKER).read_text(encoding="utf-8"))
        if marker["format"] != _FORMAT or marker["name"] != path.name or not python.exists():
            raise ValueError
        return InstalledEnvironment(
            name=path.name,
            path=path,
            python=python,
            platform=marker["platform"],
            versions=marker["versions"],
            installed_at=datetime.fromisoformat(marker["installed_at"]),
            size=marker["size"],
        )
    except (OSError, ValueError, KeyError, TypeError):
        return InstalledEnvironment(path.name, path, python, "", {}, None, size_of(path), complete=False)


def write_marker(environment: InstalledEnvironment, digest: str) -> None:
    if environment.installed_at is None:
        raise ValueError("an environment is marked when it is complete")
    marker = {
        "format": _FORMAT,
        "name": environment.name,
        "platform": environment.platform,
        "python": environment.versions.get("python"),
        "installed_at": environment.installed_at.isoformat(),
        "list_sha256": digest,
        "size": environment.size,
        "versions": dict(environment.versions),
    }
    write_atomic(environment.path / MARKER, json.dumps(marker, indent=1).encode())


def size_of(path: Path) -> int:
    """Bytes allocated on disk; what vanishes meanwhile counts as nothing."""
    total = 0
    for directory, _, files in os.walk(path):
        for file in files:
            try:
                total += os.lstat(os.path.join(directory, file)).st_blocks * 512  # noqa: PTH118 - 60,000 files
            except FileNotFoundError:
                continue
    return total
