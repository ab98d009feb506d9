"""What the planner may ask for: a closed union, each with the reason a person reads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from appliance.plan.desired import EngineSpec


@dataclass(frozen=True, slots=True)
class Start:
    """Bring up a new engine process for this spec."""

    spec: EngineSpec
    reason: str


@dataclass(frozen=True, slots=True)
class Admit:
    """Let this starting engine take its memory."""

    engine: str
    reason: str


@dataclass(frozen=True, slots=True)
class Refuse:
    """Give this start up: its memory cannot be had. `available` is how many bytes could be."""

    engine: str
    reason: str
    available: int


@dataclass(frozen=True, slots=True)
class Drain:
    """Send this engine nothing new and let what it has finish."""

    engine: str
    reason: str


@dataclass(frozen=True, slots=True)
class Stop:
    """End this engine's process group."""

    engine: str
    reason: str


@dataclass(frozen=True, slots=True)
class Forget:
    """Drop the trace of an engine that is gone and no longer wanted."""

    engine: str
    reason: str


Action: TypeAlias = Start | Admit | Refuse | Drain | Stop | Forget
