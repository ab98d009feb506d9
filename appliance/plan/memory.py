"""Who may take memory, and who must give some up first. Never more than the budget, also while a model is replaced."""

from __future__ import annotations

from collections.abc import Iterator

from appliance.plan.actions import Action, Admit, Drain, Refuse
from appliance.plan.desired import Desired
from appliance.plan.observed import EngineState, Observed, ObservedEngine

_LEAVING = (EngineState.DRAINING, EngineState.STOPPING)


def make_room(desired: Desired, observed: Observed) -> Iterator[Action]:
    """What lets the engines that wait for memory go on, oldest first.

    (1) What fits is admitted. (2) What will fit once the engines that are leaving have left waits for them. (3) What
    would fit if others gave way makes them: its own predecessor, unless the strategy is `surge`, and then idle engines
    that load on demand, the least recently used first. (4) What cannot fit is refused before anybody gives way.
    """
    free = _free(observed)
    for engine in _waiting(observed):
        need = engine.memory or 0
        if free is None or need <= free:  # (1)
            yield Admit(engine.id, "fits in memory")
            free = None if free is None else free - need
            continue
        leaving = sum(e.memory or 0 for e in observed.engines.values() if e.state in _LEAVING)
        short = need - free - leaving
        if short <= 0:  # (2)
            return
        giving, given = [], 0
        for candidate in _candidates(engine, desired, observed):
            if given >= short:
                break
            giving.append(candidate)
            given += candidate.memory or 0
        if given < short:  # (4)
            yield Refuse(engine.id, _why_not(engine, observed))
            continue
        yield from (Drain(each.id, f"makes room for `{engine.spec.model}`") for each in giving)  # (3)
        return


def _waiting(observed: Observed) -> list[ObservedEngine]:
    waiting = (e for e in observed.engines.values() if e.state is EngineState.STARTING and not e.admitted)
    return sorted((e for e in waiting if e.memory is not None), key=lambda engine: (engine.since, engine.id))


def _free(observed: Observed) -> int | None:
    if observed.budget is None:
        return None
    return observed.budget - sum(e.memory or 0 for e in observed.engines.values() if e.alive and e.admitted)


def _candidates(engine: ObservedEngine, desired: Desired, observed: Observed) -> Iterator[ObservedEngine]:
    ready = [e for e in observed.engines.values() if e.state is EngineState.READY]
    want = desired.get(engine.spec.model)
    if want is not None and want.strategy != "surge":
        yield from (e for e in ready if e.spec.model == engine.spec.model)
    idle = (e for e in ready if e.spec.model != engine.spec.model and e.in_flight == 0)
    evictable = (e for e in idle if (owner := desired.get(e.spec.model)) is not None and owner.load == "on_demand")
    yield from sorted(evictable, key=lambda e: (e.last_used, e.id))


def _why_not(engine: ObservedEngine, observed: Observed) -> str:
    taken = (observed.budget or 0) - (_free(observed) or 0)
    return f"needs {_gib(engine.memory or 0)}, and of {_gib(observed.budget or 0)} others hold {_gib(taken)}"


def _gib(value: int) -> str:
    return f"{value / 2**30:.1f} GiB"
