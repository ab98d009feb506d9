"""The contract between the appliance and one kind of engine."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from appliance.plan.desired import EngineSpec

Format = Literal["hf", "mlx", "any"]
"""What a driver can load: a Hugging Face directory, an MLX directory, or whatever the source holds."""


@dataclass(frozen=True, slots=True)
class Template:
    """How a checkpoint turns a conversation into text: its chat template in Jinja, empty where it has none."""

    text: str = ""
    model_type: str = ""
    """`model_type` of its config.json."""


@dataclass(frozen=True, slots=True)
class Choice:
    """An argument that the file leaves open and the checkpoint decides."""

    argument: str
    value: Any
    reason: str


@dataclass(frozen=True, slots=True)
class Launch:
    """Where one engine process lives: decided by the appliance, used by a driver to build its command.

    `directory` is private (0700), short, and deleted with the engine. `port` is set for drivers that listen on TCP, and
    `socket` is always a path that may be bound. `key` is random per engine and never appears in an argument list.
    `platform` is the vLLM platform class that the interpreter's preflight found (`CpuPlatform`, `CudaPlatform`), empty
    for engines without one. `chosen` is what the driver's own `choose` made of the checkpoint.
    """

    python: Path | None
    model: Path
    directory: Path
    key: str
    port: int | None = None
    platform: str = ""
    chosen: tuple[Choice, ...] = ()

    @property
    def socket(self) -> Path:
        return self.directory / "engine.sock"


@dataclass(frozen=True, slots=True)
class Shape:
    """What a checkpoint's own files say about the memory it takes.

    `weights` is in bytes, as stored. `cache_per_token` is the bytes of keys and values that one token of context takes
    at two bytes a value, or None where the architecture does not say.
    """

    weights: int
    cache_per_token: int | None = None
    context: int | None = None
    """The longest context, in tokens, that the checkpoint itself is made for."""
    bits: float = 16.0
    """Of one stored weight, quantization scales included."""


@dataclass(frozen=True, slots=True)
class ArgumentProblem:
    """One key of `engine:` that the backend would not take; `hint` says what it would."""

    key: str
    message: str
    hint: str | None = None


class Driver(Protocol):
    """One backend. Mostly pure: it builds values and reads none of the world."""

    @property
    def name(self) -> str: ...

    @property
    def transport(self) -> Literal["unix", "tcp"]:
        """Where the engine listens: `launch.socket`, or 127.0.0.1 on `launch.port`."""
        ...

    @property
    def format(self) -> Format: ...

    def check(self, arguments: Mapping[str, Any]) -> Iterator[ArgumentProblem]:
        """Every key of `engine:` that would not reach the engine as written."""
        ...

    def choose(self, spec: EngineSpec, template: Template) -> tuple[Choice, ...]:
        """The arguments that this checkpoint decides where the spec is silent."""
        ...

    def argv(self, spec: EngineSpec, launch: Launch) -> tuple[str, ...]:
        """The command, never through a shell, without secrets."""
        ...

    def env(self, spec: EngineSpec, launch: Launch) -> dict[str, str]:
        """Variables to add to what an engine inherits. The spec's `env` wins over these."""
        ...

    def memory(self, spec: EngineSpec, launch: Launch, shape: Shape) -> int | None:
        """Bytes of main memory that the engine will take, or None where that cannot be told beforehand."""
        ...

    def fitting(self, spec: EngineSpec, launch: Launch, shape: Shape, available: int) -> Mapping[str, Any] | None:
        """Arguments with the longest context with which the engine takes at most so many bytes; None where none do."""
        ...

    def health(self, spec: EngineSpec) -> str:
        """The path that answers 200 once the engine is ready."""
        ...

    def diagnose(self, lines: Sequence[str]) -> str | None:
        """The one line of a failed engine's output that says why, or None where no line does."""
        ...
