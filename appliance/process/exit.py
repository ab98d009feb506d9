"""How an engine ended."""

from __future__ import annotations

import signal
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Exit:
    """`asked` tells a stop from a crash: the code does not, since vLLM exits 0 when its core dies."""

    code: int | None
    signal: int | None
    line: str | None
    asked: bool

    def __str__(self) -> str:
        return f"{self.how}: {self.line}" if self.line else self.how

    @property
    def from_outside(self) -> bool:
        """Whether somebody else ended it, a person or the kernel for want of memory: it may go better next time."""
        return not self.asked and self.code is None and self.signal in (None, signal.SIGKILL, signal.SIGTERM)

    @property
    def how(self) -> str:
        if self.signal is not None:
            return f"killed by {_signal_name(self.signal)}"
        return "its shim was killed" if self.code is None else f"exit code {self.code}"


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
