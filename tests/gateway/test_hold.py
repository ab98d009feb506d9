"""Requests that arrive before their model is ready."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import openai
import pytest

from appliance.errors import NotReady
from appliance.routing import Routing
from tests.gateway.served import QUESTION, FakePort, Served, chat, route, serve


@pytest.fixture
def gateway(engine: Path) -> Iterator[Served]:
    """One engine, and a model that takes four keep-alives to become it."""
    state = FakePort(Routing(routes={"tiny": None}, aliases={"alias": "tiny"}), {"tiny": route(engine)}, delay=0.2)
    with serve(state, keep_alive=0.05) as served:
        yield served


def test_a_held_stream_is_kept_alive_by_comments_and_then_answered(gateway: Served) -> None:
    answer = gateway.ask("POST", "/v1/chat/completions", chat(stream=True))
    assert answer.status == 200
    assert answer.headers["content-type"].startswith("text/event-stream")
    comments, _, events = answer.content.partition(b"data: ")
    assert comments.count(b": waiting for the model\n\n") >= 2
    assert events.rstrip().endswith(b"data: [DONE]")


def test_the_official_sdk_reads_past_the_comments(gateway: Served) -> None:
    with openai.OpenAI(base_url=f"{gateway.base}/v1", api_key="unused", max_retries=0) as sdk:
        chunks = list(sdk.chat.completions.create(model="alias", messages=QUESTION, stream=True))
    assert {chunk.model for chunk in chunks} == {"alias"}
    assert chunks[-1].choices[0].finish_reason


def test_a_held_request_without_a_stream_waits_in_silence(gateway: Served) -> None:
    answer = gateway.ask("POST", "/v1/chat/completions", chat())
    assert answer.status == 200
    assert answer.json()["model"] == "tiny"


def test_a_held_stream_whose_model_fails_ends_with_one_error_event(gateway: Served) -> None:
    gateway.state.coming["tiny"] = NotReady("model `tiny` failed: no such kernel")
    answer = gateway.ask("POST", "/v1/chat/completions", chat(stream=True))
    assert answer.status == 200
    assert answer.content.count(b"data: ") == 1
    assert b"no such kernel" in answer.content
    assert b"[DONE]" not in answer.content


def test_a_held_stream_that_the_engine_refuses_ends_with_one_error_event(gateway: Served) -> None:
    answer = gateway.ask("POST", "/v1/chat/completions", chat(stream=True, fake={"status": 400}))
    assert answer.content.count(b"data: ") == 1
    assert b'"error"' in answer.content
