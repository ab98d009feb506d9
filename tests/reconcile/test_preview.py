from __future__ import annotations

from dataclasses import replace
from typing import Any

from appliance.config.models import Appliance
from appliance.plan.desired import Desired, DesiredModel, EngineSpec
from appliance.plan.observed import EngineState, Observed, ObservedEngine
from appliance.reconcile.preview import preview

A1 = EngineSpec(model="a", backend="vllm", source="pypi:a==1")
A2 = replace(A1, source="pypi:a==2")
B1 = EngineSpec(model="b", backend="vllm", source="pypi:b==1")


def ready(spec: EngineSpec, memory: int, **more: Any) -> ObservedEngine:
    return ObservedEngine(f"e-{spec.model}", spec, EngineState.READY, 0.0, memory=memory, **more)


def previewed(desired: Desired, *engines: ObservedEngine, budget: int, needs: int, overhead: int = 0) -> dict[str, Any]:
    observed = Observed({engine.id: engine for engine in engines}, budget=budget, overhead=overhead)
    estimates = dict.fromkeys((want.spec for want in desired.values()), needs)

    def advice(spec: EngineSpec, available: int) -> str:
        return f"{spec.model} in {available}"

    return preview(Appliance(), Appliance(), desired, observed, estimates, advice, now=0.0)


def steps(answer: dict[str, Any]) -> list[tuple[str, str]]:
    return [(action["action"], action["model"]) for action in answer["actions"]]


def test_a_rollout_beside_its_predecessor_counts_both_at_the_peak() -> None:
    answer = previewed({"a": DesiredModel(A2)}, ready(A1, 40), budget=100, needs=50, overhead=5)
    assert steps(answer) == [("start", "a")]
    assert answer["memory"] == {"now": 45, "peak": 95, "after": 55, "budget": 100}


def test_one_that_fits_only_without_its_predecessor_drains_it_first() -> None:
    answer = previewed({"a": DesiredModel(A2)}, ready(A1, 60, in_flight=3), budget=100, needs=70)
    assert steps(answer) == [("start", "a"), ("drain", "a")]
    assert answer["actions"][1]["in_flight"] == 3
    assert answer["memory"] == {"now": 60, "peak": 70, "after": 70, "budget": 100}


def test_recreate_never_has_both() -> None:
    answer = previewed({"a": DesiredModel(A2, strategy="recreate")}, ready(A1, 10), budget=100, needs=20)
    assert steps(answer) == [("start", "a"), ("drain", "a")]
    assert answer["memory"] == {"now": 10, "peak": 20, "after": 20, "budget": 100}


def test_what_cannot_fit_is_refused_with_what_would_and_nothing_is_stopped() -> None:
    wants = (DesiredModel(A2), DesiredModel(A2, strategy="surge"), DesiredModel(A2, strategy="recreate"))
    for want in wants:
        answer = previewed({"a": want}, ready(A1, 30), budget=100, needs=101)
        assert steps(answer) == [("start", "a"), ("refuse", "a")]
        assert answer["actions"][1]["hint"] == f"a in {70 if want.strategy == 'surge' else 100}"
        assert answer["memory"] == {"now": 30, "peak": 30, "after": 30, "budget": 100}


def test_two_starts_that_fit_only_one_by_one_are_not_both_promised() -> None:
    wants = {"a": DesiredModel(A1), "b": DesiredModel(B1)}
    answer = previewed(wants, budget=100, needs=60)
    assert steps(answer) == [("start", "a"), ("start", "b"), ("refuse", "b")]


def test_the_memory_of_a_removed_model_is_there_for_the_next() -> None:
    answer = previewed({"b": DesiredModel(B1)}, ready(A1, 60), budget=100, needs=70)
    assert steps(answer) == [("drain", "a"), ("start", "b")]
    assert answer["memory"] == {"now": 60, "peak": 70, "after": 70, "budget": 100}
