"""OpenAI's API in front of the real model: what the gateway has to say otherwise for vLLM to keep its promises."""

from __future__ import annotations

import http.client
import json
from typing import Any
from urllib.parse import urlsplit

import openai
import pytest
from openai.types.chat import ChatCompletionMessageParam, ChatCompletionToolParam
from pydantic import BaseModel, Field

from tests.end_to_end.conftest import Served
from tests.support import wait_until

pytestmark = pytest.mark.engine

QUESTION: list[ChatCompletionMessageParam] = [{"role": "user", "content": "What is the capital of France?"}]
WEATHER: ChatCompletionToolParam = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather in a city",
        "parameters": {
            "type": "object",
            "properties": {
                "city": {"type": "string", "enum": ["Paris", "Rome"]},
                "days": {"type": "integer", "enum": [1, 2, 3]},
            },
            "required": ["city", "days"],
            "additionalProperties": False,
        },
    },
}


def ask(served: Served, method: str, path: str, body: Any = None) -> tuple[int, dict[str, Any]]:
    connection = http.client.HTTPConnection(urlsplit(served.base).netloc, timeout=120)
    try:
        connection.request(method, path, None if body is None else json.dumps(body))
        response = connection.getresponse()
        return response.status, json.loads(response.read())
    finally:
        connection.close()


def test_the_parsers_were_chosen_and_say_why(served: Served) -> None:
    (engine,) = served.status()["models"][0]["engines"]
    chosen = {choice["argument"]: choice["value"] for choice in engine["chosen"]}
    assert chosen == {"tool_call_parser": "hermes", "enable_auto_tool_choice": True}
    explained = served.command("explain", "models.smollm2.engine.tool_call_parser")
    assert 'chosen: "hermes", since' in explained.stdout, explained.stderr


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("choice", [{"type": "function", "function": {"name": "weather"}}, "required"])
def test_a_demanded_tools_arguments_obey_its_schema(served: Served, choice: Any, stream: bool) -> None:
    ask: dict[str, Any] = {"model": "smollm2", "messages": QUESTION, "tools": [WEATHER], "tool_choice": choice}
    with served.client() as sdk:
        if stream:
            with sdk.chat.completions.stream(**ask, max_tokens=100, temperature=0) as events:
                final: Any = events.get_final_completion()
        else:
            final = sdk.chat.completions.create(**ask, max_tokens=100, temperature=0)
    calls = final.choices[0].message.tool_calls
    assert calls
    for call in calls:
        assert call.function.name == "weather"
        arguments = json.loads(call.function.arguments)
        assert arguments.keys() == {"city", "days"}
        assert arguments["city"] in {"Paris", "Rome"}
        assert arguments["days"] in {1, 2, 3}


def test_tools_that_are_only_offered_are_no_error(served: Served) -> None:
    with served.client() as sdk:
        answer = sdk.chat.completions.create(model="smollm2", messages=QUESTION, tools=[WEATHER], max_tokens=24)
    assert answer.choices[0].message.content or answer.choices[0].message.tool_calls


class Capital(BaseModel):
    country: str = Field(max_length=20)
    capital: str = Field(max_length=20)
    large: bool


def test_a_schema_is_obeyed(served: Served) -> None:
    with served.client() as sdk:
        answer = sdk.chat.completions.parse(
            model="smollm2", messages=QUESTION, response_format=Capital, max_tokens=100, temperature=0
        )
    assert isinstance(answer.choices[0].message.parsed, Capital)


def test_logprobs_n_and_stop_are_the_engines_own(served: Served) -> None:
    with served.client() as sdk:
        answer = sdk.chat.completions.create(
            model="smollm2",
            messages=QUESTION,
            n=2,
            logprobs=True,
            top_logprobs=2,
            stop=[" is", " of"],
            temperature=0.2,
            max_tokens=24,
        )
    assert [choice.index for choice in answer.choices] == [0, 1]
    for choice in answer.choices:
        assert " of" not in (choice.message.content or "")
        assert choice.logprobs is not None
        assert all(len(token.top_logprobs) == 2 for token in choice.logprobs.content or ())
    assert "stop" in {choice.finish_reason for choice in answer.choices}


def test_a_developers_message_and_parts_are_understood(served: Served) -> None:
    messages: list[ChatCompletionMessageParam] = [
        {"role": "developer", "content": "You answer questions about geography."},
        {"role": "user", "content": [{"type": "text", "text": "What is the capital of France?"}]},
    ]
    with served.client() as sdk:
        answer = sdk.chat.completions.create(
            model="smollm2", messages=messages, temperature=0, max_completion_tokens=24
        )
    assert "Paris" in (answer.choices[0].message.content or "")


