"""Responses that are asked about after they were made: they live in the engine that made them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import openai
import pytest

from appliance.gateway.responses import name
from appliance.routing import Lease, Route, Routing
from tests.gateway.served import FakePort, Served, key, route, serve
from tests.gateway.test_openai_conformance import WEATHER
from tests.gateway.test_streaming import stats
from tests.support import fake_engine, wait_until


@pytest.fixture
def two(directory: Path) -> Iterator[tuple[Served, Route, Route]]:
    """A gateway before the first of two engines; the other takes its place in a rollout."""
    old, new = directory / "old.sock", directory / "new.sock"
    with fake_engine(name="tiny", key="old-key", uds=old), fake_engine(name="tiny", key="new-key", uds=new):
        first = replace(route(old), key="old-key")
        second = replace(route(new), key="new-key", lease=Lease())
        with serve(FakePort(Routing(routes={"tiny": first}, aliases={"gpt-test": "tiny"}))) as served:
            yield served, first, second
    old.unlink()
    new.unlink()


def client(served: Served) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{served.base}/v1", api_key="none", max_retries=0)


def test_a_stored_response_is_retrieved_and_continued(two: tuple[Served, Route, Route]) -> None:
    served, first, _ = two
    with client(served) as sdk:
        made = sdk.responses.create(model="gpt-test", input="hello", store=True)
        assert made.id.startswith(name(first, ""))
        assert sdk.responses.retrieve(made.id).output_text == made.output_text
        assert sdk.responses.create(model="tiny", input="and?", previous_response_id=made.id).output_text


def test_a_streamed_response_is_retrieved_by_the_id_of_its_events(two: tuple[Served, Route, Route]) -> None:
    with client(two[0]) as sdk, sdk.responses.stream(model="tiny", input="hello", store=True) as stream:
        final = stream.get_final_response()
        assert sdk.responses.retrieve(final.id).output_text == final.output_text


def test_a_response_that_nobody_asked_to_store_is_not_kept(two: tuple[Served, Route, Route]) -> None:
    with client(two[0]) as sdk:
        made = sdk.responses.create(model="tiny", input="hello")
        with pytest.raises(openai.NotFoundError, match="store"):
            sdk.responses.retrieve(made.id)


def test_after_a_rollout_the_client_is_told_that_it_is_gone(two: tuple[Served, Route, Route]) -> None:
    served, _, second = two
    with client(served) as sdk:
        made = sdk.responses.create(model="tiny", input="hello", store=True)
        served.change(routes={"tiny": second})
        with pytest.raises(openai.NotFoundError, match="replaced"):
            sdk.responses.retrieve(made.id)
        with pytest.raises(openai.BadRequestError) as caught:
            sdk.responses.create(model="tiny", input="and?", previous_response_id=made.id)
        assert caught.value.code == "previous_response_not_found"


def test_a_response_in_the_background_keeps_its_engine_busy_until_it_is_made(two: tuple[Served, Route, Route]) -> None:
    served, first, second = two
    slow: Any = {"fake": {"first": 0.5}}
    with client(served) as sdk:
        made = sdk.responses.create(model="tiny", input="hello", background=True, extra_body=slow)
        assert made.status == "in_progress"
        served.change(routes={"tiny": second})
        assert first.lease.in_flight == 1  # so a drain waits for it
        wait_until(lambda: first.lease.in_flight > 1 or sdk.responses.retrieve(made.id).status == "completed")
        wait_until(lambda: first.lease.in_flight == 0)


def test_a_response_in_the_background_is_cancelled(two: tuple[Served, Route, Route]) -> None:
    served, first, _ = two
    with client(served) as sdk:
        slow: Any = {"fake": {"first": 60}}
        made = sdk.responses.create(model="tiny", input="hello", background=True, extra_body=slow)
        assert sdk.responses.cancel(made.id).status == "cancelled"
        wait_until(lambda: first.lease.in_flight == 0)
        with pytest.raises(openai.BadRequestError):
            sdk.responses.cancel(made.id)


def test_an_engine_without_a_list_of_inputs_is_said_to_have_none(two: tuple[Served, Route, Route]) -> None:
    with client(two[0]) as sdk:
        made = sdk.responses.create(model="tiny", input="hello", store=True)
        with pytest.raises(openai.NotFoundError) as caught:
            sdk.responses.input_items.list(made.id)
        assert caught.value.code == "unsupported_endpoint"


def test_a_key_sees_the_responses_of_its_models_alone(two: tuple[Served, Route, Route]) -> None:
    served, _, _ = two
    with client(served) as sdk:
        made = sdk.responses.create(model="tiny", input="hello", store=True)
    served.change(keys=(key("one", "sk-one", models=("other",)), key("two", "sk-two")))
    for clear, status in (("sk-one", 404), ("sk-two", 200)):
        answer = served.ask("GET", f"/v1/responses/{made.id}", headers={"x-api-key": clear})
        assert answer.status == status


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/responses/resp_x%20HTTP/1.1"),
        ("GET", "/v1/responses/resp_%0d%0ax"),
        ("GET", "/v1/responses/{id}/cancel"),
        ("GET", "/v1/responses/{id}/..%2f..%2fmetrics"),
        ("POST", "/v1/responses/{id}"),
        ("POST", "/v1/responses/{id}/compact"),
        ("POST", "/v1/responses/{id}/cancel/x"),
    ],
)
def test_nothing_but_a_listed_path_is_asked_of_the_engine(
    two: tuple[Served, Route, Route], method: str, path: str
) -> None:
    served, first, _ = two
    with client(served) as sdk:
        made = sdk.responses.create(model="tiny", input="hello", store=True)
    assert served.ask(method, path.format(id=made.id)).status == 404
    assert served.ask("GET", f"/v1/responses/{made.id}?stream=a%20b&x=%0d%0a").status == 200
    assert served.ask("GET", f"/v1/responses/{made.id}?a'b").status == 400
    assert first.socket is not None
    assert "metrics" not in stats(Path(first.socket))["last_path"]


def test_a_developers_item_and_demanded_tools_are_said_as_the_engine_needs_them(gateway: Served, engine: Path) -> None:
    flat = {"type": "function", **WEATHER["function"]}
    body = {
        "model": "tiny",
        "input": [{"role": "developer", "content": "be brief"}, {"role": "user", "content": "hello"}],
        "tools": [flat],
        "tool_choice": {"type": "function", "name": "weather"},
    }
    answer = gateway.ask("POST", "/v1/responses", body).json()
    assert answer["output"][0]["type"] == "function_call"
    seen = stats(engine)["last_body"]
    assert [item["role"] for item in seen["input"]] == ["system", "user"]
    assert seen["tools"] == [{**flat, "strict": True}]
    assert seen["store"] is False


def test_called_functions_are_streamed_in_order(gateway: Served, sdk: openai.OpenAI) -> None:
    tools: Any = [{"type": "function", **WEATHER["function"]}]
    stream = sdk.responses.create(model="tiny", input="hello", tools=tools, tool_choice="required", stream=True)
    kinds = [event.type for event in stream]
    assert kinds == [
        "response.created",
        "response.output_item.added",
        "response.function_call_arguments.delta",
        "response.function_call_arguments.done",
        "response.output_item.done",
        "response.completed",
    ]
