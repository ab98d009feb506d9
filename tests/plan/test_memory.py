from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from appliance.plan.actions import Admit, Drain, Refuse
from appliance.plan.desired import DesiredModel, EngineSpec
from appliance.plan.memory import make_room
from appliance.plan.observed import EngineState, Observed, ObservedEngine

A1 = EngineSpec(model="a", backend="vllm", source="pypi:a==1")
A2 = replace(A1, source="pypi:a==2")
B1 = EngineSpec(model="b", backend="vllm", source="pypi:b==1")
C1 = EngineSpec(model="c", backend="vllm", source="pypi:c==1")


def ready(spec: EngineSpec, memory: int, **more: float) -> ObservedEngine:
    engine = ObservedEngine(f"{spec.model}-{spec.revision}", spec, EngineState.READY, 0.0, memory=memory)
    return replace(engine, **more)  # type: ignore[arg-type]


def waiting(spec: EngineSpec, memory: int | None) -> ObservedEngine:
    return replace(ready(spec, 0), state=EngineState.STARTING, memory=memory, admitted=False)


def world(*engines: ObservedEngine, budget: int | None = 100) -> Observed:
    return Observed({engine.id: engine for engine in engines}, budget=budget)


def test_what_fits_is_admitted_and_what_is_not_known_yet_waits() -> None:
    fits = waiting(A1, 60)
    assert list(make_room({}, world(fits))) == [Admit(fits.id, "fits in memory")]
    assert list(make_room({}, world(waiting(A1, None)))) == []


def test_two_that_fit_only_one_at_a_time_are_not_both_admitted() -> None:
    (action, refusal) = make_room({}, world(waiting(A1, 60), waiting(B1, 60)))
    assert isinstance(action, Admit)
    assert isinstance(refusal, Refuse)


def test_without_a_budget_everything_is_admitted() -> None:
    assert len(list(make_room({}, world(waiting(A1, 60), waiting(B1, 60), budget=None)))) == 2


def test_auto_lets_the_old_engine_go_first_only_where_both_do_not_fit() -> None:
    old, new = ready(A1, 60), waiting(A2, 60)
    auto = {"a": DesiredModel(A2, strategy="auto")}
    assert list(make_room(auto, world(old, new))) == [Drain(old.id, "makes room for `a`")]
    assert list(make_room(auto, world(old, new, budget=120))) == [Admit(new.id, "fits in memory")]
    leaving = replace(old, state=EngineState.DRAINING)
    assert list(make_room(auto, world(leaving, new))) == []


def test_surge_is_refused_where_both_do_not_fit_and_nothing_is_given_up() -> None:
    old, new = ready(A1, 60), waiting(A2, 60)
    (refusal,) = make_room({"a": DesiredModel(A2, strategy="surge")}, world(old, new))
    assert isinstance(refusal, Refuse)
    assert "needs" in refusal.reason


def test_what_keeps_starts_warm_counts_against_the_budget() -> None:
    new = waiting(A1, 60)
    assert list(make_room({}, replace(world(new), overhead=40))) == [Admit(new.id, "fits in memory")]
    (refusal,) = make_room({}, replace(world(new), overhead=41))
    assert isinstance(refusal, Refuse)
    assert refusal.available == 59


def test_a_refusal_says_what_could_be_had_with_everybody_gone_who_would_give_way() -> None:
    wants = {"b": DesiredModel(B1, load="on_demand"), "c": DesiredModel(C1), "a": DesiredModel(A1)}
    (refusal,) = make_room(wants, world(ready(B1, 40), ready(C1, 30), waiting(A1, 80)))
    assert isinstance(refusal, Refuse)
    assert refusal.available == 70


def test_what_can_never_fit_is_refused_before_anybody_gives_anything_up() -> None:
    old, new = ready(A1, 60), waiting(A2, 101)
    (refusal,) = make_room({"a": DesiredModel(A2)}, world(old, new))
    assert isinstance(refusal, Refuse)


def test_the_least_recently_used_idle_on_demand_engine_makes_room() -> None:
    wants = {"b": DesiredModel(B1, load="on_demand"), "c": DesiredModel(C1, load="on_demand"), "a": DesiredModel(A1)}
    b, c, new = ready(B1, 40, last_used=5.0), ready(C1, 40, last_used=3.0), waiting(A1, 50)
    assert list(make_room(wants, world(b, c, new))) == [Drain(c.id, "makes room for `a`")]
    busy = replace(c, in_flight=1)
    assert list(make_room(wants, world(b, busy, new))) == [Drain(b.id, "makes room for `a`")]


def test_a_model_loaded_at_startup_is_pinned() -> None:
    wants = {"b": DesiredModel(B1), "a": DesiredModel(A1)}
    (refusal,) = make_room(wants, world(ready(B1, 80), waiting(A1, 50)))
    assert isinstance(refusal, Refuse)


engines = st.builds(
    lambda spec, state, memory, admitted, flying, used: ObservedEngine(
        "",
        spec,
        state,
        0.0,
        flying,
        memory=memory,
        admitted=admitted or state is not EngineState.STARTING,
        last_used=used,
    ),
    st.sampled_from([A1, A2, B1, C1]),
    st.sampled_from(list(EngineState)),
    st.none() | st.integers(0, 120),
    st.booleans(),
    st.integers(0, 2),
    st.floats(0, 10),
)
wishes = st.fixed_dictionaries(
    {
        spec.model: st.builds(
            DesiredModel,
            st.just(spec),
            load=st.sampled_from(["startup", "on_demand"]),
            strategy=st.sampled_from(["auto", "surge", "recreate"]),
        )
        for spec in (A2, B1, C1)
    }
)


@given(wishes, st.lists(engines, max_size=6), st.integers(0, 300))
def test_memory_is_never_promised_beyond_the_budget(
    want: dict[str, DesiredModel], some: list[ObservedEngine], budget: int
) -> None:
    observed = Observed({f"e{i}": replace(e, id=f"e{i}") for i, e in enumerate(some)}, budget=budget)
    taken = sum(e.memory or 0 for e in observed.engines.values() if e.alive and e.admitted)
    admitted = [a.engine for a in make_room(want, observed) if isinstance(a, Admit)]
    if any(observed.engines[engine].memory for engine in admitted):
        assert taken + sum(observed.engines[engine].memory or 0 for engine in admitted) <= budget


@given(wishes, st.lists(engines, max_size=6), st.none() | st.integers(0, 300))
def test_recreate_admits_no_engine_beside_another_of_its_model(
    want: dict[str, DesiredModel], some: list[ObservedEngine], budget: int | None
) -> None:
    observed = Observed({f"e{i}": replace(e, id=f"e{i}") for i, e in enumerate(some)}, budget=budget)
    for action in make_room(want, observed):
        model = observed.engines[action.engine].spec.model if isinstance(action, Admit) else ""
        if model and want[model].strategy == "recreate":
            assert not any(e.alive and e.admitted and e.spec.model == model for e in observed.engines.values())


@given(wishes, st.lists(engines, max_size=6), st.integers(0, 300))
def test_only_a_predecessor_may_be_asked_to_give_way_while_it_is_busy(
    want: dict[str, DesiredModel], some: list[ObservedEngine], budget: int
) -> None:
    observed = Observed({f"e{i}": replace(e, id=f"e{i}") for i, e in enumerate(some)}, budget=budget)
    waiting_models = {e.spec.model for e in observed.engines.values() if not e.admitted}
    for action in make_room(want, observed):
        if isinstance(action, Drain):
            engine = observed.engines[action.engine]
            assert engine.in_flight == 0 or engine.spec.model in waiting_models
