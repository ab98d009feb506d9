"""The contract between the appliance and one kind of engine."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from appliance.plan.desired import EngineSpec

Format = Literal["hf", "mlx", "any"]
"""What a driver can load: a Hugging Face directory, an MLX directory, or whatever the source holds."""


Capability = Literal["completion", "embedding", "tools", "thinking"]
"""What a model does, as far as its engine was started for it."""


@dataclass(frozen=True, slots=True)
class Template:
    """How a checkpoint turns a conversation into text: its chat template in Jinja, empty where it has none."""

    text: str = ""
    model_type: str = ""
    """`model_type` of its config.json."""

    @property
    def developer(self) -> bool:
        """Whether it tells the role `developer` from others."""
        return any(f"{quote}developer{quote}" in self.text for quote in "'\"")


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
    for engines without one. `chosen` is what the driver's own `choose` made of the checkpoint. `developer` says that
    its chat template knows that role.
    """

    python: Path | None
    model: Path
    directory: Path
    key: str
    port: int | None = None
    platform: str = ""
    chosen: tuple[Choice, ...] = ()
    developer: bool = False
    versions: tuple[tuple[str, str], ...] = ()
    """Of the libraries that decide what the engine does, as installed in its environment."""
    kernels: Path | None = None
    """Where engines may keep, for those after them, what they compile for this machine."""

    @property
    def socket(self) -> Path:
        return self.directory / "engine.sock"

    @property
    def device(self) -> Path:
        """Where an engine may write, as JSON, what it computes on."""
        return self.directory / "device.json"


@dataclass(frozen=True, slots=True)
class LayerCache:
    """What `layers` layers keep of each token: `values` numbers a layer, of the last `window` tokens if that is set."""

    layers: int
    values: int
    window: int | None = None

    def values_for(self, tokens: int, batched: int, block: int) -> int:
        kept = tokens
        if self.window is not None:
            # In whole blocks, and one more, since the window may begin inside of one.
            kept = (-(-min(tokens, self.window - 1 + batched) // block) + (block > 1)) * block
        return self.layers * self.values * kept


@dataclass(frozen=True, slots=True)
class LayerState:
    """What `layers` layers keep of a sequence however long it is: `size` bytes a layer; `paged` is as vLLM keeps it."""

    layers: int
    size: int
    paged: bool = True

    def bytes_for(self, page: int) -> int:
        """vLLM pads a state to whole pages of an attention layer, and keeps the last state beside the present one."""
        if not self.paged:
            return self.layers * self.size
        return 2 * self.layers * (-(-self.size // page) * page if page else self.size)


@dataclass(frozen=True, slots=True)
class Shape:
    """What a checkpoint's own files say about the memory it takes.

    `weights` is bytes as an engine holds them by default: numbers that are not quantized at two bytes each, of which
    `floats` tells the count, and quantized ones as they are stored. `cache` is None where the architecture does not say
    what it keeps of a token, and empty where it keeps nothing. `context` is the longest context it was made for,
    `width` the numbers that a token takes up on its way through the widest layer, and `edges` the rows and columns of
    all the layers' matrices, which a LoRA adapter of rank r has r times as many numbers as.
    """

    weights: int
    cache: tuple[LayerCache, ...] | None = None
    floats: int = 0
    context: int | None = None
    width: int = 0
    vocabulary: int = 0
    edges: int = 0
    state: LayerState | None = None
    """Of the layers without attention."""
    bits: float = 16.0
    """Of one stored weight, quantization scales included."""

    @property
    def state_bytes(self) -> int:
        """What layers without attention keep of one sequence, however long it is."""
        return self.state.layers * self.state.size if self.state else 0

    @property
    def keeps(self) -> bool:
        """Whether anything is kept of a sequence, as far as is known. Encoders keep nothing."""
        return self.cache != () or self.state is not None

    @property
    def cache_per_token(self) -> int | None:
        """Bytes of cache that one more token of context takes at two bytes a value, windows not yet full."""
        return None if self.cache is None else 2 * sum(each.layers * each.values for each in self.cache)

    def cache_bytes(self, tokens: int, *, width: float = 2, batched: int = 1, block: int = 1) -> int:
        """Bytes of cache of one sequence of this length, kept in blocks of so many tokens.

        A layer with a window holds what is `batched` besides it.
        """
        page = int(block * max((each.values for each in self.cache or ()), default=0) * width)
        state = self.state.bytes_for(page) if self.state else 0
        return int(sum(each.values_for(tokens, batched, block) for each in self.cache or ()) * width) + state

    def longest(
        self, room: int, *, sequences: int = 1, width: float = 2, batched: int = 1, step: int = 16, block: int = 1
    ) -> int:
        """The longest context, a multiple of `step` tokens, of which so many sequences fit into `room` bytes of cache.

        At most `context`, if that is known; 0 where not even one step fits.
        """
        low, high = 0, (self.context or 2**24) // step
        while low < high:
            middle = (low + high + 1) // 2
            fits = sequences * self.cache_bytes(middle * step, width=width, batched=batched, block=block) <= room
            low, high = (middle, high) if fits else (low, middle - 1)
        return low * step


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