def test_a_response_is_stored_retrieved_and_continued(served: Served) -> None:
    with served.client() as sdk:
        made = sdk.responses.create(
            model="smollm2", input="What is the capital of France?", store=True, max_output_tokens=24, temperature=0
        )
        assert "Paris" in made.output_text
        assert sdk.responses.retrieve(made.id).output_text == made.output_text
        more = sdk.responses.create(
            model="smollm2", input="And of Italy?", previous_response_id=made.id, max_output_tokens=24, temperature=0
        )
        assert more.output_text
        forgotten = sdk.responses.create(model="smollm2", input="Hello", max_output_tokens=4)
        with pytest.raises(openai.NotFoundError):
            sdk.responses.retrieve(forgotten.id)


def test_a_response_is_streamed_and_found_by_the_id_in_its_events(served: Served) -> None:
    with served.client() as sdk:
        with sdk.responses.stream(
            model="smollm2", input="What is the capital of France?", store=True, max_output_tokens=24, temperature=0
        ) as stream:
            kinds = [event.type for event in stream]
            final = stream.get_final_response()
        assert kinds[0] == "response.created"
        assert kinds[-1] in {"response.completed", "response.incomplete"}
        assert sdk.responses.retrieve(final.id).output_text == final.output_text


def test_a_response_in_the_background_counts_as_in_flight_until_it_is_cancelled(served: Served) -> None:
    def in_flight() -> int:
        return int(served.status()["models"][0]["engines"][0]["in_flight"])

    with served.client() as sdk:
        made = sdk.responses.create(
            model="smollm2",
            input="Tell me a very long story.",
            background=True,
            max_output_tokens=1500,
            extra_body={"ignore_eos": True},
        )
        assert made.status in {"queued", "in_progress"}
        assert in_flight() == 1
        assert sdk.responses.cancel(made.id).status == "cancelled"
        wait_until(lambda: in_flight() == 0)


def test_what_an_agent_sends_in_responses_is_answered(served: Served) -> None:
    """Stateless, with a developer's item, instructions, and tools of kinds that no engine here has."""
    body = {
        "model": "smollm2",
        "instructions": "You are a coding agent.",
        "input": [
            {"type": "message", "role": "developer", "content": [{"type": "input_text", "text": "Be brief."}]},
            {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Say hello."}]},
        ],
        "tools": [
            {"type": "function", "name": "shell", "strict": False, "parameters": {"type": "object", "properties": {}}},
            {"type": "web_search"},
            {"type": "image_generation"},
            {"type": "namespace", "name": "mcp", "description": "more", "tools": []},
        ],
        "tool_choice": "auto",
        "parallel_tool_calls": False,
        "reasoning": {"effort": "medium", "summary": "auto"},
        "store": False,
        "include": ["reasoning.encrypted_content"],
        "prompt_cache_key": "1",
        "max_output_tokens": 24,
    }
    status, answer = ask(served, "POST", "/v1/responses", body)
    assert status == 200, answer
    assert answer["output"]


def test_tokens_are_the_models_own(served: Served) -> None:
    status, tokens = ask(served, "POST", "/tokenize", {"model": "smollm2", "prompt": "The capital of France"})
    assert (status, tokens["count"]) == (200, len(tokens["tokens"]))
    status, text = ask(served, "POST", "/detokenize", {"model": "smollm2", "tokens": tokens["tokens"]})
    assert (status, text["prompt"].strip()) == (200, "The capital of France")


def test_what_the_model_cannot_do_is_said_to_be_missing(served: Served) -> None:
    with served.client() as sdk:
        for request in (
            lambda: sdk.embeddings.create(model="smollm2", input="a"),
            lambda: sdk.audio.transcriptions.create(model="smollm2", file=("a.wav", b"sound")),
        ):
            with pytest.raises(openai.APIStatusError) as caught:
                request()
            assert caught.value.status_code in {400, 404}
            assert isinstance(caught.value.body, dict)
            assert {"message", "type", "param", "code"} <= caught.value.body.keys()


def test_a_picture_by_url_reaches_nothing(served: Served) -> None:
    with served.client() as sdk, pytest.raises(openai.BadRequestError) as caught:
        sdk.chat.completions.create(
            model="smollm2",
            messages=[
                {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "http://127.0.0.1:9/"}}]}
            ],
        )
    assert caught.value.code == "media_url_refused"
