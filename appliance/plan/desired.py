"""What the file asks for, as frozen values: one spec per engine, whose hash is its revision."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any, Literal


@dataclass(frozen=True)
class EngineSpec:
    """Everything whose change needs another engine process; two equal specs may share one.

    `engine` holds the backend's arguments as canonical JSON per key, so that nested values stay hashable.
    """

    model: str
    backend: str
    source: str
    engine: tuple[tuple[str, str], ...] = ()
    env: tuple[tuple[str, str], ...] = field(default=(), repr=False)  # may hold secrets
    command: tuple[str, ...] = ()
    health: str = "/health"
    quantize: int | None = None
    """Bits that a GGUF is quantized to when it is converted for MLX."""
    environment: str = ""
    """Identity of the engine environment: the pinned list's name and digest, or an interpreter's path."""
    content: str = ""
    """Names the state of its files where one source can have several: a local path's as it lies there, or a locked
    model's as the lock has it. Empty for what is fetched, which a lock alone holds to its bytes."""

    @cached_property
    def revision(self) -> str:
        """Twelve hexadecimal digits that name this value in logs, paths and status."""
        canonical = json.dumps(asdict(self), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()[:12]

    @property
    def arguments(self) -> dict[str, Any]:
        """The backend's arguments as plain values."""
        return {name: json.loads(value) for name, value in self.engine}


@dataclass(frozen=True)
class DesiredModel:
    """One model of the file: its engine's spec, and what can change without touching the engine."""

    spec: EngineSpec
    load: Literal["startup", "on_demand"] = "startup"
    ready_timeout: float = 600.0
    drain_timeout: float = 300.0
    idle_unload: float | None = None
    probe: bool = True
    strategy: Literal["auto", "surge", "recreate"] = "auto"


Desired = Mapping[str, DesiredModel]
