from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from appliance.plan.actions import Action, Admit, Drain, Forget, Refuse, Start, Stop
from appliance.plan.desired import Desired, DesiredModel, EngineSpec
from appliance.plan.observed import EngineState, Observed, ObservedEngine
from appliance.plan.planner import JITTER, LONGEST_RETRY, backoff, next_look, plan

NOW = 1000.0
A1 = EngineSpec(model="a", backend="vllm", source="pypi:a==1")
A2 = replace(A1, source="pypi:a==2")
B1 = EngineSpec(model="b", backend="vllm", source="pypi:b==1")


def desired(*specs: EngineSpec, load: str = "startup") -> Desired:
    return {spec.model: DesiredModel(spec, load="on_demand" if load == "on_demand" else "startup") for spec in specs}


def recreated(spec: EngineSpec) -> Desired:
    return {spec.model: DesiredModel(spec, strategy="recreate")}


def engine(spec: EngineSpec, state: EngineState, **more: float | None) -> ObservedEngine:
    return replace(ObservedEngine(id=f"{spec.model}-{spec.revision}", spec=spec, state=state, since=0.0), **more)  # type: ignore[arg-type]


def observed(*engines: ObservedEngine, wanted: frozenset[str] = frozenset()) -> Observed:
    return Observed({engine.id: engine for engine in engines}, wanted)


def kinds(actions: tuple[Action, ...]) -> list[tuple[str, str]]:
    return [(type(a).__name__, a.spec.model if isinstance(a, Start) else a.engine) for a in actions]


def test_a_declared_model_without_an_engine_is_started() -> None:
    assert plan(desired(A1), observed(), now=NOW) == (Start(A1, "declared with `load: startup`"),)


def test_an_on_demand_model_is_started_only_when_somebody_waits_for_it() -> None:
    want = desired(A1, load="on_demand")
    assert plan(want, observed(), now=NOW) == ()
    assert plan(want, observed(wanted=frozenset({"a"})), now=NOW) == (Start(A1, "asked for"),)


def test_a_model_that_is_ready_or_on_its_way_is_left_alone() -> None:
    for state in (EngineState.STARTING, EngineState.READY):
        assert plan(desired(A1), observed(engine(A1, state)), now=NOW) == ()


def test_a_start_up_failure_is_not_repeated_until_the_spec_changes() -> None:
    failed = engine(A1, EngineState.FAILED)
    assert plan(desired(A1), observed(failed), now=NOW) == ()
    assert kinds(plan(desired(A2), observed(failed), now=NOW)) == [("Forget", failed.id), ("Start", "a")]


def test_a_changed_model_is_served_by_its_old_engine_until_the_new_one_is_ready() -> None:
    old = engine(A1, EngineState.READY, in_flight=2)
    assert kinds(plan(desired(A2), observed(old), now=NOW)) == [("Start", "a")]
    starting = engine(A2, EngineState.STARTING)
    assert plan(desired(A2), observed(old, starting), now=NOW) == ()
    ready = replace(starting, state=EngineState.READY)
    assert kinds(plan(desired(A2), observed(old, ready), now=NOW)) == [("Drain", old.id)]


def test_a_failed_successor_leaves_the_old_engine_in_place() -> None:
    old, failed = engine(A1, EngineState.READY), engine(A2, EngineState.FAILED)
    for want in (desired(A2), recreated(A2)):
        assert plan(want, observed(old, failed), now=NOW) == ()


def test_one_old_engine_is_enough_while_its_successor_is_not_there() -> None:
    failed, first = engine(A2, EngineState.FAILED), engine(A1, EngineState.READY)
    second = replace(first, id="second", since=5.0)
    assert kinds(plan(desired(A2), observed(failed, first, second), now=NOW)) == [("Drain", "second")]


def test_recreate_stops_the_old_engine_once_the_new_one_needs_nothing_but_its_memory() -> None:
    old = engine(A1, EngineState.READY)
    assert kinds(plan(recreated(A2), observed(old), now=NOW)) == [("Start", "a")]
    fetching = engine(A2, EngineState.STARTING, admitted=False)
    assert plan(recreated(A2), observed(old, fetching), now=NOW) == ()
    waiting = replace(fetching, memory=5)
    assert kinds(plan(recreated(A2), observed(old, waiting), now=NOW)) == [("Drain", old.id)]
    draining = replace(old, state=EngineState.DRAINING, in_flight=1, drain_deadline=NOW + 9)
    assert plan(recreated(A2), observed(draining, waiting), now=NOW) == ()
    stopping = replace(old, state=EngineState.STOPPING)
    assert plan(recreated(A2), observed(stopping, waiting), now=NOW) == ()
    assert kinds(plan(recreated(A2), observed(waiting), now=NOW)) == [("Admit", waiting.id)]


