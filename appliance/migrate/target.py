"""The machine that the file is for."""

from __future__ import annotations

from dataclasses import dataclass

from appliance.errors import ApplianceError, ConfigError
from appliance.models.fit import parse_target

GIB = 1024**3


@dataclass(frozen=True, slots=True)
class Target:
    """`memory` in bytes; `share` is what engines may take of it; `context` and `sequences` are asked for where no input
    says more.
    """

    name: str
    memory: int
    apple: bool
    share: float
    context: int
    sequences: int

    @property
    def budget(self) -> int:
        return int(self.memory * self.share)

    @property
    def profile(self) -> str:
        """The shipped profile that is nearest."""
        if not self.apple:
            return "linux-cpu"
        fitting = [size for size in (8, 16, 32, 64, 128) if size * GIB <= self.memory]
        return f"apple-silicon-{(fitting or [8])[-1]}gb"


# Up to (GiB) → share, context, sequences. macOS lets the GPU have about two thirds of a small machine's memory and
# three quarters of a larger one's; the rest is the system's. profiles/apple-silicon-*.yaml have the same figures.
_BY_MEMORY = (
    (8, 0.60, 4096, 4),
    (16, 0.65, 8192, 8),
    (36, 0.66, 16384, 16),
    (64, 0.75, 32768, 16),
    (512, 0.75, 65536, 32),
)


def named(name: str) -> Target:
    """`m1-8gb`, `m2-pro-16gb`, `m4-max-128gb`. Raises ApplianceError for any other word."""
    try:
        machine = parse_target(name)
    except ConfigError as problem:
        hint = "`this-machine`, or a chip and its memory: `m1-8gb`, `m2-16gb`, `m4-max-128gb`"
        raise ApplianceError(problem.message, hint=hint) from None
    return sized(machine.name, machine.memory, apple=True)


def sized(name: str, memory: int, *, apple: bool) -> Target:
    """A target by its memory alone, as for `this-machine`."""
    gib = memory / GIB
    _, share, context, sequences = next((row for row in _BY_MEMORY if gib <= row[0] * 1.05), _BY_MEMORY[-1])
    if not apple:
        share, sequences = 0.75, min(sequences, 16)
    return Target(name, memory, apple, share, context, sequences)
