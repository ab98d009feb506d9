"""What coding agents and chat front ends really send, and where other servers were found to break them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.gateway.served import Served, chat, key, raw_post
from tests.gateway.test_openai_conformance import tiny
from tests.gateway.test_streaming import stats
from tests.support import wait_until

CHAT = "/v1/chat/completions"


def events(content: bytes) -> list[dict[str, Any]]:
    lines = [line.removeprefix(b"data: ") for line in content.split(b"\n") if line.startswith(b"data: ")]
    return [json.loads(line) for line in lines if line != b"[DONE]"]


CODEX = {
    "model": "tiny",
    "instructions": "You are a coding agent running in a terminal.",
    "input": [
        {"type": "message", "role": "developer", "content": [{"type": "input_text", "text": "sandbox: read-only"}]},
        {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "list the files"}]},
        {"type": "reasoning", "summary": [], "content": None, "encrypted_content": "opaque"},
        {"type": "function_call", "name": "shell", "arguments": '{"command":["ls"]}', "call_id": "call_1"},
        {"type": "function_call_output", "call_id": "call_1", "output": "README.md"},
        {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "and now?"}]},
    ],
    "tools": [
        {"type": "function", "name": "shell", "strict": False, "parameters": {"type": "object", "properties": {}}},
        {"type": "web_search"},
        {"type": "image_generation"},
        {"type": "namespace", "name": "mcp", "description": "more tools", "tools": []},
    ],
    "tool_choice": "auto",
    "parallel_tool_calls": False,
    "reasoning": {"effort": "medium", "summary": "auto"},
    "store": False,
    "stream": True,
    "include": ["reasoning.encrypted_content"],
    "prompt_cache_key": "0199-session",
    "text": {"verbosity": "low"},
}


def test_codex_is_streamed_its_events_in_order(gateway: Served, engine: Path) -> None:
    answer = gateway.ask("POST", "/v1/responses", CODEX, {"accept": "text/event-stream", "originator": "codex_cli_rs"})
    assert answer.status == 200
    kinds = [event["type"] for event in events(answer.content)]
    assert [*dict.fromkeys(kinds)] == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
        "response.output_text.delta",
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.completed",
    ]
    seen = stats(engine)["last_body"]
    assert seen["instructions"] == "You are a coding agent running in a terminal.\n\nsandbox: read-only"
    assert seen["input"] == CODEX["input"][1:]  # type: ignore[index]
    assert seen["store"] is False


def test_codex_is_streamed_its_calls(gateway: Served) -> None:
    answer = gateway.ask("POST", "/v1/responses", {**CODEX, "fake": {"call": "shell"}})
    found = events(answer.content)
    (item,) = [event["item"] for event in found if event["type"] == "response.output_item.done"]
    assert (item["type"], item["name"]) == ("function_call", "shell")
    assert found[-1]["response"]["output"] == [item]


def test_open_webui_lists_models_with_its_key_and_finds_the_same_ids_every_time(gateway: Served) -> None:
    gateway.change(keys=(key("webui", "sk-webui", models=("tiny",)),))
    assert gateway.ask("GET", "/v1/models").status == 401
    headers = {"authorization": "Bearer sk-webui", "content-type": "application/json"}
    listed = [gateway.ask("GET", "/v1/models", headers=headers).json() for _ in range(2)]
    assert listed[0] == listed[1]
    assert [model["id"] for model in listed[0]["data"]] == ["tiny", "gpt-test"]
    assert all(model["object"] == "model" and isinstance(model["created"], int) for model in listed[0]["data"])


def test_open_webui_is_streamed_one_usage_where_it_asks_and_none_where_it_does_not(gateway: Served) -> None:
    body = chat(stream=True)
    asked = events(gateway.ask("POST", CHAT, {**body, "stream_options": {"include_usage": True}}).content)
    plain = events(gateway.ask("POST", CHAT, body).content)
    (trailer,) = [event for event in asked if event.get("usage")]
    assert asked[-1] == trailer
    assert trailer["choices"] == []
    assert not any(event.get("usage") for event in plain)
    assert plain[0]["choices"][0]["delta"]["role"] == "assistant"


def test_fields_of_its_own_from_a_front_end_do_not_break_a_chat(gateway: Served, engine: Path) -> None:
    body = chat(chat_id="1", session_id="2", metadata={"a": "b"}, features={"web_search": False}, user="u", seed=1)
    assert gateway.ask("POST", CHAT, body).status == 200
    assert stats(engine)["last_body"] == body


def test_aider_gets_its_stream_from_a_model_with_a_slash_and_a_prefix(gateway: Served) -> None:
    gateway.change(globs=(("openai/*", "tiny"),))
    body = chat(model="openai/gpt-4.1", stream=True, temperature=0, extra_headers=None)
    answer = gateway.ask("POST", CHAT, body, {"user-agent": "aider/0.86 litellm"})
    assert answer.status == 200
    assert {event["model"] for event in events(answer.content)} == {"openai/gpt-4.1"}


def test_a_streamed_call_has_its_name_once_and_first(gateway: Served) -> None:
    tool = {"type": "function", "function": {"name": "edit", "parameters": {"type": "object"}}}
    answer = gateway.ask("POST", CHAT, chat(stream=True, tools=[tool], fake={"call": "edit"}))
    deltas = [event["choices"][0] for event in events(answer.content)]
    calls = [call for choice in deltas for call in choice["delta"].get("tool_calls", ())]
    assert calls[0]["id"]
    assert calls[0]["function"] == {"name": "edit", "arguments": ""}
    assert not any("name" in call["function"] for call in calls[1:])
    assert {call["index"] for call in calls} == {0}
    assert deltas[-1]["finish_reason"] == "tool_calls"


def test_an_editor_that_gives_up_at_every_keystroke_leaves_nothing_running(gateway: Served, engine: Path) -> None:
    before = stats(engine)["aborted"]
    for _ in range(20):
        with gateway.connect() as client:
            client.sendall(raw_post(CHAT, chat(stream=True, fake={"stall_after": 1})))
            assert client.recv(10)
    wait_until(lambda: stats(engine)["aborted"] == before + 20)
    assert tiny(gateway).lease.in_flight == 0


def test_no_key_and_no_word_of_a_conversation_is_in_anything_that_is_logged(gateway: Served) -> None:
    gateway.change(keys=(key("one", "sk-secret-one"), key("old", "sk-secret-old", expires="2020-01-01")))
    secrets = ("sk-secret-one", "sk-secret-old", "sk-secret-wrong", "sk-secret-query", "Top secret words", "engine-key")
    good = {"authorization": "Bearer sk-secret-one"}
    talk = chat(messages=[{"role": "user", "content": "Top secret words"}])
    for headers in (good, {"x-api-key": "sk-secret-old"}, {"authorization": "Bearer sk-secret-wrong"}, {}):
        for change in (
            {},
            {"stream": True},
            {"model": "nobody"},
            {"fake": {"status": 500}},
            {"tools": "Top secret words"},
        ):
            gateway.ask("POST", "/v1/chat/completions?api_key=sk-secret-query", {**talk, **change}, headers)
        gateway.ask("POST", "/v1/responses", {"model": "tiny", "input": "Top secret words"}, headers)
        gateway.ask("POST", "/v1/messages", {**talk, "max_tokens": 1}, headers)
        gateway.ask("POST", "/v1/audio/transcriptions", b"Top secret words", {**headers, "content-type": "x"})
        gateway.ask("POST", CHAT, b'{"model": Top secret words', headers)
    with gateway.connect() as client:
        client.sendall(
            b"GET / HTTP/1.1\r\nauthorization: Bearer sk-secret-one\r\nauthorization: Bearer sk-secret-old\r\n\r\n"
        )
        client.recv(4096)
    assert len(gateway.log) > 30
    said = repr(gateway.log)
    assert not [secret for secret in secrets if secret in said]
