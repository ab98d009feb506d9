"""Decide what must change; never change it."""

from __future__ import annotations

from collections.abc import Iterator

from appliance.plan.actions import Action, Drain, Forget, Start, Stop
from appliance.plan.desired import Desired, DesiredModel, EngineSpec
from appliance.plan.memory import make_room
from appliance.plan.observed import EngineState, Observed, ObservedEngine

FIRST_RETRY = 1.0
LONGEST_RETRY = 60.0
JITTER = 0.25
"""The share of a wait that chance may take off: engines that fell together should not all come back together."""

_USEFUL = (EngineState.STARTING, EngineState.READY)


def plan(desired: Desired, observed: Observed, *, now: float) -> tuple[Action, ...]:
    """The steps that are safe now; what they lead to is decided when it is observed."""
    # Stops before starts: two engines rarely fit in memory at once.
    return (
        *_retire(desired, observed, now),
        *_unload(desired, observed, now),
        *make_room(desired, observed),
        *_launch(desired, observed, now),
    )


def next_look(desired: Desired, observed: Observed) -> float | None:
    """The earliest time at which the plan changes by the clock alone, or None where only an event can change it."""
    times = [time for engine in observed.engines.values() for time in (engine.retry_at, engine.drain_deadline)]
    times += [_unload_at(engine, desired) for engine in observed.engines.values()]
    return min((time for time in times if time is not None), default=None)


def backoff(crashes: int, *, chance: float) -> float:
    """Seconds to wait after this many crashes in a row (1 or more): doubling, with a ceiling.

    `chance` is the caller's random number in [0, 1), of which the jitter is made.
    """
    doublings = min(crashes - 1, 16)  # beyond any ceiling, and far from overflow
    return min(FIRST_RETRY * 2.0**doublings, LONGEST_RETRY) * (1 - JITTER * chance)


def _retire(desired: Desired, observed: Observed, now: float) -> Iterator[Action]:
    kept = {want.spec: _best(want.spec, observed) for want in desired.values()}
    for engine in sorted(observed.engines.values(), key=lambda engine: engine.id):
        wanted = engine.spec in kept
        surplus = not wanted or kept[engine.spec] != engine.id
        match engine.state:
            case EngineState.DRAINING if engine.in_flight == 0 or _overdue(engine, now):
                yield Stop(engine.id, "drained" if engine.in_flight == 0 else "drain deadline passed")
            case EngineState.STOPPED:
                yield Forget(engine.id, "stopped")
            case EngineState.STARTING if surplus and not _restores(engine, desired, observed):
                yield Stop(engine.id, _why(engine, desired))
            case EngineState.READY if surplus and not _holds_the_fort(engine, desired, observed):
                yield Drain(engine.id, _why(engine, desired))
            case EngineState.FAILED if not wanted and not _backs_off(engine, desired, observed, now):
                yield Forget(engine.id, _why(engine, desired))
            case _:
                continue


def _holds_the_fort(engine: ObservedEngine, desired: Desired, observed: Observed) -> bool:
    """Whether this engine of an outdated spec must go on serving.

    Not when its model is gone, nor when its successor is ready, nor where another of its spec does. Until then it
    leaves only where its successor has all but its memory, and needs that (`make_room`).
    """
    want = desired.get(engine.spec.model)
    if want is None or _best(engine.spec, observed) != engine.id:
        return False
    return not any(e.spec == want.spec and e.state is EngineState.READY for e in observed.engines.values())


def _restores(engine: ObservedEngine, desired: Desired, observed: Observed) -> bool:
    """Whether this start brings the last good spec back because the wanted one failed."""
    want = desired.get(engine.spec.model)
    failed = want is not None and any(_hopeless(e) for e in observed.engines.values() if e.spec == want.spec)
    return failed and observed.last_good.get(engine.spec.model) == engine.spec


def _backs_off(engine: ObservedEngine, desired: Desired, observed: Observed, now: float) -> bool:
    """Whether this trace must stay: of a last good engine that failed too, and is not to be tried again yet."""
    return _restores(engine, desired, observed) and (engine.retry_at is None or now < engine.retry_at)