def test_recreate_that_cannot_fit_is_refused_and_the_old_engine_stays() -> None:
    old, waiting = (
        engine(A1, EngineState.READY, memory=50),
        engine(A2, EngineState.STARTING, admitted=False, memory=101),
    )
    small = replace(observed(old, waiting), budget=100)
    assert kinds(plan(recreated(A2), small, now=NOW)) == [("Refuse", waiting.id)]
    refused = replace(waiting, state=EngineState.FAILED, retry_at=NOW + 60)
    assert plan(recreated(A2), replace(small, engines={e.id: e for e in (old, refused)}), now=NOW) == ()


def test_recreate_brings_the_last_good_revision_back_when_the_new_one_fails() -> None:
    failed = engine(A2, EngineState.FAILED)
    world = replace(observed(failed), last_good={"a": A1})
    (start,) = plan(recreated(A2), world, now=NOW)
    assert isinstance(start, Start)
    assert start.spec == A1
    restoring = replace(observed(failed, engine(A1, EngineState.STARTING)), last_good={"a": A1})
    assert plan(recreated(A2), restoring, now=NOW) == ()


def test_a_last_good_revision_that_fails_too_is_not_started_over_and_over() -> None:
    failed = engine(A2, EngineState.FAILED)
    dead = replace(observed(failed, engine(A1, EngineState.FAILED)), last_good={"a": A1})
    assert plan(recreated(A2), dead, now=NOW) == ()
    crashed = replace(observed(failed, engine(A1, EngineState.FAILED, retry_at=NOW + 5)), last_good={"a": A1})
    assert plan(recreated(A2), crashed, now=NOW) == ()
    assert kinds(plan(recreated(A2), crashed, now=NOW + 5)) == [("Forget", engine(A1, EngineState.FAILED).id)]


def test_a_last_good_revision_whose_bytes_were_written_over_is_not_tried_again() -> None:
    before, after = replace(A1, content="old"), replace(A1, content="new")
    world = replace(observed(engine(after, EngineState.FAILED)), last_good={"a": before})
    assert plan(recreated(after), world, now=NOW) == ()
    elsewhere = replace(before, source="/another/directory")
    (start,) = plan(recreated(after), replace(world, last_good={"a": elsewhere}), now=NOW)
    assert isinstance(start, Start)
    assert start.spec == elsewhere


def test_an_unloaded_model_is_not_restored_before_somebody_asks_for_it() -> None:
    want = {"a": DesiredModel(A2, load="on_demand")}
    world = replace(observed(engine(A2, EngineState.FAILED)), last_good={"a": A1})
    assert plan(want, world, now=NOW) == ()
    (start,) = plan(want, replace(world, wanted=frozenset({"a"})), now=NOW)
    assert isinstance(start, Start)
    assert start.spec == A1


def test_a_change_during_a_rollout_supersedes_it() -> None:
    old, starting = engine(A1, EngineState.READY), engine(A2, EngineState.STARTING)
    third = replace(A1, source="pypi:a==3")
    assert kinds(plan(desired(third), observed(old, starting), now=NOW)) == [("Stop", starting.id), ("Start", "a")]
    assert kinds(plan(desired(A1), observed(old, starting), now=NOW)) == [("Stop", starting.id)]


def test_a_crash_is_retried_when_its_backoff_ends_and_not_before() -> None:
    crashed = engine(A1, EngineState.FAILED, retry_at=NOW + 5)
    assert plan(desired(A1), observed(crashed), now=NOW) == ()
    assert next_look(desired(A1), observed(crashed)) == NOW + 5
    assert kinds(plan(desired(A1), observed(crashed), now=NOW + 5)) == [("Start", "a")]


def test_a_removed_model_is_drained_and_then_stopped() -> None:
    ready = engine(A1, EngineState.READY)
    assert kinds(plan({}, observed(ready), now=NOW)) == [("Drain", ready.id)]
    busy = replace(ready, state=EngineState.DRAINING, in_flight=1, drain_deadline=NOW + 10)
    assert plan({}, observed(busy), now=NOW) == ()
    assert kinds(plan({}, observed(replace(busy, in_flight=0)), now=NOW)) == [("Stop", ready.id)]


def test_a_busy_engine_is_stopped_only_when_its_drain_deadline_has_passed() -> None:
    busy = engine(A1, EngineState.DRAINING, in_flight=3, drain_deadline=NOW + 10)
    assert plan({}, observed(busy), now=NOW + 9.9) == ()
    assert kinds(plan({}, observed(busy), now=NOW + 10)) == [("Stop", busy.id)]


def test_backoff_doubles_up_to_its_ceiling() -> None:
    assert [backoff(crashes, chance=0) for crashes in (1, 2, 3, 4)] == [1, 2, 4, 8]
    assert backoff(10_000, chance=0) == LONGEST_RETRY


@given(st.integers(1, 100), st.floats(0, 1, exclude_max=True))
def test_chance_shortens_a_backoff_by_at_most_its_share(crashes: int, chance: float) -> None:
    full = backoff(crashes, chance=0)
    assert full * (1 - JITTER) <= backoff(crashes, chance=chance) <= full


