"""Streams that wait: for their model, or for an engine that is still reading the prompt."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anthropic
import pytest

from appliance.errors import NotReady
from appliance.routing import Routing
from tests.gateway.anthropic.asking import QUESTION, TIME, WEATHER, ask, call, fake
from tests.gateway.served import FakePort, Served, route, serve

PING = b'event: ping\ndata: {"type": "ping"}\n\n'


@pytest.fixture
def gateway(engine: Path) -> Iterator[Served]:
    """One engine, and a model that takes four keep-alives to become it."""
    state = FakePort(Routing(routes={"tiny": None}), {"tiny": route(engine)}, delay=0.2)
    with serve(state, keep_alive=0.05) as served:
        yield served


def stream(gateway: Served, **more: Any) -> bytes:
    body = {"model": "tiny", "max_tokens": 99, "messages": QUESTION, "stream": True, **more}
    answer = gateway.ask("POST", "/v1/messages", body)
    assert answer.status == 200
    return answer.content


def test_a_held_stream_is_kept_alive_by_pings_and_then_answered(gateway: Served) -> None:
    before, _, after = stream(gateway).partition(b"event: message_start")
    assert before.count(PING) >= 2
    assert before == PING * before.count(PING)
    assert b"event: message_stop" in after


def test_the_official_client_reads_past_the_pings(gateway: Served) -> None:
    with anthropic.Anthropic(base_url=gateway.base, api_key="none", max_retries=0) as sdk:
        assert ask(sdk, stream=True).content


def test_a_long_prompt_is_waited_for_with_pings(gateway: Served, engine: Path) -> None:
    gateway.change(routes={"tiny": route(engine)})
    before, _, _ = stream(gateway, messages=fake(first=0.3)).partition(b"event: content_block_start")
    assert before.count(PING) >= 3


def test_a_call_that_can_only_be_written_whole_is_waited_for_with_pings(gateway: Served, engine: Path) -> None:
    gateway.change(routes={"tiny": route(engine)})
    said = '{"name": "time", "arguments": {"zone": "UTC"}}'
    asked = {"tools": [WEATHER, TIME], "tool_choice": {"type": "any"}}
    content = stream(gateway, messages=fake(text=said, interval=0.03), **asked)
    _, _, waited = content.partition(b"message_start")
    assert waited.partition(b"content_block_start")[0].count(PING) >= 3
    assert b'"name":"time"' in content


def test_a_held_stream_whose_model_fails_ends_with_one_error_event(gateway: Served) -> None:
    gateway.state.coming["tiny"] = NotReady("model `tiny` failed: no such kernel")
    content = stream(gateway)
    assert content.count(b"event: error\n") == 1
    assert b'"api_error"' in content  # waiting would not help
    assert content.endswith(b"\n\n")


def test_a_held_stream_asks_again_without_a_limit_beyond_the_context(gateway: Served) -> None:
    content = stream(gateway, messages=fake(context=4096, finish="length"), max_tokens=9000)
    assert b"event: error" not in content
    assert b'"model_context_window_exceeded"' in content


def test_space_between_calls_is_no_reason_to_say_nothing_for_long(gateway: Served, engine: Path) -> None:
    gateway.change(routes={"tiny": route(engine)})
    deltas = [{"content": " "}] * 8 + [{"tool_calls": [{**call("weather", {"city": "Paris"}), "index": 0}]}]
    content = stream(gateway, messages=fake(deltas=deltas, interval=0.03), tools=[WEATHER])
    assert content.partition(b"message_start")[2].count(PING) >= 3