def _hopeless(engine: ObservedEngine) -> bool:
    return engine.state is EngineState.FAILED and engine.retry_at is None


def _has_failed(mine: list[ObservedEngine]) -> bool:
    """Whether a spec whose engines these are cannot be had: one that is there says more than the trace of another."""
    return any(map(_hopeless, mine)) and not any(engine.state in _USEFUL for engine in mine)


def _unload(desired: Desired, observed: Observed, now: float) -> Iterator[Action]:
    for engine in sorted(observed.engines.values(), key=lambda engine: engine.id):
        due = _unload_at(engine, desired)
        if due is not None and now >= due:
            yield Drain(engine.id, f"idle for {now - engine.last_used:.0f} s")


def _unload_at(engine: ObservedEngine, desired: Desired) -> float | None:
    """When this engine will have been idle for as long as its model allows."""
    want = desired.get(engine.spec.model)
    if want is None or want.idle_unload is None or engine.state is not EngineState.READY or engine.in_flight:
        return None
    return max(engine.last_used, engine.since) + want.idle_unload


def _best(spec: EngineSpec, observed: Observed) -> str | None:
    """The one engine of this spec to keep: a ready one before a starting one, and then the longest-lived."""
    mine = [e for e in observed.engines.values() if e.spec == spec and e.state in _USEFUL]
    best = min(mine, key=lambda engine: (engine.state is not EngineState.READY, engine.since, engine.id), default=None)
    return best.id if best else None


def _why(engine: ObservedEngine, desired: Desired) -> str:
    want = desired.get(engine.spec.model)
    if want is None:
        return f"`{engine.spec.model}` was removed"
    return f"`{engine.spec.model}` has another engine" if want.spec == engine.spec else f"`{engine.spec.model}` changed"


def _overdue(engine: ObservedEngine, now: float) -> bool:
    return engine.drain_deadline is not None and now >= engine.drain_deadline


def _launch(desired: Desired, observed: Observed, now: float) -> Iterator[Action]:
    for name, want in sorted(desired.items()):
        siblings = [engine for engine in observed.engines.values() if engine.spec.model == name]
        mine = [engine for engine in siblings if engine.spec == want.spec]
        others = [engine for engine in siblings if engine.spec != want.spec and engine.alive]
        seen = observed.last_good.get(name) == want.spec
        if reason := _start_reason(want, mine, bool(others) or name in observed.wanted, seen, now):
            yield Start(want.spec, reason)
        elif _has_failed(mine) and not others and (last := _restorable(want, siblings, observed)):
            yield Start(last, "the new revision failed; restoring the last good one")


def _restorable(want: DesiredModel, siblings: list[ObservedEngine], observed: Observed) -> EngineSpec | None:
    """The spec to go back to: the last good one, unless it has failed since, where somebody needs the model.

    One of other bytes at the same place cannot be had any more.
    """
    last = observed.last_good.get(want.spec.model)
    needed = want.load == "startup" or want.spec.model in observed.wanted
    if last is None or last == want.spec or not needed:
        return None
    if last.source == want.spec.source and last.content != want.spec.content:
        return None
    return None if any(e.spec == last and e.state is EngineState.FAILED for e in siblings) else last


def _start_reason(want: DesiredModel, mine: list[ObservedEngine], wanted: bool, seen: bool, now: float) -> str | None:
    """Why an engine must start now, or None.

    (1) One that serves, or soon will, is enough. (2) A start-up failure repeats itself: wait for another spec.
    (3) A crash is tried again, but not before its time. (4) The file asks for it, unless it has been `seen` ready and
    was unloaded since. (5) A request asks for it, or the engine that it replaces.
    """
    if any(engine.state in _USEFUL for engine in mine):  # (1)
        return None
    failed = [engine for engine in mine if engine.state is EngineState.FAILED]
    if any(map(_hopeless, failed)):  # (2)
        return None
    if failed:  # (3)
        return "crashed; trying again" if all(now >= (engine.retry_at or 0) for engine in failed) else None
    if want.load == "startup" and not (seen and want.idle_unload is not None):  # (4)
        return "declared with `load: startup`"
    return "asked for" if wanted else None  # (5)
