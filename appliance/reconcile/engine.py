"""One engine as the reconciler knows it: the only mutable record of it, written by the reconciler alone."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

from appliance.errors import ApplianceError
from appliance.plan.desired import EngineSpec
from appliance.plan.observed import EngineState, ObservedEngine
from appliance.process.engine_process import EngineProcess
from appliance.routing import Lease


@dataclass(eq=False)
class Engine:
    id: str
    spec: EngineSpec
    since: float
    state: EngineState = EngineState.STARTING
    step: str = ""
    """What a starting engine is busy with, for people."""
    reason: str = ""
    """One CamelCase word for why it failed."""
    message: str = ""
    retry_at: float | None = None
    drain_deadline: float | None = None
    lease: Lease = field(default_factory=Lease)
    process: EngineProcess | None = None
    task: asyncio.Task[None] | None = None

    def enter(self, state: EngineState, *, now: float) -> None:
        self.state = state
        self.since = now

    def fail(self, error: ApplianceError, *, now: float, retry_at: float | None = None) -> None:
        self.enter(EngineState.FAILED, now=now)
        self.reason = type(error).__name__
        self.message = error.message
        self.retry_at = retry_at

    def observe(self) -> ObservedEngine:
        return ObservedEngine(
            id=self.id,
            spec=self.spec,
            state=self.state,
            since=self.since,
            in_flight=self.lease.in_flight,
            retry_at=self.retry_at,
            drain_deadline=self.drain_deadline,
        )

    def status(self) -> dict[str, Any]:
        """What `status` shows of it; times are left to the caller, who knows the clock."""
        return {
            "id": self.id,
            "state": self.state.value,
            "revision": self.spec.revision,
            "backend": self.spec.backend,
            "pid": self.process.pid if self.process else None,
            "in_flight": self.lease.in_flight,
            "step": self.step or None,
            "reason": self.reason or None,
            "message": self.message or None,
        }
