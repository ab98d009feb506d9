"""Real vLLM's metrics on the appliance's page, and what the dashboard asks for."""

from __future__ import annotations

import urllib.request

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from tests.end_to_end.conftest import Served
from tests.end_to_end.test_first_light import QUESTION
from tests.gateway.test_dashboard import expressions, metrics_in
from tests.support import wait_until

pytestmark = pytest.mark.engine


def samples(served: Served) -> dict[str, list[tuple[dict[str, str], float]]]:
    request = urllib.request.Request(f"{served.base}/metrics", headers={"accept": "application/openmetrics-text"})  # noqa: S310
    with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310
        families = [*text_string_to_metric_families(answer.read().decode())]  # type: ignore[no-untyped-call]
    found: dict[str, list[tuple[dict[str, str], float]]] = {}
    for sample in (sample for family in families for sample in family.samples):
        found.setdefault(sample.name, []).append((sample.labels, sample.value))
    return found


def total(served: Served, name: str) -> float:
    return sum(value for labels, value in samples(served).get(name, ()) if labels["model"] == "smollm2")


def test_the_gateway_counts_the_tokens_that_the_engine_counts(served: Served) -> None:
    names = ("appliance_completion_tokens_total", "vllm:generation_tokens_total")
    before = {name: total(served, name) for name in names}
    with served.client() as sdk:
        answer = sdk.chat.completions.create(model="smollm2", messages=QUESTION, temperature=0, max_tokens=24)
        stream = sdk.chat.completions.create(
            model="smollm2", messages=QUESTION, temperature=0, max_tokens=24, stream=True
        )
        chunks = list(stream)
    assert answer.usage is not None
    assert all(chunk.usage is None and chunk.choices for chunk in chunks)  # it was not asked for by this client
    expected = {name: count + 2 * answer.usage.completion_tokens for name, count in before.items()}
    # The last event is read before its request has ended.
    wait_until(lambda: {name: total(served, name) for name in names} == expected, what="both counts agree")


def test_every_query_of_the_dashboard_finds_its_metric_in_the_real_thing(served: Served) -> None:
    with served.client() as sdk:
        list(sdk.chat.completions.create(model="smollm2", messages=QUESTION, max_tokens=4, stream=True))
    there = samples(served)
    engines = {name for expression in expressions() for name in metrics_in(expression) if ":" in name}
    assert engines
    assert engines <= there.keys()
