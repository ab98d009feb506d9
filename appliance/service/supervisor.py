"""The contract between the appliance and what supervises services on a machine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from appliance.service.definition import Definition

Argv = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Answer:
    """What one command of the supervisor came to. `status` is 127 where there is no such command."""

    status: int
    output: str


@dataclass(frozen=True, slots=True)
class Activity:
    """What the supervisor says of the service. `state` is its own word."""

    loaded: bool
    running: bool
    state: str
    pid: int | None = None


class Supervisor(Protocol):
    """Pure: it says what to write and what to run, and reads what came of it."""

    @property
    def name(self) -> str: ...

    @property
    def paths(self) -> tuple[Path, ...]:
        """Where the definition is kept."""
        ...

    @property
    def probe(self) -> Argv:
        """A command that succeeds where this supervisor can be used."""
        ...

    @property
    def absent(self) -> str:
        """What to do where it cannot."""
        ...

    def files(self, definition: Definition) -> Mapping[Path, bytes]: ...

    def ask(self) -> Argv:
        """The command whose answer `activity` reads."""
        ...

    def activity(self, answer: Answer) -> Activity: ...

    def start(self, *, again: bool) -> Sequence[Argv]:
        """Once the files are written: make them known and run them. `again`: an earlier definition is loaded."""
        ...

    def stop(self) -> Sequence[Argv]:
        """Before the files are removed."""
        ...

    def forget(self) -> Sequence[Argv]:
        """Once they are removed, or restored."""
        ...

    def journal(self, *, lines: int, follow: bool) -> Argv | None:
        """The command that shows what the service wrote; None where it writes to its definition's `log`."""
        ...
