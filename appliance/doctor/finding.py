"""What a check has to say."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Level = Literal["problem", "warning"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One symptom. A `problem` keeps something from working; a `warning` may."""

    check: str
    level: Level
    finding: str
    """What is so, with the value that was found. Never a secret."""
    cause: str
    """Why that matters, or what brings it about."""
    remedy: str
    """What to do, as a command or a key of the file where there is one."""
