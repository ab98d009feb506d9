"""The configuration in force, and how another one takes its place."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from appliance.config.load import Loaded
from appliance.config.models import Appliance
from appliance.config.problems import Problem
from appliance.errors import ConfigError
from appliance.plan.changes import Change, Cost, changes


@dataclass(frozen=True, slots=True)
class Outcome:
    """What reading the file again came to: `problem` is why nothing changed, where it is not valid."""

    changes: tuple[Change, ...] = ()
    problem: str | None = None


class Configuration:
    """Keeps the last valid configuration; a file that cannot be used changes nothing but `problem`."""

    def __init__(self, read: Callable[[], Loaded]) -> None:
        self._read = read
        self._loaded = read()
        self._booted = self._loaded.appliance
        self.problem: str | None = None

    @property
    def appliance(self) -> Appliance:
        return self._loaded.appliance

    @property
    def path(self) -> Path | None:
        return self._loaded.path

    @property
    def text(self) -> str:
        return self._loaded.text

    @property
    def warnings(self) -> tuple[Problem, ...]:
        """What is valid, and still worth a word."""
        return self._loaded.warnings

    @property
    def base(self) -> Path:
        """The directory that relative paths in the file start from."""
        return self.path.parent.absolute() if self.path else Path.cwd()

    @property
    def waiting_for_restart(self) -> tuple[str, ...]:
        """Fields whose new value only a new control process will use."""
        return tuple(change.path for change in changes(self._booted, self.appliance) if change.cost is Cost.PROCESS)

    def read(self) -> Loaded:
        """Every source as it is now. Raises ConfigError. Touches the disk, so call it off the event loop."""
        return self._read()

    def put(self, loaded: Loaded) -> Outcome:
        """What was read is the configuration from now on."""
        self.problem = None
        found = changes(self.appliance, loaded.appliance)
        self._loaded = loaded
        return Outcome(found)

    def keep(self, error: ConfigError) -> Outcome:
        """What was to be read cannot be used: nothing changes but `problem`."""
        self.problem = error.message
        return Outcome(problem=error.message)
