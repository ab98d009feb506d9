"""The reconciler's state as plain data: what `status --json` prints and the admin API answers."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from appliance import __version__
from appliance.plan.desired import EngineSpec
from appliance.plan.observed import EngineState
from appliance.reconcile.configuration import Configuration
from appliance.reconcile.engine import Engine
from appliance.reconcile.loop import Reconciler


def status(reconciler: Reconciler, configuration: Configuration, *, address: str, now: float) -> dict[str, Any]:
    """`now` is the reconciler's clock, in seconds."""
    return {
        "version": __version__,
        "pid": os.getpid(),
        "file": str(configuration.path.absolute()) if configuration.path else "",
        "problem": configuration.problem,
        "waiting_for_restart": list(configuration.waiting_for_restart),
        "address": address,
        "generation": reconciler.generation,
        "observed_generation": reconciler.observed_generation,
        "memory": {"budget": reconciler.budget, "taken": reconciler.taken, "overhead": reconciler.overhead},
        "ready": all(_serves_or_sleeps(reconciler, name) for name in reconciler.desired),
        "models": [_model(reconciler, name, now) for name in sorted(reconciler.desired)],
    }


def essence(status: Mapping[str, Any]) -> Any:
    """What of a status makes a change worth telling: not ages, and not bytes."""
    models = [
        (
            model["name"],
            model["state"],
            model["restarts"],
            [(c["type"], c["reason"]) for c in model["conditions"]],
            [(e["id"], e["state"], e["step"], e["in_flight"]) for e in model["engines"]],
        )
        for model in status["models"]
    ]
    return [
        status["generation"],
        status["observed_generation"],
        status["problem"],
        status["waiting_for_restart"],
        models,
    ]


def _serves_or_sleeps(reconciler: Reconciler, name: str) -> bool:
    return reconciler.serving(name) is not None or reconciler.desired[name].load == "on_demand"


def _model(reconciler: Reconciler, name: str, now: float) -> dict[str, Any]:
    want = reconciler.desired[name]
    engines = [engine for engine in reconciler.engines.values() if engine.spec.model == name]
    current = reconciler.serving(name) or (engines[-1] if engines else None)
    return {
        "name": name,
        "source": want.spec.source,
        "backend": want.spec.backend,
        "load": want.load,
        "trust_remote_code": want.spec.arguments.get("trust_remote_code") is True,
        "ready": reconciler.serving(name) is not None,
        "state": (current.state if current else EngineState.STOPPED).value,
        "restarts": reconciler.restarts.get(name, 0),
        "conditions": [*_conditions(reconciler, name, engines, now)],
        "engines": [{**engine.status(), "age": round(now - engine.since, 1)} for engine in engines],
    }


def _conditions(reconciler: Reconciler, name: str, engines: list[Engine], now: float) -> Iterator[dict[str, Any]]:
    """Kubernetes' kind of conditions. Ready is always told; Progressing and Degraded where they are true."""
    want = reconciler.desired[name].spec
    serving = reconciler.serving(name)
    moving = [e for e in engines if e.state in (EngineState.STARTING, EngineState.DRAINING, EngineState.STOPPING)]
    failed = [e for e in engines if e.state is EngineState.FAILED and e.spec == want]
    if serving is not None and serving.spec == want:
        yield _condition("Ready", True, "EngineReady", "The engine takes requests.", now - serving.since)
    elif serving is not None:
        message = f"Revision {serving.spec.revision} goes on serving."
        yield _condition("Ready", True, "PreviousRevision", message, now - serving.since)
    elif engine := next(iter([*moving, *failed]), None):
        yield _condition(
            "Ready", False, engine.reason or engine.state.value.capitalize(), _told(engine), now - engine.since
        )
    else:
        yield _condition("Ready", False, "NotLoaded", "No engine is loaded; the first request starts one.", 0.0)
    for engine in moving:
        yield _condition("Progressing", True, engine.state.value.capitalize(), _told(engine), now - engine.since)
    if serving is not None:
        for adapter, problem in sorted(serving.adapter_problems.items()):
            yield _condition("Degraded", True, "AdapterNotLoaded", f"{adapter}: {problem}", now - serving.since)
    for engine in failed:
        yield _condition("Degraded", True, engine.reason, _told(engine), now - engine.since)
    if (serving is None or serving.spec != want) and (deferral := _deferral(want, engines, now)):
        yield _condition("RolloutDeferred", True, *deferral)


def _deferral(want: EngineSpec, engines: list[Engine], now: float) -> tuple[str, str, float] | None:
    """What the desired revision waits for before it can go on, as reason, message and age; None where it goes on.

    (1) Requests on the engine that has to leave first; its successor is prepared as far as it can be, and waits for its
    memory. (2) Memory that other models have. (3) The end of a backoff.
    """
    mine = [e for e in engines if e.spec == want]
    starts = any(e.state is EngineState.STARTING and not e.waits_for_memory for e in mine)
    leaving = [e for e in engines if e.spec != want and e.state in (EngineState.DRAINING, EngineState.STOPPING)]
    for engine in leaving if not starts else ():  # (1)
        flying = engine.lease.in_flight
        count = "1 request is" if flying == 1 else f"{flying} requests are"
        message = f"Waits for revision {engine.spec.revision} to leave; {count} in flight on it."
        return "WaitingForDrain", message, now - engine.since
    for engine in mine:
        if engine.waits_for_memory:  # (2)
            return "WaitingForMemory", f"Waits for {_mib(engine.memory)} that others give up.", now - engine.since
    for engine in mine:
        if engine.state is EngineState.FAILED and engine.retry_at is not None:  # (3)
            return "Backoff", f"Tries again in {max(0.0, engine.retry_at - now):.0f} s.", now - engine.since
    return None


def _mib(size: int | None) -> str:
    return f"{(size or 0) / 2**20:.0f} MiB"


def _told(engine: Engine) -> str:
    said = engine.message or engine.step or f"The engine is {engine.state.value}."
    return f"{said}; {engine.hint}" if engine.hint else said


def _condition(kind: str, value: bool, reason: str, message: str, age: float) -> dict[str, Any]:
    since = datetime.fromtimestamp(datetime.now(UTC).timestamp() - age, UTC)
    return {
        "type": kind,
        "status": value,
        "reason": reason,
        "message": message,
        "since": since.isoformat(timespec="seconds"),
    }
