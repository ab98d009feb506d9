"""What is going to be written: the models and the gateway, filled in setting by setting."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

Origin = Literal["model-runner", "vllm", "llama.cpp", "ollama", "proxy"]
"""Whose engine serves a model today, for what its clients are used to."""


@dataclass(frozen=True, slots=True)
class Mount:
    """A directory of the host inside a container. `host` is None for a named volume, which no path leads to."""

    inside: str
    host: Path | None


@dataclass(eq=False, slots=True)
class Model:
    """One model that an input declares; compared by identity, since two inputs may declare the same one."""

    label: str
    """What the input calls it; the name in the file is made from it where clients have none."""
    origin: Origin
    base: Path
    """Where relative paths of the input start."""
    mounts: tuple[Mount, ...] = ()
    reference: str = ""
    """The model as the input wrote it."""
    names: list[str] = field(default_factory=list)
    """What clients ask for, in order of preference."""
    source: str | None = None
    arguments: dict[str, Any] = field(default_factory=dict)
    sampling: dict[str, Any] = field(default_factory=dict)
    env: dict[str, str] = field(default_factory=dict)
    adapters: list[dict[str, str]] = field(default_factory=list)
    load: str | None = None
    idle_unload: str | None = None
    drain_timeout: str | None = None
    optional: bool = False
    """Started only when somebody asks for it, as behind a Compose profile."""
    parameters: float | None = None
    """Of the model, where its name or the catalogue says; a count, not billions."""
    architecture: str | None = None
    """`general.architecture` of its GGUF, where a running Model Runner has said it."""
    packed: Literal["gguf", "safetensors"] | None = None
    stored: str | None = None
    """The type of most of its weights where its source is a GGUF, as GGUF spells it: `Q4_K_M`, `F16`."""
    longest: int | None = None
    """Tokens of context that the model can do at most, where the catalogue says."""
    quantize: int | None = None
    """Bits that a GGUF is quantized to as it is converted for MLX, where it would not fit otherwise."""
    context: int | None = None
    """Tokens of context that the input asks for, for one request."""
    sequences: int | None = None
    slots: int = 1
    """llama.cpp: how many requests share one context."""
    unified: bool = False
    """llama.cpp: every slot may use the whole context."""
    contained: bool = False
    """Its command line was a container's, whose addresses and paths are not the host's."""
    published: bool = False
    """And the container published a port."""
    configured: bool = False
    """By a command of which only the last counts."""
    name: str = ""
    """Its key under `models:`, once all inputs are read."""

    def host_path(self, path: str) -> str:
        """A path inside the container as one on the host, relative to `base` where it lies beneath it."""
        for mount in sorted(self.mounts, key=lambda each: len(each.inside), reverse=True):
            inside = mount.inside.rstrip("/") or "/"
            if mount.host is not None and (path == inside or path.startswith(inside.rstrip("/") + "/")):
                rest = path[len(inside) :].lstrip("/")
                return shown_path(mount.host / rest if rest else mount.host, self.base)
        return path


def shown_path(path: Path, base: Path) -> str:
    """As it is written into a file at `base`."""
    try:
        return f"./{path.absolute().relative_to(base.absolute())}"
    except ValueError:
        return str(path)


@dataclass(eq=False, slots=True)
class Draft:
    """The whole of it. Whoever comes first sets the address; every model keeps its own settings."""

    backend: str
    folder: Path = field(default_factory=Path)
    """Where the file will lie: relative paths in it start there."""
    apple: bool = True
    """Whether the target is a Mac: which checkpoints are suggested, and what is said about them."""
    models: list[Model] = field(default_factory=list)
    host: str | None = None
    port: int | None = None
    port_published: bool = False
    was_open: bool = False
    """Other machines could reach an engine without a key."""
    ports: list[int] = field(default_factory=list)
    """Every port that an engine was found at, the first of which is kept."""
    metrics: bool = False
    keys: list[dict[str, str]] = field(default_factory=list)
    metal_device: str | None = None
    addresses: list[str] = field(default_factory=list)
    """Base URLs that clients used."""
    token_needed: bool = False
    sources: dict[str, str] = field(default_factory=dict)
    """What the person said with `--source`, by reference."""

    def of(self, model: Model | None) -> list[Model]:
        """The models that a setting is about: one, or all of them."""
        return [model] if model else list(self.models)
