"""What every check may look at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from appliance.config.load import Loaded
from appliance.state import StateDirectory


@dataclass(frozen=True, slots=True)
class Scene:
    """`loaded` is None where the file cannot be used, and `problem` says why. `status` is what the running appliance
    says of itself, None where none runs. `log` are the last lines that it wrote.
    """

    state: StateDirectory
    environ: Mapping[str, str]
    file: Path
    loaded: Loaded | None = None
    problem: str | None = None
    status: Mapping[str, Any] | None = None
    log: Sequence[str] = ()
    quick: bool = False
    """Leave out what takes more than a second."""