def test_an_idle_model_is_unloaded_in_its_time_and_comes_back_only_when_asked_for() -> None:
    want = {"a": DesiredModel(A1, idle_unload=60)}
    ready = engine(A1, EngineState.READY, last_used=NOW)
    assert plan(want, observed(ready), now=NOW + 59) == ()
    assert next_look(want, observed(ready)) == NOW + 60
    assert kinds(plan(want, observed(ready), now=NOW + 60)) == [("Drain", ready.id)]
    assert plan(want, observed(replace(ready, in_flight=1)), now=NOW + 60) == ()
    unloaded = replace(observed(), last_good={"a": A1})
    assert plan(want, unloaded, now=NOW + 61) == ()
    assert kinds(plan(want, replace(unloaded, wanted=frozenset({"a"})), now=NOW + 61)) == [("Start", "a")]
    assert kinds(plan(want, observed(), now=NOW)) == [("Start", "a")]


specs = st.sampled_from([A1, A2, B1])
states = st.sampled_from(list(EngineState))
times = st.none() | st.floats(NOW - 100, NOW + 100)


@st.composite
def worlds(draw: st.DrawFn) -> Observed:
    engines = {}
    for index in range(draw(st.integers(0, 5))):
        engines[f"e{index}"] = ObservedEngine(
            id=f"e{index}",
            spec=draw(specs),
            state=draw(states),
            since=0.0,
            in_flight=draw(st.integers(0, 3)),
            retry_at=draw(times),
            drain_deadline=draw(times),
        )
    last_good = draw(st.dictionaries(st.just("a"), st.sampled_from([A1, A2])))
    return Observed(engines, draw(st.frozensets(st.sampled_from(["a", "b"]))), last_good)


wishes = st.sets(specs, max_size=3).flatmap(
    lambda chosen: st.sampled_from(["startup", "on_demand"]).map(
        lambda load: desired(*sorted(chosen, key=str), load=load)
    )
)


@given(wishes, worlds())
def test_the_same_input_gives_the_same_plan(want: Desired, world: Observed) -> None:
    assert plan(want, world, now=NOW) == plan(want, world, now=NOW)


@given(wishes, worlds())
def test_an_engine_with_requests_in_flight_is_never_stopped_before_its_deadline(want: Desired, world: Observed) -> None:
    for action in plan(want, world, now=NOW):
        if isinstance(action, Stop):
            target = world.engines[action.engine]
            overdue = target.drain_deadline is not None and target.drain_deadline <= NOW
            assert target.in_flight == 0 or overdue or target.state is EngineState.STARTING


@given(wishes, worlds())
def test_applying_plans_again_and_again_comes_to_rest_at_the_desired_state(want: Desired, world: Observed) -> None:
    now = NOW
    for _ in range(10):
        world = applied(world, plan(want, world, now=now))
        now += 200  # past every retry and every drain deadline
    assert plan(want, world, now=now) == ()
    alive = [e.spec for e in world.engines.values() if e.alive]
    assert all(e.state is EngineState.READY for e in world.engines.values() if e.alive)
    assert len(alive) == len(set(alive))
    hopeless = {e.spec for e in world.engines.values() if e.state is EngineState.FAILED and e.retry_at is None}
    for model in want.values():
        if model.load == "startup" and model.spec not in hopeless:
            assert model.spec in alive
    for spec in alive:
        assert spec.model in want
        assert spec == want[spec.model].spec or want[spec.model].spec in hopeless


def applied(world: Observed, actions: tuple[Action, ...]) -> Observed:
    """The world after these actions, where everything goes well."""
    engines = dict(world.engines)
    for action in actions:
        match action:
            case Start(spec, _):
                engines = {key: e for key, e in engines.items() if e.spec != spec or e.alive}
                new = f"n{len(engines)}-{spec.model}-{spec.revision}"
                engines[new] = ObservedEngine(new, spec, EngineState.READY, 0.0)
            case Drain(key, _):
                engines[key] = replace(engines[key], state=EngineState.DRAINING, drain_deadline=NOW + 100)
            case Stop(key, _):
                engines[key] = replace(engines[key], state=EngineState.STOPPED)
            case Admit(key, _):
                engines[key] = replace(engines[key], admitted=True)
            case Refuse(key, _):
                engines[key] = replace(engines[key], state=EngineState.FAILED)
            case Forget(key, _):
                del engines[key]
    for key, e in engines.items():
        if e.state is EngineState.STOPPING:
            engines[key] = replace(e, state=EngineState.STOPPED)
        if e.state is EngineState.STARTING:
            engines[key] = replace(e, state=EngineState.READY)
        if e.state is EngineState.DRAINING and e.drain_deadline is None:
            engines[key] = replace(e, in_flight=0)
    return Observed(engines, frozenset(), world.last_good)
