"""What is running now, as measured: the planner's other input."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from appliance.plan.desired import EngineSpec


class EngineState(StrEnum):
    """Where one engine process is in its life.

    stopped ──▶ starting ──▶ ready ──▶ draining ──▶ stopping ──▶ stopped
                    │          │           │
                    └──────────┴───────────┴──▶ failed
    """

    STOPPED = "stopped"
    STARTING = "starting"
    READY = "ready"
    DRAINING = "draining"
    STOPPING = "stopping"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class ObservedEngine:
    """One engine process, or the trace a failed one left.

    `retry_at` is set on a crash that deserves another try; a start-up failure has none, since it would repeat itself.
    Times are seconds of the caller's clock.
    """

    id: str
    spec: EngineSpec
    state: EngineState
    since: float
    in_flight: int = 0
    retry_at: float | None = None
    drain_deadline: float | None = None
    memory: int | None = None
    """Bytes it takes, or will take once it is admitted; None while that is not known yet."""
    admitted: bool = True
    """Whether it may take them. An engine that is starting waits for this between its weights and its process."""
    last_used: float = 0.0

    @property
    def alive(self) -> bool:
        return self.state not in (EngineState.STOPPED, EngineState.FAILED)


@dataclass(frozen=True, slots=True)
class Observed:
    """Every engine by id, the models that somebody is waiting for, and the last spec of each model that was ready."""

    engines: Mapping[str, ObservedEngine]
    wanted: frozenset[str] = frozenset()
    last_good: Mapping[str, EngineSpec] = field(default_factory=dict)
    budget: int | None = None
    """Bytes that all engines together may take; None where nothing bounds them."""
    overhead: int = 0
    """Bytes of the budget that belong to no engine: what keeps their starts warm."""
