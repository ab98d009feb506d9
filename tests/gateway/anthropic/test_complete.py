"""The legacy completions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from appliance.gateway.anthropic.complete import translate
from tests.gateway.served import Served
from tests.gateway.test_streaming import fragile, stats

PROMPT = "\n\nHuman: what is the capital of France?\n\nAssistant:"


@pytest.mark.parametrize("path", ["/v1/complete", "/v1/anthropic/completions", "/anthropic/v1/complete"])
def test_a_prompt_is_completed(gateway: Served, engine: Path, path: str) -> None:
    limit = "max_tokens" if "completions" in path else "max_tokens_to_sample"
    answer = gateway.ask("POST", path, {"model": "gpt-test", "prompt": PROMPT, limit: 50, "stop_sequences": ["END"]})
    found = answer.json()
    assert found["completion"].startswith("tiny answers")
    assert (found["type"], found["model"], found["stop_reason"]) == ("completion", "gpt-test", "stop_sequence")
    assert found["id"].startswith("compl_")
    assert answer.headers["request-id"]
    seen = stats(engine)
    assert seen["last_path"] == "/v1/completions"
    assert seen["last_body"] == {
        "model": "tiny", "prompt": PROMPT, "max_tokens": 50, "stream": False, "stop": ["END", "\n\nHuman:"],
    }  # fmt: skip


def events(content: bytes) -> list[tuple[str, dict[str, Any]]]:
    found = [event.decode().partition("\ndata: ") for event in content.split(b"\n\n")[:-1]]
    return [(name.removeprefix("event: "), json.loads(data)) for name, _, data in found]


def test_a_completion_is_streamed(gateway: Served) -> None:
    body = {"model": "tiny", "prompt": "hello there", "max_tokens": 50}
    whole = gateway.ask("POST", "/v1/complete", body).json()
    found = events(gateway.ask("POST", "/v1/complete", {**body, "stream": True}).content)
    assert {name for name, _ in found} == {"completion"}
    assert "".join(event["completion"] for _, event in found) == whole["completion"]
    assert [event["stop_reason"] for _, event in found[:-1]] == [None] * (len(found) - 1)
    assert found[-1][1]["stop_reason"] == "stop_sequence"
    assert len({event["id"] for _, event in found}) == 1


def test_why_a_completion_ended(gateway: Served) -> None:
    body = {"model": "tiny", "prompt": PROMPT, "max_tokens": 2}
    assert gateway.ask("POST", "/v1/complete", body).json()["stop_reason"] == "max_tokens"
    told = {"text": "one", "stop_reason": "END"}
    body = {"model": "tiny", "prompt": f"fake:{json.dumps(told)}", "max_tokens": 9, "stop_sequences": ["END"]}
    found = gateway.ask("POST", "/v1/complete", body).json()
    assert (found["stop_reason"], found["stop"]) == ("stop_sequence", "END")


def test_a_prompt_without_turns_gets_no_stop_of_ours() -> None:
    assert "stop" not in translate({"model": "tiny", "prompt": "Once upon", "max_tokens": 3})


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"prompt": None}, "prompt: is required"),
        ({"prompt": ["a"]}, "prompt: must be a string"),
        ({"max_tokens": None}, "max_tokens_to_sample: is required"),
        ({"max_tokens": 0}, "max_tokens: must be at least 1"),
        ({"stop_sequences": [1]}, "stop_sequences: must be a string"),
    ],
)
def test_a_bad_request_is_refused_in_shape(gateway: Served, change: Any, says: str) -> None:
    body = {"model": "tiny", "prompt": PROMPT, "max_tokens": 5, **change}
    body = {name: value for name, value in body.items() if value is not None}
    answer = gateway.ask("POST", "/v1/complete", body)
    assert answer.status == 400
    assert answer.error()["type"] == "invalid_request_error"
    assert says in answer.error()["message"]


def test_an_engine_killed_in_a_stream_ends_it_with_one_error_event(directory: Path) -> None:
    with fragile(directory) as (served, _, _):
        body = {"model": "tiny", "prompt": 'fake:{"crash_after": 2}', "max_tokens": 50, "stream": True}
        names = [name for name, _ in events(served.ask("POST", "/v1/complete", body).content)]
    assert names.count("error") == 1
    assert names[-1] == "error"
