"""Who may take memory, and who must give some up first. Never more than the budget, also while a model is replaced."""

from __future__ import annotations

from collections.abc import Iterator

from appliance.plan.actions import Action, Admit, Drain, Refuse
from appliance.plan.desired import Desired
from appliance.plan.observed import EngineState, Observed, ObservedEngine

_LEAVING = (EngineState.DRAINING, EngineState.STOPPING)


def make_room(desired: Desired, observed: Observed) -> Iterator[Action]:
    """What lets the engines that wait for memory go on, oldest first.

    (1) What fits is admitted, with `recreate` only once its predecessor is gone. (2) What cannot fit is refused before
    anybody gives way. (3) What would fit if others gave way makes them: its own predecessor, unless the strategy is
    `surge`, and then idle engines that load on demand, the least recently used first. (4) What will fit once those that
    are leaving have left waits for them, and so does what came later.
    """
    free = _free(observed)
    for engine in _waiting(observed):
        need = engine.memory or 0
        before = _must_go_first(engine, desired, observed)
        if not before and (free is None or need <= free):  # (1)
            yield Admit(engine.id, "fits in memory")
            free = None if free is None else free - need
            continue
        available = free
        if free is not None:
            available = free + sum(e.memory or 0 for e in observed.engines.values() if e.state in _LEAVING)
        giving = [e for e in before if e.state is EngineState.READY]
        giving = [*giving, *_others_that_give_way(engine, giving, available, desired, observed)]
        if available is not None and need > (available := available + sum(e.memory or 0 for e in giving)):  # (2)
            yield Refuse(engine.id, _why_not(engine, observed), available=max(0, available))
            continue
        yield from (Drain(each.id, f"makes room for `{engine.spec.model}`") for each in giving)  # (3)
        return  # (4)


def _must_go_first(engine: ObservedEngine, desired: Desired, observed: Observed) -> list[ObservedEngine]:
    """The predecessors that `recreate` does not let live beside this engine."""
    want = desired.get(engine.spec.model)
    if want is None or want.strategy != "recreate":
        return []
    alive = [e for e in observed.engines.values() if e.alive and e.admitted and e.id != engine.id]
    return [e for e in alive if e.spec.model == engine.spec.model]


def _others_that_give_way(
    engine: ObservedEngine,
    giving: list[ObservedEngine],
    available: int | None,
    desired: Desired,
    observed: Observed,
) -> Iterator[ObservedEngine]:
    """As few as it takes beside those that are `giving` way anyhow; all that could where that is not enough."""
    if available is None:
        return
    short = (engine.memory or 0) - available - sum(e.memory or 0 for e in giving)
    for candidate in _candidates(engine, desired, observed):
        if short <= 0:
            return
        if candidate not in giving:
            yield candidate
            short -= candidate.memory or 0


def _waiting(observed: Observed) -> list[ObservedEngine]:
    waiting = (e for e in observed.engines.values() if e.state is EngineState.STARTING and not e.admitted)
    return sorted((e for e in waiting if e.memory is not None), key=lambda engine: (engine.since, engine.id))


def _free(observed: Observed) -> int | None:
    if observed.budget is None:
        return None
    taken = sum(e.memory or 0 for e in observed.engines.values() if e.alive and e.admitted)
    return observed.budget - observed.overhead - taken


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
    return f"needs {_size(engine.memory or 0)}, and of {_size(observed.budget or 0)} others hold {_size(taken)}"


def _size(value: int) -> str:
    return f"{value / 2**30:.1f} GiB" if value >= 2**30 else f"{value / 2**20:.0f} MiB"
