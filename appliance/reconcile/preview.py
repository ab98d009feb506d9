"""What putting another configuration in force would do: the plan, its price, and nothing done."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from appliance.config.dump import to_plain
from appliance.config.models import Appliance
from appliance.plan.actions import Action, Admit, Start
from appliance.plan.changes import changes
from appliance.plan.desired import Desired, EngineSpec
from appliance.plan.observed import EngineState, Observed
from appliance.plan.planner import plan

Estimates = Mapping[EngineSpec, int | None]
"""Bytes that engines which do not run yet would take; None where that cannot be told."""


def preview(
    before: Appliance, after: Appliance, desired: Desired, observed: Observed, estimates: Estimates, *, now: float
) -> dict[str, Any]:
    """Plain data: the changed fields with their cost, the first steps, and memory now, at the peak and afterwards."""
    actions = plan(desired, observed, now=now)
    return {
        "changes": list(_changes(before, after)),
        "actions": [_action(action, observed) for action in actions if not isinstance(action, Admit)],
        "memory": _memory(actions, desired, observed, estimates),
    }


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


def _action(action: Action, observed: Observed) -> dict[str, Any]:
    kind = type(action).__name__.lower()
    if isinstance(action, Start):
        return {"action": kind, "model": action.spec.model, "revision": action.spec.revision, "reason": action.reason}
    engine = observed.engines[action.engine]
    return {
        "action": kind,
        "model": engine.spec.model,
        "revision": engine.spec.revision,
        "engine": engine.id,
        "in_flight": engine.in_flight,
        "reason": action.reason,
    }


def _memory(
    actions: tuple[Action, ...], desired: Desired, observed: Observed, estimates: Estimates
) -> dict[str, int | None]:
    """Bytes. A start beside the engine that it replaces counts at the peak, unless only one of the two fits."""
    alive = [engine for engine in observed.engines.values() if engine.alive]
    taken = sum(engine.memory or 0 for engine in alive)
    starting = [action.spec for action in actions if isinstance(action, Start)]
    added = sum(estimates.get(spec) or 0 for spec in starting)
    replaced = {spec.model for spec in starting} | {e.spec.model for e in alive if e.spec.model not in desired}
    leaving = [e for e in alive if e.spec.model in replaced and e.state is not EngineState.STARTING]
    after = taken + added - sum(engine.memory or 0 for engine in leaving)
    together = taken + added
    fits = observed.budget is None or together <= observed.budget
    surges = any(desired[spec.model].strategy == "surge" for spec in starting)
    return {
        "now": taken,
        "peak": together if fits or surges else max(taken, after),
        "after": after,
        "budget": observed.budget,
    }
