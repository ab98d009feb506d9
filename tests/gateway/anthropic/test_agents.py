"""A coding agent's request, as it comes and as an engine sees it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.gateway.served import Served
from tests.gateway.test_streaming import stats

CASE = Path(__file__).parent / "cases" / "coding_agent.json"


@pytest.fixture
def request_() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(CASE.read_text())
    return found


HEADERS = {
    "anthropic-version": "2023-06-01",
    "anthropic-beta": "claude-code-20250219,interleaved-thinking-2025-05-14,context-management-2025-06-27",
    "authorization": "Bearer anything",
    "user-agent": "an agent",
}


def test_an_engine_sees_the_conversation_and_nothing_of_anthropics_own(
    gateway: Served, engine: Path, request_: dict[str, Any]
) -> None:
    answer = gateway.ask("POST", "/v1/messages?beta=true", request_, HEADERS)
    assert answer.status == 200
    assert answer.content.count(b"event: message_stop") == 1
    seen = stats(engine)["last_body"]
    functions = seen.pop("tools")
    assert [tool["function"]["name"] for tool in functions] == ["Read", "Bash"]
    assert "cache_control" not in json.dumps(seen)
    assert "billing" not in json.dumps(seen)
    thought = {"reasoning": "I should read it.", "reasoning_content": "I should read it."}
    calls = [("toolu_01A", "Read", {"file_path": "main.py"}), ("toolu_01B", "Bash", {"command": "ls"})]
    assert seen == {
        "model": "tiny",
        "messages": [
            {"role": "system", "content": "You are a coding agent.\n\nWork in /srv/project. Answer briefly."},
            {"role": "user", "content": "<context>Today is Tuesday.</context>\nWhat does main.py do?"},
            {
                "role": "assistant",
                "content": "I will read it.",
                **thought,
                "tool_calls": [
                    {"id": identity, "type": "function", "function": {"name": name, "arguments": json.dumps(given)}}
                    for identity, name, given in calls
                ],
            },
            {"role": "tool", "tool_call_id": "toolu_01A", "content": "print('hello')"},
            {"role": "tool", "tool_call_id": "toolu_01B", "content": "Error: permission denied"},
            {"role": "user", "content": "Go on."},
        ],
        "max_tokens": 32000,
        "stream": True,
        "stream_options": {"include_usage": True, "continuous_usage_stats": True},
        "temperature": 1,
        "user": "user_7f3a_account__session_91c2",
        "reasoning_effort": "medium",
        "tool_choice": "auto",
    }


def test_the_prefix_is_the_same_for_every_request_of_a_session(
    gateway: Served, engine: Path, request_: dict[str, Any]
) -> None:
    bodies = []
    for cch in ("00f1c", "99aa0"):
        request_["system"][0]["text"] = f"x-anthropic-billing-header: cc_version=2.1.0.abc; cch={cch};"
        gateway.ask("POST", "/v1/messages", request_, HEADERS)
        bodies.append(stats(engine)["last_body"])
    assert bodies[0] == bodies[1]


def test_its_tokens_are_counted_from_the_same_prompt(gateway: Served, engine: Path, request_: dict[str, Any]) -> None:
    gateway.ask("POST", "/v1/messages", request_, HEADERS)
    asked = stats(engine)["last_body"]
    for name in ("max_tokens", "stream", "temperature", "metadata"):
        del request_[name]
    counted = gateway.ask("POST", "/v1/messages/count_tokens?beta=true", request_, HEADERS)
    assert counted.json()["input_tokens"] > 0
    seen = stats(engine)["last_body"]
    assert seen == {"model": "tiny", "messages": asked["messages"], "tools": asked["tools"]}


def test_sampling_defaults_of_the_model_fill_in_where_the_agent_is_silent(
    gateway: Served, engine: Path, request_: dict[str, Any]
) -> None:
    tiny = gateway.state.table.routes["tiny"]
    assert tiny is not None
    gateway.change(routes={"tiny": replace(tiny, defaults={"temperature": 0.2, "top_p": 0.9, "max_tokens": 7})})
    gateway.ask("POST", "/v1/messages", request_, HEADERS)
    seen = stats(engine)["last_body"]
    assert (seen["temperature"], seen["top_p"], seen["max_tokens"]) == (1, 0.9, 32000)
