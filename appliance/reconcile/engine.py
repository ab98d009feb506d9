"""One engine as the reconciler knows it: the only mutable record of it, written by the reconciler alone."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from appliance.engines.driver import Launch
from appliance.errors import ApplianceError, InsufficientMemory
from appliance.plan.desired import EngineSpec
from appliance.plan.observed import EngineState, ObservedEngine
from appliance.process.engine_process import EngineProcess
from appliance.routing import Lease


@dataclass(eq=False)
class Engine:
    id: str
    spec: EngineSpec
    since: float
    wake: Callable[[], None]
    """Have the reconciler look again."""
    state: EngineState = EngineState.STARTING
    step: str = ""
    """What a starting engine is busy with, for people."""
    reason: str = ""
    """One CamelCase word for why it failed."""
    message: str = ""
    hint: str = ""
    """What whoever runs this appliance can do about it; no client's business."""
    retry_at: float | None = None
    drain_deadline: float | None = None
    memory: int | None = None
    """Bytes: an estimate until the engine is ready, then what it was seen to take."""
    adapters: frozenset[str] = frozenset()
    """The LoRA adapters that it answers to."""
    adapter_problems: Mapping[str, str] = field(default_factory=dict)
    """Why it does not answer to the others."""
    lease: Lease = field(default_factory=Lease)
    process: EngineProcess | None = None
    task: asyncio.Task[None] | None = None
    watch: asyncio.Task[None] | None = None
    hung: str = ""
    """Why a ready engine is being killed."""
    _admission: asyncio.Future[None] | None = None

    async def ask_for_memory(self, memory: int | None) -> None:
        """Wait until the reconciler lets it take this many bytes. Raises InsufficientMemory where it will not."""
        self.memory = memory if memory is not None else 0
        self._admission = asyncio.get_running_loop().create_future()
        self.step = "waiting for memory"
        self.wake()
        await self._admission

    def admit(self) -> None:
        if self._admission is not None and not self._admission.done():
            self.step = "starting engine"
            self._admission.set_result(None)

    def refuse(self, reason: str, *, available: int) -> None:
        if self._admission is not None and not self._admission.done():
            self._admission.set_exception(InsufficientMemory(reason, available=available))

    @property
    def admitted(self) -> bool:
        return self.state is not EngineState.STARTING or (self._admission is not None and self._admission.done())

    @property
    def waits_for_memory(self) -> bool:
        return self.state is EngineState.STARTING and self._admission is not None and not self._admission.done()

    @property
    def refused(self) -> bool:
        """Whether it failed for want of memory alone."""
        return self.state is EngineState.FAILED and self.reason == InsufficientMemory.__name__

    @property
    def takes_requests(self) -> bool:
        return self.state is EngineState.READY and not self.hung

    def enter(self, state: EngineState, *, now: float) -> None:
        self.state = state
        self.since = now

    def fail(self, error: ApplianceError, *, now: float, retry_at: float | None = None) -> None:
        self.enter(EngineState.FAILED, now=now)
        self.reason = type(error).__name__
        self.message = error.message
        self.hint = error.hint or ""
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
            memory=self.memory,
            admitted=self.admitted,
            last_used=self.lease.last_used,
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
            "memory": self.memory,
            "adapters": sorted(self.adapters),
            **(_runtime(self.process.launch) if self.process else {}),
            "chosen": [asdict(choice) for choice in self.process.launch.chosen] if self.process else [],
            "step": self.step or None,
            "reason": self.reason or None,
            "message": self.message or None,
            "hint": self.hint or None,
        }


def _runtime(launch: Launch) -> dict[str, Any]:
    """What the engine runs on: vLLM's platform class, the device that it reports, the versions of its libraries."""
    try:
        device = json.loads(launch.device.read_bytes()).get("device")
    except (OSError, ValueError, AttributeError):
        device = None  # most engines report none
    return {"platform": launch.platform or None, "device": device, "versions": dict(launch.versions)}
