"""What putting another configuration in force would do: the plan, its price, and nothing done."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from appliance.config.dump import to_plain
from appliance.config.models import Appliance
from appliance.plan.actions import Action, Admit, Drain, Refuse, Start, Stop
from appliance.plan.changes import changes
from appliance.plan.desired import Desired, EngineSpec
from appliance.plan.memory import make_room
from appliance.plan.observed import EngineState, Observed, ObservedEngine
from appliance.plan.planner import plan

Estimates = Mapping[EngineSpec, int | None]
"""Bytes that engines which do not run yet would take; None where that cannot be told."""
Advice = Callable[[EngineSpec, int], str | None]
"""What to write so that an engine takes no more than so many bytes."""


def preview(
    before: Appliance,
    after: Appliance,
    desired: Desired,
    observed: Observed,
    estimates: Estimates,
    advice: Advice,
    *,
    now: float,
) -> dict[str, Any]:
    """Plain data: the changed fields with their cost, the steps, and memory now, at the peak and afterwards.

    What cannot fit is among the steps as `refuse`, with what would fit as its `hint`.
    """
    actions = plan(desired, observed, now=now)
    steps = [_step(action, observed) for action in actions if not isinstance(action, Admit)]
    future = _Future(desired, observed)
    for action in actions:
        if isinstance(action, Drain | Stop):
            future.leave(action.engine)
    for start in (action for action in actions if isinstance(action, Start)):
        for action in future.start(start.spec, estimates.get(start.spec) or 0, now=now):
            if isinstance(action, Refuse):
                hint = advice(start.spec, action.available)
                steps.append(
                    {**_named("refuse", start.spec, action.reason), "available": action.available, "hint": hint}
                )
            else:
                steps.append(_step(action, observed))
    trusting = sorted(name for name, want in desired.items() if want.spec.arguments.get("trust_remote_code") is True)
    return {
        "changes": list(_changes(before, after)),
        "actions": steps,
        "memory": future.memory(),
        "trust_remote_code": trusting,
    }


@dataclass
class _Future:
    """What the planner would do about memory, start by start, if every estimate is right."""

    desired: Desired
    observed: Observed
    peak: int = 0
    _started: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self._now = self.peak = self._taken()

    def start(self, spec: EngineSpec, memory: int, *, now: float) -> Iterable[Action]:
        """What it takes to have this engine: a Drain of each that makes room, or a Refuse."""
        new = ObservedEngine(f"next {spec.model}", spec, EngineState.STARTING, now, memory=memory, admitted=False)
        self._put(new)
        while True:
            for action in make_room(self.desired, self.observed):
                if isinstance(action, Admit) and action.engine == new.id:
                    self._put(replace(new, admitted=True))
                    self._started.add(spec.model)
                    self.peak = max(self.peak, self._taken())
                    return
                if isinstance(action, Refuse) and action.engine == new.id:
                    self._remove(new.id)
                    yield action
                    return
                if isinstance(action, Drain):
                    self.leave(action.engine)
                    yield action
            if not self._left():
                return  # others have waited for longer

    def leave(self, id_: str) -> None:
        self._put(replace(self.observed.engines[id_], state=EngineState.DRAINING))

    def memory(self) -> dict[str, int | None]:
        for engine in tuple(self.observed.engines.values()):
            replaced = engine.spec.model in self._started and engine.state is not EngineState.STARTING
            if engine.alive and (replaced or engine.spec.model not in self.desired):
                self._remove(engine.id)
        return {"now": self._now, "peak": self.peak, "after": self._taken(), "budget": self.observed.budget}

    def _left(self) -> bool:
        """Whether anybody was leaving, who is gone now."""
        leaving = (EngineState.DRAINING, EngineState.STOPPING)
        gone = [engine.id for engine in self.observed.engines.values() if engine.state in leaving]
        for id_ in gone:
            self._remove(id_)
        return bool(gone)

    def _taken(self) -> int:
        engines = (e.memory or 0 for e in self.observed.engines.values() if e.alive and e.admitted)
        return sum(engines) + self.observed.overhead

    def _put(self, engine: ObservedEngine) -> None:
        self.observed = replace(self.observed, engines={**self.observed.engines, engine.id: engine})

    def _remove(self, id_: str) -> None:
        self.observed = replace(self.observed, engines={k: e for k, e in self.observed.engines.items() if k != id_})


def _changes(before: Appliance, after: Appliance) -> Iterable[dict[str, Any]]:
    """With the values as `config` shows them: secrets are masked."""
    old, new = to_plain(before), to_plain(after)
    for change in changes(before, after):
        yield {
            "path": change.path,
            "cost": change.cost.value,
            "before": _at(old, change.path),
            "after": _at(new, change.path),
        }


def _at(plain: Any, path: str) -> Any:
    for part in path.split("."):
        plain = plain.get(part) if isinstance(plain, dict) else None
    return plain


def _step(action: Action, observed: Observed) -> dict[str, Any]:
    kind = type(action).__name__.lower()
    if isinstance(action, Start):
        return _named(kind, action.spec, action.reason)
    engine = observed.engines[action.engine]
    return {**_named(kind, engine.spec, action.reason), "engine": engine.id, "in_flight": engine.in_flight}


def _named(kind: str, spec: EngineSpec, reason: str) -> dict[str, Any]:
    return {"action": kind, "model": spec.model, "revision": spec.revision, "reason": reason}
